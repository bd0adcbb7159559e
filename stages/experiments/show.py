"""A table of runs: ours, the paper's and the difference, or differences between its rows.

Tuples always stand with the names of their metrics.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from fuzzyclip.evaluation.bootstrap import (
    ImageResults,
    Spread,
    compare_experiments,
    summarise_runs,
)
from fuzzyclip.evaluation.summaries import read_summaries
from fuzzyclip.method import OWN
from fuzzyclip.report.tables import ABSENT, LABELS
from stages import paths
from stages.experiments.catalog import Catalog, CatalogError, PaperExperiment, TableRow
from stages.experiments.plan import Run
from stages.experiments.results import read_means

AVERAGE = "average"
#: Of the bootstrap.
RESAMPLES = 2000
SCORES = "scores.csv"
LEVELS = {"Pixel": "pixel_", "Image": "image_"}


def collect_values(
    experiment: PaperExperiment, runs: Sequence[Run], comparable: bool = True
) -> pd.DataFrame:
    """Every value of a table in long form.

    Args:
        experiment: the table.
        runs: its runs, all seeds; those that are not done have no values.
        comparable: whether the printed values may stand beside ours.

    Returns:
        Columns `label`, `dataset`, `metric`, `ours` (mean over seeds), `spread` (sample standard
        deviation, absent for one seed), `seeds`, `paper`, `difference`; percent.
    """
    lines = []
    for row in experiment.rows:
        tested = [*row.tests] or [*row.printed]
        for dataset in tested:
            measured = _measure(row, dataset, runs)
            printed = row.printed.get(dataset, [None] * len(experiment.metrics or []))
            for metric, paper in zip(experiment.metrics or [], printed, strict=True):
                spread = measured.get(metric)
                lines.append(_line(row.label, dataset, metric, spread, paper, comparable))
        if experiment.average:
            lines += _average(lines, row.label)
    return pd.DataFrame(lines)


def _measure(row: TableRow, dataset: str, runs: Sequence[Run]) -> dict[str, Spread]:
    """Mean over categories of each metric, and its spread over the finished seeds."""
    done = [run.results for run in runs if run.row.label == row.label and run.results]
    means = [read_means(results, dataset, variant=row.variant) for results in done]
    return summarise_runs([values for values in means if values])


def _line(
    label: str,
    dataset: str,
    metric: str,
    measured: Spread | None,
    paper: float | None,
    comparable: bool,
) -> dict[str, object]:
    ours = measured.mean if measured else np.nan
    printed = np.nan if paper is None else paper
    return {
        "label": label,
        "dataset": dataset,
        "metric": metric,
        "ours": ours,
        "spread": np.nan if measured is None or measured.deviation is None else measured.deviation,
        "seeds": measured.runs if measured else 0,
        "paper": printed,
        "difference": ours - printed if comparable else np.nan,
    }


def _average(lines: Sequence[Mapping[str, object]], label: str) -> list[dict[str, object]]:
    """Unweighted mean over the tested datasets, where every one has a value."""
    frame = pd.DataFrame([line for line in lines if line["label"] == label])
    averaged: list[dict[str, object]] = []
    for metric, group in frame.groupby("metric", sort=False):
        means = {
            name: float(group[name].mean(skipna=False)) for name in ("ours", "paper", "difference")
        }
        line: dict[str, object] = {"label": label, "dataset": AVERAGE, "metric": metric}
        line |= {**means, "spread": np.nan, "seeds": int(group["seeds"].min())}
        averaged.append(line)
    return averaged


def layout(values: pd.DataFrame, titles: Mapping[str, str]) -> pd.DataFrame:
    """The long table as people read it: a line a row and dataset, tuples by level in the cells.

    Args:
        values: from `collect_values`.
        titles: dataset -> its name in the table.
    """
    lines = []
    for (label, dataset), group in values.groupby(["label", "dataset"], sort=False):
        line = {"row": label, "tested on": titles.get(str(dataset), str(dataset))}
        for level, prefix in LEVELS.items():
            chosen = group[group["metric"].str.startswith(prefix)]
            if chosen.empty:
                continue
            names = ", ".join(LABELS[metric] for metric in chosen["metric"])
            ours = [_spread(*one) for one in zip(chosen["ours"], chosen["spread"], strict=True)]
            line[f"{level} ({names}): ours"] = _tuple(ours)
            line["paper" if f"{level}" == "Pixel" else "paper "] = _tuple(
                [_number(value) for value in chosen["paper"]]
            )
            line["difference" if f"{level}" == "Pixel" else "difference "] = _tuple(
                [_number(value, "+.1f") for value in chosen["difference"]]
            )
        lines.append(line)
    return pd.DataFrame(lines).fillna(ABSENT)


def _number(value: float, form: str = ".1f") -> str:
    return ABSENT if np.isnan(value) else format(value, form)


def _spread(ours: float, spread: float) -> str:
    """A mean, with its spread over seeds where there are several."""
    mean = _number(ours)
    return mean if np.isnan(spread) else f"{mean} ± {spread:.1f}"


def _tuple(cells: Sequence[str]) -> str:
    return ABSENT if all(cell == ABSENT for cell in cells) else f"({', '.join(cells)})"


def list_notes(
    catalog: Catalog, experiment: PaperExperiment, comparable: bool, source: str
) -> list[str]:
    """Footnotes: contradictions of the paper that bear on the table, and what our values are."""
    notes = [f"{name}: {catalog.notes[name]}" for name in experiment.notes]
    if not comparable:
        notes.append(
            f"Ours are measured with other data or another backbone than the paper's ({source}): "
            "no difference is formed, and no number compares with a printed one."
        )
    return notes


def find_run(runs: Sequence[Run], label: str) -> Run:
    """The finished run of a row, first seed.

    Raises:
        CatalogError: there is no such row, or it has not been run.
    """
    named = [run for run in runs if run.row.label == label]
    if not named:
        labels = ", ".join(dict.fromkeys(repr(run.row.label) for run in runs))
        raise CatalogError(f"no row {label!r}; there are {labels}")
    if named[0].results is None:
        command = f"fuzzyclip tables run {named[0].experiment}"
        raise CatalogError(f"{label!r} has not been run, or its results are gone: {command}")
    return named[0]


def compare(run: Run, reference: Run, metrics: Sequence[str]) -> Iterator[dict[str, object]]:
    """One line a dataset that both were tested on, and metric.

    Args:
        run: what is compared.
        reference: with what; the difference is `run` minus `reference`.
        metrics: which metrics.

    Yields:
        `row`, `against`, `dataset`, `metric`, `difference` in points, its 95 % interval, `p`.
    """
    shared = [dataset for dataset in run.row.tests if dataset in reference.row.tests]
    if not shared:
        raise CatalogError(
            f"{run.row.label!r} and {reference.row.label!r} have no tested dataset in common"
        )
    for dataset in shared:
        ours, theirs = read_images(run, dataset), read_images(reference, dataset)
        with threadpool_limits(1):  # many small products: threads would wait for one another
            differences = compare_experiments(ours, theirs, RESAMPLES, seed=run.seed)
        for metric in metrics:
            if metric in differences:
                one = differences[metric]
                yield {
                    "row": run.row.label,
                    "against": reference.row.label,
                    "dataset": dataset,
                    "metric": f"{metric.split('_')[0]} {LABELS[metric]}",
                    "difference": f"{100 * one.difference:+.2f}",
                    "95 % interval": f"{100 * one.low:+.2f} to {100 * one.high:+.2f}",
                    "p": f"{one.p_value:.4f}",
                }


def list_scores(run: Run) -> list[Path]:
    """Files of a run's results, beside its metrics, that a comparison reads."""
    return [paths.results(OWN, dataset) / SCORES for dataset in run.row.tests]


def read_images(run: Run, dataset: str) -> dict[str, ImageResults]:
    """Scores of every image by category, and pixel summaries where the run kept them."""
    if run.results is None:
        raise CatalogError(f"{run.row.label!r} has not been run")
    folder = paths.results(OWN, dataset)
    scores = pd.read_csv(run.results.fetch(folder / SCORES), dtype={"category": str})
    results = {}
    for category, images in scores.groupby("category", sort=True):
        summary = folder / "summaries" / f"{category}.safetensors"
        kept = run.row.variant == OWN and run.results.holds(summary)
        results[str(category)] = ImageResults(
            images=images["image_path"].tolist(),
            labels=images["label"].to_numpy(),
            scores=images[run.row.variant].to_numpy(np.float64),
            pixels=read_summaries(run.results.fetch(summary)) if kept else None,
        )
    return results
