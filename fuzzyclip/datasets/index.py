"""The index: one table per dataset, every image and mask opened once, every problem reported.

Peers find a broken mask or a missing category as a KeyError in the evaluation; here the index
names each file, all in one message, before anything is computed.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pandas as pd

from fuzzyclip.datasets.images import load_image, load_mask
from fuzzyclip.datasets.spec import (
    INDEX_COLUMNS,
    DatasetError,
    DatasetSpec,
    IndexRow,
    SplitCounts,
)
from fuzzyclip.files import write_text

COLUMN_TYPES = {"label": "int64", "width": "int64", "height": "int64"}
MAX_SHOWN = 50  # problems in one message


def build_index(
    spec: DatasetSpec,
    root: Path,
    *,
    protocol: str,
    categories: Sequence[str] | None,
    expect_counts: bool,
) -> pd.DataFrame:
    """List a dataset's tree, open every image and mask, and check the counts.

    Args:
        spec: which dataset.
        root: dataset root, as `fetch_dataset` leaves it.
        protocol: one of the dataset's protocols.
        categories: raw names of the categories to index, None for all. A category that is named
            or implied must be there.
        expect_counts: whether the numbers of images must be the published ones; False declares
            a subset.

    Returns:
        Table with the columns `INDEX_COLUMNS`, sorted by category, split and image path.

    Raises:
        DatasetError: unknown protocol or category, or anything wrong with the files; lists all
            that is wrong.
    """
    chosen = check_choice(spec, protocol, categories)
    missing = [name for name in chosen if not (root / name).is_dir()]
    problems = [
        f"{root / name}: category folder is missing; complete the archive, or name the "
        "categories to use"
        for name in missing
    ]
    rows, found = spec.make_index(root, protocol, [c for c in chosen if c not in missing])
    problems += found
    with ThreadPoolExecutor() as pool:  # decoding leaves Python's lock, so threads do
        inspected = list(pool.map(partial(inspect, root), rows))
    problems += [problem for _, found in inspected for problem in found]
    sizes = [size for size, _ in inspected]
    frame = _make_frame(rows, sizes)
    problems += check_counts(spec, frame, protocol, chosen, missing, expect_counts)
    if problems:
        shown = problems[:MAX_SHOWN]
        rest = [f"... and {len(problems) - MAX_SHOWN} more"] if len(problems) > MAX_SHOWN else []
        title = f"{spec.title}: {len(problems)} problem(s) in {root}"
        raise DatasetError("\n".join([title, *shown, *rest]))
    return frame


def check_choice(
    spec: DatasetSpec, protocol: str, categories: Sequence[str] | None
) -> tuple[str, ...]:
    """Categories to index, in the dataset's order.

    Raises:
        DatasetError: the dataset has no such protocol or category.
    """
    if protocol not in spec.protocols:
        raise DatasetError(
            f"{spec.title} has no protocol {protocol!r}; there are {', '.join(spec.protocols)}"
        )
    chosen = tuple(spec.categories) if categories is None else tuple(categories)
    unknown = [name for name in chosen if name not in spec.categories]
    if unknown or not chosen:
        raise DatasetError(
            f"{spec.title} has no category {', '.join(map(repr, unknown)) or '(none given)'}; "
            f"there are {', '.join(spec.categories)}"
        )
    return tuple(name for name in spec.categories if name in chosen)


def inspect(root: Path, row: IndexRow) -> tuple[tuple[int, int], list[str]]:
    """Open one image and its mask.

    Returns:
        (width, height), zeros if the image cannot be read, and problems.
    """
    problems = []
    width = height = 0
    try:
        width, height = load_image(_inside(root, row.image_path)).size
    except OSError as error:
        problems.append(_read_failure(root / row.image_path, error))
    if row.mask_path:
        try:
            mask = load_mask(_inside(root, row.mask_path))  # (H, W)
        except OSError as error:
            return (width, height), [*problems, _read_failure(root / row.mask_path, error)]
        path = root / row.mask_path
        if width and mask.shape != (height, width):
            rows, columns = mask.shape
            problems.append(f"{path}: mask is {columns}x{rows}, its image {width}x{height}")
        if bool(mask.any()) != bool(row.label):
            kind = "anomalous image has an empty mask" if row.label else "normal image has a mask"
            problems.append(f"{path}: {kind}")
    elif row.label:
        problems.append(f"{root / row.image_path}: anomalous image has no mask")
    return (width, height), problems


def _read_failure(path: Path, error: OSError) -> str:
    """One line for a file that cannot be read."""
    return f"{path}: missing" if isinstance(error, FileNotFoundError) else str(error)


def _inside(root: Path, name: str) -> Path:
    """Path below the root; split files are data from outside and may point anywhere."""
    path = root / name
    if not path.resolve().is_relative_to(root.resolve()):
        raise OSError(f"{path}: lies outside of the dataset folder")
    return path


def _make_frame(rows: Sequence[IndexRow], sizes: Sequence[tuple[int, int]]) -> pd.DataFrame:
    """Sorted index table."""
    records = [(*row, *size) for row, size in zip(rows, sizes, strict=True)]
    frame = pd.DataFrame(records, columns=list(INDEX_COLUMNS)).astype(COLUMN_TYPES)
    return frame.sort_values(["category", "split", "image_path"], ignore_index=True)


def count_images(frame: pd.DataFrame) -> dict[str, SplitCounts]:
    """Number of images by category, split and label; the counts travel with every result."""
    sizes = frame.groupby(["category", "split", "label"]).size().to_dict()

    def count(category: str, split: str, label: int) -> int:
        return int(sizes.get((category, split, label), 0))

    return {
        str(name): SplitCounts(
            train_good=count(name, "train", 0),
            test_good=count(name, "test", 0),
            test_bad=count(name, "test", 1),
            train_bad=count(name, "train", 1),
        )
        for name in frame["category"].unique()
    }


def check_counts(
    spec: DatasetSpec,
    frame: pd.DataFrame,
    protocol: str,
    chosen: Sequence[str],
    missing: Sequence[str],
    expect_counts: bool,
) -> list[str]:
    """Compare the numbers of images with the published ones.

    A declared subset must still have a normal and an anomalous test image in each category,
    because nothing can be evaluated without.
    """
    counts = count_images(frame)
    problems = []
    for name in chosen:
        if name in missing:
            continue
        found = counts.get(name, SplitCounts(0, 0, 0))
        if not found.test_good or not found.test_bad:
            problems.append(f"{name}: no normal or no anomalous test image ({_say(found)})")
        elif expect_counts and not _agree(found, spec.counts[protocol][name]):
            published = _say(spec.counts[protocol][name])
            problems.append(f"{name}: {_say(found)}; published: {published}")
    total = spec.totals.get(protocol)
    if expect_counts and total and not missing and len(chosen) == len(spec.categories):
        found = _sum(list(counts.values()))
        if not _agree(found, total):
            problems.append(f"all categories: {_say(found)}; published: {_say(total)}")
    return problems


def _agree(found: SplitCounts, published: SplitCounts) -> bool:
    """Whether counts agree where a number is published."""
    return all(p is None or f == p for f, p in zip(found, published, strict=True))


def _sum(counts: Sequence[SplitCounts]) -> SplitCounts:
    """Sum over categories."""
    return SplitCounts(*(sum(n or 0 for n in column) for column in zip(*counts, strict=True)))


def _say(counts: SplitCounts) -> str:
    """Counts in words; a number that is not published is left out."""
    named = zip(counts._fields, counts, strict=True)
    return ", ".join(f"{field} {number}" for field, number in named if number is not None)


def write_index(frame: pd.DataFrame, path: Path) -> None:
    """Write an index as CSV with "\\n" line ends, through a temporary name."""
    write_text(path, frame.to_csv(index=False, lineterminator="\n", columns=list(INDEX_COLUMNS)))


def read_index(path: Path) -> pd.DataFrame:
    """Read an index; categories such as "01" stay strings, an absent mask stays "".

    Raises:
        DatasetError: the table has other columns.
    """
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    if tuple(frame.columns) != INDEX_COLUMNS:
        raise DatasetError(
            f"{path}: columns {list(frame.columns)} instead of {list(INDEX_COLUMNS)}; build the "
            "index again"
        )
    return frame.astype(COLUMN_TYPES)
