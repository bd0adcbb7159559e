"""The comparison of two experiments: what they set, and what came out differently.

A difference is always the second minus the first, in points of a percentage. Bars have one scale
for all metrics and pages, and the band of what other test images would have changed lies under
them where it is known.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fuzzyclip.evaluation.metrics import METRICS
from fuzzyclip.method import OWN, get_title
from fuzzyclip.report.page import render
from fuzzyclip.report.tables import ABSENT, HEADLINE, Table, name_metric

#: Points from which on a difference is one: results keep four decimals.
SMALLEST = 5e-5
#: Points at the ends of every bar: longer ones are cut off, and marked.
SCALE = 10.0

#: Dataset, variant, category (None for the mean over them) and metric -> ends of the 95 % interval
#: of a difference, in points.
Intervals = dict[tuple[str, str, str | None, str], tuple[float, float]]


@dataclass(frozen=True)
class Noise:
    """Intervals of the differences, and sentences on why some have none."""

    intervals: Intervals
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Side:
    """One of the two experiments by the name it was asked for, with its parameters by dotted name.

    `categories` has the per-category results of each dataset: `variant`, `category`, the metrics.
    """

    name: str
    params: Mapping[str, str]
    categories: Mapping[str, pd.DataFrame]


def render_comparison(first: Side, second: Side, noise: Noise | None = None) -> str:
    """The page of a comparison, with what other test images would have changed, where it is known.

    Raises:
        ValueError: the two were tested on no common dataset.
    """
    table = join_results(first, second)
    if table.empty:
        raise ValueError(f"{first.name} and {second.name} have no tested dataset in common")
    variants = list_changed_variants(table)
    table = table[table["variant"].isin(variants)]
    means = table.groupby(["dataset", "variant", "metric"], sort=False)[["first", "second"]].mean()
    means = means.reset_index()
    noise = noise or Noise({})
    return render(
        "comparison.html",
        title="FuzzyCLIP: comparison of two experiments",
        first=first.name,
        second=second.name,
        params=compare_params(first, second),
        notes=[*list_gaps(first, second), *noise.notes],
        headline=compare_headline(means, first.name, second.name),
        opening=choose_opening(means),
        scale=SCALE,
        means=list_changes(means, noise.intervals).to_dict("records"),
        changes=list_changes(table, noise.intervals).to_dict("records"),
        datasets={dataset: dataset for dataset in table["dataset"]},
        variants={variant: get_title(variant) for variant in variants},
        metrics={
            metric: name_metric(metric) for metric in METRICS if metric in set(table["metric"])
        },
    )


def compare_params(first: Side, second: Side) -> Table:
    """Parameters that differ."""
    names = [*first.params, *(name for name in second.params if name not in first.params)]
    lines = [
        [name, first.params.get(name, ABSENT), second.params.get(name, ABSENT)]
        for name in names
        if first.params.get(name) != second.params.get(name)
    ]
    return Table("Parameters that differ", ["parameter", first.name, second.name], lines, False)


def compare_headline(means: pd.DataFrame, first: str, second: str) -> Table:
    """FuzzyCLIP's headline metrics, each its mean over the datasets for which both have it."""
    own = means[means["variant"] == OWN]
    lines = []
    for metric in HEADLINE:
        part = own[own["metric"] == metric]
        if len(part):
            ends = [float(part[side].mean()) for side in ("first", "second")]
            numbers = [f"{ends[0]:.2f}", f"{ends[1]:.2f}", f"{ends[1] - ends[0]:+.2f}"]
            lines.append([name_metric(metric), *(text.replace("-", "−") for text in numbers)])
    title = f"FuzzyCLIP, mean over {own['dataset'].nunique()} dataset(s) [%]"
    return Table(title, ["metric", first, second, "difference"], lines)


def choose_opening(means: pd.DataFrame) -> str:
    """The metric that the page opens with: the headline's first that changed, else its first."""
    order = [*HEADLINE, *METRICS]
    changed = set(means.loc[is_change(means), "metric"])
    known = [metric for metric in order if metric in set(means["metric"])]
    return next((metric for metric in known if metric in changed), known[0])


def join_results(first: Side, second: Side) -> pd.DataFrame:
    """Results of both, percent: `dataset`, `variant`, `category`, `metric`, `first`, `second`."""
    keys = ["variant", "category", "metric"]
    frames = [pd.DataFrame(columns=["dataset", *keys, "first", "second"])]
    for dataset, ours in first.categories.items():
        if dataset not in second.categories:
            continue
        long = [
            side.melt(["variant", "category"], [m for m in METRICS if m in side], "metric").dropna()
            for side in (ours, second.categories[dataset])
        ]
        joined = long[0].merge(long[1], on=keys, suffixes=("_first", "_second"))
        joined = joined.rename(columns={"value_first": "first", "value_second": "second"})
        frames.append(joined.assign(dataset=dataset))
    return pd.concat([frame for frame in frames if len(frame)] or frames, ignore_index=True)


def is_change(table: pd.DataFrame) -> "pd.Series[bool]":
    """True in lines of a table from `join_results` whose two results differ."""
    return (table["second"] - table["first"]).abs() >= SMALLEST


def list_changed_variants(table: pd.DataFrame) -> list[str]:
    """FuzzyCLIP, and the other variants in which anything changed."""
    changed = table[is_change(table)]
    others = [variant for variant in dict.fromkeys(changed["variant"]) if variant != OWN]
    return ([OWN] if (table["variant"] == OWN).any() else []) + others


def list_changes(table: pd.DataFrame, intervals: Intervals) -> pd.DataFrame:
    """Lines of a table from `join_results` with their differences, the largest first.

    Means over categories are lines without a `category`. Added are `size`, second minus first in
    points; `sign`, better, worse or equal; `low` and `high`, the ends of its interval, nan where
    there is none; `unsure`, whether that holds 0; and as places along the bar, 0 to 100 where 50 is
    no difference: `start` and `length` of the difference, `band` and `width` of the interval.
    `cut` says that the difference goes beyond the ends of the bar, `SCALE`.
    """
    size = table["second"] - table["first"]
    equal = ~is_change(table)
    names = table["category"] if "category" in table else [None] * len(table)
    keys = zip(table["dataset"], table["variant"], names, table["metric"], strict=True)
    ends = np.array([intervals.get(key, (math.nan, math.nan)) for key in keys]).reshape(-1, 2)
    low, high = ends.T
    end, left, right = (place_on_bar(np.asarray(points)) for points in (size, low, high))
    return table.assign(
        size=size,
        sign=np.select([equal, size > 0], ["equal", "better"], "worse"),
        low=low,
        high=high,
        unsure=(low <= 0) & (high >= 0),
        start=np.where(equal, 50.0, np.minimum(end, 50)),
        length=np.where(equal, 0.0, np.abs(end - 50)).round(2),
        band=left,
        width=(right - left).round(2),
        cut=size.abs() > SCALE,
        order=-size.abs(),
    ).sort_values("order", kind="stable")


def place_on_bar(points: NDArray[np.floating]) -> NDArray[np.floating]:
    """Places along a bar, 0 to 100, of differences in points; beyond its ends they lie on them."""
    return np.asarray((50 + 50 * np.clip(points / SCALE, -1, 1)).round(2))


def list_gaps(first: Side, second: Side) -> Iterator[str]:
    """Sentences on what only one of the two was tested on, and is left out."""
    for side, other in ((first, second), (second, first)):
        missing = [dataset for dataset in side.categories if dataset not in other.categories]
        if missing:
            yield f"Only {side.name} has {', '.join(missing)}."
        for dataset, ours in side.categories.items():
            theirs = other.categories.get(dataset, ours)
            extra = dict.fromkeys(ours["category"][~ours["category"].isin(theirs["category"])])
            if extra:
                yield f"Of {dataset} only {side.name} has {', '.join(extra)}."
