"""Batch inference by Ray's actors: images of a folder or a bucket in, Parquet out.

An address is a path or anything that pyarrow understands: `s3://bucket/parts?region=eu-west-1`,
`gs://...`, `hdfs://...`, `file:///...`. Actors read and write by themselves, so that only names
travel through Ray, the batches are the same whatever becomes of a machine, and a part that is
written again is the same part.

Shapes: S image size.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from fuzzyclip.distributed.engine import Outcome, Work, import_ray, run_on_ray
from fuzzyclip.images.names import describe_names, is_image_name, is_visible
from fuzzyclip.model.inference import CategoryModel, Detection, detect_files, read_file
from fuzzyclip.utils.files import replace_file, show_line

log = logging.getLogger(__name__)

#: See `detect_on_ray`.
BATCHES_PER_PART = 16


class Part(NamedTuple):
    """A Parquet file to be, and the images whose rows it holds."""

    name: str
    images: list[str]


@dataclass(frozen=True)
class Place:
    """A path in pyarrow's file system `files`, or on this machine's own, which is None.

    The scheme, such as `s3://`, goes before paths that are shown.
    """

    files: Any
    path: str
    scheme: str = ""

    def read(self, address: str) -> bytes:
        """Content of a file, by a path of `list_images`."""
        if self.files is None:
            return read_file(address)
        with self.files.open_input_stream(address.removeprefix(self.scheme)) as stream:
            content: bytes = stream.read()
        return content


def detect_on_ray(
    source: str | Path | Sequence[str | Path],
    build: Callable[[], CategoryModel],
    out: str | Path,
    *,
    batch_size: int,
    workers: int = 1,
    keep_maps: bool = True,
    batches_per_part: int = BATCHES_PER_PART,
    address: str | None = None,
    actors: int | None = None,
    use_gpus: bool = True,
    threads: int | None = None,
) -> Outcome:
    """`fuzzyclip.model.inference.detect_files` by actors, into Parquet files.

    Paths must mean the same files to all machines; object stores do without shared file systems.

    Columns: `path`; `image_score` (float32); `map`, the bytes of (S, S) float16 row by row, with
    its `side` S; `error`, why an image can not be read, whose score and map are then null. Scores
    and maps are those of `detect_files` over the same list, bit for bit.

    Args:
        source: a folder or a bucket's folder, in which all images count, at any depth, in the order
            of their paths; or a list of files, all on one file system. A folder's address may carry
            pyarrow's options (`?region=`, `?endpoint_override=`), those of a list may not.
        build: makes the model, once in each actor; picklable, for example a module's function that
            calls `FuzzyCLIP.build_category_model`, which decides by the calibrated kind of score,
            or by the one that it is given.
        out: folder or bucket's folder for the files; must not hold any Parquet yet.
        batch_size: images a pass.
        workers: threads of each actor that open images ahead.
        keep_maps: whether maps are written; without, `map` and `side` are null.
        batches_per_part: batches whose rows make one file; what an actor takes at a time, and does
            again if it is lost.
        address, actors, use_gpus, threads: as `fuzzyclip.distributed.engine.run_on_ray` takes them.

    Returns:
        Images that have a row, and how many of them could not be read.

    Raises:
        ValueError: Ray is not installed, `out` is taken, or no image is there.
        OSError: a folder can not be read or written.
    """
    import_ray()  # pyarrow comes with it
    place, images = list_images(source)
    if not images:
        raise ValueError(f"no images in {source}")
    target = _find_target(out)
    size = batch_size * batches_per_part
    parts = [
        Part(f"{number:06d}.parquet", images[first : first + size])
        for number, first in enumerate(range(0, len(images), size))
    ]
    work = Work(
        prepare=_PrepareDetecting(build, place, target, batch_size, workers, keep_maps),
        group=1,
        count=lambda part: len(part.images),
        title="detect",
    )
    return run_on_ray(
        parts, work, address=address, actors=actors, use_gpus=use_gpus, threads=threads
    )


def list_images(source: str | Path | Sequence[str | Path]) -> tuple[Place, list[str]]:
    """File system and image files of a folder, or of a list."""
    if isinstance(source, str | Path):
        from pyarrow import fs

        place = _open_place(str(source))
        files = place.files or fs.LocalFileSystem()
        entries = files.get_file_info(fs.FileSelector(place.path, recursive=True))
        inside = [info.path for info in entries if info.type == fs.FileType.File]
        seen = [path for path in inside if _is_visible(path, place.path)]
        if others := sorted(path for path in seen if not is_image_name(path)):
            names = describe_names([show_line(Path(path).name) for path in others])
            log.warning(
                "%s: not inspected, no images by their suffixes: %d (%s)",
                source, len(others), names,
            )  # fmt: skip
        return place, sorted(place.scheme + path for path in seen if is_image_name(path))
    listed = [str(path) for path in source]
    if not any("://" in path for path in listed):
        return Place(None, ""), [str(Path(path).absolute()) for path in listed]
    return _open_place(listed[0]), listed


def _is_visible(path: str, top: str) -> bool:
    """True for a file that neither hides below a folder nor was left there by a system."""
    return all(map(is_visible, PurePosixPath(path.removeprefix(top).lstrip("/")).parts))


def _open_place(address: str) -> Place:
    if "://" not in address:
        return Place(None, str(Path(address).absolute()))
    from pyarrow import fs

    files, path = fs.FileSystem.from_uri(address)
    return Place(files, path, address.split("://")[0] + "://")


def _find_target(out: str | Path) -> Place:
    """The folder to write to, made; one that holds Parquet of another run is refused."""
    from pyarrow import fs

    target = _open_place(str(out))
    files = target.files or fs.LocalFileSystem()
    files.create_dir(target.path, recursive=True)
    entries = files.get_file_info(fs.FileSelector(target.path))
    if any(info.path.endswith(".parquet") for info in entries):
        raise ValueError(f"{out} already holds Parquet files: choose another folder or remove them")
    return target


@dataclass(frozen=True)
class _PrepareDetecting:
    """Builds a model in an actor, and writes parts with it."""

    build: Callable[[], CategoryModel]
    place: Place
    target: Place
    batch_size: int
    workers: int
    keep_maps: bool

    def __call__(self) -> Callable[[list[Part]], Outcome]:
        category_model = self.build()

        def detect(parts: list[Part]) -> Outcome:
            images = unreadable = 0
            for part in parts:
                detections = detect_files(
                    part.images,
                    category_model,
                    batch_size=self.batch_size,
                    workers=self.workers,
                    read=self.place.read,
                )
                # float16 at once: half of what waits
                rows = [to_row(detection, self.keep_maps) for detection in detections]
                write_part(rows, self.target, part.name)
                images += len(rows)
                unreadable += sum(row["error"] != "" for row in rows)
            return Outcome(images, unreadable)

        return detect


def to_row(detection: Detection, keep_map: bool) -> dict[str, Any]:
    """A detection as a row of Parquet."""
    anomaly_map = detection.map if keep_map else None
    half = None if anomaly_map is None else anomaly_map.astype(np.float16)
    return {
        "path": detection.item,
        "image_score": detection.score,
        "map": None if half is None else half.tobytes(),
        "side": None if half is None else len(half),
        "error": detection.error,
    }


def write_part(rows: Sequence[dict[str, Any]], target: Place, name: str) -> None:
    """One Parquet file, whole or not at all."""
    import pyarrow as pa
    from pyarrow import parquet

    schema = pa.schema(
        [
            ("path", pa.string()),
            ("image_score", pa.float32()),
            ("map", pa.binary()),
            ("side", pa.int32()),
            ("error", pa.string()),
        ]
    )
    table = pa.Table.from_pylist(list(rows), schema=schema)
    if target.files is None:
        with replace_file(Path(target.path) / name) as temporary:
            parquet.write_table(table, temporary)
    else:  # an object is there when its stream is closed
        with target.files.open_output_stream(f"{target.path}/{name}") as stream:
            parquet.write_table(table, stream)
