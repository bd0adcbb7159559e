"""Data placed by hand: archives, folders extracted from them, prepared datasets."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fuzzyclip.datasets.base.spec import Archive, DatasetSpec
from fuzzyclip.utils.files import compute_sha256
from fuzzyclip.utils.tree import DatasetError, Tree

BY_HAND = "placed by hand"


class Source(NamedTuple):
    """An archive and where it lies; None where it has to be downloaded."""

    archive: Archive
    path: Path | None


def find_sources(
    spec: DatasetSpec,
    archives: Sequence[Archive],
    path: Path | None,
    archives_dir: Path | None,
    names: Sequence[str],
) -> list[Source]:
    """The source of each archive.

    Args:
        spec: which dataset.
        archives: those that are needed.
        path: an archive, a folder of archives, or a folder with the whole dataset in it.
        archives_dir: folder with archives under their official names, folders extracted from them,
            or the whole dataset in a folder of one of `names`.
        names: folders that the whole dataset may lie in.

    Raises:
        DatasetError: `path` is not there, or a single file stands for several archives.
    """
    if path is not None:
        return _look_at(spec, archives, path)
    if archives_dir is None:
        return [Source(archive, None) for archive in archives]
    found = [Source(archive, find_archive(archive, archives_dir)) for archive in archives]
    if any(source.path for source in found):
        return found
    whole = next((f for name in names if (f := archives_dir / name).is_dir()), None)
    return [_whole(whole)] if whole else found


def _look_at(spec: DatasetSpec, archives: Sequence[Archive], path: Path) -> list[Source]:
    """Sources in a path that was given for this dataset."""
    if path.is_file():
        if len(archives) > 1:
            raise DatasetError(
                f"{spec.title}: {path} is one file, but the dataset has {len(archives)} archives; "
                "give the folder they lie in"
            )
        known = archives[0] if archives else Archive(path.name)
        return [Source(known, path)]
    if not path.is_dir():
        raise DatasetError(f"{spec.title}: {path} is not there")
    found = [Source(archive, find_archive(archive, path)) for archive in archives]
    if any(source.path and source.path.is_file() for source in found):
        return found
    return [_whole(path)]


def _whole(folder: Path) -> Source:
    return Source(Archive(folder.name), folder)


def find_archive(archive: Archive, folder: Path) -> Path | None:
    """The archive, or else the folder extracted from it."""
    file, extracted = folder / archive.filename, folder / archive.stem
    if file.is_file():
        return file
    return extracted if extracted.is_dir() else None


def describe(
    path: Path, tree: Tree | None, archive: Archive, source: str, expected: str | None
) -> dict[str, Any]:
    """Record entry of an archive, or of a folder, whose checksum covers names and contents.

    Args:
        path: of the archive or the folder.
        tree: what the folder holds; None for an archive.
        archive: which one it is.
        source: where it comes from.
        expected: the checksum that makes it verified.
    """
    if tree is not None:
        digest, size = compute_tree_sha256(tree), sum(tree.files.values())
    else:
        digest, size = compute_sha256(path), path.stat().st_size
    return {
        "file": archive.filename,
        "kind": "archive" if tree is None else "folder",
        "sha256": digest,
        "size": size,
        "verified": digest == expected,
        "source": source,
    }


def compute_tree_sha256(tree: Tree) -> str:
    """SHA-256 over the `sha256sum` lines of a folder's files, sorted by name."""
    lines = [f"{compute_sha256(tree.root / name)}  {name}\n" for name in tree.files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
