"""Folders to the checked index: one table per dataset, every file opened once.

Peers find a broken mask as a KeyError in the evaluation; here each file is named, all in one
message, before anything is computed.
"""

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from fuzzyclip.datasets.base.accounting import account_for
from fuzzyclip.datasets.base.meta import META, choose_protocol
from fuzzyclip.datasets.base.spec import (
    DatasetSpec,
    IndexRow,
    Listing,
    Problem,
    Protocol,
    SplitCounts,
)
from fuzzyclip.datasets.inspection import describe_doubts, inspect_rows
from fuzzyclip.images.decode import ImageFacts
from fuzzyclip.images.index_file import COLUMN_TYPES, INDEX_COLUMNS, Index
from fuzzyclip.utils.files import is_file_name, show_line, show_name
from fuzzyclip.utils.tree import DatasetError, look_at_tree

LOGGER = logging.getLogger(__name__)
MAX_SHOWN = 1000  # problems in one message
DECLARE_SUBSET = "give --subset (in params.yaml: counts: any)"
OnError = Literal["fail", "drop"]


def build_index(
    spec: DatasetSpec,
    root: Path,
    *,
    protocol: str,
    categories: Sequence[str] | None = None,
    expect_counts: bool = True,
    on_error: OnError = "fail",
    mask_above: int = 0,
    workers: int | None = None,
) -> Index:
    """List a dataset's tree, open every image and mask, and check the counts.

    Args:
        root: dataset root, as `fetch_dataset` leaves it.
        protocol: one of the dataset's, or `meta`.
        categories: raw names, None for all. A category that is named or implied must be there.
        expect_counts: whether the numbers of images must be the published ones; False declares
            a subset.
        on_error: "drop" leaves out images that cannot be used and files that have no place, and
            records them; counts are checked before. What every other file is that is neither image
            nor mask is said in the notes.
        mask_above: mask values above this are defect.
        workers: threads that decode; None takes one a processor.

    Raises:
        DatasetError: unknown protocol or category, or anything wrong with the files, links
            elsewhere and what is no file among them (see `tree`); lists all that is wrong.
    """
    chosen_protocol, chosen = check_choice(spec, protocol, categories)
    tree = look_at_tree(root)
    files = tree.files
    listing = chosen_protocol.list_rows(root, chosen)
    listing.rows[:] = [row for row in listing.rows if row.image_path not in tree.refused]
    left = account_for(root, files, listing)
    names = chosen or tuple(sorted({row.category for row in listing.rows}))
    refused = [Problem(show_name(root / name), why) for name, why in tree.refused.items()]
    problems = [*refused, *listing.problems, *left.problems]
    problems += _check_presence(spec, root, listing, names)
    inspected = inspect_rows(
        root,
        listing.rows,
        files=files,
        unmasked=find_unmasked(spec, listing.rows),
        mask_above=mask_above,
        workers=workers,
        title=spec.title,
    )
    rows, facts = [image.row for image in inspected], [image.facts for image in inspected]
    notes = [*dict.fromkeys([*listing.notes, *left.notes, *describe_doubts(inspected)])]
    for note in notes:
        LOGGER.log(logging.WARNING if note.warning else logging.INFO, "%s", note)
    problems += [problem for image in inspected for problem in image.problems]
    present = [name for name in names if any(row.category == name for row in rows)]
    listed = _make_frame(rows, facts, mask_above)
    problems += check_counts(spec, listed, protocol, present, expect_counts)
    fatal = [problem for problem in problems if problem.fatal or on_error == "fail"]
    if fatal:
        raise DatasetError(describe_problems(spec, root, fatal))
    frame, duplicates = _drop(spec, root, rows, facts, problems, mask_above)
    info = {
        "dataset": spec.name,
        "title": spec.title,
        "page": spec.page,
        "licence": spec.licence,
        "protocol": protocol,
        "summary": chosen_protocol.summary,
        "masks": f"> {mask_above}",
        "categories": {name: spec.categories.get(name, name) for name in present},
        "counts": {name: counts._asdict() for name, counts in count_images(frame).items()},
        "dropped": [line for problem in problems for line in _record(root, problem)],
        "duplicates": duplicates,
        "notes": [note.text for note in notes],
    }
    return Index(frame, info)


def name_categories(
    info: Mapping[str, Any], names: Literal["raw", "readable"] | Mapping[str, str]
) -> dict[str, str]:
    """Category to its name in prompts, in the dataset's own order.

    Args:
        names: "raw" as the folders are called, "readable" in words, or names of some categories;
            the others keep their raw name.

    Raises:
        ValueError: a name is given for a category that the index does not have.
    """
    readable: dict[str, str] = info["categories"]
    if names == "readable":
        return readable
    given = names if isinstance(names, Mapping) else {}
    if unknown := sorted(set(given) - set(readable)):
        raise ValueError(
            f"names: {', '.join(unknown)} is no category of {info['title']}; there are "
            f"{', '.join(readable)}"
        )
    return {category: given.get(category, category) for category in readable}


def check_choice(
    spec: DatasetSpec, protocol: str, categories: Sequence[str] | None
) -> tuple[Protocol, tuple[str, ...]]:
    """The protocol, and the categories to index in the dataset's order.

    Raises:
        DatasetError: the dataset has no such protocol or category.
    """
    chosen_protocol = choose_protocol(spec, protocol)
    if not spec.categories:
        if unfit := [name for name in categories or () if not is_file_name(name)]:
            raise DatasetError(f"{spec.title}: category {unfit[0]!r} is no name of a folder")
        return chosen_protocol, tuple(categories or ())
    chosen = tuple(spec.categories) if categories is None else tuple(categories)
    unknown = [name for name in chosen if name not in spec.categories]
    if unknown or not chosen:
        raise DatasetError(
            f"{spec.title} has no category {', '.join(map(repr, unknown)) or '(none given)'}; "
            f"there are {', '.join(spec.categories)}"
        )
    return chosen_protocol, tuple(name for name in spec.categories if name in chosen)


def find_unmasked(spec: DatasetSpec, rows: Sequence[IndexRow]) -> set[str]:
    """Categories that are without any mask, where the dataset allows that."""
    if spec.masks == "required":
        return set()
    return {row.category for row in rows} - {row.category for row in rows if row.mask_path}


def _check_presence(
    spec: DatasetSpec, root: Path, listing: Listing, names: Sequence[str]
) -> list[Problem]:
    """Categories that are asked for and not there, or that there is no image at all."""
    present = {row.category for row in listing.rows}
    reason = (
        "category folder is missing or has no images; complete the data, or name the categories "
        "to use (--category; in params.yaml: categories)"
    )
    absent = [name for name in names if name not in present]
    if absent or present or any(problem.fatal for problem in listing.problems):
        return [Problem(str(root / name), reason, fatal=True) for name in absent]
    return [Problem(str(root), "no image is there that can be used", fatal=True)]


def describe_problems(spec: DatasetSpec, root: Path, problems: Sequence[Problem]) -> str:
    """One message with all problems, as far as a person reads."""
    shown = [str(problem) for problem in problems[:MAX_SHOWN]]
    rest = [f"... and {len(problems) - MAX_SHOWN} more"] if len(problems) > MAX_SHOWN else []
    title = f"{spec.title}: {len(problems)} problem(s) in {show_line(str(root))}"
    return "\n".join([title, *shown, *rest])


def _drop(
    spec: DatasetSpec,
    root: Path,
    rows: Sequence[IndexRow],
    facts: Sequence[ImageFacts],
    problems: Sequence[Problem],
    mask_above: int,
) -> tuple[pd.DataFrame, list[list[str]]]:
    """The table without unusable images, and the duplicates left in it.

    A category that lost all its normal or all its anomalous test images is an error.
    """
    gone = {problem.image for problem in problems if problem.image}
    pairs = zip(rows, facts, strict=True)
    kept = [(row, fact) for row, fact in pairs if row.image_path not in gone]
    if problems:
        LOGGER.warning("dropped, as asked: %s", describe_problems(spec, root, problems))
    left, left_facts = [row for row, _ in kept], [fact for _, fact in kept]
    frame = _make_frame(left, left_facts, mask_above)
    names = sorted({row.category for row in rows})
    if emptied := check_counts(spec, frame, "", names, expect=False):
        raise DatasetError(describe_problems(spec, root, [*problems, *emptied]))
    duplicates = find_duplicates(left, left_facts)
    for group in duplicates:
        LOGGER.warning("%s: identical pictures: %s", spec.title, ", ".join(map(show_line, group)))
    return frame, duplicates


def _make_frame(
    rows: Sequence[IndexRow], facts: Sequence[ImageFacts], mask_above: int
) -> pd.DataFrame:
    """Sorted index table."""
    records = [(*row, *fact, mask_above) for row, fact in zip(rows, facts, strict=True)]
    frame = pd.DataFrame(records, columns=list(INDEX_COLUMNS)).astype(COLUMN_TYPES)
    return frame.sort_values(["category", "split", "image_path"], ignore_index=True)


def _record(root: Path, problem: Problem) -> list[list[str]]:
    """Path and reason of each file that a problem stands for.

    The paths must not depend on where the data lie.
    """
    if problem.files:
        return [[name, problem.reason] for name in problem.files]
    path = Path(problem.path)
    place = path.relative_to(root).as_posix() if path.is_relative_to(root) else problem.path
    return [[place, problem.reason]]


def count_images(frame: pd.DataFrame) -> dict[str, SplitCounts]:
    """Number of images by category, split and label; the counts travel with every result."""
    sizes = frame.groupby(["category", "split", "label"]).size().to_dict()

    def count(category: str, split: str, label: int) -> int:
        return int(sizes.get((category, split, label), 0))

    return {
        str(name): SplitCounts(
            train_normal=count(name, "train", 0),
            test_normal=count(name, "test", 0),
            test_anomalous=count(name, "test", 1),
            train_anomalous=count(name, "train", 1),
        )
        for name in frame["category"].unique()
    }


def check_counts(
    spec: DatasetSpec, frame: pd.DataFrame, protocol: str, chosen: Sequence[str], expect: bool
) -> list[Problem]:
    """Compare the numbers of images with the published ones.

    A declared subset must still have a normal and an anomalous test image in each category,
    because nothing can be evaluated without.

    Args:
        frame: all images that were listed, also those that are to be dropped.
        protocol: `meta` is compared with every protocol of the dataset.
        chosen: categories that were asked for and are there.
        expect: whether the numbers must be the published ones.
    """
    counts = count_images(frame)
    problems = [
        Problem(name, f"no normal or no anomalous test image ({describe_counts(count)})", "", True)
        for name in chosen
        if not (count := counts.get(name, SplitCounts(0, 0, 0))).test_normal
        or not count.test_anomalous
    ]
    if not expect or problems:
        return problems
    candidates = list(spec.protocols) if protocol == META else [protocol]
    differences = [_compare(spec, name, counts, chosen) for name in candidates]
    if not candidates or not any(spec.protocols[name].counts for name in candidates):
        reason = f"no numbers of images are published; {DECLARE_SUBSET}"
        return [Problem(spec.title, reason, fatal=True)]
    if [] in differences:
        return []
    *others, last = [problem for each in differences for problem in each]
    mend = f"{last.reason}; complete the data, or where a part of it is meant {DECLARE_SUBSET}"
    return [*others, last._replace(reason=mend)]


def _compare(
    spec: DatasetSpec, name: str, counts: Mapping[str, SplitCounts], chosen: Sequence[str]
) -> list[Problem]:
    """Differences from one protocol's published numbers."""
    protocol = spec.protocols[name]
    compared = [(category, counts[category], protocol.counts.get(category)) for category in chosen]
    if protocol.total is not None and len(chosen) == len(spec.categories):
        total = SplitCounts(*map(sum, zip(*counts.values(), strict=True)))
        compared.append(("all categories", total, protocol.total))
    problems = []
    for place, count, published in compared:
        if published is None or not _agree(count, published):
            known = "none" if published is None else describe_counts(published)
            reason = f"{describe_counts(count)}; published: {known} (protocol {name})"
            problems.append(Problem(place, reason, fatal=True))
    return problems


def _agree(count: SplitCounts, published: SplitCounts) -> bool:
    """True where counts agree as far as numbers are published."""
    return all(p is None or n == p for n, p in zip(count, published, strict=True))


def describe_counts(counts: SplitCounts) -> str:
    """Counts in words; a number that is not published is left out."""
    named = zip(counts._fields, counts, strict=True)
    return ", ".join(f"{field} {number}" for field, number in named if number is not None)


def find_duplicates(rows: Sequence[IndexRow], facts: Sequence[ImageFacts]) -> list[list[str]]:
    """Paths of identical files that lie in both splits, or that are labelled both ways; sorted."""
    groups: dict[str, list[IndexRow]] = defaultdict(list)
    for row, fact in zip(rows, facts, strict=True):
        if fact.sha256:
            groups[fact.sha256].append(row)
    return sorted(
        sorted(row.image_path for row in group)
        for group in groups.values()
        if len({row.split for row in group}) > 1 or len({row.label for row in group}) > 1
    )
