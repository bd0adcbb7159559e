"""Safe extraction of archives that strangers made.

Only plain files and folders below the target are written: absolute names, `..`, links, devices
and repeated names are refused, and the unpacked size is counted while it is written, because a
header may lie. The tree appears under its name only when it is complete.
"""

import lzma
import re
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from fuzzyclip.datasets.spec import DatasetError

MAX_MEMBERS = 200_000  # DAGM, the set with most files, has about 20,000
MAX_BYTES = 24 * 2**30  # MVTec AD, the largest set, unpacks to about 5 GB
MAX_DEPTH = 2  # DTD-Synthetic: zip files inside a zip file
CHUNK = 2**20
BROKEN = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError)


class Member(NamedTuple):
    """One entry of an archive, tar or zip alike; `stream` is None for a folder."""

    name: str
    stream: IO[bytes] | None


class Budget:
    """What an archive and the archives inside it may still write."""

    def __init__(self, members: int, size: int) -> None:
        self.members = members
        self.size = size

    def spend(self, members: int = 0, size: int = 0) -> None:
        """Take from the budget.

        Raises:
            DatasetError: more is asked than is left.
        """
        self.members -= members
        self.size -= size
        if self.members < 0 or self.size < 0:
            raise DatasetError("unpacks to more files or bytes than any known dataset has")


def extract_archive(
    path: Path, out_dir: Path, *, max_members: int = MAX_MEMBERS, max_bytes: int = MAX_BYTES
) -> None:
    """Extract a zip or tar archive, and the zip files inside it, into a new folder.

    Args:
        path: archive; its kind is told by its content, not by its name.
        out_dir: folder to make; must not exist.
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
        except BROKEN as error:
            raise DatasetError(f"{path}: broken archive ({error}); fetch it again") from error
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
        while chunk := stream.read(CHUNK):
            budget.spend(size=len(chunk))
            out.write(chunk)


def _members(path: Path) -> Iterator[Member]:
    """Entries of an archive of either kind."""
    if tarfile.is_tarfile(path):  # first: a tar file that ends in a zip file looks like both
        yield from _tar_members(path)
    elif zipfile.is_zipfile(path):
        yield from _zip_members(path)
    else:
        with path.open("rb") as file:
            start = file.read(64)
        hint = "a web page, not an archive" if start.lstrip()[:1] == b"<" else "no zip or tar file"
        raise DatasetError(f"{hint}; fetch it again")


def _zip_members(path: Path) -> Iterator[Member]:
    """Entries of a zip file; reading one to its end checks its CRC."""
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            kind = (info.external_attr >> 16) & 0o170000  # Unix file type, 0 if none is stored
            if kind not in {0, 0o100000, 0o040000}:
                raise DatasetError(f"member {info.filename!r} is a link or a device")
            yield Member(info.filename, None if info.is_dir() else archive.open(info))


def _tar_members(path: Path) -> Iterator[Member]:
    """Entries of a tar file, compressed or not."""
    with tarfile.open(path, "r:*") as archive:
        for info in archive:
            if info.isdir():
                yield Member(info.name, None)
                continue
            stream = archive.extractfile(info) if info.isreg() else None
            if stream is None:
                raise DatasetError(f"member {info.name!r} is a link or a device")
            yield Member(info.name, stream)
