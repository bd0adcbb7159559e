"""Comparison of finished runs with what is known of the real weights: `expected.yaml`."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import yaml
from pydantic import BaseModel, ConfigDict

from fuzzyclip.evaluation.metrics import METRICS
from fuzzyclip.report.tables import MEAN, add_means
from stages.experiments.archive import is_done, read_categories, read_csp
from stages.experiments.plan import Run

FILE = Path(__file__).with_name("expected.yaml")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    experiment: str
    source: str


class Means(_Part):
    """Means over the categories of a dataset."""

    label: str
    dataset: str
    row: str | None = None
    values: dict[str, float]
    tolerance: float


class Clusters(_Part):
    """Sizes of an auxiliary set's clusters, largest first, and names that must be in one."""

    auxiliary: str
    sizes: list[int]
    together: list[str] = []


class Categories(_Part):
    """Values of another method's row, category by category."""

    label: str
    dataset: str
    row: str
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
        return list(dict.fromkeys(one.experiment for one in every))


class Verdict(NamedTuple):
    """One comparison. `holds` is None where nothing was run."""

    what: str
    expected: str
    found: str
    holds: bool | None
    source: str


def read_expected(path: Path = FILE) -> Expected:
    """The expected values."""
    return Expected.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))


def verify(expected: Expected, runs: Sequence[Run]) -> Iterator[Verdict]:
    """Compare every finished run that something is known of.

    Args:
        expected: from `read_expected`.
        runs: of the experiments that it names.
    """
    for means in expected.means:
        run = _find(runs, means.experiment, means.label)
        what = f"{means.experiment}, {means.label}, {means.row or ''} on {means.dataset}"
        found = _read(run, means.dataset, means.row)
        yield from _compare(what, means.values, found.get(MEAN), means.tolerance, means.source)
    for clusters in expected.clusters:
        yield _compare_clusters(clusters, _find(runs, clusters.experiment, None))
    for method in expected.categories:
        run = _find(runs, method.experiment, method.label)
        found = _read(run, method.dataset, method.row)
        for category, values in method.values.items():
            named = dict(zip(method.metrics, values, strict=True))
            what = f"{method.row} on {method.dataset}/{category}"
            yield from _compare(what, named, found.get(category), method.tolerance, method.source)


def _find(runs: Sequence[Run], experiment: str, label: str | None) -> Run | None:
    """The finished run of a row."""
    for run in runs:
        if run.experiment == experiment and label in (None, run.row.label) and is_done(run):
            return run
    return None


def _read(run: Run | None, dataset: str, row: str | None) -> dict[str, dict[str, float]]:
    """Category (or `mean`) -> metric -> percent, of one row of a finished run."""
    if run is None:
        return {}
    frame = add_means(read_categories(run, dataset))
    chosen = frame[frame["row"] == (row or run.row.row)]
    metrics = [metric for metric in METRICS if metric in chosen]
    values = chosen[metrics].to_dict("records")
    return {
        str(category): {str(metric): float(value) for metric, value in line.items()}
        for category, line in zip(chosen["category"], values, strict=True)
    }


def _compare(
    what: str,
    expected: dict[str, float],
    found: dict[str, float] | None,
    tolerance: float,
    source: str,
) -> Iterator[Verdict]:
    for metric, value in expected.items():
        said = f"{value} ± {tolerance}"
        if found is None:
            yield Verdict(f"{what}: {metric}", said, "not run", None, source)
        else:
            holds = abs(found[metric] - value) <= tolerance
            yield Verdict(f"{what}: {metric}", said, f"{found[metric]:.1f}", holds, source)


def _compare_clusters(expected: Clusters, run: Run | None) -> Verdict:
    what = f"{expected.experiment}, clusters of {expected.auxiliary}"
    said = f"sizes {expected.sizes}"
    if expected.together:
        said += f", {', '.join(expected.together)} alone together"
    if run is None:
        return Verdict(what, said, "not run", None, expected.source)
    clusters = read_csp(run, expected.auxiliary)["clusters"]
    sizes = sorted((len(cluster) for cluster in clusters), reverse=True)
    together = not expected.together or sorted(expected.together) in map(sorted, clusters)
    found = f"sizes {sizes}"
    return Verdict(what, said, found, sizes == expected.sizes and together, expected.source)
