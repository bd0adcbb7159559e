"""Safe extraction of archives that strangers made.

Only plain files and folders below the target are written: absolute names, `..`, links, devices,
repeated names, those that not every system keeps apart (see `member_names`) and entries that share
bytes are refused, and the unpacked size is counted while it is written, because a header may lie.
The tree appears under its name only when it is complete.

A damaged archive is refused as far as its format lets one see the damage. The contents of a zip
file and all of a compressed tar stand under checksums (not of `.lzma`, nor of `xz --check=none`); a
plain tar has some of its headers alone: there, damaged contents are seen by the archive's own
SHA-256 or when the images are opened.
"""

import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tarfile import (  # type: ignore[attr-defined]  # typeshed lacks them
    EmptyHeaderError,
    EOFHeaderError,
    TruncatedHeaderError,
)
from typing import IO, NamedTuple

from fuzzyclip.datasets.fetching.member_names import Names, read_zip_names
from fuzzyclip.datasets.fetching.other_archives import EXTRACT, describe_other, describe_part
from fuzzyclip.utils.scratch import hold_folder
from fuzzyclip.utils.tree import DatasetError

MAX_MEMBERS = 200_000  # DAGM, the set with most files, has about 20,000
MAX_BYTES = 24 * 2**30  # MVTec AD, the largest set, unpacks to about 5 GB
#: Bytes that an archive may unpack to for one of its own, above the first gigabyte: what is packed
#: a hundredfold is no set of photographs, but a bomb.
MAX_RATIO, ALWAYS = 100, 2**30
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
#: Flag of a zip file's entry that is encrypted, and the ways of packing that are read.
ENCRYPTED = 0x1
PACKED = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA}
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
            raise DatasetError(
                "unpacks to more files or bytes than any known dataset has; where it is what it "
                f"should be, {EXTRACT}"
            )


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
    room = max(ALWAYS, MAX_RATIO * path.stat().st_size)
    budget = Budget(max_members, min(max_bytes, room))
    with hold_folder(out_dir) as temporary:
        tree = temporary / "tree"
        try:
            _unpack(path, tree, budget, MAX_DEPTH)
        except DatasetError as error:
            raise DatasetError(f"{path}: {error}") from error
        except (FileExistsError, NotADirectoryError) as error:
            raise DatasetError(f"{path}: a member is both file and folder ({error})") from error
        if not any(tree.iterdir()):
            raise DatasetError(f"{path}: there is nothing in this archive; fetch it again")
        tree.rename(out_dir)


def is_archive(path: Path) -> bool:
    """True for a zip or tar file, by its content; it may be damaged further on."""
    with path.open("rb") as file:
        start = file.read(4)
    with _reading():
        if start in ZIP_STARTS:
            return zipfile.is_zipfile(path)
        return bool(start) and tarfile.is_tarfile(path)


def list_members(path: Path) -> Iterator[str]:
    """The names of an archive's files, one after another; contents are not read.

    Raises:
        DatasetError: the archive is broken, or has an entry that is not taken.
    """
    for member in _members(path):
        if member.stream is not None:
            member.stream.close()
            yield member.name


def _unpack(path: Path, folder: Path, budget: Budget, depth: int) -> None:
    """Write the members of one archive, then unpack the zip files among them in place."""
    folder.mkdir()
    nested, names = [], Names()
    for member in _members(path):
        budget.spend(members=1)
        target = folder / names.check(member.name, is_folder=member.stream is None)
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
        else:
            raise DatasetError(describe_part(path) or describe_other(path))


def _zip_members(path: Path) -> Iterator[Member]:
    """Entries of a zip file; reading one to its end checks its CRC."""
    with zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
        begin = min((info.header_offset for info in infos), default=0)
        if begin > len(ZIP_SPANNED):
            raise DatasetError(
                "something stands before its first file: its end is missing, and that of a zip "
                "file within it was read, or several archives are in one file; fetch it again"
            )
        _check_overlap(infos, archive.start_dir)
        for info, name in zip(infos, read_zip_names(infos), strict=True):
            _check_packing(info)
            kind = (info.external_attr >> 16) & 0o170000  # Unix file type, 0 if none is stored
            if kind not in {0, 0o100000, 0o040000}:
                raise DatasetError(f"member {info.filename!r} is a link or a device")
            if ZIP_ENTRY in info.extra + info.comment:  # a damaged length swallows what follows
                raise DatasetError(f"its table is damaged at {info.filename!r}; fetch it again")
            stream = archive.open(info)  # of a folder too: its two names are compared
            if archive.fp is not None:
                _check_entry(archive.fp, info)
            is_folder = name.endswith("/") and info.file_size == 0
            if is_folder:
                stream.close()
            yield Member(name, None if is_folder else stream)


def _check_packing(info: zipfile.ZipInfo) -> None:
    """Refuse what the library can not read, and say what can."""
    if "\0" in info.orig_filename:  # the library cuts the name there
        raise DatasetError(f"member {info.orig_filename!r}: its table is damaged; fetch it again")
    if info.flag_bits & ENCRYPTED:
        raise DatasetError(
            f"member {info.filename!r} is encrypted: with its password, {EXTRACT} (7-Zip, or "
            "`unzip`)"
        )
    if info.compress_type not in PACKED:
        raise DatasetError(
            f"member {info.filename!r} is packed in a way that is not read (number "
            f"{info.compress_type}; 9 is Windows' for large files): {EXTRACT} (7-Zip, or `unzip`)"
        )


def _check_overlap(infos: Sequence[zipfile.ZipInfo], end: int) -> None:
    """Refuse entries that share bytes: a few kilobytes could be unpacked a thousand times.

    Args:
        end: the place of the table, where the last content ends.
    """
    ordered = sorted(infos, key=lambda info: info.header_offset)
    starts = [*(info.header_offset for info in ordered[1:]), end]
    for info, following in zip(ordered, starts, strict=False):
        if info.header_offset + ZIP_LOCAL.size + info.compress_size > following:
            raise DatasetError(
                f"member {info.filename!r} shares bytes with another one, or its table is damaged; "
                "fetch it again"
            )


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
