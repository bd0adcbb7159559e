"""The paper's table layout from per-category results: a dataset a row, metric tuples in cells.

Values are percent. Tuples are always printed with their metric names: their order differs from
paper to paper and is a proven source of errors.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from fuzzyclip.evaluation.metrics import METRICS, TIED_SHARE
from fuzzyclip.report.paper import IMAGE_TUPLE, PIXEL_TUPLE

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
LEVELS = {"Pixel": PIXEL_TUPLE, "Image": IMAGE_TUPLE}
MEAN = "mean"
#: What is counted of a category, and added up over categories.
COUNTS = ("good", "bad", "tied")
ABSENT = "-"


def name_dataset(key: str, info: Mapping[str, Any]) -> str:
    """Title of a dataset in tables; one's own images go by their key.

    Args:
        key: of the dataset.
        info: from its index.
    """
    title: str = info["title"]
    return key if info["source"] == "own" else title


def add_means(categories: pd.DataFrame) -> pd.DataFrame:
    """Append each row's unweighted mean over categories.

    Args:
        categories: columns `row`, `category`, `good`, `bad`, `tied` (results of old may lack it),
            the metrics, `prompt`.
    """
    grouped = categories.groupby("row", sort=False)
    means = grouped[[*METRICS]].mean().reset_index()
    counted = [name for name in COUNTS if name in categories]
    counts = grouped[counted].sum().reset_index(drop=True)
    means = means.assign(category=MEAN, prompt="").join(counts)
    return pd.concat([categories, means[categories.columns]], ignore_index=True)


def collect_means(results: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Means of every dataset and row, long form: `dataset`, `row`, `images`, the metrics."""
    lines = []
    for dataset, categories in results.items():
        means = add_means(categories)
        means = means[means["category"] == MEAN]
        images = means["good"] + means["bad"]
        lines.append(means[["row", *METRICS]].assign(dataset=dataset, images=images))
    frame = pd.concat(lines, ignore_index=True)
    return frame[["dataset", "row", "images", *METRICS]]


def list_ties(
    results: Mapping[str, pd.DataFrame], rows: Mapping[str, str], titles: Mapping[str, str]
) -> list[str]:
    """A sentence on each row of whose image scores on a dataset `TIED_SHARE` or more are tied.

    Args:
        results: dataset to its table by row and category, see `add_means`; results of old do not
            say what tied.
        rows: row to its title; others are left out.
        titles: dataset to its title.
    """
    piles: dict[str, list[str]] = {}
    for dataset, categories in results.items():
        if "tied" not in categories:
            continue
        counts = categories.groupby("row", sort=False)[[*COUNTS]].sum()
        for row, found in counts.iterrows():
            images = found["good"] + found["bad"]
            if row in rows and found["tied"] >= TIED_SHARE * images > 0:
                said = f"{found['tied']:.0f} of {images:.0f} on {titles.get(dataset, dataset)}"
                piles.setdefault(str(row), []).append(said)
    return [
        f"{rows[row]}: image scores tie at an end of their scale, {', '.join(piles[row])}."
        for row in rows
        if row in piles
    ]


def average_datasets(means: pd.DataFrame) -> pd.DataFrame:
    """Unweighted mean over datasets of each row of the table."""
    return means.groupby("row", sort=False)[[*METRICS]].mean().reset_index()


def describe_datasets(tested: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """What each result was measured on: protocol, test images, licence, what was left out.

    Args:
        tested: dataset -> facts of its index (`fuzzyclip.images.index_file.Index`) and `prompts`.
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
                "normal": sum(one["test_good"] for one in counts),
                "anomalous": sum(one["test_bad"] for one in counts),
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
    rows: Mapping[str, str],
    titles: Mapping[str, str],
    printed: Mapping[str, Mapping[str, float]] | None = None,
) -> pd.DataFrame:
    """One of the paper's tables: level and dataset down, our rows across, tuples in the cells.

    Args:
        means: from `collect_means`.
        datasets: those of the table; absent ones are left out.
        rows: row name to its title.
        titles: dataset name to its title.
        printed: dataset -> metric -> what the paper prints for FuzzyCLIP; adds a column.
    """
    lines = []
    for level, metrics in LEVELS.items():
        named = f"{level} ({', '.join(LABELS[metric] for metric in metrics)})"
        for dataset in datasets:
            chosen = means[means["dataset"] == dataset]
            if chosen.empty:
                continue
            cells = dict(zip(chosen["row"], chosen[[*METRICS]].to_dict("records"), strict=True))
            line = {"level": named, "dataset": titles[dataset]}
            for row, title in rows.items():
                if row in cells:
                    line[title] = format_tuple(cells[row], metrics)
            if printed is not None:
                line["paper, FuzzyCLIP"] = format_tuple(printed[dataset], metrics)
            lines.append(line)
    return pd.DataFrame(lines)


def to_markdown(frame: pd.DataFrame) -> str:
    """A GitHub pipe table; numbers with one decimal, an absent number as a dash."""

    def write(value: object) -> str:
        if isinstance(value, float):
            return ABSENT if np.isnan(value) else f"{value:.1f}"
        return str(value).replace("|", "\\|")

    head = [str(column) for column in frame.columns]
    lines = [head, ["---"] * len(head)]
    lines += [[write(value) for value in line] for line in frame.itertuples(index=False)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
