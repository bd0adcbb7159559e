"""What a run in the paper's setting must give: every printed number, and what else is known.

Printed numbers are those of `paper.yaml`; `expected.yaml` has their tolerances, the places where
the paper contradicts itself, and facts from other papers and logs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pydantic import Field

from fuzzyclip.method import OWN
from fuzzyclip.utils.faults import naming
from fuzzyclip.utils.settings import Record
from stages.experiments.catalog import Catalog, CatalogError, PaperExperiment, Printed, TableRow
from stages.yaml_file import read_yaml

FILE = Path(__file__).with_name("expected.yaml")


class Tolerance(Record):
    """How far a value may lie from an expected one, in points, and why.

    `rows` are the variants of FuzzyCLIP and the methods whose printed numbers have it.
    """

    points: float = Field(gt=0)
    rows: list[str] = Field(default_factory=list)
    reason: str


class Selection(Record):
    """Printed numbers of a table: those of some rows, datasets and metrics, or of all."""

    experiment: str
    labels: list[str] | None = None
    datasets: list[str] | None = None
    metrics: list[str] | None = None

    def holds(self, number: Printed) -> bool:
        """True of a printed number that is one of them."""
        return (
            number.experiment == self.experiment
            and (self.labels is None or number.row.label in self.labels)
            and (self.datasets is None or number.dataset in self.datasets)
            and (self.metrics is None or number.metric in self.metrics)
        )


class Doubt(Selection):
    """Numbers at which the paper contradicts itself: outside of the tolerance they are no failure.

    `note` is a key of the catalog's notes. Where another reading is the likelier one, the number is
    looked for there: under the metric that `read_as` gives, or in the table's row `row`.
    """

    note: str
    read_as: dict[str, str] = Field(default_factory=dict)
    row: str | None = None


class Elsewhere(Selection):
    """Printed numbers that must come out in a variant of another row too."""

    row: str
    variant: str
    tolerance: str
    source: str


class Categories(Record):
    """Values of another method, category by category."""

    method: str
    dataset: str
    metrics: list[str]
    values: dict[str, list[float]]
    tolerance: str
    source: str


class Clusters(Record):
    """Sizes of an auxiliary set's clusters, largest first, and names that must be in one."""

    experiment: str
    auxiliary: str
    sizes: list[int]
    together: list[str] = Field(default_factory=list)
    source: str


class Expected(Record):
    """All of `expected.yaml`."""

    tolerances: dict[str, Tolerance]
    doubts: list[Doubt]
    elsewhere: list[Elsewhere]
    clusters: list[Clusters]
    categories: list[Categories]

    def find_tolerance(self, row: TableRow) -> str:
        """The kind of tolerance of a row's printed numbers.

        Raises:
            CatalogError: none, or several.
        """
        name = row.method or row.variant
        kinds = [kind for kind, tolerance in self.tolerances.items() if name in tolerance.rows]
        if len(kinds) != 1:
            raise CatalogError(f"{FILE}: {name!r} stands in {len(kinds)} of the tolerances' rows")
        return kinds[0]

    def expect(
        self, place: "Place", value: float, kind: str, source: str, note: str = ""
    ) -> "Fact":
        """A fact with a kind of tolerance."""
        return Fact(place, value, self.tolerances[kind].points, f"{source}; {kind}", note)


class Place(NamedTuple):
    """Where a number is looked up: a metric of a variant, of a category or the mean over all.

    FuzzyCLIP's runs are found by experiment and label of the row, other methods by name.
    """

    experiment: str
    label: str
    method: str
    variant: str
    dataset: str
    category: str | None
    metric: str


@dataclass(frozen=True)
class Fact:
    """A number that is known.

    Attributes:
        place: where it must come out.
        value: percent.
        tolerance: points.
        source: where it is from, with the kind of its tolerance.
        doubt: key of the note on why it may not hold; empty where it must.
    """

    place: Place
    value: float
    tolerance: float
    source: str
    doubt: str = ""

    @property
    def group(self) -> str:
        """What its verdict counts for: a table, or another source."""
        return self.place.experiment or f"{self.place.method}, categories"

    @property
    def name(self) -> str:
        """The fact as people read it."""
        where = f"{self.place.dataset}/{self.place.category or 'mean'}"
        other = self.place.variant not in (OWN, self.place.method)
        variant = f" ({self.place.variant})" if other else ""
        return f"{self.group}, {self.place.label}{variant} on {where}: {self.place.metric}"


def read_expected(path: Path = FILE) -> Expected:
    """The tolerances, doubts and further facts."""
    with naming(path):
        return Expected.model_validate(read_yaml(path))


def collect_facts(catalog: Catalog, expected: Expected) -> list[Fact]:
    """Every number that is known of a run in the paper's setting, tables first.

    Raises:
        CatalogError: a printed row has no tolerance, or an entry of the expectations fits nothing.
    """
    printed = [*catalog.list_printed()]
    facts = [_expect(catalog, expected, number) for number in printed]
    for elsewhere in expected.elsewhere:
        facts += _repeat(catalog, expected, elsewhere, printed)
    for categories in expected.categories:
        facts += _list_categories(expected, categories)
    for selection in (*expected.doubts, *expected.elsewhere):
        if not any(map(selection.holds, printed)):
            raise CatalogError(f"{FILE}: no printed number fits {selection}")
    return facts


def name_experiments(facts: Sequence[Fact], expected: Expected) -> list[str]:
    """Experiments of which something is known, in the order of the facts."""
    names = [fact.place.experiment for fact in facts if fact.place.experiment]
    return list(dict.fromkeys([*names, *(clusters.experiment for clusters in expected.clusters)]))


def _expect(catalog: Catalog, expected: Expected, number: Printed) -> Fact:
    """The fact of a printed number, looked for where it stands or where its doubt says."""
    doubts = [doubt for doubt in expected.doubts if doubt.holds(number)]
    if len(doubts) > 1 or any(doubt.note not in catalog.notes for doubt in doubts):
        raise CatalogError(f"{FILE}: {len(doubts)} doubts, or one without a note: {doubts}")
    row, metric, note, reading = number.row, number.metric, "", ""
    for doubt in doubts:
        note, metric = doubt.note, doubt.read_as.get(metric, metric)
        row = row if doubt.row is None else _find_row(catalog.get(number.experiment), doubt.row)
        if metric != number.metric:
            reading = f", there headed {number.metric}"
        if row is not number.row:
            reading = f", there for {number.row.label!r}"
    place = _place(number._replace(row=row, metric=metric), row.variant)
    source = f"the paper's {number.experiment}{reading}"
    return expected.expect(place, number.value, expected.find_tolerance(row), source, note)


def _repeat(
    catalog: Catalog, expected: Expected, elsewhere: Elsewhere, printed: Sequence[Printed]
) -> Iterator[Fact]:
    """Printed numbers in a second place."""
    row = _find_row(catalog.get(elsewhere.experiment), elsewhere.row)
    for number in printed:
        if elsewhere.holds(number):
            place = _place(number._replace(row=row), elsewhere.variant)
            yield expected.expect(place, number.value, elsewhere.tolerance, elsewhere.source)


def _place(number: Printed, variant: str) -> Place:
    row, method = number.row, number.row.method
    return Place(
        number.experiment,
        row.label,
        method or OWN,
        method or variant,
        number.dataset,
        None,
        number.metric,
    )


def _list_categories(expected: Expected, categories: Categories) -> Iterator[Fact]:
    method, kind = categories.method, categories.tolerance
    for category, values in categories.values.items():
        for metric, value in zip(categories.metrics, values, strict=True):
            place = Place("", method, method, method, categories.dataset, category, metric)
            yield expected.expect(place, value, kind, categories.source)


def _find_row(experiment: PaperExperiment, label: str) -> TableRow:
    for row in experiment.rows:
        if row.label == label:
            return row
    raise CatalogError(f"{FILE}: {experiment.title!r} has no row {label!r}")
