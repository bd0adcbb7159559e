"""What a person has placed for a dataset: archives under any name, whole or in parts, or folders.

Under its official name an archive is taken at once. Otherwise a folder that was given for the
dataset is searched: an archive belongs to the dataset where its members do, whatever it is called.
So the zip files of an archive that somebody has unpacked are taken, and the parts into which a
cloud drive has cut a folder.
"""

import logging
import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from fuzzyclip.datasets.base.spec import Archive, DatasetSpec
from fuzzyclip.datasets.fetching.extract import is_archive, list_members
from fuzzyclip.datasets.fetching.other_archives import (
    describe_other,
    describe_part,
    is_unfinished,
    looks_like_archive,
)
from fuzzyclip.images.names import is_image_name
from fuzzyclip.utils.files import compute_sha256, show_line
from fuzzyclip.utils.tree import DatasetError, Tree, read_tree

LOGGER = logging.getLogger(__name__)
MAX_DEPTH = 4  # of the folders that are searched for archives
#: What a browser or a file manager adds to a name that is there already.
COPY = re.compile(r"( ?\(\d+\)| - Copy( \(\d+\))?| copy( \d+)?)+(?=(\.tar)?(\.\w+)?$)", re.I)
#: A part of a folder that Google Drive has cut: what all parts share, and its number.
DRIVE_PART = re.compile(r"(.+-\d{8}T\d{6}Z(?:-\d+)?)-(\d{3})(?: ?\(\d+\))?\.zip", re.I)


class Source(NamedTuple):
    """An archive and where it lies; None where it has to be downloaded.

    Attributes:
        archive: as published, or as it was recognised.
        path: an archive, or a folder that holds its files.
        left: names below a folder that are sources of their own.
    """

    archive: Archive
    path: Path | None
    left: frozenset[str] = frozenset()

    def read_tree(self) -> Tree | None:
        """The files that a folder has for this source; None for an archive."""
        if self.path is None or not self.path.is_dir():
            return None
        tree = read_tree(self.path)
        kept = {name: size for name, size in tree.files.items() if name not in self.left}
        return tree._replace(files=kept)


def find_sources(
    spec: DatasetSpec,
    archives: Sequence[Archive],
    markers: Sequence[str],
    path: Path | None,
    archives_dir: Path | None,
    names: Sequence[str],
) -> list[Source]:
    """The source of each archive that is needed.

    Args:
        archives: the published ones.
        markers: patterns of the names at the dataset's root, by which its files are known; none of
            images of one's own.
        path: as for `fetch_dataset`.
        archives_dir: the same; the whole dataset may lie there in a folder of one of `names`.
        names: of such folders.

    Raises:
        DatasetError: `path` is not there, holds nothing of the dataset, or a single file stands for
            several; says what to do.
    """
    if path is not None:
        return _look_at(spec, archives, markers, path)
    if archives_dir is None:
        return [Source(archive, None) for archive in archives]
    sources = [Source(archive, _find_kept(archive, archives_dir)) for archive in archives]
    if any(source.path for source in sources):
        return [each for source in sources for each in _open_up(spec, markers, source)]
    whole = next((f for name in names if (f := archives_dir / name).is_dir()), None)
    return _search(spec, archives, markers, whole) if whole else sources


def _open_up(spec: DatasetSpec, markers: Sequence[str], source: Source) -> list[Source]:
    """A source, or those that lie in the folder extracted from it."""
    if source.path is None or source.path.is_file() or source.archive.category:
        return [source]
    return _search(spec, [source.archive], markers, source.path)


def _look_at(
    spec: DatasetSpec, archives: Sequence[Archive], markers: Sequence[str], path: Path
) -> list[Source]:
    """Sources in a path that was given for this dataset."""
    if path.is_file():
        if len(archives) > 1:
            raise DatasetError(
                f"{spec.title}: {path} is one file, but the dataset has {len(archives)} archives; "
                "give the folder they lie in"
            )
        if len(parts := _list_drive_parts(path)) > 1:
            raise DatasetError(
                f"{spec.title}: {path} is one of {len(parts)} parts of a cloud drive's download; "
                f"give the folder they lie in, {path.parent}"
            )
        known = archives[0] if archives else Archive(path.name)
        return [Source(known, path)]
    if not path.is_dir():
        raise DatasetError(f"{spec.title}: {path} is not there")
    sources = [Source(archive, find_archive(archive, path)) for archive in archives]
    if any(source.path and source.path.is_file() for source in sources):
        return sources
    return _search(spec, archives, markers, path)


def find_archive(archive: Archive, folder: Path) -> Path | None:
    """The archive, else a copy that is called like it, else the folder extracted from it."""
    file, extracted = folder / archive.filename, folder / archive.stem
    if file.is_file():
        return file
    if extracted.is_dir():
        return extracted
    beside = sorted(folder.iterdir()) if folder.is_dir() else []
    copies = [path for path in beside if COPY.sub("", path.name) == archive.filename]
    return copies[0] if len(copies) == 1 and copies[0].is_file() else None


def _find_kept(archive: Archive, folder: Path) -> Path | None:
    """`find_archive`; an empty file in place of what can be downloaded counts for nothing."""
    path = find_archive(archive, folder)
    if path is not None and archive.urls and path.is_file() and not path.stat().st_size:
        LOGGER.warning("%s is empty and is downloaded again", path)
        return None
    return path


def _search(
    spec: DatasetSpec, archives: Sequence[Archive], markers: Sequence[str], folder: Path
) -> list[Source]:
    """All in a folder that belongs to the dataset: archives by their members, and the other files.

    The folder itself is the only source where no archive is recognised.
    """
    whole = Source(Archive(folder.name), folder)
    if not markers:
        return [whole]
    tree = read_tree(folder)
    taken, faults = _recognise(markers, [folder / name for name in tree.files if _is_near(name)])
    inside = any(_belongs(name, markers) for name in tree.files if folder / name not in taken)
    if not taken and not inside and faults:
        lines = [show_line(f"{path}: {fault}") for path, fault in faults.items()]
        raise DatasetError("\n".join([f"{spec.title}: no data in {folder}", *lines]))
    if not taken and not inside:
        there = sorted({show_line(PurePosixPath(name).parts[0]) for name in tree.files})[:10]
        raise DatasetError(
            f"{spec.title}: nothing named {', '.join(markers)} in {folder}, nor in an archive "
            f"there; found {', '.join(there) or 'nothing'}. {spec.instructions}".strip()
        )
    for path, fault in faults.items():
        LOGGER.warning("%s is left out: %s", show_line(str(path)), fault)
    if not taken:
        return [whole]
    _check_drive_parts(spec, taken)
    sources = _match(archives, taken)
    LOGGER.info("%s: taken from %s", spec.title, ", ".join(str(each.path) for each in sources))
    if inside:
        left = {path.relative_to(folder).as_posix() for path in taken}
        sources.append(whole._replace(left=frozenset(left)))
    return sources


def _is_near(name: str) -> bool:
    """True for a file that may be an archive, not deeper than archives are searched for."""
    path = PurePosixPath(name)
    if len(path.parts) > MAX_DEPTH or any(
        part.startswith(("._", "__MACOSX")) for part in path.parts
    ):
        return False
    return looks_like_archive(path) or not is_image_name(path.name)


def _recognise(
    markers: Sequence[str], files: Iterable[Path]
) -> tuple[dict[Path, str | None], dict[Path, str]]:
    """Archives that have files of the dataset, with the folder that they lack inside, if any.

    Those that can not be looked into come second, with the reason and what to do.
    """
    taken: dict[Path, str | None] = {}
    faults: dict[Path, str] = {}
    for path in files:
        try:
            if is_unfinished(path) or not is_archive(path):
                if looks_like_archive(path):
                    faults[path] = describe_part(path) or describe_other(path)
                continue
            belongs = any(_belongs(name, markers) for name in list_members(path))
        except DatasetError as error:
            faults[path] = str(error)
            continue
        stem = Archive(COPY.sub("", path.name).lower()).stem
        named = [m for m in markers if fnmatchcase(stem, m.lower())]
        if belongs:
            taken[path] = None
        elif len(named) == 1 and named[0].isprintable() and not set(named[0]) & set("*?["):
            taken[path] = named[0]
    return taken, faults


def _belongs(name: str, markers: Sequence[str]) -> bool:
    """True for a file below one of the dataset's own folders, or inside a zip file named so."""
    path = PurePosixPath(name)
    if "__MACOSX" in path.parts:
        return False
    parts = [*path.parts, path.stem] if path.suffix.lower() == ".zip" else path.parts
    return any(fnmatchcase(part, marker) for part in parts for marker in markers)


def _match(archives: Sequence[Archive], taken: dict[Path, str | None]) -> list[Source]:
    """Recognised archives as sources: the published one, if its bytes are there, else all."""
    if len(taken) == 1 and len(archives) == 1:
        (path,) = taken
        if taken[path] is None:
            return [Source(archives[0], path)]
    published = {archive.sha256: archive for archive in archives if archive.sha256}
    if len(archives) == 1 and published:
        for path in taken:
            if archive := published.get(compute_sha256(path)):
                return [Source(archive, path)]
    return [Source(Archive(path.name, category=lacks), path) for path, lacks in taken.items()]


def _list_drive_parts(path: Path) -> list[Path]:
    """All parts of the cloud drive's download that a file is one of; empty where it is none."""
    match = DRIVE_PART.fullmatch(path.name)
    if match is None:
        return []
    others = ((other, DRIVE_PART.fullmatch(other.name)) for other in path.parent.iterdir())
    return sorted(other for other, part in others if part and part[1] == match[1])


def _check_drive_parts(spec: DatasetSpec, taken: Iterable[Path]) -> None:
    """Refuse parts with a gap among their numbers; that the last is missing, counts must tell."""
    numbers: dict[tuple[Path, str], set[int]] = {}
    for path in taken:
        if match := DRIVE_PART.fullmatch(path.name):
            numbers.setdefault((path.parent, match[1]), set()).add(int(match[2]))
    for (folder, name), there in numbers.items():
        if missing := sorted(set(range(1, max(there) + 1)) - there):
            shown = ", ".join(f"{name}-{number:03d}.zip" for number in missing)
            raise DatasetError(
                f"{spec.title}: {folder} lacks {shown}, parts of the same download; fetch them too"
            )
