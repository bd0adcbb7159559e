"""A table of runs: ours, the paper's and the difference.

Tuples always stand with the names of their metrics.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from fuzzyclip.evaluation.bootstrap import Spread, summarise_runs
from fuzzyclip.report.tables import ABSENT, LEVELS, format_cell, join_cells, name_level
from stages.experiments.catalog import Catalog, PaperExperiment, TableRow
from stages.experiments.plan import Run
from stages.experiments.remarks import describe_run
from stages.experiments.results import read_means

AVERAGE = "average"


def collect_values(
    experiment: PaperExperiment, runs: Sequence[Run], comparable: bool = True
) -> pd.DataFrame:
    """Every value of a table in long form.

    Args:
        experiment: the table.
        runs: its runs, all seeds; those that are not done have no values.
        comparable: whether differences from the printed values may be formed.

    Returns:
        Columns `label`, `ran` (what its runs were, see `describe_run`), `dataset`, `metric`, `ours`
        (mean over seeds), `spread` (sample standard deviation, absent for one seed), `seeds`,
        `paper`, `difference`; percent.
    """
    lines: list[dict[str, object]] = []
    for row in experiment.rows:
        own = [run for run in runs if run.row.label == row.label]
        ran = "; ".join(dict.fromkeys(filter(None, map(describe_run, own))))
        for dataset in [*row.tests] or [*row.printed]:
            measured = _measure(row, dataset, own)
            for metric, printed in experiment.list_printed(row, dataset).items():
                spread = measured.get(metric, Spread(np.nan, None, 0))
                lines.append(
                    {
                        "label": row.label,
                        "ran": ran,
                        "dataset": dataset,
                        "metric": metric,
                        "ours": spread.mean,
                        "spread": np.nan if spread.deviation is None else spread.deviation,
                        "seeds": spread.runs,
                        "paper": printed,
                        "difference": spread.mean - printed if comparable else np.nan,
                    }
                )
        if experiment.average:
            lines += _average([line for line in lines if line["label"] == row.label])
    return pd.DataFrame(lines)


def _measure(row: TableRow, dataset: str, runs: Sequence[Run]) -> dict[str, Spread]:
    """Mean over categories of each metric, and its spread over a row's finished seeds."""
    done = [run.results for run in runs if run.results]
    means = [read_means(results, dataset, variant=row.variant) for results in done]
    return summarise_runs([values for values in means if values])


def _average(lines: Sequence[Mapping[str, object]]) -> list[dict[str, object]]:
    """A row's unweighted mean over the tested datasets, where every one has a value."""
    frame = pd.DataFrame(lines)
    averaged = []
    for (label, metric), group in frame.groupby(["label", "metric"], sort=False):
        means = {
            name: float(group[name].mean(skipna=False)) for name in ("ours", "paper", "difference")
        }
        line = {"label": label, "ran": group["ran"].iloc[0], "dataset": AVERAGE}
        line |= {"metric": metric, "spread": np.nan}
        averaged.append(line | means | {"seeds": int(group["seeds"].min())})
    return averaged


def layout(values: pd.DataFrame, titles: Mapping[str, str]) -> pd.DataFrame:
    """The table of `collect_values` as people read it: a line a row and dataset."""
    lines = []
    for (label, dataset), group in values.groupby(["label", "dataset"], sort=False):
        row = ": ".join(filter(None, (str(label), group["ran"].iloc[0])))
        line = {"row": row, "tested on": titles.get(str(dataset), str(dataset))}
        for (level, prefix), end in zip(LEVELS.items(), ("", " "), strict=True):
            chosen = group[group["metric"].str.startswith(prefix)]
            if chosen.empty:
                continue
            spreads = zip(chosen["ours"], chosen["spread"], strict=True)
            ours = [_spread(mean, deviation) for mean, deviation in spreads]
            line[f"{name_level(level, chosen['metric'])}: ours"] = join_cells(ours)
            # Columns of both levels differ by the space at the end.
            line[f"paper{end}"] = join_cells([format_cell(value) for value in chosen["paper"]])
            line[f"difference{end}"] = join_cells(
                [ABSENT if np.isnan(value) else f"{value:+.1f}" for value in chosen["difference"]]
            )
        lines.append(line)
    return pd.DataFrame(lines).fillna(ABSENT)


def _spread(mean: float, deviation: float) -> str:
    """A mean, with its spread over seeds where there are several."""
    return format_cell(mean) if np.isnan(deviation) else f"{format_cell(mean)} ± {deviation:.1f}"


def list_notes(
    catalog: Catalog, experiment: PaperExperiment, comparable: bool, source: str
) -> list[str]:
    """Footnotes: contradictions of the paper that bear on the table, and what our values are."""
    notes = catalog.list_notes(experiment)
    if not comparable:
        notes.append(
            f"Ours are measured with other data or another backbone than the paper's ({source}): "
            "no difference is formed, and no number compares with a printed one."
        )
    return notes
