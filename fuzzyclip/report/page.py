"""The report of one experiment."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from fuzzyclip.evaluation.choice import KINDS
from fuzzyclip.evaluation.metrics import METRICS
from fuzzyclip.evaluation.rows import TRAINED
from fuzzyclip.report.bars import build_bars, name_metric, name_row
from fuzzyclip.report.clusters import build_clusters, describe_groups
from fuzzyclip.report.curve_charts import build_curves
from fuzzyclip.report.curves import Curve
from fuzzyclip.report.gallery import Example, build_cards
from fuzzyclip.report.images import describe_scale
from fuzzyclip.report.parts import Table, tabulate
from fuzzyclip.report.render import render
from fuzzyclip.report.tables import average_datasets, collect_means
from fuzzyclip.report.training import build_training

#: Parameters by which a reader tells pages apart.
IDENTITY = ("data.source", "backbone", "seed")


@dataclass(frozen=True)
class DatasetResult:
    """What is shown of a dataset.

    Attributes:
        title: of the dataset.
        auxiliary: the set whose model was tested on it.
        categories: per-category results, as `fuzzyclip.report.tables.add_means` takes them.
        scores: a line an image: `category`, `label`, and a column of scores for each row.
        pixels: category -> FuzzyCLIP's curve over its pixels, where there is one.
        examples: the gallery.
    """

    title: str
    auxiliary: str
    categories: pd.DataFrame
    scores: pd.DataFrame
    pixels: Mapping[str, Curve]
    examples: Sequence[Example]


@dataclass(frozen=True)
class Experiment:
    """All that a page shows.

    Attributes:
        notes: what is to be said of the numbers.
        params: dotted name -> value, of what decided the result.
        tables: the paper's tables, by title, as text.
        tested: what was tested, a line a dataset.
        datasets: key -> result.
        curves: title -> training curve, see `fuzzyclip.report.training.build_training`.
        partitions: auxiliary set -> scores, see `fuzzyclip.report.clusters.build_clusters`.
    """

    notes: Sequence[str]
    params: Mapping[str, str]
    tables: Mapping[str, pd.DataFrame]
    tested: pd.DataFrame
    datasets: Mapping[str, DatasetResult]
    curves: Mapping[str, pd.DataFrame]
    partitions: Mapping[str, Mapping[str, Any]]


def render_page(experiment: Experiment) -> str:
    """The whole page; equal experiments give equal pages."""
    results = experiment.datasets
    means = collect_means({name: one.categories for name, one in results.items()})
    rows = list(dict.fromkeys(means["row"]))
    return render(
        "page.html",
        title="FuzzyCLIP: report of an experiment",
        identity={name: experiment.params[name] for name in IDENTITY if name in experiment.params},
        notes=experiment.notes,
        params=list_params(experiment.params),
        headline=_summarise(means, results),
        tables=[
            tabulate(frame, title, numbers=False) for title, frame in experiment.tables.items()
        ],
        averages=_average(means, len(results)),
        tested=tabulate(experiment.tested, "What was tested", numbers=False),
        datasets={name: one.title for name, one in results.items()},
        metrics={metric: name_metric(metric) for metric in METRICS},
        bars=[
            panel
            for name, one in results.items()
            for panel in build_bars(name, one.title, one.categories)
        ],
        curves=[
            panel
            for name, one in results.items()
            for panel in build_curves(name, one.scores, rows, one.pixels)
        ],
        training=build_training(experiment.curves),
        clusters=[build_clusters(name, found) for name, found in experiment.partitions.items()],
        describe_groups=describe_groups,
        kinds=KINDS,
        cards=[
            card
            for name, one in results.items()
            for card in build_cards(name, one.title, one.examples)
        ],
        categories={
            name: sorted({e.category for e in one.examples}) for name, one in results.items()
        },
        scale=describe_scale(),
    )


def list_params(params: Mapping[str, str]) -> Table:
    """Parameters as a table."""
    lines = [[name, value] for name, value in params.items()]
    return Table("Parameters", ["parameter", "value"], lines, False)


def _summarise(means: pd.DataFrame, results: Mapping[str, DatasetResult]) -> Table:
    """FuzzyCLIP's means, a line a dataset."""
    own = means[means["row"] == TRAINED].set_index("dataset")
    frame = own.loc[[*results], ["images", *METRICS]].rename(columns=name_metric_or_keep)
    frame.insert(0, "trained on", [one.auxiliary for one in results.values()])
    frame.insert(0, "dataset", [one.title for one in results.values()])
    return tabulate(frame, "FuzzyCLIP, mean over the categories of each dataset [%]")


def _average(means: pd.DataFrame, count: int) -> Table:
    """Every row's mean over datasets."""
    frame = average_datasets(means)
    frame["row"] = [name_row(row) for row in frame["row"]]
    frame = frame.rename(columns=name_metric_or_keep)
    return tabulate(frame, f"Mean over {count} dataset(s) [%]")


def name_metric_or_keep(column: str) -> str:
    """Title of a column."""
    return name_metric(column) if column in METRICS else column
