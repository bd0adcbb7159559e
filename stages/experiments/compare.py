"""Differences between finished runs, bootstrapped over the test images that both saw."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from fuzzyclip.evaluation.rows import TRAINED
from threadpoolctl import threadpool_limits

from fuzzyclip.evaluation.bootstrap import CategoryResult, compare_experiments
from fuzzyclip.evaluation.summaries import read_summaries
from fuzzyclip.report.tables import LABELS
from stages import paths
from stages.experiments.archive import is_done
from stages.experiments.catalog import CatalogError
from stages.experiments.plan import Run

RESAMPLES = 2000


def find_run(runs: list[Run], label: str) -> Run:
    """The finished run of a row, first seed.

    Raises:
        CatalogError: there is no such row, or it has not been run.
    """
    found = [run for run in runs if run.row.label == label]
    if not found:
        labels = ", ".join(dict.fromkeys(repr(run.row.label) for run in runs))
        raise CatalogError(f"no row {label!r}; there are {labels}")
    if not is_done(found[0]):
        command = f"fuzzyclip tables run {found[0].experiment}"
        raise CatalogError(f"{label!r} has not been run: {command}")
    return found[0]


def compare(run: Run, reference: Run, metrics: list[str]) -> Iterator[dict[str, object]]:
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
        ours, theirs = read_results(run, dataset), read_results(reference, dataset)
        with threadpool_limits(1):  # many small products: threads would wait for one another
            found = compare_experiments(ours, theirs, RESAMPLES, seed=run.seed)
        for metric in metrics:
            if metric in found:
                one = found[metric]
                yield {
                    "row": run.row.label,
                    "against": reference.row.label,
                    "dataset": dataset,
                    "metric": f"{metric.split('_')[0]} {LABELS[metric]}",
                    "difference": f"{100 * one.difference:+.2f}",
                    "95 % interval": f"{100 * one.low:+.2f} to {100 * one.high:+.2f}",
                    "p": f"{one.p_value:.4f}",
                }


def read_results(run: Run, dataset: str) -> dict[str, CategoryResult]:
    """Scores of every image by category, and pixel summaries where the run kept them."""
    folder = run.folder / paths.results(dataset)
    scores = pd.read_csv(folder / "scores.csv", dtype={"category": str})
    results = {}
    for category, rows in scores.groupby("category", sort=True):
        summary = folder / "summaries" / f"{category}.safetensors"
        kept = run.row.row == TRAINED and summary.is_file()
        results[str(category)] = CategoryResult(
            images=rows["image_path"].tolist(),
            labels=rows["label"].to_numpy(),
            scores=rows[run.row.row].to_numpy(np.float64),
            pixels=read_summaries(summary) if kept else None,
        )
    return results
