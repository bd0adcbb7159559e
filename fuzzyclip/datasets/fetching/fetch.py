"""From official archives, placed by hand or downloaded, to one dataset folder.

What was placed by hand wins over the network. Nothing is downloaded unverified unless the caller
says so, and the folder appears under its name only when it is complete.
"""

import hashlib
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fuzzyclip.datasets.base.meta import choose_protocol
from fuzzyclip.datasets.base.spec import Archive, DatasetSpec, Protocol
from fuzzyclip.datasets.fetching.arranging import arrange
from fuzzyclip.datasets.fetching.download import download_archive
from fuzzyclip.datasets.fetching.extract import extract_archive
from fuzzyclip.datasets.fetching.other_archives import find_unfinished
from fuzzyclip.datasets.fetching.placed import Source, find_sources
from fuzzyclip.utils.files import compute_sha256, show_name
from fuzzyclip.utils.scratch import hold_folder
from fuzzyclip.utils.tree import DatasetError, Tree, copy_tree

LOGGER = logging.getLogger(__name__)
BY_HAND = "placed by hand"
#: What `fuzzyclip data prepare` and `data check --write` add to a root.
OWN_FILES = ("index.csv", "index.json", "meta.json")


def fetch_dataset(
    spec: DatasetSpec,
    out_dir: Path,
    *,
    protocol: str | None = None,
    path: Path | None = None,
    archives_dir: Path | None = None,
    downloads_dir: Path | None = None,
    urls: Mapping[str, Sequence[str]] | None = None,
    sha256: Mapping[str, str] | None = None,
    allow_unverified: bool = False,
    download: bool = True,
    categories: Sequence[str] | None = None,
    replaces: bool = True,
) -> dict[str, Any]:
    """Make the dataset's folder from its archives.

    Args:
        out_dir: dataset root; an older one is replaced once the new one is complete.
        protocol: one of the dataset's protocols, which may have archives of their own, or `meta`
            for data prepared with a meta.json; None for the default.
        path: where this dataset lies: an archive under any name, the extracted folder, or a folder
            of archives: under their official names, else all that have files of the dataset inside,
            such as the parts of a cloud drive's download.
        archives_dir: folder with archives under their official names, or with folders extracted
            from them; downloads are kept there if it can be written.
        downloads_dir: where broken downloads wait for the next attempt otherwise.
        urls: archive name -> addresses to try before the official ones.
        sha256: archive name -> checksum to demand in place of the published one; for an extracted
            folder that of `compute_tree_sha256`.
        allow_unverified: take downloads without a known checksum, and archives placed by hand whose
            checksum is not the published one. A checksum from `sha256` is demanded in any case.
        categories: fetch only the archives of these, where a dataset has one a category.
        replaces: whether an older root may hold what the new one does not; such files go with it.

    Returns:
        The record: dataset, title, licence, page, and for each archive its file, kind ("archive"
        or "folder"), sha256, size in bytes, verified, source (address or "placed by hand").

    Raises:
        DatasetError: an archive is missing, broken, hostile or not verified; says how to mend it.
    """
    protocol = protocol or spec.default_protocol
    wanted = spec.list_archives(protocol, categories)
    chosen = choose_protocol(spec, protocol)
    markers = chosen.markers or tuple(spec.categories)
    names = (out_dir.name, spec.name)
    sources = find_sources(spec, wanted, markers, path, archives_dir, names)
    if not sources:
        raise DatasetError(f"{spec.title}: nothing to read. {spec.instructions}")
    _check_names(spec, {*(urls or {}), *(sha256 or {})}, [source.archive for source in sources])
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    trees = _look(spec, sources, out_dir.parent)
    entries = []
    with hold_folder(out_dir) as temporary:
        kept = _choose_folder(archives_dir, downloads_dir, temporary / "downloads")
        for number, (archive, placed, _) in enumerate(sources):
            demanded = (sha256 or {}).get(archive.filename)
            expected = demanded or archive.sha256
            file, source = placed, BY_HAND
            if file is None:
                addresses = (*(urls or {}).get(archive.filename, ()), *archive.urls)
                archive = replace(archive, urls=addresses)
                _check_download(spec, archive, archives_dir, expected, allow_unverified, download)
                file, source = download_archive(archive, kept, expected)
            tree = trees.get(file)
            entry = describe(file, tree, archive, source, expected)
            if not entry["verified"]:
                _judge(entry, file, archive, demanded, allow_unverified)
            entries.append(entry)
            place = temporary / "extracted" / f"{number:02d}"
            _unpack(file, tree, place, archive.category)
        origins = {f"{number:02d}": str(each.path) for number, each in enumerate(sources)}
        root = _arrange(spec, chosen, temporary, origins)
        if out_dir.exists():
            if not replaces:
                _refuse_others(out_dir, root)
            out_dir.rename(temporary / "replaced")  # removed with the temporary folder
        root.rename(out_dir)
        if kept == downloads_dir:  # extracted: no need to keep the archives too
            for archive in wanted:
                (kept / archive.filename).unlink(missing_ok=True)
    header = {"dataset": spec.name, "title": spec.title}
    return {**header, "licence": spec.licence, "page": spec.page, "archives": entries}


def _look(spec: DatasetSpec, sources: Sequence[Source], place: Path) -> dict[Path, Tree]:
    """The trees of placed folders, looked at before anything of them is copied to a place."""
    folders = [source.path for source in sources if source.path and source.path.is_dir()]
    if around := [path for path in folders if place.resolve().is_relative_to(path.resolve())]:
        raise DatasetError(
            f"{spec.title}: {around[0]} would be copied into itself, to {place}; name the folder "
            "of the images alone"
        )
    looked_at = {source.path: source.read_tree() for source in sources if source.path}
    trees = {path: tree for path, tree in looked_at.items() if tree is not None}
    size = sum(sum(tree.files.values()) for tree in trees.values())
    if size > (free := shutil.disk_usage(place).free):
        raise DatasetError(
            f"{spec.title}: {', '.join(map(str, folders))}: {size:,} bytes to copy, but {free:,} "
            f"are free in {place}; make room, or leave out what is no image or mask"
        )
    return trees


def _check_names(spec: DatasetSpec, given: set[str], sources: Sequence[Archive]) -> None:
    """A checksum or an address for a file that is never read would do nothing."""
    known = {archive.filename for archive in (*spec.archives, *sources)}
    known |= {a.filename for protocol in spec.protocols.values() for a in protocol.archives}
    if unknown := sorted(given - known):
        raise DatasetError(
            f"{spec.title}: addresses or checksums for {', '.join(unknown)}, but its archives are "
            f"{', '.join(sorted(known))}"
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
    if half := archives_dir and find_unfinished(archives_dir, archive.filename):
        missing += f" (only {half.name}, an unfinished download)"
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


def _judge(
    entry: dict[str, Any], path: Path, archive: Archive, demanded: str | None, allowed: bool
) -> None:
    """Refuse what has another checksum than the known one; what has none, the index checks."""
    folder = entry["kind"] == "folder"
    expected = demanded if folder else demanded or archive.sha256
    if expected is None:
        kind = "an extracted folder" if folder else "an archive for which no checksum is published"
        LOGGER.warning(
            "%s is %s (its sha256 is %s); the index checks its images and their number",
            path, kind, entry["sha256"],
        )  # fmt: skip
        return
    reason = f"{path} has sha256 {entry['sha256']}, expected {expected}"
    if demanded:
        raise DatasetError(f"{reason}; fetch it again or correct the checksum given")
    if not allowed:
        raise DatasetError(
            f"{reason}. If this is what you mean to use (a part of the dataset, or your own copy), "
            "set allow_unverified; its images are then checked by the index only"
        )
    LOGGER.warning("%s; taken as it is, as asked", reason)


def _choose_folder(archives_dir: Path | None, downloads_dir: Path | None, temporary: Path) -> Path:
    """Downloads outlive the run in the folder of archives, if it can be written."""
    if archives_dir is not None:
        archives_dir.mkdir(parents=True, exist_ok=True)
        if os.access(archives_dir, os.W_OK):
            return archives_dir
    return downloads_dir or temporary


def _unpack(path: Path, tree: Tree | None, place: Path, category: str | None) -> None:
    """Extract an archive, or copy the files of a folder that was extracted from one.

    An archive of one category may lack the category's folder: it gets one here, and `arrange`
    takes away a double.
    """
    folder = place / category if category else place
    folder.parent.mkdir(parents=True, exist_ok=True)
    if tree is not None:
        copy_tree(tree, folder)
    else:
        extract_archive(path, folder)


def _arrange(
    spec: DatasetSpec, chosen: Protocol, temporary: Path, origins: Mapping[str, str]
) -> Path:
    """The dataset's root, arranged and prepared, among the temporary files."""
    root = temporary / "root"
    try:
        if markers := chosen.markers or tuple(spec.categories):
            arrange(temporary / "extracted", markers, root, origins)
        else:  # a folder of one's own: its layout is for the index to find
            (temporary / "extracted" / "00").rename(root)
        if chosen.prepare is not None:
            chosen.prepare(root)
    except DatasetError as error:
        raise DatasetError(f"{spec.title}: {error}") from error
    return root


def _refuse_others(out_dir: Path, root: Path) -> None:
    """Refuse to replace a folder in which there are files of somebody's own."""
    if not out_dir.is_dir():
        raise DatasetError(f"{out_dir}: a file; name a folder that is to be made")
    new, old = ({path.relative_to(top) for path in top.rglob("*")} for top in (root, out_dir))
    others = sorted(old - new - {Path(name) for name in OWN_FILES})
    if others:
        raise DatasetError(
            f"{out_dir}: it holds {len(others):,} files and folders that are none of the dataset's "
            f"({show_name(others[0])}, ...) and would be lost; name another folder"
        )


def describe(
    path: Path, tree: Tree | None, archive: Archive, source: str, expected: str | None
) -> dict[str, Any]:
    """Record entry of an archive, or of a folder, whose checksum covers names and contents."""
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
