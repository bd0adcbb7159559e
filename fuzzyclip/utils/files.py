"""Writing files so that a kill leaves either the old file or the new one, never half of one."""

import hashlib
import json
import math
import os
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

if TYPE_CHECKING:
    import pandas as pd


class BrokenFileError(ValueError):
    """A file does not hold the bytes that were written.

    Attributes:
        path: of the file.
    """

    def __init__(self, path: Path, reason: str) -> None:
        """Name the file, and what is wrong with it."""
        super().__init__(f"{path} is broken: {reason}")
        self.path = path


class UnsummedFileError(BrokenFileError):
    """A file of an earlier version, without a check sum; perhaps whole."""

    def __init__(self, path: Path) -> None:
        """Name the file."""
        ValueError.__init__(self, f"{path} is of an earlier version, without check sums")
        self.path = path


def compute_sha256(path: Path) -> str:
    """SHA-256 of a file as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def compute_crc(*parts: bytes | memoryview) -> str:
    """CRC-32 of parts one after the other as 8 hexadecimal digits: it guards against chance."""
    crc = 0
    for part in parts:
        crc = zlib.crc32(part, crc)
    return f"{crc:08x}"


def is_file_name(name: str) -> bool:
    """True for a name that stays in the folder that it is put into."""
    return bool(name) and not set(name) & set("/\\\0") and name not in (".", "..")


def read_digests(path: Path, key: str | None = None) -> dict[str, str]:
    """SHA-256 of files by name, as a JSON file has them.

    Args:
        path: of the JSON file.
        key: under which it has them; None for the whole file.

    Raises:
        BrokenFileError: it has something else there.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        digests = content if key is None else content[key]
    except (ValueError, KeyError, TypeError):
        digests = None
    if not isinstance(digests, dict):
        raise BrokenFileError(path, "it says no digests of files")
    return {str(name): str(digest) for name, digest in digests.items()}


def find_changed(folder: Path, digests: Mapping[str, str]) -> list[str]:
    """Names of files that a folder lacks, or holds with another SHA-256 than is known of them."""
    return [
        name
        for name, digest in digests.items()
        if not (folder / name).is_file() or compute_sha256(folder / name) != digest
    ]


@contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends without an error.

    The bytes are on the disk before the name is: a machine that loses its power must not keep an
    empty file under it. On an SSD that takes a third of a millisecond a file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    try:
        yield temporary
        _flush(temporary, os.O_RDWR)
        temporary.replace(path)
        with suppress(OSError):  # Windows and some networks' disks take no folder
            _flush(path.parent, os.O_RDONLY)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def place_together(path: Path, companion: Path) -> Iterator[Path]:
    """A folder beside `path` whose files move there when the block ends without an error.

    Two renames are not one. So where there is or was a companion the old main file goes first and
    the new one comes last: a kill in between leaves no main file, never one with the data of
    another. An error in the block leaves everything as it was.

    Args:
        path: the main file, which the block must make under this name.
        companion: what may lie beside it, which the block may make; an old one is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as name:
        main, other = Path(name) / path.name, Path(name) / companion.name
        yield Path(name)
        if other.exists() or companion.exists():
            path.unlink(missing_ok=True)
            companion.unlink(missing_ok=True)
        if other.exists():
            other.replace(companion)
        main.replace(path)


def _flush(path: Path, mode: int) -> None:
    """Wait until a file, or a folder's list of files, is on the disk."""
    descriptor = os.open(path, mode)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_tree(folder: Path) -> None:
    """Wait until all files of a folder are on the disk, before it gets its name."""
    for path in folder.rglob("*"):
        if path.is_file():
            _flush(path, os.O_RDWR)


def write_summed(path: Path, content: bytes | memoryview) -> None:
    """Any bytes after a line with their check sum, for `read_summed`."""
    with replace_file(path) as temporary, temporary.open("wb") as file:
        file.write(f"{compute_crc(content)}\n".encode())
        file.write(content)


def read_summed(path: Path) -> memoryview:
    """Read a file of `write_summed`.

    Raises:
        BrokenFileError: the file can not be read, or holds anything else.
        FileNotFoundError: it is not there.
    """
    try:
        whole = memoryview(path.read_bytes())
    except FileNotFoundError:
        raise
    except OSError as error:
        raise BrokenFileError(path, f"it can not be read ({error})") from error
    line, content = whole[:9], whole[9:]
    if line != f"{compute_crc(content)}\n".encode():
        raise BrokenFileError(path, "its content does not fit its check sum")
    return content


def write_text(path: Path, text: str) -> None:
    """UTF-8 text with "\\n" line ends on every system."""
    with replace_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, data: Any) -> None:
    """Indented JSON, keys in the given order, a final newline.

    Raises:
        ValueError: a number is not finite; names its place. What is undefined is left out.
    """
    for place in _find_infinite(data):
        raise ValueError(f"{path} is not written: {place} is not a finite number")
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _find_infinite(data: Any, place: str = "") -> Iterator[str]:
    """Places of numbers that JSON has no words for, such as `means.pixel_ap`."""
    if isinstance(data, dict):
        for key, value in data.items():
            yield from _find_infinite(value, f"{place}.{key}" if place else str(key))
    elif isinstance(data, list | tuple):
        for number, value in enumerate(data):
            yield from _find_infinite(value, f"{place}[{number}]")
    elif isinstance(data, float) and not math.isfinite(data):
        yield place or "the content"


def write_csv(path: Path, frame: "pd.DataFrame", numbers: str = "%.4f") -> None:
    """A table without its index; fractions in the format `numbers`, empty where undefined.

    Raises:
        ValueError: a number is infinite; names its column and row.
    """
    for name, column in frame.select_dtypes("number").items():
        for row in column.index[column.abs() == math.inf]:
            raise ValueError(f"{path} is not written: {name} is infinite in row {row}")
    write_text(path, frame.to_csv(index=False, float_format=numbers, lineterminator="\n"))
