"""Safe extraction of archives that strangers made.

Only plain files and folders below the target are written: absolute names, `..`, links, devices
and repeated names are refused, and the unpacked size is counted while it is written, because a
header may lie. The tree appears under its name only when it is complete.

A damaged archive is refused as far as its format lets one see the damage. The contents of a zip
file and all of a compressed tar stand under checksums (not of `.lzma`, nor of `xz --check=none`); a
plain tar has some of its headers alone: there, damaged contents are seen by the archive's own
SHA-256 or when the images are opened.
"""

import lzma
import re
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from tarfile import (  # type: ignore[attr-defined]  # typeshed lacks them
    EmptyHeaderError,
    EOFHeaderError,
    TruncatedHeaderError,
)
from typing import IO, NamedTuple

from fuzzyclip.utils.files import name_other_content
from fuzzyclip.utils.tree import DatasetError

MAX_MEMBERS = 200_000  # DAGM, the set with most files, has about 20,000
MAX_BYTES = 24 * 2**30  # MVTec AD, the largest set, unpacks to about 5 GB
MAX_DEPTH = 2  # DTD-Synthetic: zip files inside a zip file
MAX_PADDING = 2**24  # zeros behind a tar file's end: a record, of 10 kB or, on tapes, up to 10 MB
ZIP_STARTS = (b"PK\3\4", b"PK\5\6", b"PK00", b"PK\7\10")  # of files, of none, of one volume
ZIP_SPANNED = b"PK00"  # may stand before the first file
ZIP_ENTRY = b"PK\1\2"  # how each entry of a zip file's table begins
#: What stands before a file in a zip archive: flags are number 2, the checksum is 6, the lengths of
#: its name and of what follows that are 9 and 10.
ZIP_LOCAL = struct.Struct("<4s5H3L2H")
#: Its flag for a checksum that comes after the content, and the number that may come before that.
ZIP_STREAMED, ZIP_DESCRIPTOR = 8, 0x08074B50
#: How a file begins that Zstandard has packed.
ZSTANDARD = b"\x28\xb5\x2f\xfd"
CUT = "cut short: the blocks that end a tar file are missing; fetch it again"
CHUNK = 2**20
#: What reading a damaged archive raises; bzip2 and gzip have OSError.
BROKEN = (
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
    *(OSError, EOFError, RuntimeError, ValueError, IndexError),
)


class Member(NamedTuple):
    """One entry of an archive, tar or zip alike; `stream` is None for a folder."""

    name: str
    stream: IO[bytes] | None


class Budget:
    """The files and bytes that an archive and the archives inside it may still write."""

    def __init__(self, members: int, size: int) -> None:
        self.members = members
        self.size = size

    def spend(self, members: int = 0, size: int = 0) -> None:
        """Take from the budget; a DatasetError if more is asked than is left."""
        self.members -= members
        self.size -= size
        if self.members < 0 or self.size < 0:
            raise DatasetError("unpacks to more files or bytes than any known dataset has")


def extract_archive(
    path: Path, out_dir: Path, *, max_members: int = MAX_MEMBERS, max_bytes: int = MAX_BYTES
) -> None:
    """Extract a zip or tar archive, and the zip files inside it, into a new folder.

    Args:
        path: of the archive; its kind is told by its content, not by its name.
        out_dir: folder to make.
        max_members: most files and folders in all.
        max_bytes: most unpacked bytes in all.

    Raises:
        DatasetError: the archive is broken, too large or has a forbidden member; nothing is left
            behind.
        FileExistsError: `out_dir` exists.
    """
    if out_dir.exists():
        raise FileExistsError(f"{out_dir} exists")
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    budget = Budget(max_members, max_bytes)
    with tempfile.TemporaryDirectory(dir=out_dir.parent, prefix=f".{out_dir.name}.") as temporary:
        tree = Path(temporary) / "tree"
        try:
            _unpack(path, tree, budget, MAX_DEPTH)
        except DatasetError as error:
            raise DatasetError(f"{path}: {error}") from error
        except (FileExistsError, NotADirectoryError) as error:
            raise DatasetError(f"{path}: a member is both file and folder ({error})") from error
        if not any(tree.iterdir()):
            raise DatasetError(f"{path}: there is nothing in this archive; fetch it again")
        tree.rename(out_dir)


def _unpack(path: Path, folder: Path, budget: Budget, depth: int) -> None:
    """Write the members of one archive, then unpack the zip files among them in place."""
    folder.mkdir()
    nested = []
    for member in _members(path):
        budget.spend(members=1)
        target = folder / _relative(member.name)
        if member.stream is None:
            target.mkdir(parents=True, exist_ok=True)
            continue
        if target.exists():
            raise DatasetError(f"member {member.name!r} is there twice")
        target.parent.mkdir(parents=True, exist_ok=True)
        _copy(member.stream, target, budget)
        if target.suffix.lower() == ".zip":
            nested.append(target)
    for archive in nested:
        if depth == 1:
            raise DatasetError(f"member {archive.name!r} is nested too deeply")
        _unpack(archive, _free_name(archive.with_suffix("")), budget, depth - 1)
        archive.unlink()


def _free_name(folder: Path) -> Path:
    """The folder's own name, or one with an underscore where a folder has it already."""
    while folder.exists():
        folder = folder.with_name(folder.name + "_")
    return folder


def _relative(name: str) -> PurePosixPath:
    """Check a member's name: relative, without a way up, the same on every system."""
    path = PurePosixPath(name)
    forbidden = path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", name)
    if forbidden or "\\" in name or "\0" in name:
        raise DatasetError(f"member {name!r} would be written outside of the target folder")
    return path


def _copy(stream: IO[bytes], target: Path, budget: Budget) -> None:
    """Write one file chunk by chunk, so that a bomb is stopped when the budget ends."""
    with stream, target.open("xb") as out:
        while chunk := _read(stream):
            budget.spend(size=len(chunk))
            out.write(chunk)


def _read(stream: IO[bytes]) -> bytes:
    """The next chunk; empty at the end, which is where a zip file's checksums are compared."""
    with _reading():
        return stream.read(CHUNK)


@contextmanager
def _reading() -> Iterator[None]:
    """Say of an error in reading an archive that the archive is broken, not the disk written to."""
    try:
        yield
    except (DatasetError, FileNotFoundError, PermissionError):
        raise
    except BROKEN as error:
        raise DatasetError(f"broken archive ({error}); fetch it again") from error


def _members(path: Path) -> Iterator[Member]:
    """Entries of an archive of either kind."""
    with path.open("rb") as file:
        start = file.read(4)
    with _reading():
        if tarfile.is_tarfile(path):
            yield from _tar_members(path)
        elif start in ZIP_STARTS and zipfile.is_zipfile(path):  # a damaged tar may end in a zip
            yield from _zip_members(path)
        elif fault := name_other_content(path):
            raise DatasetError(fault)
        elif start == ZSTANDARD:
            raise DatasetError("packed by Zstandard, which is not read: give the extracted folder")
        else:
            raise DatasetError("no zip or tar file, or its begin or end is missing; fetch it again")


def _zip_members(path: Path) -> Iterator[Member]:
    """Entries of a zip file; reading one to its end checks its CRC."""
    with zipfile.ZipFile(path) as archive:
        begin = min((info.header_offset for info in archive.infolist()), default=0)
        if begin > len(ZIP_SPANNED):
            raise DatasetError(
                "something stands before its first file: its end is missing, and that of a zip "
                "file within it was read, or several archives are in one file; fetch it again"
            )
        for info in archive.infolist():
            kind = (info.external_attr >> 16) & 0o170000  # Unix file type, 0 if none is stored
            if kind not in {0, 0o100000, 0o040000}:
                raise DatasetError(f"member {info.filename!r} is a link or a device")
            if ZIP_ENTRY in info.extra + info.comment:  # a damaged length swallows what follows
                raise DatasetError(f"its table is damaged at {info.filename!r}; fetch it again")
            stream = archive.open(info)  # of a folder too: its two names are compared
            if archive.fp is not None:
                _check_entry(archive.fp, info)
            if info.is_dir():
                stream.close()
            yield Member(info.filename, None if info.is_dir() else stream)


def _check_entry(file: IO[bytes], info: zipfile.ZipInfo) -> None:
    """Compare a file's checksum in the table at the end with the one beside its content.

    The library believes the table, and a table of zeros is the right one of an empty file.
    """
    place = file.tell()
    try:
        file.seek(info.header_offset)
        head = ZIP_LOCAL.unpack(file.read(ZIP_LOCAL.size))
        flags, checksum, name, extra = head[2], head[6], head[9], head[10]
        if flags & ZIP_STREAMED:  # it follows the content
            file.seek(info.header_offset + ZIP_LOCAL.size + name + extra + info.compress_size)
            words = struct.unpack("<2L", file.read(8))
            checksum = words[1] if words[0] == ZIP_DESCRIPTOR else words[0]
    finally:
        file.seek(place)
    if checksum != info.CRC:
        raise DatasetError(f"its table is damaged at {info.filename!r}; fetch it again")


def _tar_members(path: Path) -> Iterator[Member]:
    """Entries of a tar file, compressed or not, up to its proper end."""
    with tarfile.open(path, "r:*") as archive:
        for info in _tar_headers(archive):
            if info.isdir():
                yield Member(info.name, None)
                continue
            stream = archive.extractfile(info) if info.isreg() else None
            if stream is None:
                raise DatasetError(f"member {info.name!r} is a link or a device")
            yield Member(info.name, stream)
        if archive.fileobj is not None:
            _check_end(archive.fileobj.read)


def _tar_headers(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Headers up to a block of zeros; whatever else stands there, or nothing, raises.

    `tarfile`'s own loop also ends, without a word, at a damaged header and where a file is cut
    before one.
    """
    try:
        info = archive.next()  # read when the archive was opened
        while info is not None and archive.fileobj is not None:
            yield info
            archive.fileobj.seek(archive.offset)
            info = tarfile.TarInfo.fromtarfile(archive)
    except EOFHeaderError:
        return
    except (EmptyHeaderError, TruncatedHeaderError) as error:
        raise DatasetError(CUT) from error


def _check_end(read: Callable[[int], bytes]) -> None:
    """Demand what follows a tar file's first block of zeros: a second one, and zeros to the end.

    A compressed stream is read to its end here, so that its checksum is compared. More zeros than
    any record has are a download that reserved its space and broke off.
    """
    size = 0
    while chunk := read(CHUNK):
        size += len(chunk)
        if chunk.strip(b"\0"):
            raise DatasetError(
                "more than zeros behind its end: several archives in one file, or a damaged one. "
                "Fetch it again, or extract it yourself and give the folder"
            )
        if size > MAX_PADDING:
            raise DatasetError(f"over {MAX_PADDING} zeros behind its end; fetch it again")
    if size < tarfile.BLOCKSIZE:
        raise DatasetError(CUT)
