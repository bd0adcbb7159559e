"""HTML pages in one file; that of one experiment: summary, tables, bars, curves and gallery."""

import base64
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from fuzzyclip.evaluation import KINDS
from fuzzyclip.evaluation.metrics import METRICS
from fuzzyclip.method import OWN, VARIANTS, get_title
from fuzzyclip.report.best import mark_best, mark_table
from fuzzyclip.report.charts import FRAME, build_clusters
from fuzzyclip.report.curves import Curve, build_curves, build_training
from fuzzyclip.report.gallery import GalleryImage, build_cards, describe_scale
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

TEMPLATES = Path(__file__).with_name("templates")
#: Metric to its title.
TITLES = {metric: name_metric(metric) for metric in METRICS}
#: Parameters by which a reader tells pages apart.
IDENTITY = ("data.source", "backbone", "seed")
#: Variants without training, which the summary sets beside FuzzyCLIP.
UNTRAINED = tuple(variant for variant in VARIANTS if variant != OWN)


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
        tested: a line a dataset.
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
class Bars:
    """One metric on one dataset.

    Attributes:
        dataset: its key.
        metric: as results name it.
        title: of the table.
        head: titles of the variants, FuzzyCLIP first.
        lines: category -> for each variant its percent, the highest in bold, and the length of the
            bar, 0 to 100; the mean last.
    """

    dataset: str
    metric: str
    title: str
    head: Sequence[str]
    lines: Mapping[str, Sequence[tuple[str, float]]]


def render_page(content: PageContent) -> str:
    """The whole page; equal contents give equal pages."""
    results = content.datasets
    means = collect_means({name: result.categories for name, result in results.items()})
    variants = list(dict.fromkeys(means["variant"]))
    bars, curves, cards = [], [], []
    for name, result in results.items():
        bars += build_bars(name, result.title, result.categories)
        curves += build_curves(name, result.scores, variants, result.pixels)
        cards += build_cards(name, result.title, result.examples)
    return render(
        "page.html",
        title="FuzzyCLIP: report of an experiment",
        identity={name: content.params[name] for name in IDENTITY if name in content.params},
        notes=content.notes,
        params=Table("Parameters", ["parameter", "value"], [*content.params.items()], False),
        headline=_summarise(means, results),
        tables=[mark_table(frame, title) for title, frame in content.tables.items()],
        averages=_average(means, len(results)),
        tested=tabulate(content.tested, "What was tested", numbers=False),
        datasets={name: result.title for name, result in results.items()},
        metrics=TITLES,
        bars=bars,
        curves=curves,
        training=build_training(content.curves),
        clusters=[build_clusters(name, scores) for name, scores in content.partitions.items()],
        kinds=KINDS,
        cards=cards,
        categories={
            name: sorted({example.category for example in result.examples})
            for name, result in results.items()
        },
        scale=describe_scale(),
    )


def _summarise(means: pd.DataFrame, results: Mapping[str, DatasetResult]) -> Table:
    """FuzzyCLIP's means of each dataset, beside the best that is reached without training.

    That is the best variant of each metric, which is more than any one of them has.
    """
    own = means[means["variant"] == OWN].set_index("dataset").loc[[*results], [*METRICS]]
    untrained = means[means["variant"].isin(UNTRAINED)]
    rivals = untrained.groupby("dataset")[[*METRICS]].max().reindex([*results])
    images = means.drop_duplicates("dataset").set_index("dataset")["images"]
    lines: list[list[str]] = []
    for name, result in results.items():
        facts = [f"{images[name]}", result.auxiliary]
        ours, theirs = pd.Series(own.loc[name]), pd.Series(rivals.loc[name])
        lines += _pair(result.title, ours, theirs, facts)
    if len(results) > 1:
        shared = rivals.where(own.notna())  # a mean is over the same datasets as FuzzyCLIP's
        known = shared.mean().where((shared.notna() == own.notna()).all())
        lines += _pair(MEAN, own.mean(), known, [f"{images.sum()}", ""])
    head = ["dataset", "variant", *TITLES.values(), "images", "trained on"]
    if untrained.empty:
        title = "FuzzyCLIP, mean over the categories of each dataset [%]"
        return Table(title, head, lines[::2], words=2)
    title = "FuzzyCLIP and, metric by metric, the best variant without training"
    caption = f"{title}; mean over the categories of each dataset [%]"
    return Table(caption, head, lines, words=2, group=2)


def _pair(name: str, own: pd.Series, rival: pd.Series, facts: list[str]) -> list[list[str]]:
    """FuzzyCLIP's line of the summary and the one that it is held against, the better in bold."""
    cells = [mark_best([format_cell(own[m]), format_cell(rival[m])]) for m in METRICS]
    return [
        [name, "FuzzyCLIP", *(ours for ours, _ in cells), *facts],
        [name, "without training", *(theirs for _, theirs in cells), facts[0], ""],
    ]


def _average(means: pd.DataFrame, count: int) -> Table:
    """Every variant's mean over datasets."""
    frame = average_datasets(means)
    frame["variant"] = [get_title(variant) for variant in frame["variant"]]
    frame = frame.rename(columns=TITLES)
    return mark_table(frame, f"Mean over {count} dataset(s) [%]")


def build_bars(key: str, title: str, categories: pd.DataFrame) -> list[Bars]:
    """A panel for each metric that a dataset has."""
    frame = add_means(categories)
    names = [*dict.fromkeys(frame["category"])]  # the mean last
    variants = sorted(dict.fromkeys(frame["variant"]), key=lambda variant: variant != OWN)
    head = [get_title(variant) for variant in variants]
    panels = []
    for metric in METRICS:
        if frame[metric].isna().all():
            continue
        wide = frame.pivot_table(metric, "category", "variant", sort=False, dropna=False)
        wide = wide.reindex(index=names, columns=variants)
        lines = {}
        for name in names:
            values = [float(value) for value in wide.loc[name]]
            lengths = [0.0 if math.isnan(value) else round(value, 2) for value in values]
            texts = mark_best([format_cell(value) for value in values])
            lines[name] = [*zip(texts, lengths, strict=True)]
        panels.append(Bars(key, metric, f"{title}: {TITLES[metric]} [%]", head, lines))
    return panels


def render(template: str, **values: Any) -> str:
    """A page from a template of this package, by its file name; text in `values` is escaped.

    It asks for nothing else: styles and scripts stand in it, and its policy forbids every request
    and every script but its own, so that also a hostile file name can do nothing.
    """
    style = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8")
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    policy = (
        f"default-src 'none'; img-src data:; style-src {_digest(style)}; "
        f"script-src {_digest(script)}; base-uri 'none'; form-action 'none'"
    )
    # our own files; their digests above are of exactly this text
    own = {"style": Markup(style), "script": Markup(script), "policy": policy}
    return environment.get_template(template).render(FRAME | own | values)


def _digest(text: str) -> str:
    """A source expression of the Content Security Policy for inline text."""
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"
