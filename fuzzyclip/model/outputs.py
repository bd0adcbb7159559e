"""A folder of predictions: pictures, maps, masks and tables, made image by image.

A run that was killed goes on from the last whole line. Each line ends with its check sum: an image
whose line is damaged is done again, and one of whose files one is gone or empty. A later run with
other images adds to the folder: an image is the file at its full path, and what one holds no other
gets, also where its line is damaged.

- `scores.jsonl`: a line an image, written as soon as it is done; `scores.csv`: the same as a table,
  at the end; `overlay` is the picture's path below the folder. Lines also have the image's full
  `path` and its `place`, what its files' names begin with;
- `<image>.overlay.jpg` and others beside it, in the folders that the images have among themselves;
- `settings.json`: what made it. A run with other settings is refused.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from fuzzyclip.images.decode import read_image_file
from fuzzyclip.model.lines import (
    Lines,
    read_lines,
    read_overlays,
    to_line,
    write_lines,
    write_table,
)
from fuzzyclip.model.places import fold, identify, keep_places, name_outputs
from fuzzyclip.model.prediction import Prediction, Unreadable
from fuzzyclip.report.heatmaps import SUFFIXES, Scale, encode_mask_png, write_map_png
from fuzzyclip.utils.files import replace_file, show_name, write_json
from fuzzyclip.utils.json_text import parse_json

LINES, TABLE, SETTINGS = "scores.jsonl", "scores.csv", "settings.json"
#: The page, where one is wanted.
PAGE = "report.html"
#: Suffix of overlays.
OVERLAY = ".jpg"
#: Of lines that say which file they are of and what its place is; earlier ones do not.
LINE_KIND = "by path"
#: What an image's files are called behind its place, besides its overlay, by their kind.
ENDINGS = {"map": ".map.png", "npy": ".map.npy", "mask": ".mask.png"}


class OutputsError(ValueError):
    """The folder can not take these predictions."""


class PredictionFolder:
    """A folder that takes the predictions of some images."""

    def __init__(
        self,
        out: Path,
        images: Sequence[Path],
        settings: Mapping[str, Any],
        *,
        kinds: Sequence[str] = ("overlay", "map", "mask"),
        scale: Scale = "fixed",
        runtime: str | None = None,
        fast: str | None = None,
    ) -> None:
        """Make the folder, or go on with one that a run with the same settings left.

        Args:
            images: all that this run predicts, distinct.
            settings: what decides the results, as JSON data.
            kinds: which files each image gets: the overlay (JPEG: as PNG a large one takes longer
                than the detection), the map as 16-bit PNG (`map`) and as float32 (`npy`), the mask.
            scale: of the overlays, see `fuzzyclip.report.heatmaps`.
            runtime: engine that runs the image tower, where it is not PyTorch: lines say so. It is
                no setting, since a run may go on by another one.
            fast: what the model's fast setting changed, where it has one: lines say so.

        Raises:
            OutputsError: it holds results of other settings, or other files, or can not be made.
        """
        self.out, self.kinds, self.scale = out, kinds, scale
        made = {"runtime": runtime, "fast": fast}
        self._made = {key: value for key, value in made.items() if value is not None}
        own = {"kinds": sorted(kinds), "scale": scale, "overlays": OVERLAY, "lines": LINE_KIND}
        wanted = json.loads(json.dumps({**settings, **own}))
        path = out / SETTINGS
        if out.exists() and not out.is_dir():
            raise OutputsError(f"{out} is a file: give the name of a folder")
        if path.is_file():
            if _read_json(path) != wanted:
                raise OutputsError(
                    f"{out} holds predictions of other settings (its {SETTINGS} has them, or is "
                    "damaged): give another folder, or remove it"
                )
        elif out.exists() and any(out.iterdir()):
            raise OutputsError(f"{out} is not empty and holds no predictions: give another folder")
        else:
            with _writing(out):
                write_json(path, wanted)
        with _writing(out):
            lines = read_lines(out / LINES, out / TABLE)
        self.rows = lines.rows
        self._places = self._choose_places(images, lines)

    def is_done(self, image: Path) -> bool:
        """True where a readable image of this content is done and its files are there.

        Unreadable ones are tried again.
        """
        row = self.rows.get(identify(image))
        if row is None or row["error"] or row.get("sha256") != _hash(image):
            return False
        return all(map(_is_filled, self._list_files(self._places[image])))

    def add(self, image: Path, prediction: Prediction | Unreadable) -> dict[str, Any]:
        """Write an image's files, then its line, which is given back.

        A prediction has its picture where overlays are wanted.

        Raises:
            OutputsError: they can not be written; what was done before stays.
        """
        if isinstance(prediction, Prediction):
            place = self._place_overlay(image)
            overlay = "" if place is None else place.relative_to(self.out).as_posix()
            row = prediction.to_row() | {"sha256": prediction.sha256, "overlay": overlay}
            row |= self._made
            with _writing(self.out):
                self._write_files(image, prediction)
        else:
            row = prediction.to_row() | {"sha256": _hash(image)}
        row |= {"path": identify(image), "place": show_name(self._places[image].as_posix())}
        with _writing(self.out), (self.out / LINES).open("a", encoding="utf-8") as file:
            file.write(to_line(row))
        self.rows[row["path"]] = row
        return row

    def finish(self, images: Sequence[Path]) -> None:
        """scores.csv, earlier runs' other images, then these as given; scores.jsonl the same.

        Raises:
            OutputsError: they can not be written; scores.jsonl has a line of each image all the
                same.
        """
        latest = {path: self.rows[path] for path in map(identify, images)}
        self.rows = {path: row for path, row in self.rows.items() if path not in latest} | latest
        with _writing(self.out):
            write_table(self.out / TABLE, self.rows.values())
            write_lines(self.out / LINES, self.rows.values())

    def _choose_places(self, images: Sequence[Path], lines: Lines) -> dict[Path, Path]:
        """The place of each image's files: its own where it has one, else one that nobody has."""
        planned = name_outputs(images)
        held = {path: Path(row["place"]) for path, row in lines.rows.items()}
        taken = {*map(fold, held.values())}
        claims = {path: place for path, place in lines.claims.items() if fold(place) not in taken}
        if not lines.lost:
            return keep_places(planned, claims | held)
        # Files are left of whom no line tells: the table knows some by their content, and what
        # nobody knows is not overwritten.
        owned = defaultdict(list)
        for digest, overlay in read_overlays(self.out / TABLE):
            place = Path(overlay.removesuffix(self._ending))
            if fold(place) not in taken:
                owned[digest].append(place)
        for image, plan in planned.items():
            places = owned[_hash(image)]
            if places and identify(image) not in claims | held:
                own = plan if plan in places else places[0]
                places.remove(own)
                claims[identify(image)] = own
        reserved = [place for places in owned.values() for place in places]
        return keep_places(planned, claims | held, reserved=reserved, is_taken=self._has_files)

    def _has_files(self, place: Path) -> bool:
        kinds = ("overlay", *ENDINGS)
        return any(path.exists() for path in self._list_files(place, kinds))

    def _list_files(self, place: Path, kinds: Sequence[str] | None = None) -> list[Path]:
        """An image's files, those of this run unless other kinds are named."""
        endings = {"overlay": self._ending, **ENDINGS}
        wanted = self.kinds if kinds is None else kinds
        return [_extend(self.out / place, endings[kind]) for kind in wanted]

    @property
    def _ending(self) -> str:
        """That of overlays."""
        return f".overlay{SUFFIXES[self.scale]}{OVERLAY}"

    def _place_overlay(self, image: Path) -> Path | None:
        """Where an image's overlay is; None where there are to be none."""
        base = self.out / self._places[image]
        return _extend(base, self._ending) if "overlay" in self.kinds else None

    def _write_files(self, image: Path, prediction: Prediction) -> None:
        base = self.out / self._places[image]
        if overlay := self._place_overlay(image):
            prediction.save(overlay, self.scale)
        if "map" in self.kinds:
            write_map_png(_extend(base, ENDINGS["map"]), prediction.anomaly_map)
        if "npy" in self.kinds:
            with (
                replace_file(_extend(base, ENDINGS["npy"])) as temporary,
                temporary.open("wb") as file,
            ):
                np.save(file, prediction.anomaly_map)
        if "mask" in self.kinds:
            with replace_file(_extend(base, ENDINGS["mask"])) as temporary:
                temporary.write_bytes(encode_mask_png(prediction.mask))


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    """Say of what the system refuses that nothing is lost, and what to do."""
    try:
        yield
    except OSError as error:
        place = show_name(error.filename or out)
        raise OutputsError(
            f"{place}: can not be written ({error.strerror or error}); what was done is kept: make "
            f"room, allow writing in {show_name(out)} or give another --out, and run this again"
        ) from error


def _is_filled(path: Path) -> bool:
    """True for a file that is there and not empty."""
    try:
        return path.stat().st_size > 0
    except OSError:
        return False


def _read_json(path: Path) -> Any:
    """Content of a JSON file; None where it is none."""
    try:
        return parse_json(path.read_text(encoding="utf-8"))
    except ValueError:
        return None


def _extend(base: Path, ending: str) -> Path:
    return base.with_name(base.name + ending)


def _hash(image: Path) -> str:
    """SHA-256 of a file; empty where it can not be read."""
    try:
        return hashlib.sha256(read_image_file(image)).hexdigest()
    except OSError:
        return ""
