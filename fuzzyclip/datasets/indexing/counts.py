"""Numbers of images by category, split and label, against the published ones."""

from collections.abc import Mapping, Sequence

import pandas as pd

from fuzzyclip.datasets.base.meta import META, choose_protocol
from fuzzyclip.datasets.base.spec import DatasetSpec, Problem, SplitCounts


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
        spec: which dataset.
        frame: all images that were listed, also those that are to be dropped.
        protocol: name of the protocol; `meta` is compared with every protocol of the dataset.
        chosen: categories that were asked for and are there.
        expect: whether the numbers must be the published ones.
    """
    counts = count_images(frame)
    problems = [
        Problem(name, f"no normal or no anomalous test image ({describe_counts(found)})", "", True)
        for name in chosen
        if not (found := counts.get(name, SplitCounts(0, 0, 0))).test_normal
        or not found.test_anomalous
    ]
    if not expect or problems:
        return problems
    candidates = list(spec.protocols) if protocol == META else [protocol]
    differences = [_compare(spec, name, counts, chosen) for name in candidates]
    if not candidates or not any(spec.protocols[name].counts for name in candidates):
        reason = "no numbers of images are published; set counts: any"
        return [Problem(spec.title, reason, fatal=True)]
    return [] if [] in differences else [problem for found in differences for problem in found]


def _compare(
    spec: DatasetSpec, name: str, counts: Mapping[str, SplitCounts], chosen: Sequence[str]
) -> list[Problem]:
    """Differences from one protocol's published numbers."""
    protocol = choose_protocol(spec, name)
    assert protocol is not None  # the caller has looked
    problems = []
    for category in chosen:
        found, published = counts[category], protocol.counts.get(category)
        if published is None or not _agree(found, published):
            said = "none" if published is None else describe_counts(published)
            reason = f"{describe_counts(found)}; published: {said} (protocol {name})"
            problems.append(Problem(category, reason, fatal=True))
    if protocol.total is not None and len(chosen) == len(spec.categories):
        found = SplitCounts(*map(sum, zip(*counts.values(), strict=True)))
        if not _agree(found, protocol.total):
            said = describe_counts(protocol.total)
            reason = f"{describe_counts(found)}; published: {said} (protocol {name})"
            problems.append(Problem("all categories", reason, fatal=True))
    return problems


def _agree(found: SplitCounts, published: SplitCounts) -> bool:
    """True where counts agree as far as numbers are published."""
    return all(p is None or f == p for f, p in zip(found, published, strict=True))


def describe_counts(counts: SplitCounts) -> str:
    """Counts in words; a number that is not published is left out."""
    named = zip(counts._fields, counts, strict=True)
    return ", ".join(f"{field} {number}" for field, number in named if number is not None)
