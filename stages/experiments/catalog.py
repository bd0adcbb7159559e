"""The experiments as data: `paper.yaml`, validated."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field, model_validator

from fuzzyclip.evaluation.metrics import METRICS
from fuzzyclip.method import OWN, VARIANTS
from fuzzyclip.utils.faults import naming
from fuzzyclip.utils.settings import Number, Record
from stages.values import Keyed, Name
from stages.yaml_file import read_yaml

FILE = Path(__file__).with_name("paper.yaml")


class CatalogError(ValueError):
    """The file of experiments, or a name asked for, is not right."""


class TableRow(Record):
    """One line of a table; see the head of `paper.yaml`."""

    label: Name
    tests: dict[Name, Name] = Field(default_factory=dict)
    variant: str = OWN
    method: str | None = None
    set: dict[str, Any] = Field(default_factory=dict)
    printed: dict[str, list[Number | None]] = Field(default_factory=dict)
    printed_ranks: dict[Literal["pixel", "image"], Number] = Field(default_factory=dict)


class PaperExperiment(Record):
    """A table or a figure."""

    title: str
    kind: Literal["table", "curves", "clusters", "sweep", "heatmaps", "maps"] = "table"
    metrics: list[str] | None = None
    notes: list[str] = Field(default_factory=list)
    category: str | None = None
    categories: int = Field(3, ge=1)
    average: bool = False
    rows: list[TableRow]

    @property
    def methods(self) -> dict[str, str]:
        """Methods of the table that `dvc repro baselines` runs, with their labels."""
        return {row.method: row.label for row in self.rows if row.method}

    @property
    def datasets(self) -> list[str]:
        """All datasets of the table, in the order of its rows."""
        return list(dict.fromkeys(name for row in self.rows for name in (*row.tests, *row.printed)))

    @property
    def measured(self) -> list[TableRow]:
        """Rows that are runs of FuzzyCLIP; the others are methods, or printed values alone."""
        return [row for row in self.rows if row.tests]

    def list_printed_ranks(self, level: str) -> dict[str, float]:
        """Average ranks of a level as the paper prints them, by label."""
        ranks = {row.label: row.printed_ranks for row in self.rows}
        return {label: ranks[level] for label, ranks in ranks.items() if level in ranks}

    def list_printed(self, row: TableRow, dataset: str) -> dict[str, float]:
        """Printed values of a row, metric to percent; not a number where there is none."""
        metrics = self.metrics or []
        values = row.printed.get(dataset, [None] * len(metrics))
        pairs = zip(metrics, values, strict=True)
        return {metric: math.nan if value is None else value for metric, value in pairs}


class Printed(NamedTuple):
    """A number of the catalog."""

    experiment: str
    row: TableRow
    dataset: str
    metric: str
    value: float


class Catalog(Record):
    """All of `paper.yaml`."""

    auxiliary: dict[str, list[str]]
    notes: dict[str, str]
    experiments: Keyed[PaperExperiment]

    @model_validator(mode="after")
    def _check(self) -> "Catalog":
        """Names that point at other keys must be there, and tuples as long as their metrics."""
        for name, experiment in self.experiments.items():
            metrics = experiment.metrics or []
            unknown = [note for note in experiment.notes if note not in self.notes]
            unknown += [metric for metric in metrics if metric not in METRICS]
            for row in experiment.rows:
                unknown += [aux for aux in row.tests.values() if aux not in self.auxiliary]
                unknown += [row.variant] if row.variant not in VARIANTS else []
                wrong = [key for key, values in row.printed.items() if len(values) != len(metrics)]
                if wrong or unknown or (row.tests and set(row.printed) - set(row.tests)):
                    raise ValueError(f"{name}, {row.label}: {unknown or wrong or 'printed'}")
            labels = [row.label for row in experiment.rows]
            if len(set(labels)) < len(labels):
                raise ValueError(f"{name}: two rows have one label")
        return self

    def list_printed(self) -> Iterator[Printed]:
        """Every printed number."""
        for name, experiment in self.experiments.items():
            for row in experiment.rows:
                for dataset in row.printed:
                    for metric, value in experiment.list_printed(row, dataset).items():
                        if not math.isnan(value):
                            yield Printed(name, row, dataset, metric, value)

    def list_notes(self, experiment: PaperExperiment) -> list[str]:
        """Footnotes of an experiment: contradictions of the paper that bear on it."""
        return [f"{name}: {self.notes[name]}" for name in experiment.notes]

    @property
    def shown(self) -> list[str]:
        """Categories that figures of heatmaps show."""
        return [each.category for each in self.experiments.values() if each.category]

    def get(self, name: str) -> PaperExperiment:
        """An experiment by name.

        Raises:
            CatalogError: there is none; lists those there are.
        """
        if name not in self.experiments:
            raise CatalogError(f"no experiment {name!r}; there are {', '.join(self.experiments)}")
        return self.experiments[name]


def read_catalog(path: Path = FILE) -> Catalog:
    """The experiments.

    Raises:
        CatalogError: the file is not what `Catalog` describes.
    """
    with naming(path, CatalogError):
        return Catalog.model_validate(read_yaml(path, CatalogError))


def collect_printed(catalog: Catalog, label: str = "FuzzyCLIP") -> dict[str, dict[str, float]]:
    """Values that Tables 2 and 3 print for a method: dataset -> metric -> percent."""
    printed: dict[str, dict[str, float]] = {}
    for number in catalog.list_printed():
        if number.experiment in ("table-2", "table-3") and number.row.label == label:
            printed.setdefault(number.dataset, {})[number.metric] = number.value
    return printed
