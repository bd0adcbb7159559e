"""A folder of predictions: pictures, maps, masks and tables, made image by image.

A run that was killed goes on from the last whole line. Each line ends with its check sum: an image
whose line is damaged is done again. A later run with other images adds to the folder: an image is
the file at its full path, and what one holds no other gets.

- `scores.jsonl`: a line an image, written as soon as it is done; `scores.csv`: the same as a table,
  at the end; `overlay` is the picture's path below the folder. Lines also have the image's full
  `path` and its `place`, what its files' names begin with;
- `<image>.overlay.jpg` and others beside it, in the folders that the images have among themselves;
- `settings.json`: what made it. A run with other settings is refused.
"""

import csv
import hashlib
import io
import json
import logging
import os
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from fuzzyclip.images.decode import read_image_file
from fuzzyclip.model.prediction import Prediction, Unreadable
from fuzzyclip.report.heatmaps import SUFFIXES, Scale, encode_mask_png, write_map_png
from fuzzyclip.utils.files import compute_crc, replace_file, show_name, write_json, write_text

log = logging.getLogger(__name__)

#: Columns of scores.csv.
COLUMNS = (
    "image", "category", "image_score", "probability", "label", "decision", "threshold",
    "threshold_method", "map_max", "defect_share", "width", "height", "sha256", "overlay", "error",
)  # fmt: skip
LINES, TABLE, SETTINGS = "scores.jsonl", "scores.csv", "settings.json"
#: The page, where one is wanted.
PAGE = "report.html"
#: Suffix of overlays.
OVERLAY = ".jpg"
#: Of lines that say which file they are of and what its place is; earlier ones do not.
LINE_KIND = "by path"
#: Check sum of a line of scores.jsonl, over the line without it.
SUM = "crc32"
#: Bytes of a folder's or file's name before its ending. Systems take 255; the longest ending and
#: what a file is called until it is whole need a hundred.
LONGEST_NAME = 150
#: Bytes of a path below the folder; systems take from 1,024 to 4,096 of the whole.
LONGEST_PATH = 600
#: Suffixes of the files here, which no folder's name may have.
OWN_SUFFIXES = (".png", ".npy", ".jpg", ".csv", ".json", ".jsonl", ".html")


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
    ) -> None:
        """Make the folder, or go on with one that a run with the same settings left.

        Args:
            images: all that this run predicts, distinct.
            settings: what decides the results, as JSON data.
            kinds: which files each image gets: the overlay (JPEG: as PNG a large one takes longer
                than the detection), the map as 16-bit PNG (`map`) and as float32 (`npy`), the mask.
            scale: of the overlays, see `fuzzyclip.report.heatmaps`.

        Raises:
            OutputsError: it holds results of other settings, or other files.
        """
        self.out, self.kinds, self.scale = out, kinds, scale
        own = {"kinds": sorted(kinds), "scale": scale, "overlays": OVERLAY, "lines": LINE_KIND}
        wanted = json.loads(json.dumps({**settings, **own}))
        path = out / SETTINGS
        if path.is_file():
            if _read_json(path) != wanted:
                raise OutputsError(
                    f"{out} holds predictions of other settings (its {SETTINGS} has them, or is "
                    "damaged): give another folder, or remove it"
                )
        elif out.exists() and not out.is_dir():
            raise OutputsError(f"{out} is a file: give the name of a folder")
        elif out.exists() and any(out.iterdir()):
            raise OutputsError(f"{out} is not empty and holds no predictions: give another folder")
        else:
            write_json(path, wanted)
        self.rows = self._read_lines()
        held = {path: Path(row["place"]) for path, row in self.rows.items()}
        self._places = _keep_places(_name_outputs(images), held)

    def is_done(self, image: Path) -> bool:
        """True where a readable image of this content is done; unreadable ones are tried again."""
        row = self.rows.get(_identify(image))
        return row is not None and not row["error"] and row.get("sha256") == _hash(image)

    def add(self, image: Path, prediction: Prediction | Unreadable) -> dict[str, Any]:
        """Write an image's files, then its line, which is given back.

        A prediction has its picture where overlays are wanted.
        """
        if isinstance(prediction, Prediction):
            place = self._place_overlay(image)
            overlay = "" if place is None else place.relative_to(self.out).as_posix()
            row = prediction.to_row() | {"sha256": prediction.sha256, "overlay": overlay}
            self._write_files(image, prediction)
        else:
            row = prediction.to_row() | {"sha256": _hash(image)}
        row |= {"path": _identify(image), "place": show_name(self._places[image].as_posix())}
        with (self.out / LINES).open("a", encoding="utf-8") as file:
            file.write(_to_line(row))
        self.rows[row["path"]] = row
        return row

    def finish(self, images: Sequence[Path]) -> None:
        """scores.csv, earlier runs' other images, then these as given; scores.jsonl the same."""
        latest = {path: self.rows[path] for path in map(_identify, images)}
        self.rows = {path: row for path, row in self.rows.items() if path not in latest} | latest
        rows = self.rows.values()
        text = io.StringIO()
        writer = csv.DictWriter(
            text, COLUMNS, restval="", extrasaction="ignore", lineterminator="\n"
        )
        writer.writeheader()
        writer.writerows(rows)
        write_text(self.out / TABLE, text.getvalue())
        write_text(self.out / LINES, "".join(map(_to_line, rows)))

    def _place_overlay(self, image: Path) -> Path | None:
        """Where an image's overlay is; None where there are to be none."""
        ending = f".overlay{SUFFIXES[self.scale]}{OVERLAY}"
        base = self.out / self._places[image]
        return _extend(base, ending) if "overlay" in self.kinds else None

    def _write_files(self, image: Path, prediction: Prediction) -> None:
        base = self.out / self._places[image]
        if overlay := self._place_overlay(image):
            prediction.save(overlay, self.scale)
        if "map" in self.kinds:
            write_map_png(_extend(base, ".map.png"), prediction.anomaly_map)
        if "npy" in self.kinds:
            with replace_file(_extend(base, ".map.npy")) as temporary, temporary.open("wb") as file:
                np.save(file, prediction.anomaly_map)
        if "mask" in self.kinds:
            with replace_file(_extend(base, ".mask.png")) as temporary:
                temporary.write_bytes(encode_mask_png(prediction.mask))

    def _read_lines(self) -> dict[str, dict[str, Any]]:
        """The last whole line of each image; what a kill left of a line is cut off."""
        path = self.out / LINES
        if not path.is_file():
            return {}
        content = path.read_bytes()
        kept = content[: content.rfind(b"\n") + 1]
        rows = [_parse_line(line) for line in kept.split(b"\n")[:-1]]
        if broken := [str(number) for number, row in enumerate(rows, 1) if row is None]:
            log.warning("%s: lines %s are broken; done again", path, ", ".join(broken))
        whole_rows = [row for row in rows if row is not None]
        if kept != content or broken:
            write_text(path, "".join(map(_to_line, whole_rows)))
        return {row["path"]: row for row in whole_rows}


def _to_line(row: Mapping[str, Any]) -> str:
    return json.dumps({**row, SUM: _sum(row)}, ensure_ascii=False, allow_nan=False) + "\n"


def _parse_line(line: bytes) -> dict[str, Any] | None:
    """A row of scores.jsonl, or None where the line is not what was written."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and row.pop(SUM, None) == _sum(row) else None


def _sum(row: Mapping[str, Any]) -> str:
    return compute_crc(json.dumps(row).encode())


def _read_json(path: Path) -> Any:
    """Content of a JSON file; None where it is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return None


def _name_outputs(images: Sequence[Path]) -> dict[Path, Path]:
    """Each image's place for its files, below the folder and without endings.

    Images keep the folders they have among themselves. Two that differ in their suffix alone keep
    it; those whose names would still meet, also where upper and lower case are one, or that no file
    can have, end in `~` and a digest of the path. No place depends on the order of the images.
    """
    if not images:
        return {}
    absolute = {image: Path(os.path.abspath(image)) for image in images}  # noqa: PTH100 - no links
    root = Path(os.path.commonpath([path.parent for path in absolute.values()]))
    inside = {image: path.relative_to(root) for image, path in absolute.items()}
    bare = {image: path.with_name(_cut_suffix(path.name)) for image, path in inside.items()}
    seen = Counter(map(_fold, bare.values()))
    plain = {
        image: inside[image] if seen[_fold(bare[image])] > 1 else bare[image] for image in bare
    }
    fitted = {image: _fit(path) for image, path in plain.items()}
    seen = Counter(map(_fold, fitted.values()))
    return {
        image: path
        if path.name == plain[image].name and seen[_fold(path)] == 1
        else path.with_name(f"{path.name}~{_digest(inside[image])}")
        for image, path in fitted.items()
    }


def _keep_places(planned: Mapping[Path, Path], held: Mapping[str, Path]) -> dict[Path, Path]:
    """Places of this run's images, `planned` as if the folder were empty.

    An image keeps the one that it holds, by its identity; where another holds what is planned for
    it, a number is added.
    """
    taken = {*map(_fold, held.values())}
    later = taken | {*map(_fold, planned.values())}  # what a numbered place must not meet
    places = {}
    for image, plan in planned.items():
        place = held.get(_identify(image), plan)
        if _identify(image) not in held and _fold(plan) in taken:
            numbered = (plan.with_name(f"{plan.name}~{number}") for number in count(2))
            place = next(each for each in numbered if _fold(each) not in later)
            later.add(_fold(place))
        places[image] = place
    return places


def _identify(image: Path) -> str:
    """What tells an image from others, wherever a command runs: its full path, links kept."""
    return show_name(os.path.abspath(image))  # noqa: PTH100 - no links


def _cut_suffix(name: str) -> str:
    """A file's name without its suffix, if something is left of it."""
    return Path(name).stem.rstrip(".") or name


def _fold(path: Path) -> str:
    """The same for paths that some system takes for one."""
    return unicodedata.normalize("NFC", str(path)).casefold()


def _fit(path: Path) -> Path:
    """A path whose parts any system can store, and that no file here takes for its own."""
    shown = Path(*map(_fit_name, path.parts))
    if len(os.fsencode(shown)) > LONGEST_PATH:
        shown = Path(_digest(path.parent), shown.name)
    folders = [f"{p}_" if p.lower().endswith(OWN_SUFFIXES) else p for p in shown.parts[:-1]]
    return Path(*folders, shown.name)


def _fit_name(name: str) -> str:
    """A name of valid UTF-8 that leaves room for endings."""
    content = name.encode("utf-8", "replace")
    if len(content) <= LONGEST_NAME:
        return content.decode("utf-8")
    return f"{content[:LONGEST_NAME].decode('utf-8', 'ignore')}~{_digest(Path(name))}"


def _digest(path: Path) -> str:
    """Eight digits that tell paths apart."""
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:8]


def _extend(base: Path, ending: str) -> Path:
    return base.with_name(base.name + ending)


def _hash(image: Path) -> str:
    """SHA-256 of a file; empty where it can not be read."""
    try:
        return hashlib.sha256(read_image_file(image)).hexdigest()
    except OSError:
        return ""
