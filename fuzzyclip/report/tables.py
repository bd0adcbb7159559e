"""Tables of results: means over categories, the paper's layout, Markdown, and tables of a page.

A variant is what stands in a row of a table: a method with certain settings. Values are percent.
Tuples are always printed with their metric names: their order differs from paper to paper and is a
proven source of errors.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fuzzyclip.evaluation.metrics import METRICS, TIED_SHARE
from fuzzyclip.utils.settings import BackboneSettings
from fuzzyclip.utils.tables import read_table

#: Level to what its metrics begin with, and to the tuple that the paper prints, in its order.
LEVELS = {"Pixel": "pixel_", "Image": "image_"}
TUPLES = {
    "Pixel": ("pixel_aupro", "pixel_ap", "pixel_f1_max"),
    "Image": ("image_auroc", "image_ap", "image_f1_max"),
}
#: Tables of the paper and the datasets in them, in the paper's order.
TABLES = {"table_2": ("mvtec", "visa"), "table_3": ("btad", "dagm", "dtd", "sdd", "mpdd")}
#: Which auxiliary set's model the paper tests on which dataset (section 3.2).
PAIRS = {"mvtec": "visa", "visa": "mvtec"} | dict.fromkeys(TABLES["table_3"], "visa")

#: Metrics that stand in a table of their own, by dataset.
HEADLINE = ("pixel_ap", "pixel_aupro_std", "pixel_aupro", "image_auroc")

SAMPLE_DATA_NOTE = (
    "Drawn sample images: a demonstration of the method, not comparable with any published number."
)
SAMPLE_CLIP_NOTE = (
    "The sample CLIP was pretrained on drawings alone: for demonstration, not for inspection."
)

#: Metric names as people write them.
LABELS = {
    "pixel_auroc": "AUROC",
    "pixel_ap": "AP",
    "pixel_f1_max": "F1-max",
    "pixel_aupro": "AUPRO",
    "pixel_aupro_std": "AUPRO-std",
    "image_auroc": "AUROC",
    "image_ap": "AP",
    "image_f1_max": "F1-max",
}
MEAN = "mean"
#: Column of what the paper prints, beside ours.
PRINTED = "paper, FuzzyCLIP"
#: The last line of a headline table.
GAIN = "FuzzyCLIP over the best one without training, 95 % interval"
#: What is counted of a category, and added up over categories.
COUNTS = ("normal", "anomalous", "tied")
ABSENT = "-"
#: Columns of per-category results: their names of old, and today's.
RENAMED = {"row": "variant", "good": "normal", "bad": "anomalous"}


def read_categories(source: Path | str) -> pd.DataFrame:
    """Per-category results from a CSV file or its text; categories such as "01" and "NA" stay text.

    Columns have today's names, also where results of old name them as `RENAMED` tells.

    Raises:
        ValueError: it is no table of ours, or has no column `variant` or `category`; names the
            file.
    """
    frame = read_table(source, RENAMED)
    if missing := {"variant", "category"} - set(frame.columns):
        name = source if isinstance(source, Path) else "this text"
        raise ValueError(
            f"{name}: no column {' or '.join(sorted(missing))}; results by category are needed, "
            "as metrics/categories has them"
        )
    return frame


def name_metric(metric: str) -> str:
    """A metric as people write it, with its level: "pixel AUPRO"."""
    return f"{metric.split('_')[0]} {LABELS[metric]}"


def name_level(level: str, metrics: Iterable[str]) -> str:
    """A level with the metrics of its tuples, in their order: "Pixel (AUPRO, AP)"."""
    return f"{level} ({', '.join(LABELS[metric] for metric in metrics)})"


def name_dataset(key: str, info: Mapping[str, Any]) -> str:
    """Title of a dataset in tables; one's own images go by their key."""
    title: str = info["title"]
    return key if info["source"] == "own" else title


def add_means(categories: pd.DataFrame) -> pd.DataFrame:
    """The results with each variant's unweighted mean over categories below them.

    Their columns are `variant`, `category`, `normal`, `anomalous`, `tied` (results of old may lack
    it), the metrics and `prompt`.
    """
    means = average_variants(categories)
    return pd.concat([categories, means[categories.columns]], ignore_index=True)


def average_variants(categories: pd.DataFrame) -> pd.DataFrame:
    """Each variant's unweighted mean over categories, and its counts in all of them.

    A line a variant, in the categories' columns; a category may itself be called `MEAN`.
    """
    grouped = categories.groupby("variant", sort=False)
    means = grouped[[*METRICS]].mean().reset_index()
    counted = [name for name in COUNTS if name in categories]
    counts = grouped[counted].sum().reset_index(drop=True)
    return means.assign(category=MEAN, prompt="").join(counts)


def collect_means(results: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Means of every dataset and variant: `dataset`, `variant`, `images`, the metrics."""
    lines = []
    for dataset, categories in results.items():
        means = average_variants(categories)
        images = means["normal"] + means["anomalous"]
        lines.append(means[["variant", *METRICS]].assign(dataset=dataset, images=images))
    frame = pd.concat(lines, ignore_index=True)
    return frame[["dataset", "variant", "images", *METRICS]]


def list_ties(
    results: Mapping[str, pd.DataFrame], variants: Mapping[str, str], titles: Mapping[str, str]
) -> list[str]:
    """A sentence on each variant of whose image scores on a dataset `TIED_SHARE` or more are tied.

    Variants without a title are left out; results of old do not say what tied.
    """
    piles: dict[str, list[str]] = {}
    for dataset, categories in results.items():
        if "tied" not in categories:
            continue
        sums = categories.groupby("variant", sort=False)[[*COUNTS]].sum()
        for variant, counts in sums.iterrows():
            images = counts["normal"] + counts["anomalous"]
            if variant in variants and counts["tied"] >= TIED_SHARE * images > 0:
                pile = f"{counts['tied']:.0f} of {images:.0f} on {titles.get(dataset, dataset)}"
                piles.setdefault(str(variant), []).append(pile)
    return [
        f"{title}: image scores tie at an end of their scale, {', '.join(piles[variant])}."
        for variant, title in variants.items()
        if variant in piles
    ]


def list_partial_means(
    results: Mapping[str, pd.DataFrame], variants: Mapping[str, str], titles: Mapping[str, str]
) -> list[str]:
    """A sentence on each metric whose means are over fewer categories than there are.

    Some maps leave a metric undefined, the 200-threshold AUPRO above all; the mean of such a
    variant is then not of the same categories as another's.
    """
    notes = []
    for metric in METRICS:
        partial = []
        for dataset, categories in results.items():
            shown = categories[categories["variant"].isin([*variants])]
            counts = shown.groupby("variant")[metric].count()
            known, of = counts[counts > 0], shown["category"].nunique()
            if len(known) and known.min() < of:
                partial.append(f"{known.min()} of {of} on {titles.get(dataset, dataset)}")
        if partial:
            notes.append(
                f"{name_metric(metric)} is undefined in some categories, and means leave them out; "
                f"the fewest that a row's is over: {', '.join(partial)}."
            )
    return notes


def list_short_clusters(facts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A sentence on each auxiliary set with clusters that have too few images for their training.

    `facts` has FuzzyCLIP's of each tested dataset: `auxiliary` and `short_clusters`, as
    `fuzzyclip.method.efa_training.find_short_clusters` gives them; results of old may lack these.
    """
    sets = {fact["auxiliary"]: fact.get("short_clusters", []) for fact in facts.values()}
    notes = []
    for auxiliary, shorts in sets.items():
        made = [f"{{{', '.join(short['names'])}}} made {short['steps']} steps" for short in shorts]
        if made:
            notes.append(
                f"EFA on {auxiliary}: too few images for the training of a cluster, whose layers "
                f"stay near their start: {'; '.join(made)}."
            )
    return notes


def average_datasets(means: pd.DataFrame) -> pd.DataFrame:
    """Unweighted mean over datasets of each variant."""
    return means.groupby("variant", sort=False)[[*METRICS]].mean().reset_index()


def build_headline(
    means: pd.DataFrame,
    metric: str,
    variants: Mapping[str, str],
    titles: Mapping[str, str],
    gains: Mapping[str, Mapping[str, Any]],
) -> pd.DataFrame:
    """One metric: variants down, datasets and their mean across, percent, as text.

    Args:
        means: from `collect_means`.
        metric: of `METRICS`.
        variants: variant to its title; those that `means` lacks are left out.
        titles: dataset to its title.
        gains: dataset to its entry of this metric from `evaluation.gains.Gains.describe`, where
            there is one; they stand in the last line, their mean without an interval.
    """
    wide = means.pivot_table(metric, "variant", "dataset", sort=False, dropna=False)
    wide = wide.reindex(index=[name for name in variants if name in wide.index], columns=[*titles])
    wide = wide.assign(**{MEAN: wide.mean(axis=1)}).rename(index=variants, columns=titles)
    table = wide.map(format_cell)
    if gains:
        cells = [_format_gain(gains[name]) if name in gains else ABSENT for name in titles]
        mean = sum(gain["difference"] for gain in gains.values()) / len(gains)
        table.loc[GAIN] = [*cells, f"{mean:+.1f}"]
    return table.rename_axis("variant").rename_axis(None, axis=1).reset_index()


def _format_gain(gain: Mapping[str, Any]) -> str:
    """A difference in points with the ends of its interval, where there is one."""
    difference = f"{gain['difference']:+.1f}"
    if gain["low"] is None:
        return difference
    return f"{difference} ({gain['low']:+.1f} to {gain['high']:+.1f})"


def describe_datasets(tested: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """A line a dataset: protocol, test images, licence, what was left out.

    `tested` has the facts of each one's index (`fuzzyclip.images.index_file.Index`).
    """
    lines = []
    for name, info in tested.items():
        counts = info["counts"].values()
        lines.append(
            {
                "dataset": name,
                "title": info["title"],
                "protocol": info["protocol"],
                "categories": len(info["counts"]),
                "normal": sum(count["test_normal"] for count in counts),
                "anomalous": sum(count["test_anomalous"] for count in counts),
                "mask pixels": info["masks"],
                "verified": "yes" if info["verified"] else "no",
                "left out": len(info["dropped"]),
                "in both splits": len(info["duplicates"]),
                "licence": "none (drawn)" if info["source"] == "sample" else info["licence"],
            }
        )
    return pd.DataFrame(lines)


def format_tuple(values: Mapping[str, float], metrics: Sequence[str]) -> str:
    """One cell, e.g. `(86.4, 46.0, 47.6)`; a metric that is absent shows as a dash."""
    cells = [values.get(metric, float("nan")) for metric in metrics]
    return "(" + ", ".join(ABSENT if np.isnan(cell) else f"{cell:.1f}" for cell in cells) + ")"


def build_table(
    means: pd.DataFrame,
    datasets: Sequence[str],
    variants: Mapping[str, str],
    titles: Mapping[str, str],
    printed: Mapping[str, Mapping[str, float]] | None = None,
) -> pd.DataFrame:
    """One of the paper's tables: level and dataset down, our variants across, tuples in the cells.

    Args:
        means: from `collect_means`; datasets that it lacks are left out.
        datasets: those of the table, by key.
        variants: variant to its title.
        titles: dataset to its title.
        printed: dataset -> metric -> what the paper prints for FuzzyCLIP; adds a column.
    """
    lines = []
    for level, metrics in TUPLES.items():
        for dataset in datasets:
            chosen = means[means["dataset"] == dataset]
            if chosen.empty:
                continue
            cells = dict(zip(chosen["variant"], chosen[[*METRICS]].to_dict("records"), strict=True))
            line = {"level": name_level(level, metrics), "dataset": titles[dataset]}
            for variant, title in variants.items():
                if variant in cells:
                    line[title] = format_tuple(cells[variant], metrics)
            if printed is not None:
                line[PRINTED] = format_tuple(printed[dataset], metrics)
            lines.append(line)
    return pd.DataFrame(lines)


def format_cell(value: object, digits: int = 1) -> str:
    """Text of a cell; an absent number is a dash."""
    if isinstance(value, float | np.floating):
        return ABSENT if np.isnan(value) else f"{value:.{digits}f}"
    return str(value)


def format_score(score: float) -> str:
    """An image score: log-odds with their sign, as people compare them."""
    return f"{score:+.2f}".replace("-", "−")


def join_cells(cells: Sequence[str]) -> str:
    """A tuple of cells as one; a dash where all are absent."""
    return ABSENT if all(cell == ABSENT for cell in cells) else f"({', '.join(cells)})"


def to_markdown(frame: pd.DataFrame) -> str:
    """A GitHub pipe table; numbers with one decimal, an absent number as a dash."""
    head = [str(column) for column in frame.columns]
    lines = [head, ["---"] * len(head)]
    lines += [
        [format_cell(value).replace("|", "\\|") for value in line]
        for line in frame.itertuples(index=False)
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


@dataclass(frozen=True)
class Table:
    """A table as a page shows it, of text; the first column names the lines.

    Attributes:
        caption: its title.
        head: names of the columns.
        lines: cells as text, or as HTML where they are `markupsafe.Markup`.
        numbers: whether columns are numbers, set flush right.
        words: so many columns on the left are not.
        group: lines that share a name, which stands once.
    """

    caption: str
    head: Sequence[str]
    lines: Sequence[Sequence[str]]
    numbers: bool = True
    words: int = 1
    group: int = 1


def tabulate(frame: pd.DataFrame, caption: str, *, numbers: bool = True, digits: int = 1) -> Table:
    """A data frame as a table of a page."""
    lines = [[format_cell(cell, digits) for cell in line] for line in frame.to_numpy(object)]
    return Table(caption, [str(column) for column in frame.columns], lines, numbers)


def is_paper_setting(
    source: str,
    clip: BackboneSettings,
    pairs: Mapping[str, str],
    tested: Mapping[str, Mapping[str, Any]],
    any_pairs: bool = False,
) -> bool:
    """True if results may stand beside the paper's numbers.

    Args:
        source: of the data, `official` or not.
        clip: the run's.
        pairs: tested dataset to auxiliary set; those of datasets that the paper has count.
        tested: facts of the datasets.
        any_pairs: whether other auxiliary sets than the main tables' will do (Table 6).
    """
    papers = {dataset: auxiliary for dataset, auxiliary in pairs.items() if dataset in PAIRS}
    return (
        source == "official"
        and clip.model in ("ViT-L-14-336", "ViT-L-14-336-quickgelu")
        and clip.weights != "random"
        and clip.image_size == 518
        and clip.blocks == (6, 12, 18, 24)
        and (any_pairs or all(PAIRS[dataset] == papers[dataset] for dataset in papers))
        and all(tested[dataset]["complete"] for dataset in papers)
    )


def list_sample_notes(source: str, backbone: str) -> list[str]:
    """Sentences that go with results of the built-in sample; none without it."""
    notes = [SAMPLE_DATA_NOTE] if source == "sample" else []
    return [*notes, SAMPLE_CLIP_NOTE] if backbone == "sample" else notes
