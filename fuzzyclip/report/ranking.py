"""Methods side by side, as the paper's Tables 2 and 3 have them: marks, average ranks, tables.

Values are compared as they are printed, with one decimal: two methods whose cells look equal share
a place. Ranks are competition ranks: those that tie share the best of their ranks.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from fuzzyclip.report.tables import LEVELS, format_cell, join_cells, name_level

#: Where values come from.
SOURCES = ("ours", "paper")
RANK = "average rank"
KEYS = ["label", "dataset", "metric"]
#: Columns that take a method out of the ranks, see `check_values`.
UNRANKED = ("random", "beside")
#: What surrounds the best and the second best cell, for Markdown and for a terminal.
MARKDOWN = {1: ("**", "**"), 2: ("<u>", "</u>")}
PLAIN = {1: ("", "*"), 2: ("", "+")}
PLAIN_LEGEND = "* best, + second best"


def check_values(values: pd.DataFrame) -> pd.DataFrame:
    """Values in long form: `label`, `dataset`, `metric`, `ours` and `paper`, percent.

    Columns `random` and `beside` mark values of ours that are of random weights, or of methods that
    look at good parts or at other tested images: they are shown, and take no part in marks and
    ranks.

    Raises:
        ValueError: nothing is there, or a method has two values for one metric of a dataset.
    """
    if values.empty:
        raise ValueError("there are no methods to compare")
    doubled = values[values.duplicated(KEYS)]
    if len(doubled):
        label, dataset, metric = doubled.iloc[0][KEYS]
        raise ValueError(f"{label} has two values of {metric} on {dataset}")
    return values


def select_level(values: pd.DataFrame, level: str, source: str) -> pd.DataFrame:
    """One level's values of one source, rounded: a row a method, columns (dataset, metric).

    Raises:
        ValueError: no metric is of the level.
    """
    chosen = values[values["metric"].str.startswith(LEVELS[level])]
    if chosen.empty:
        raise ValueError(f"no metric begins with {LEVELS[level]!r}: there is no {level} table")
    columns = list(dict.fromkeys(zip(chosen["dataset"], chosen["metric"], strict=True)))
    table = chosen.set_index(KEYS)[source].unstack(["dataset", "metric"])  # noqa: PD010
    ordered = table.reindex(index=values["label"].unique(), columns=columns)
    # As they are printed: rounding a number is not always what printing it gives.
    return ordered.astype(float).map(lambda value: float(f"{value:.1f}"))


def list_datasets(table: pd.DataFrame) -> list[str]:
    """Datasets of a table from `select_level`, in order."""
    return list(dict.fromkeys(table.columns.get_level_values(0)))


def place_values(table: pd.DataFrame) -> pd.DataFrame:
    """1 where a value is the best of its column, 2 where it is the next lower one, else 0."""
    dense = table.rank(method="dense", ascending=False)
    return dense.where(dense <= 2, 0).fillna(0).astype(int)


def rank_methods(table: pd.DataFrame) -> pd.Series:
    """Average competition rank of each method over all columns, ties share the best rank.

    A metric that a method's maps leave undefined, where it has other values on that dataset, counts
    as last: it must not gain by it. A method without any value on a dataset has no average, and
    takes no rank from the others.
    """
    known = table.notna()
    complete = np.all(
        [known[dataset].to_numpy().any(axis=1) for dataset in list_datasets(table)], axis=0
    )
    averages = pd.Series(np.nan, index=table.index)
    if complete.any():
        ranks = table[complete].fillna(-np.inf).rank(method="min", ascending=False)
        averages[complete] = ranks.to_numpy().mean(axis=1)
    return averages


def place_ranks(ranks: pd.Series) -> pd.Series:
    """1 for the best average rank, which is the lowest, 2 for the next, else 0."""
    places = ranks.round(1).rank(method="dense")
    return places.where(places <= 2, 0).fillna(0).astype(int)


def build_ranked_table(
    values: pd.DataFrame,
    level: str,
    titles: Mapping[str, str],
    marks: Mapping[int, tuple[str, str]] = MARKDOWN,
    printed_ranks: Mapping[str, float] | None = None,
) -> pd.DataFrame:
    """One level as people read it: a row a method; for each dataset ours and the printed tuple.

    Args:
        values: as `check_values` has them.
        level: key of `LEVELS`.
        titles: of datasets.
        marks: what surrounds the best and the second best.
        printed_ranks: average ranks by method as the paper prints them, a column beside those that
            are computed from its values.
    """
    check_values(values)
    tables = {source: select_level(values, level, source) for source in SOURCES}
    labels = tables["ours"].index
    frame = pd.DataFrame({"method": labels})
    if "group" in values:
        frame["group"] = values.groupby("label", sort=False)["group"].first().reindex(labels).array
    ranked = tables | {"ours": tables["ours"].drop(index=list_unranked(values))}
    places = {
        source: place_values(table).reindex(labels, fill_value=0)
        for source, table in ranked.items()
    }
    for dataset in list_datasets(tables["ours"]):
        for source in SOURCES:
            cells, marked = tables[source][dataset], places[source][dataset]
            frame[f"{titles.get(dataset, dataset)}, {source}"] = [
                join_cells(_mark(cells.loc[label], marked.loc[label], marks)) for label in labels
            ]
    averages = {source: rank_methods(ranked[source]) for source in SOURCES}
    if printed_ranks:
        averages["as printed"] = pd.Series(printed_ranks, dtype=float)
    for source, average in averages.items():
        ranks = average.reindex(labels)
        frame[f"{RANK}, {source}"] = _mark(ranks, place_ranks(ranks), marks)
    return frame


def list_unranked(values: pd.DataFrame) -> list[str]:
    """Methods of which some value of ours is of random weights, or not of a zero-shot method."""
    marked = values[[name for name in UNRANKED if name in values]].astype(bool).any(axis=1)
    return list(values.loc[marked, "label"].unique())


def describe_level(values: pd.DataFrame, level: str) -> str:
    """A level's heading with the metrics of its tuples, in their order."""
    metrics = values.loc[values["metric"].str.startswith(LEVELS[level]), "metric"].unique()
    return name_level(level, metrics)


def _mark(values: pd.Series, places: pd.Series, marks: Mapping[int, tuple[str, str]]) -> list[str]:
    """Cells of values, those of a first or second place between its marks."""
    cells = []
    for value, place in zip(values, places, strict=True):
        before, after = marks.get(place, ("", ""))
        cells.append(f"{before}{format_cell(float(value))}{after}")
    return cells
