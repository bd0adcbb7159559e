"""Comparison of finished runs with what is known of the real weights: `expected.yaml`."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import yaml
from pydantic import BaseModel, ConfigDict

from stages.experiments.plan import Run
from stages.experiments.results import (
    MissingResultError,
    Results,
    read_csp,
    read_means,
    read_method,
)

FILE = Path(__file__).with_name("expected.yaml")


class _Expectation(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    experiment: str
    source: str


class Means(_Expectation):
    """Means over the categories of a dataset."""

    label: str
    dataset: str
    variant: str | None = None
    values: dict[str, float]
    tolerance: float


class Clusters(_Expectation):
    """Sizes of an auxiliary set's clusters, largest first, and names that must be in one."""

    auxiliary: str
    sizes: list[int]
    together: list[str] = []


class Categories(_Expectation):
    """Values of another method, category by category."""

    method: str
    dataset: str
    metrics: list[str]
    values: dict[str, list[float]]
    tolerance: float


class Expected(BaseModel):
    """All of `expected.yaml`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    means: list[Means]
    clusters: list[Clusters]
    categories: list[Categories]

    @property
    def experiments(self) -> list[str]:
        """Experiments that are looked at."""
        every = [*self.means, *self.clusters, *self.categories]
        return list(dict.fromkeys(expectation.experiment for expectation in every))


class Verdict(NamedTuple):
    """One comparison. `holds` is None where nothing was run."""

    what: str
    expected: str
    measured: str
    holds: bool | None
    source: str


def read_expected(path: Path = FILE) -> Expected:
    """The expected values."""
    return Expected.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))


def verify(
    expected: Expected, runs: Sequence[Run], others: Results | None = None
) -> Iterator[Verdict]:
    """Compare every finished result that something is known of.

    `runs` are of the experiments that `expected` names, `others` the results of other methods in
    the paper's setting.
    """
    for means in expected.means:
        run = _find(runs, means.experiment, means.label)
        what = f"{means.experiment}, {means.label}, {means.variant or ''} on {means.dataset}"
        measured = None
        if run is not None and run.results is not None:
            variant = means.variant or run.row.variant
            measured = read_means(run.results, means.dataset, variant=variant)
        yield from _compare(what, means.values, measured, means.tolerance, means.source)
    for clusters in expected.clusters:
        yield _compare_clusters(clusters, _find(runs, clusters.experiment, None))
    for method in expected.categories:
        by_category = _read_method(others, method)
        for category, values in method.values.items():
            named = dict(zip(method.metrics, values, strict=True))
            what = f"{method.method} on {method.dataset}/{category}"
            values_there = by_category.get(category)
            yield from _compare(what, named, values_there, method.tolerance, method.source)


def _find(runs: Sequence[Run], experiment: str, label: str | None) -> Run | None:
    """The finished run of a row."""
    for run in runs:
        if run.experiment == experiment and label in (None, run.row.label) and run.results:
            return run
    return None


def _read_method(results: Results | None, method: Categories) -> dict[str, dict[str, float]]:
    """Category -> metric -> percent, of another method."""
    if results is None:
        return {}
    try:
        table = read_method(results, method.dataset, method.method)
    except MissingResultError:
        return {}
    return {
        str(line["category"]): {metric: float(line[metric]) for metric in method.metrics}
        for line in table.to_dict("records")
    }


def _compare(
    what: str,
    expected: dict[str, float],
    measured: dict[str, float] | None,
    tolerance: float,
    source: str,
) -> Iterator[Verdict]:
    for metric, value in expected.items():
        text, holds = "not run", None
        if measured is not None:
            text, holds = f"{measured[metric]:.1f}", abs(measured[metric] - value) <= tolerance
        yield Verdict(f"{what}: {metric}", f"{value} ± {tolerance}", text, holds, source)


def _compare_clusters(expected: Clusters, run: Run | None) -> Verdict:
    what = f"{expected.experiment}, clusters of {expected.auxiliary}"
    wanted = f"sizes {expected.sizes}"
    if expected.together:
        wanted += f", {', '.join(expected.together)} alone together"
    if run is None or run.results is None:
        return Verdict(what, wanted, "not run", None, expected.source)
    clusters = read_csp(run.results, expected.auxiliary)["clusters"]
    sizes = sorted((len(cluster) for cluster in clusters), reverse=True)
    together = not expected.together or sorted(expected.together) in map(sorted, clusters)
    holds = sizes == expected.sizes and together
    return Verdict(what, wanted, f"sizes {sizes}", holds, expected.source)
