"""An experiment's table: ours, the paper's, and the difference; tuples always with their names."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from fuzzyclip.evaluation.bootstrap import Spread, summarise_runs
from fuzzyclip.evaluation.metrics import METRICS
from fuzzyclip.report.tables import ABSENT, LABELS, MEAN, add_means
from stages.experiments.archive import is_done, read_categories
from stages.experiments.catalog import Catalog, Experiment, Row
from stages.experiments.plan import Run

AVERAGE = "average"
LEVELS = {"Pixel": "pixel_", "Image": "image_"}


def collect_values(
    experiment: Experiment, runs: Sequence[Run], comparable: bool = True
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
        found = {dataset: _measure(row, dataset, runs) for dataset in tested}
        for dataset in tested:
            printed = row.printed.get(dataset, [None] * len(experiment.metrics or []))
            for metric, paper in zip(experiment.metrics or [], printed, strict=True):
                spread = found[dataset].get(metric)
                lines.append(_line(row.label, dataset, metric, spread, paper, comparable))
        if experiment.average:
            lines += _average(lines, row.label)
    return pd.DataFrame(lines)


def _measure(row: Row, dataset: str, runs: Sequence[Run]) -> dict[str, Spread]:
    """Mean over categories of each metric, and its spread over the finished seeds."""
    values = []
    for run in runs:
        if run.row.label == row.label and is_done(run):
            frame = add_means(read_categories(run, dataset))
            line = frame[(frame["row"] == row.row) & (frame["category"] == MEAN)].iloc[0]
            values.append({metric: float(line[metric]) for metric in METRICS})
    return summarise_runs(values)


def _line(
    label: str,
    dataset: str,
    metric: str,
    found: Spread | None,
    paper: float | None,
    comparable: bool,
) -> dict[str, object]:
    ours = found.mean if found else np.nan
    printed = np.nan if paper is None else paper
    return {
        "label": label,
        "dataset": dataset,
        "metric": metric,
        "ours": ours,
        "spread": found.deviation if found and found.deviation is not None else np.nan,
        "seeds": found.runs if found else 0,
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
    catalog: Catalog, experiment: Experiment, comparable: bool, source: str
) -> list[str]:
    """Footnotes: contradictions of the paper that bear on the table, and what our values are."""
    notes = [f"{name}: {catalog.notes[name]}" for name in experiment.notes]
    if not comparable:
        notes.append(
            f"Ours are measured with other data or another backbone than the paper's ({source}): "
            "no difference is formed, and no number compares with a printed one."
        )
    return notes
