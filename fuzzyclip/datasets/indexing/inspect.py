"""Opening every image and mask of a dataset once.

Peers find a broken mask as a KeyError in the evaluation; here each file is named, all in one
message, before anything is computed.
"""

import hashlib
import os
from collections import defaultdict
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from fuzzyclip.datasets.base.spec import IndexRow, Problem
from fuzzyclip.images.decode import (
    ImageFacts,
    decode_mask,
    examine_image,
    read_image_file,
)

UNREADABLE = ImageFacts(0, 0, "")


class Inspected(NamedTuple):
    """One row's picture, and what is wrong with it or with its mask."""

    facts: ImageFacts
    problems: list[Problem]


def inspect_rows(
    root: Path,
    rows: Sequence[IndexRow],
    *,
    files: Collection[str],
    unmasked: Collection[str] = (),
    mask_above: int = 0,
    workers: int | None = None,
    title: str = "",
) -> list[Inspected]:
    """Open the image and the mask of every row, several at a time.

    Args:
        root: dataset root.
        rows: what to open.
        files: what the folder holds, by POSIX path below the root; nothing else is opened.
        unmasked: categories whose anomalous images may be without masks.
        mask_above: mask values above this are defect.
        workers: threads; decoding leaves Python's lock, so that threads do.
        title: shown beside the progress bar.
    """

    def inspect(row: IndexRow) -> Inspected:
        return inspect_row(root, files, row, row.category not in unmasked, mask_above)

    count = workers or min(32, os.cpu_count() or 1)
    with ThreadPoolExecutor(count) as pool:
        results = pool.map(inspect, rows)
        return list(tqdm(results, title, len(rows), unit="image", disable=None, leave=False))


def inspect_row(
    root: Path, files: Collection[str], row: IndexRow, needs_mask: bool, mask_above: int
) -> Inspected:
    """Open one image and its mask."""
    problems = []

    def report(name: str, reason: str) -> None:
        problems.append(Problem(str(root / name), reason, row.image_path))

    facts = UNREADABLE
    try:
        facts = examine_image(_find(root, files, row.image_path))
    except OSError as error:
        report(row.image_path, _explain(root / row.image_path, error))
    if not row.mask_path:
        if row.label and needs_mask:
            report(row.image_path, "anomalous image has no mask")
        return Inspected(facts, problems)
    try:
        content = read_image_file(_find(root, files, row.mask_path))
        mask = decode_mask(content, str(root / row.mask_path), mask_above)  # (H, W)
    except OSError as error:
        report(row.mask_path, _explain(root / row.mask_path, error))
        return Inspected(facts, problems)
    facts = facts._replace(mask_sha256=hashlib.sha256(content).hexdigest())
    if facts.width and mask.shape != (facts.height, facts.width):
        size = f"{mask.shape[1]}x{mask.shape[0]}"
        report(row.mask_path, f"mask is {size}, its image {facts.width}x{facts.height}")
    if bool(mask.any()) != bool(row.label):
        kind = "anomalous image has an empty mask" if row.label else "normal image has a mask"
        report(row.mask_path, kind)
    return Inspected(facts, problems)


def _find(root: Path, files: Collection[str], name: str) -> Path:
    """Path of a file of the folder; split files are data from outside and may point anywhere."""
    inside = Path(os.path.normpath(name))  # exact: a tree has no links to folders
    if inside.is_absolute() or inside.parts[:1] == ("..",):
        raise OSError("lies outside of the dataset folder")
    if inside.as_posix() not in files:
        raise FileNotFoundError
    return root / name


def _explain(path: Path, error: OSError) -> str:
    """The reason why a file cannot be read, without its name."""
    if isinstance(error, FileNotFoundError):
        return "missing"
    return str(error).removeprefix(f"{path}: ")


def find_duplicates(rows: Sequence[IndexRow], facts: Sequence[ImageFacts]) -> list[list[str]]:
    """Groups of identical files that lie in both splits, or that are labelled both ways.

    Returns:
        `image_path` of each group's members, sorted.
    """
    groups: dict[str, list[IndexRow]] = defaultdict(list)
    for row, one in zip(rows, facts, strict=True):
        if one.sha256:
            groups[one.sha256].append(row)
    return sorted(
        sorted(row.image_path for row in group)
        for group in groups.values()
        if len({row.split for row in group}) > 1 or len({row.label for row in group}) > 1
    )
