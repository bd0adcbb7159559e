"""What somebody has placed by hand: archives, folders extracted from them, prepared datasets."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fuzzyclip.datasets.spec import Archive, DatasetError, DatasetSpec
from fuzzyclip.files import compute_sha256

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
    """Where each archive comes from.

    Args:
        spec: which dataset.
        archives: those that are needed.
        path: an archive, a folder of archives, or a folder with the whole dataset in it.
        archives_dir: folder with archives under their official names, folders extracted from them,
            or the whole dataset in a folder of one of `names`.
        names: see there.

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


def describe(path: Path, archive: Archive, source: str, expected: str | None) -> dict[str, Any]:
    """Record entry of an archive, or of a folder, whose checksum covers names and contents."""
    if path.is_dir():
        digest, size = compute_tree_sha256(path)
    else:
        digest, size = compute_sha256(path), path.stat().st_size
    return {
        "file": archive.filename,
        "kind": "folder" if path.is_dir() else "archive",
        "sha256": digest,
        "size": size,
        "verified": digest == expected,
        "source": source,
    }


def compute_tree_sha256(folder: Path) -> tuple[str, int]:
    """SHA-256 over the `sha256sum` lines of a folder's files, sorted by name, and their size."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = [f"{compute_sha256(p)}  {p.relative_to(folder).as_posix()}\n" for p in files]
    digest = hashlib.sha256("".join(lines).encode()).hexdigest()
    return digest, sum(path.stat().st_size for path in files)
