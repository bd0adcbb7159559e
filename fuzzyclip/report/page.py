"""The page of one experiment: summary, tables, bars, curves, clusters and gallery."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from fuzzyclip.evaluation import KINDS
from fuzzyclip.evaluation.metrics import METRICS
from fuzzyclip.method import OWN, get_title
from fuzzyclip.report.clusters import build_clusters, describe_groups
from fuzzyclip.report.curves import Curve, build_curves, build_training
from fuzzyclip.report.gallery import GalleryImage, build_cards, describe_scale
from fuzzyclip.report.render import render
from fuzzyclip.report.tables import (
    MEAN,
    Table,
    add_means,
    average_datasets,
    collect_means,
    format_cell,
    name_metric,
    tabulate,
)

#: Metric to its title.
TITLES = {metric: name_metric(metric) for metric in METRICS}
#: Parameters by which a reader tells pages apart.
IDENTITY = ("data.source", "backbone", "seed")


@dataclass(frozen=True)
class DatasetResult:
    """All that a page shows of a dataset.

    Attributes:
        title: of the dataset.
        auxiliary: the set whose model was tested on it.
        categories: per-category results, as `add_means` takes them.
        scores: a line an image: `category`, `label`, and a column of scores for each variant.
        pixels: category -> FuzzyCLIP's curve over its pixels, where there is one.
        examples: the gallery.
    """

    title: str
    auxiliary: str
    categories: pd.DataFrame
    scores: pd.DataFrame
    pixels: Mapping[str, Curve]
    examples: Sequence[GalleryImage]


@dataclass(frozen=True)
class PageContent:
    """All that a page shows of an experiment.

    Attributes:
        notes: what is to be said of the numbers.
        params: dotted name -> value, of what decided the result.
        tables: the paper's tables, by title, as text.
        tested: what was tested, a line a dataset.
        datasets: key -> result.
        curves: title -> training curve, as `build_training` takes it.
        partitions: auxiliary set -> scores of k, as `build_clusters` takes them.
    """

    notes: Sequence[str]
    params: Mapping[str, str]
    tables: Mapping[str, pd.DataFrame]
    tested: pd.DataFrame
    datasets: Mapping[str, DatasetResult]
    curves: Mapping[str, pd.DataFrame]
    partitions: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Bar:
    """A number in percent as text, and the length of its bar, 0 to 100."""

    text: str
    length: float


@dataclass(frozen=True)
class Bars:
    """One metric on one dataset.

    Attributes:
        dataset: key of the panel's dataset.
        metric: the panel's metric.
        title: of the table.
        head: titles of the variants, FuzzyCLIP first.
        lines: category -> a bar for each variant; the mean last.
    """

    dataset: str
    metric: str
    title: str
    head: Sequence[str]
    lines: Mapping[str, Sequence[Bar]]


def render_page(content: PageContent) -> str:
    """The whole page; equal contents give equal pages."""
    results = content.datasets
    means = collect_means({name: result.categories for name, result in results.items()})
    variants = list(dict.fromkeys(means["variant"]))
    return render(
        "page.html",
        title="FuzzyCLIP: report of an experiment",
        identity={name: content.params[name] for name in IDENTITY if name in content.params},
        notes=content.notes,
        params=Table("Parameters", ["parameter", "value"], [*content.params.items()], False),
        headline=_summarise(means, results),
        tables=[tabulate(frame, title, numbers=False) for title, frame in content.tables.items()],
        averages=_average(means, len(results)),
        tested=tabulate(content.tested, "What was tested", numbers=False),
        datasets={name: result.title for name, result in results.items()},
        metrics=TITLES,
        bars=[
            panel
            for name, result in results.items()
            for panel in build_bars(name, result.title, result.categories)
        ],
        curves=[
            panel
            for name, result in results.items()
            for panel in build_curves(name, result.scores, variants, result.pixels)
        ],
        training=build_training(content.curves),
        clusters=[build_clusters(name, scores) for name, scores in content.partitions.items()],
        describe_groups=describe_groups,
        kinds=KINDS,
        cards=[
            card
            for name, result in results.items()
            for card in build_cards(name, result.title, result.examples)
        ],
        categories={
            name: sorted({example.category for example in result.examples})
            for name, result in results.items()
        },
        scale=describe_scale(),
    )


def _summarise(means: pd.DataFrame, results: Mapping[str, DatasetResult]) -> Table:
    """FuzzyCLIP's means, a line a dataset."""
    own = means[means["variant"] == OWN].set_index("dataset")
    frame = own.loc[[*results], ["images", *METRICS]].rename(columns=TITLES)
    frame.insert(0, "trained on", [result.auxiliary for result in results.values()])
    frame.insert(0, "dataset", [result.title for result in results.values()])
    return tabulate(frame, "FuzzyCLIP, mean over the categories of each dataset [%]")


def _average(means: pd.DataFrame, count: int) -> Table:
    """Every variant's mean over datasets."""
    frame = average_datasets(means)
    frame["variant"] = [get_title(variant) for variant in frame["variant"]]
    frame = frame.rename(columns=TITLES)
    return tabulate(frame, f"Mean over {count} dataset(s) [%]")


def build_bars(key: str, title: str, categories: pd.DataFrame) -> list[Bars]:
    """A panel for each metric that a dataset has."""
    frame = add_means(categories)
    variants = sorted(dict.fromkeys(frame["variant"]), key=lambda variant: variant != OWN)
    panels = []
    for metric in METRICS:
        wide = frame.pivot_table(metric, "category", "variant", sort=False, dropna=False)
        if metric not in frame or frame[metric].isna().all():
            continue
        names = [*dict.fromkeys(categories["category"]), MEAN]
        values = wide.reindex(index=names, columns=variants)
        lines = {
            str(name): [
                Bar(format_cell(float(value)), 0.0 if pd.isna(value) else round(float(value), 2))
                for value in line
            ]
            for name, line in zip(values.index, values.to_numpy(), strict=True)
        }
        head = [get_title(variant) for variant in variants]
        panels.append(Bars(key, metric, f"{title}: {TITLES[metric]} [%]", head, lines))
    return panels
