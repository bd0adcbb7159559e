"""Files: written whole or not at all, and what a download from elsewhere left in place of one."""

import hashlib
import json
import math
import os
import re
import shutil
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fuzzyclip.utils.json_text import CONTROLS, format_json
from fuzzyclip.utils.scratch import hold_folder, name_temporary

#: Bytes at most of the table at the begin of a safetensors file, as the library has it.
MAX_TABLE = 100_000_000
#: C0, and what JSON escapes too.
_CONTROLS = re.compile(f"[\x00-\x1f{CONTROLS}]")


class BrokenFileError(ValueError):
    """A file, at `path`, does not hold the bytes that were written."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} is broken: {reason}")
        self.path = path


class UnsummedFileError(BrokenFileError):
    """A file of an earlier version, without a check sum; perhaps whole."""

    def __init__(self, path: Path) -> None:
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


def show_name(name: str | Path) -> str:
    """A path as text that can be written anywhere: what is no UTF-8 in it is escaped."""
    return str(name).encode("utf-8", "backslashreplace").decode("utf-8")


def show_line(text: str) -> str:
    """A text as one line of a terminal: what commands it is escaped.

    Names of files may end the line, turn the direction of reading or colour what follows.
    """
    return _CONTROLS.sub(lambda control: ascii(control[0])[1:-1], text)


def show_lines(text: str) -> str:
    """The same for a text whose line ends are meant."""
    return "\n".join(map(show_line, text.split("\n")))


@contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends without an error.

    The bytes are on the disk before the name is: a machine that loses its power must not keep an
    empty file under it. On an SSD that takes a third of a millisecond a file. What a killed process
    left in the folder is removed, see `fuzzyclip.utils.scratch`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = name_temporary(path)
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
    with hold_folder(path) as folder:
        main, other = folder / path.name, folder / companion.name
        yield folder
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


def find_cache() -> Path:
    """The folder of the user's cache for what can be made or fetched again."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "fuzzyclip"


@contextmanager
def make_folder(out: Path) -> Iterator[Path]:
    """A place beside `out` for a folder that is moved there when the block ends, whole or never."""
    out.parent.mkdir(parents=True, exist_ok=True)
    making = name_temporary(out)
    try:
        yield making
        flush_tree(making)
        if out.exists():  # empty
            out.rmdir()
        making.rename(out)
    finally:
        shutil.rmtree(making, ignore_errors=True)


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
    write_text(path, format_json(data, indent=2) + "\n")


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


def name_other_content(path: Path) -> str:
    """A fault that a download left in a file's place, and the way to mend it; else empty."""
    with path.open("rb") as file:
        start = file.read(512)
    if not start:
        return "an empty file; fetch it again"
    if start.startswith(b"version https://git-lfs"):
        return (
            "a git LFS pointer, not the file itself; run `git lfs pull` where it was cloned, or "
            "fetch the file from its page"
        )
    if re.match(rb"(\xef\xbb\xbf)?\s*<[!?a-zA-Z]", start) and b"\0" not in start:
        return (
            "a web page, not the file itself (one that asks for a login or consent, or says what "
            "failed); open the address in a browser and fetch the file from there"
        )
    return ""


def describe_fault(path: Path) -> str:
    """A pointer, a page or half a download in place of a file of tensors; empty for a whole file.

    A safetensors file and a PyTorch checkpoint are told apart by their content.
    """
    if fault := name_other_content(path):
        return fault
    with path.open("rb") as file:
        start = file.read(9)
    half = ""
    if start.startswith(b"PK\3\4") and not _is_whole_zip(path):
        half = "the end of this zip file is missing"
    elif start[8:] == b"{":
        size, promised = path.stat().st_size, measure_safetensors(path)
        if size < promised:
            half = f"its header promises {promised:,} bytes, and it has {size:,}"
    return f"half a download: {half}; fetch it again" if half else ""


def _is_whole_zip(path: Path) -> bool:
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:  # its end says that it is one of several
        return False


def measure_safetensors(path: Path) -> int:
    """Bytes that the begin of a safetensors file promises; 0 if that is none."""
    with path.open("rb") as file:
        length = struct.unpack("<Q", file.read(8))[0]
        if length > MAX_TABLE:
            return 0
        text = file.read(length)
    end = 8 + int(length)
    if len(text) < length:
        return end
    try:
        entries = json.loads(text).items()
        ends = (int(entry["data_offsets"][1]) for name, entry in entries if name != "__metadata__")
        return end + max(ends, default=0)
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError):
        return 0


def require_writable(folder: Path, mend: str) -> None:
    """Refuse a folder that nothing can be written into, before the work that would be lost.

    Args:
        folder: where files are to be made; of one that is not there yet the nearest that is counts.
        mend: what to do instead.

    Raises:
        PermissionError: names the folder that can not be written.
        NotADirectoryError: there is a file in its place.
    """
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise NotADirectoryError(f"{there} is a file, not a folder; {mend}")
    if not os.access(there, os.W_OK | os.X_OK):
        raise PermissionError(f"{there} can only be read: nothing can be written there; {mend}")
