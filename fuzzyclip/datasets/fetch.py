"""From official archives, placed by hand or downloaded, to one dataset folder.

What was placed by hand wins over the network. Nothing is taken unverified unless the caller says
so, and the folder appears under its name only when it is complete.
"""

import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fuzzyclip.datasets.arrange import arrange
from fuzzyclip.datasets.download import download_archive
from fuzzyclip.datasets.extract import extract_archive
from fuzzyclip.datasets.spec import Archive, DatasetError, DatasetSpec
from fuzzyclip.files import compute_sha256

LOGGER = logging.getLogger(__name__)
BY_HAND = "placed by hand"


def fetch_dataset(
    spec: DatasetSpec,
    out_dir: Path,
    *,
    archives_dir: Path | None,
    sha256: Mapping[str, str | None] | None,
    allow_unverified: bool,
    download: bool,
    categories: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Make the dataset's folder from its archives.

    Args:
        spec: which dataset.
        out_dir: dataset root to make; an older one is replaced once the new one is complete.
        archives_dir: folder with archives under their official names, or with folders extracted
            from them; downloads are kept there if it can be written.
        sha256: file name -> checksum to demand in place of the published one.
        allow_unverified: take archives placed by hand whose checksum is not the published one,
            archives without any checksum and extracted folders. A checksum from `sha256` is
            demanded in any case.
        download: whether the network may be used.
        categories: fetch only the archives of these, where a dataset has one a category.

    Returns:
        Record of what was used: dataset, title, licence, page, and for each archive its file,
        kind ("archive" or "folder"), sha256, size in bytes, verified, source (address or "placed
        by hand").

    Raises:
        DatasetError: an archive is missing, broken, hostile or not verified; says how to mend it.
    """
    _check_names(spec, sha256 or {})
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    entries = []
    with tempfile.TemporaryDirectory(dir=out_dir.parent, prefix=f".{out_dir.name}.") as temporary:
        staging = Path(temporary) / "extracted"
        for number, archive in enumerate(wanted_archives(spec, categories)):
            demanded = (sha256 or {}).get(archive.filename)
            expected = demanded or archive.sha256
            path, source = find_by_hand(archive, archives_dir), BY_HAND
            if path is None:
                _check_download(spec, archive, archives_dir, expected, allow_unverified, download)
                folder = _download_folder(archives_dir, Path(temporary))
                path, source = download_archive(archive, folder, expected)
            entry = describe(path, archive, source, expected)
            _check_verified(entry, path, expected, demanded is not None, allow_unverified)
            entries.append(entry)
            _unpack(path, staging / f"{number:02d}", archive.category)
        _finish(spec, staging, Path(temporary) / "root", out_dir)
    header = {"dataset": spec.name, "title": spec.title}
    return {**header, "licence": spec.licence, "page": spec.page, "archives": entries}


def wanted_archives(spec: DatasetSpec, categories: Sequence[str] | None) -> list[Archive]:
    """Archives that hold the categories; all of them for None."""
    return [
        archive
        for archive in spec.archives
        if categories is None or archive.category is None or archive.category in categories
    ]


def find_by_hand(archive: Archive, archives_dir: Path | None) -> Path | None:
    """The archive, or else the folder extracted from it, in the folder of archives."""
    if archives_dir is None:
        return None
    file, folder = archives_dir / archive.filename, archives_dir / archive.stem
    if file.is_file():
        return file
    return folder if folder.is_dir() else None


def describe(path: Path, archive: Archive, source: str, expected: str | None) -> dict[str, Any]:
    """Record entry of an archive, or of a folder, whose checksum covers names and contents."""
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.is_file())
        lines = [f"{compute_sha256(p)}  {p.relative_to(path).as_posix()}\n" for p in files]
        digest = hashlib.sha256("".join(lines).encode()).hexdigest()
        size = sum(p.stat().st_size for p in files)
    else:
        digest, size = compute_sha256(path), path.stat().st_size
    return {
        "file": archive.filename,
        "kind": "folder" if path.is_dir() else "archive",
        "sha256": digest,
        "size": size,
        "verified": path.is_file() and digest == expected,
        "source": source,
    }


def _check_names(spec: DatasetSpec, overrides: Mapping[str, str | None]) -> None:
    """A checksum for a file that is never read would verify nothing."""
    known = [archive.filename for archive in spec.archives]
    if unknown := sorted(set(overrides) - set(known)):
        raise DatasetError(
            f"{spec.title}: checksums for {', '.join(unknown)}, but its archives are "
            f"{', '.join(known)}"
        )


def _check_download(
    spec: DatasetSpec,
    archive: Archive,
    archives_dir: Path | None,
    expected: str | None,
    allow_unverified: bool,
    download: bool,
) -> None:
    """Refuse a download that cannot work, before the first byte, and say what to do instead."""
    place = f"{archives_dir}/{archive.filename}" if archives_dir else "a folder of archives"
    missing = f"{spec.title}: {archive.filename} is not there"
    if not archive.urls:
        raise DatasetError(
            f"{missing} and has no address to download it from (licence or login). "
            f"{spec.instructions} Put it at {place} and run again. Page: {spec.page}. "
            f"Licence: {spec.licence}."
        )
    if not download:
        raise DatasetError(
            f"{missing} and downloads are switched off. Put it at {place}, or allow downloads. "
            f"Addresses: {', '.join(archive.urls)}. {spec.instructions}".strip()
        )
    if expected is None and not allow_unverified:
        raise DatasetError(
            f"{missing}, and no checksum of it is known: give one in sha256, or set "
            "allow_unverified to take what comes"
        )


def _check_verified(
    entry: dict[str, Any], path: Path, expected: str | None, demanded: bool, allow_unverified: bool
) -> None:
    """Refuse what cannot be verified, unless the caller takes it as it is."""
    if entry["verified"]:
        return
    if entry["kind"] == "folder":
        reason = "is an extracted folder, which no checksum covers"
    elif expected is None:
        reason = f"has no known checksum (its sha256 is {entry['sha256']})"
    else:
        reason = f"has sha256 {entry['sha256']}, expected {expected}"
    if expected and demanded and entry["kind"] == "archive":
        raise DatasetError(f"{path} {reason}; fetch it again or correct the checksum given")
    if not allow_unverified:
        raise DatasetError(
            f"{path} {reason}. If this is what you mean to use (a part of the dataset, or your "
            "own copy), set allow_unverified; its images are then checked by the index only"
        )
    LOGGER.warning("%s %s; taken as it is, as asked", path, reason)


def _download_folder(archives_dir: Path | None, temporary: Path) -> Path:
    """Downloads outlive the run in the folder of archives, if it can be written."""
    if archives_dir is not None:
        archives_dir.mkdir(parents=True, exist_ok=True)
        if os.access(archives_dir, os.W_OK):
            return archives_dir
    return temporary / "downloads"


def _unpack(path: Path, place: Path, category: str | None) -> None:
    """Extract an archive, or copy a folder that was extracted from one.

    An archive of one category may lack the category's folder: it gets one here, and `arrange`
    takes away a double.
    """
    folder = place / category if category else place
    folder.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        shutil.copytree(path, folder)  # follows links: those are the user's own
    else:
        extract_archive(path, folder)


def _finish(spec: DatasetSpec, staging: Path, root: Path, out_dir: Path) -> None:
    """Arrange and prepare the tree, then let it appear under its name."""
    try:
        arrange(staging, spec.root_patterns, root)
        if spec.prepare is not None:
            spec.prepare(root)
    except (DatasetError, OSError) as error:
        raise DatasetError(f"{spec.title}: {error}") from error
    if out_dir.exists():
        out_dir.rename(root.with_name("replaced"))  # removed with the temporary folder
    root.rename(out_dir)
