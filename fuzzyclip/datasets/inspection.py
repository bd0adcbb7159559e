"""Images and masks of an index, each opened once: size, digests, label by mask, what is wrong."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from fuzzyclip.datasets.base.spec import BY_MASK, GOOD, IndexRow, Note, Problem
from fuzzyclip.images.decode import (
    ImageFacts,
    decode_mask,
    examine_image,
    list_mask_files,
    read_image_file,
    unite_masks,
)
from fuzzyclip.images.names import describe_names

UNREADABLE = ImageFacts(0, 0, "")
#: Defect where a mask alone says that there is one.
UNNAMED_DEFECT = "bad"
#: Shares of an image that few defects cover, and that an inverted mask leaves.
LARGE, NEARLY_ALL = 0.5, 0.9
INVERTED = "covers nearly the whole image, as an inverted mask does; defects must be white on black"
MUCH = "covers more than half of the image; check that it is not inverted"
PHOTOGRAPH = (
    "is above 0 nearly everywhere and has many values: a photograph in a folder of masks, or a "
    "mask that was saved as JPEG (raise mask_above, --mask-above 127)"
)
BLURRED = (
    "has values between black and white, as of a mask that was saved as JPEG or smoothed; all "
    "above 0 are defect: raise mask_above (--mask-above 127)"
)


class Inspected(NamedTuple):
    """One row whose files were opened.

    Attributes:
        row: with the label and defect that its mask says, where it was left to that.
        facts: of the picture.
        problems: with it or with its mask.
        doubt: what makes its mask look like a mistake, and is none for sure.
    """

    row: IndexRow
    facts: ImageFacts
    problems: list[Problem]
    doubt: str = ""


def inspect_rows(
    root: Path,
    rows: Sequence[IndexRow],
    *,
    files: Collection[str],
    unmasked: Collection[str],
    mask_above: int,
    workers: int | None,
    title: str,
) -> list[Inspected]:
    """Open the image and the mask of every row, several at a time.

    Args:
        files: what the folder holds, by POSIX path below the root; nothing else is opened.
        unmasked: categories whose anomalous images may be without masks.
        workers: threads, for decoding leaves Python's lock; None takes one a processor.
        title: shown beside the progress bar.
    """

    def inspect(row: IndexRow) -> Inspected:
        return inspect_row(root, files, row, row.category not in unmasked, mask_above)

    count = workers or min(32, os.cpu_count() or 1)
    with ThreadPoolExecutor(count) as pool:
        results = pool.map(inspect, rows)
        return list(tqdm(results, title, len(rows), unit="image", disable=None, leave=False))


class MaskFacts(NamedTuple):
    """A mask that was opened: what is defect, (H, W), its digest, and what is odd about it."""

    defect: NDArray[np.bool_]
    sha256: str
    doubt: str


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
        return Inspected(row, facts, problems)
    try:
        mask = examine_mask(root, files, row.mask_path, mask_above)
    except OSError as error:
        report(row.mask_path, _explain(root / row.mask_path, error))
        return Inspected(row, facts, problems)
    facts = facts._replace(mask_sha256=mask.sha256)
    if facts.width and mask.defect.shape != (facts.height, facts.width):
        size = f"{mask.defect.shape[1]}x{mask.defect.shape[0]}"
        report(row.mask_path, f"mask is {size}, its image {facts.width}x{facts.height}")
    label = int(mask.defect.any())
    if row.label == BY_MASK:
        row = row._replace(label=label, defect=UNNAMED_DEFECT if label else GOOD)
    elif label != row.label:
        kind = "anomalous image has an empty mask" if row.label else "normal image has a mask"
        report(row.mask_path, kind)
    return Inspected(row, facts, problems, mask.doubt)


def examine_mask(root: Path, files: Collection[str], name: str, above: int) -> MaskFacts:
    """Open a mask, or all of a folder of masks of one image.

    Args:
        files: what the dataset holds; nothing else is opened.

    Raises:
        OSError: one is missing or not readable, or leaves open what is defect.
    """
    place = _find(root, files, name)
    paths = list_mask_files(place)
    contents = [read_image_file(path) for path in paths]
    masks = [
        decode_mask(content, str(path), above)
        for path, content in zip(paths, contents, strict=True)
    ]
    defect = unite_masks([mask.defect for mask in masks], place)
    digests = [hashlib.sha256(content).hexdigest() for content in contents]
    digest = digests[0]
    if paths != [place]:
        lines = [f"{each}  {path.name}\n" for each, path in zip(digests, paths, strict=True)]
        digest = hashlib.sha256("".join(lines).encode()).hexdigest()
    blurred = above == 0 and any(mask.is_blurred for mask in masks)
    return MaskFacts(defect, digest, _find_doubt(float(defect.mean()), blurred))


def _find_doubt(share: float, blurred: bool) -> str:
    """What is odd about a mask that covers a share of its image; empty if nothing is."""
    if share >= NEARLY_ALL:
        return PHOTOGRAPH if blurred else INVERTED
    if share > LARGE:
        return MUCH
    return BLURRED if blurred else ""


def describe_doubts(inspected: Iterable[Inspected]) -> list[Note]:
    """A warning for each category and kind of mask that looks like a mistake."""
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for row, _, _, doubt in inspected:
        if doubt:
            groups[row.category, doubt].append(row.mask_path)
    notes = []
    for (category, doubt), masks in sorted(groups.items()):
        one = f"{category}: the mask {masks[0]} {doubt}"
        many = f"{category}: each of {len(masks)} masks ({describe_names(masks)}) {doubt}"
        notes.append(Note(one if len(masks) == 1 else many, warning=True))
    return notes


def _find(root: Path, files: Collection[str], name: str) -> Path:
    """Path of a file of the folder; split files are data from outside and may point anywhere.

    A folder is one of masks, if it is one of the tree.
    """
    inside = Path(os.path.normpath(name))  # exact: a tree has no links to folders
    if inside.is_absolute() or inside.parts[:1] == ("..",):
        raise OSError("lies outside of the dataset folder")
    if inside.as_posix() not in files and not (root / inside).is_dir():
        raise FileNotFoundError
    return root / name


def _explain(path: Path, error: OSError) -> str:
    """The reason why a file cannot be read, without its name."""
    if isinstance(error, FileNotFoundError):
        return "missing"
    return str(error).removeprefix(f"{path}: ")
