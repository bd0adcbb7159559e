"""The comparison of two experiments: what they set, and what came out differently.

A difference is always the second minus the first, in points of a percentage.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from fuzzyclip.evaluation.metrics import METRICS
from fuzzyclip.method import OWN, get_title
from fuzzyclip.report.page import render
from fuzzyclip.report.tables import ABSENT, Table, name_metric

#: Points from which on a difference is one: results keep four decimals.
SMALLEST = 5e-5


@dataclass(frozen=True)
class Side:
    """One of the two experiments by the name it was asked for, with its parameters by dotted name.

    `categories` has the per-category results of each dataset: `variant`, `category`, the metrics.
    """

    name: str
    params: Mapping[str, str]
    categories: Mapping[str, pd.DataFrame]


def render_comparison(first: Side, second: Side) -> str:
    """The page of a comparison.

    Raises:
        ValueError: the two were tested on no common dataset.
    """
    table = join_results(first, second)
    if table.empty:
        raise ValueError(f"{first.name} and {second.name} have no tested dataset in common")
    variants = list_changed_variants(table)
    table = table[table["variant"].isin(variants)]
    means = table.groupby(["dataset", "variant", "metric"], sort=False)[["first", "second"]].mean()
    return render(
        "comparison.html",
        title="FuzzyCLIP: comparison of two experiments",
        first=first.name,
        second=second.name,
        params=compare_params(first, second),
        notes=[*list_gaps(first, second)],
        means=list_changes(means.reset_index()).to_dict("records"),
        changes=list_changes(table).to_dict("records"),
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


def list_changed_variants(table: pd.DataFrame) -> list[str]:
    """FuzzyCLIP, and the other variants in which anything changed."""
    changed = table[(table["second"] - table["first"]).abs() >= SMALLEST]
    others = [variant for variant in dict.fromkeys(changed["variant"]) if variant != OWN]
    return ([OWN] if (table["variant"] == OWN).any() else []) + others


def list_changes(table: pd.DataFrame) -> pd.DataFrame:
    """Lines of a table from `join_results` with their differences, the largest first.

    Added are `size`, second minus first in points; `sign`, better, worse or equal; and `start` and
    `length` of its bar, 0 to 100 where 50 is no difference, on one scale for each metric.
    """
    size = table["second"] - table["first"]
    most = size.abs().groupby(table["metric"]).transform("max")
    equal = size.abs() < SMALLEST
    length = (50 * size.abs() / most).where(~equal, 0.0).round(2)
    return table.assign(
        size=size,
        sign=np.select([equal, size > 0], ["equal", "better"], "worse"),
        start=(50 - length.where(size < 0, 0.0)).round(2),
        length=length,
        order=-size.abs(),
    ).sort_values("order", kind="stable")


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
