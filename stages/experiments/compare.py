"""Differences of results by a paired bootstrap over images: rows of a table, or methods."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from pandas.errors import EmptyDataError
from threadpoolctl import threadpool_limits

from fuzzyclip.evaluation.bootstrap import ImageResults, PairedDifference, compare_experiments
from fuzzyclip.evaluation.summaries import read_summaries
from fuzzyclip.method import OWN
from fuzzyclip.report.tables import name_metric
from fuzzyclip.utils.tables import read_table
from stages import paths
from stages.experiments.catalog import CatalogError
from stages.experiments.plan import Run
from stages.experiments.results import Results

RESAMPLES = 2000
#: Half of a normal distribution's 95 % interval, in standard deviations.
NORMAL = 1.959964


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


def compare(run: Run, reference: Run, metrics: Sequence[str]) -> Iterator[dict[str, str]]:
    """`run` minus `reference`, a line a metric and dataset that both were tested on.

    Yields:
        `row`, `against`, `dataset`, `metric`, `difference` in points, its 95 % interval, `p`.
    """
    shared = [dataset for dataset in run.row.tests if dataset in reference.row.tests]
    if not shared:
        raise CatalogError(
            f"{run.row.label!r} and {reference.row.label!r} have no tested dataset in common"
        )
    for dataset in shared:
        ours, theirs = (read_images(one, dataset) for one in (run, reference))
        differences = _draw(ours, theirs, run.seed)
        for metric in metrics:
            if metric in differences:
                paired = differences[metric]
                yield {
                    "row": run.row.label,
                    "against": reference.row.label,
                    "dataset": dataset,
                    "metric": name_metric(metric),
                    **_describe(paired.difference, paired.low, paired.high),
                    "p": f"{paired.p_value:.4f}",
                }


def compare_methods(
    results: Results,
    methods: Mapping[str, str],
    datasets: Sequence[str],
    metrics: Sequence[str],
    seed: int,
) -> Iterator[dict[str, str]]:
    """FuzzyCLIP minus each method on every dataset that both have results of, and on their mean.

    The mean's interval is a normal one: each dataset's images are drawn for themselves, so that the
    variance of a mean over n of them is the sum of theirs over n squared.

    Args:
        results: where they lie.
        methods: key to title.
        datasets: keys.
        metrics: which to compare.
        seed: of the bootstrap.

    Yields:
        `against`, `metric`, `dataset`, `difference` in points, its 95 % interval.
    """
    own = {name: read_method_images(results, OWN, name) for name in datasets}
    for method, title in methods.items():
        drawn = {
            name: _draw(ours, theirs, seed)
            for name, ours in own.items()
            if (theirs := read_method_images(results, method, name))
        }
        for metric in metrics:
            there = {name: paired[metric] for name, paired in drawn.items() if metric in paired}
            line = {"against": title, "metric": name_metric(metric)}
            for name, paired in there.items():
                ends = _describe(paired.difference, paired.low, paired.high)
                yield line | {"dataset": name} | ends
            if len(there) > 1:
                ends = _describe(*_average(list(there.values())))
                yield line | {"dataset": f"mean of {len(there)}"} | ends


def list_scores(run: Run) -> list[Path]:
    """Files of a run's results, beside its metrics, that a comparison reads."""
    return [paths.scores(OWN, dataset) for dataset in run.row.tests]


def read_images(run: Run, dataset: str) -> dict[str, ImageResults]:
    """Scores of every image by category, and pixel summaries where the run kept them."""
    if run.results is None:
        raise CatalogError(f"{run.row.label!r} has not been run")
    return read_method_images(run.results, OWN, dataset, run.row.variant)


def read_method_images(
    results: Results, method: str, dataset: str, variant: str | None = None
) -> dict[str, ImageResults]:
    """The same of a method, or of one of its variants; empty where it was left out.

    Raises:
        MissingResultError: the results are not there.
    """
    path = results.fetch(paths.scores(method, dataset))
    try:
        scores = read_table(path)
    except EmptyDataError:
        return {}
    variant = variant or method
    images = {}
    for category, rows in scores.groupby("category", sort=True):
        summary = paths.summaries(method, dataset, str(category))
        kept = variant == method and results.holds(summary)
        images[str(category)] = ImageResults(
            images=rows["image_path"].tolist(),
            labels=rows["label"].to_numpy(),
            scores=rows[variant].to_numpy(np.float64),
            pixels=read_summaries(results.fetch(summary)) if kept else None,
        )
    return images


def _draw(
    ours: Mapping[str, ImageResults], theirs: Mapping[str, ImageResults], seed: int
) -> dict[str, PairedDifference]:
    with threadpool_limits(1):  # many small products: threads would wait for one another
        return compare_experiments(ours, theirs, RESAMPLES, seed=seed)


def _average(differences: Sequence[PairedDifference]) -> tuple[float, float, float]:
    """Mean of several datasets' differences, with the ends of its interval."""
    mean = float(np.mean([paired.difference for paired in differences]))
    errors = [paired.standard_error for paired in differences]
    half = NORMAL * float(np.linalg.norm(errors)) / len(errors)
    return mean, mean - half, mean + half


def _describe(difference: float, low: float, high: float) -> dict[str, str]:
    return {
        "difference": f"{100 * difference:+.2f}",
        "95 % interval": f"{100 * low:+.2f} to {100 * high:+.2f}",
    }
