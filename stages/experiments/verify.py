"""Finished runs beside what is known of the real weights: a verdict a fact, and one a table."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Literal, NamedTuple

import pandas as pd

from fuzzyclip.evaluation.bootstrap import Spread, summarise_runs
from fuzzyclip.method import OWN
from fuzzyclip.report.tables import PAIRS
from stages.experiments.facts import Clusters, Fact, Place
from stages.experiments.plan import Run
from stages.experiments.results import (
    MissingResultError,
    Results,
    average_categories,
    read_csp,
    read_facts,
    read_method,
)

Outcome = Literal["passed", "failed", "in doubt", "not run"]
OUTCOMES: tuple[Outcome, ...] = ("passed", "failed", "in doubt", "not run")
#: Of several seeds the mean is compared; so many of their standard deviations widen the tolerance.
DEVIATIONS = 2
#: Of a table of results: variant and category, None for the mean over all, to metrics.
Table = Mapping[tuple[str, str | None], Mapping[Any, Any]]


class Verdict(NamedTuple):
    """One comparison, as text but for its outcome."""

    group: str
    name: str
    expected: str
    measured: str
    outcome: Outcome
    source: str
    doubt: str = ""


class Measured:
    """What has been measured, read when it is asked for, each file once.

    Of FuzzyCLIP it is what finished runs gave, of other methods what lies in one revision: results
    on complete official data, of their own weights and published form, trained on the paper's
    auxiliary set.
    """

    def __init__(self, runs: Iterable[Run], others: Results) -> None:
        self._runs: dict[tuple[str, str], list[Results]] = {}
        for run in runs:
            if run.results is not None:
                self._runs.setdefault((run.experiment, run.row.label), []).append(run.results)
        self._others = others
        self._read_table = cache(_read_table)

    def read(self, place: Place) -> Spread | None:
        """A number's mean and spread over seeds; not a number where a finished run lacks it.

        None where nothing has been run.
        """
        tables = [
            self._read_table(results, place.method, place.dataset)
            for results in self._list_results(place)
        ]
        lines = [table.get((place.variant, place.category), {}) for table in tables if table]
        if not lines:
            return None
        values = [{"value": line.get(place.metric, math.nan)} for line in lines]
        spread = summarise_runs(values).get("value", Spread(math.nan, None, 0))
        return spread if spread.runs == len(lines) else Spread(math.nan, None, 0)

    def read_clusters(self, clusters: Clusters) -> list[list[str]] | None:
        """An auxiliary set's partition; None where nothing has been run."""
        for (experiment, _), results in self._runs.items():
            if experiment == clusters.experiment:
                partition: list[list[str]] = read_csp(results[0], clusters.auxiliary)["clusters"]
                return partition
        return None

    def _list_results(self, place: Place) -> Sequence[Results]:
        if place.method == OWN:
            return self._runs.get((place.experiment, place.label), [])
        return [self._others]


def _is_papers(results: Results, method: str, dataset: str) -> bool:
    """True where a method's result is of all official images, its own weights and published form.

    Which CLIP a method needs its own settings say; the run's has been looked at.
    """
    facts = read_facts(results, dataset, method)
    tested = facts["tested"]
    return bool(
        tested["source"] == "official"
        and tested["complete"]
        and not facts["random"]
        and facts["settings"].get("as", "published") == "published"
        and facts["auxiliary"] in (None, PAIRS[dataset])
    )


def _read_table(results: Results, method: str, dataset: str) -> Table:
    """A method's results on a dataset, empty where there are none that compare."""
    try:
        if method != OWN and not _is_papers(results, method, dataset):
            return {}
        categories = read_method(results, dataset, method)
    except MissingResultError:
        return {}
    table: dict[tuple[str, str | None], Mapping[Any, Any]] = {}
    for line in categories.to_dict("records"):
        table[str(line["variant"]), str(line["category"])] = line
    for variant, line in average_categories(categories).to_dict("index").items():
        table[str(variant), None] = line
    return table


def verify(
    facts: Sequence[Fact], clusters: Sequence[Clusters], measured: Measured
) -> Iterator[Verdict]:
    """A verdict on every fact, whether anything was run or not."""
    for fact in facts:
        yield judge(fact, measured.read(fact.place))
    for partition in clusters:
        yield judge_clusters(partition, measured.read_clusters(partition))


def judge(fact: Fact, spread: Spread | None) -> Verdict:
    """The verdict on a number: outside of its tolerance it has failed, or is in doubt.

    What a finished run lacks is outside.
    """
    tolerance = fact.tolerance
    if spread is not None and spread.deviation is not None:
        tolerance += DEVIATIONS * spread.deviation
    expected, shown = f"{fact.value} ± {tolerance:.3g}", ""
    outcome: Outcome = "not run"
    if spread is not None:
        shown = "nothing" if math.isnan(spread.mean) else f"{spread.mean:.2f}"
        outcome = "in doubt" if fact.doubt else "failed"
        # 1e-9: exactly the tolerance is within, whatever binary fractions make of the difference
        if abs(spread.mean - fact.value) <= tolerance + 1e-9:
            outcome = "passed"
    return Verdict(fact.group, fact.name, expected, shown, outcome, fact.source, fact.doubt)


def judge_clusters(expected: Clusters, clusters: Sequence[Sequence[str]] | None) -> Verdict:
    """The verdict on a partition."""
    name = f"{expected.experiment}, clusters of {expected.auxiliary}"
    wanted = f"sizes {expected.sizes}"
    if expected.together:
        wanted += f", {', '.join(expected.together)} alone together"
    if clusters is None:
        return Verdict(expected.experiment, name, wanted, "", "not run", expected.source)
    sizes = sorted((len(cluster) for cluster in clusters), reverse=True)
    together = not expected.together or sorted(expected.together) in map(sorted, clusters)
    outcome: Outcome = "passed" if sizes == expected.sizes and together else "failed"
    shown = f"sizes {sizes}" + ("" if together else ", others together")
    return Verdict(expected.experiment, name, wanted, shown, outcome, expected.source)


def summarise(verdicts: Sequence[Verdict]) -> pd.DataFrame:
    """A line a table: counts of its facts by outcome, and its verdict.

    One failure fails a table; it has passed where nothing failed and all was run.
    """
    lines = []
    for group in dict.fromkeys(verdict.group for verdict in verdicts):
        counts = Counter(verdict.outcome for verdict in verdicts if verdict.group == group)
        total = counts.total()
        verdict = "passed" if counts["not run"] == 0 else "not all run"
        verdict = "not run" if counts["not run"] == total else verdict
        verdict = "FAILED" if counts["failed"] else verdict
        columns = {outcome: counts[outcome] for outcome in OUTCOMES}
        lines.append({"facts of": group, "facts": total} | columns | {"verdict": verdict})
    return pd.DataFrame(lines)
