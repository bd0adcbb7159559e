"""All methods side by side: what the work tree holds of them, beside what the paper prints."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from fuzzyclip.evaluation.metrics import METRICS
from fuzzyclip.report.tables import MEAN, add_means, list_ties, name_dataset
from stages import paths
from stages.experiments.catalog import Experiment, Row

#: Method to dataset to how that result came about.
Facts = Mapping[str, Mapping[str, Mapping[str, Any]]]


def collect_comparison(experiment: Experiment, others: Mapping[str, str]) -> pd.DataFrame:
    """Every value of a comparison in long form.

    Args:
        experiment: the table.
        others: further methods with their titles, for instance one's own; they come before
            FuzzyCLIP.

    Returns:
        Columns `label`, `dataset`, `metric`, `ours` and `paper`; percent, absent where there is
        nothing.
    """
    own = [Row(label=title, method=method) for method, title in others.items()]
    known = [row for row in experiment.rows if row.method]
    rest = [row for row in experiment.rows if not row.method]
    lines = []
    for row in (*known, *own, *rest):
        for dataset in experiment.datasets:
            found = read_means(row, dataset)
            metrics = experiment.metrics or []
            printed = row.printed.get(dataset, [None] * len(metrics))
            for metric, value in zip(metrics, printed, strict=True):
                lines.append(
                    {
                        "label": row.label,
                        "dataset": dataset,
                        "metric": metric,
                        "ours": found.get(metric, np.nan),
                        "paper": np.nan if value is None else value,
                    }
                )
    return pd.DataFrame(lines)


def read_means(row: Row, dataset: str) -> dict[str, float]:
    """A row's means over categories; empty where it has no result."""
    frame = _read_table(row, dataset)
    if frame is None:
        return {}
    means = add_means(frame) if len(frame) else frame
    chosen = means[(means["row"] == (row.method or row.row)) & (means["category"] == MEAN)]
    return {metric: float(chosen[metric].iloc[0]) for metric in METRICS} if len(chosen) else {}


def _read_table(row: Row, dataset: str) -> pd.DataFrame | None:
    """A row's table by category, None where it has no result."""
    if row.method:  # a dataset meets one auxiliary set
        found = [*(paths.METHOD_METRICS / row.method).glob(f"*/{dataset}.csv")]
    else:
        found = [path for path in [paths.category_metrics(dataset)] if path.is_file()]
    return pd.read_csv(found[0], dtype={"category": str, "prompt": str}) if found else None


def read_facts(methods: Iterable[str]) -> dict[str, dict[str, dict[str, Any]]]:
    """How each method's results came about: method -> dataset -> facts."""
    return {
        method: {
            path.stem: json.loads(path.read_text())
            for path in sorted((paths.METHOD_METRICS / method).glob("*/*.json"))
        }
        for method in methods
    }


def list_method_notes(facts: Facts) -> list[str]:
    """What is to be said of methods: what was left out, what ran with other weights, what tied."""
    notes = []
    for name, found in facts.items():
        one = next(iter(found.values()), {})
        if said := one.get("left_out") or one.get("note"):
            notes.append(f"{one['title']}: {said}")
        tables = {dataset: _read_table(Row(label="", method=name), dataset) for dataset in found}
        results = {dataset: table for dataset, table in tables.items() if table is not None}
        notes += list_ties(results, {name: one.get("title", name)}, {})
    return notes


def name_others(experiment: Experiment, facts: Facts) -> dict[str, str]:
    """Methods that have results and are not of the table, with their titles: one's own."""
    return {
        method: next(iter(found.values()))["title"]
        for method, found in facts.items()
        if found and method not in experiment.methods
    }


def read_titles(datasets: Iterable[str]) -> dict[str, str]:
    """Titles of datasets in tables, of those that are indexed."""
    return {
        key: name_dataset(key, json.loads(paths.index_info(key).read_text()))
        for key in datasets
        if paths.index_info(key).is_file()
    }
