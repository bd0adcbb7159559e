"""A table of runs: ours, the paper's and the difference, or differences between its rows.

Tuples always stand with the names of their metrics.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from fuzzyclip.evaluation.bootstrap import (
    ImageResults,
    Spread,
    compare_experiments,
    summarise_runs,
)
from fuzzyclip.evaluation.summaries import read_summaries
from fuzzyclip.method import OWN
from fuzzyclip.report.tables import ABSENT, LEVELS, format_cell, join_cells, name_level, name_metric
from stages import paths
from stages.experiments.catalog import Catalog, CatalogError, PaperExperiment, TableRow
from stages.experiments.plan import Run
from stages.experiments.remarks import describe_run
from stages.experiments.results import read_means

AVERAGE = "average"
#: Of the bootstrap.
RESAMPLES = 2000


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
            measured = _measure(row, dataset, runs)
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
    """Mean over categories of each metric, and its spread over the finished seeds."""
    done = [run.results for run in runs if run.row.label == row.label and run.results]
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


def compare(run: Run, reference: Run, metrics: Sequence[str]) -> Iterator[dict[str, object]]:
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
        ours, theirs = read_images(run, dataset), read_images(reference, dataset)
        with threadpool_limits(1):  # many small products: threads would wait for one another
            differences = compare_experiments(ours, theirs, RESAMPLES, seed=run.seed)
        for metric in metrics:
            if metric in differences:
                paired = differences[metric]
                yield {
                    "row": run.row.label,
                    "against": reference.row.label,
                    "dataset": dataset,
                    "metric": name_metric(metric),
                    "difference": f"{100 * paired.difference:+.2f}",
                    "95 % interval": f"{100 * paired.low:+.2f} to {100 * paired.high:+.2f}",
                    "p": f"{paired.p_value:.4f}",
                }


def list_scores(run: Run) -> list[Path]:
    """Files of a run's results, beside its metrics, that a comparison reads."""
    return [paths.scores(OWN, dataset) for dataset in run.row.tests]


def read_images(run: Run, dataset: str) -> dict[str, ImageResults]:
    """Scores of every image by category, and pixel summaries where the run kept them."""
    if run.results is None:
        raise CatalogError(f"{run.row.label!r} has not been run")
    scores = pd.read_csv(run.results.fetch(paths.scores(OWN, dataset)), dtype={"category": str})
    results = {}
    for category, images in scores.groupby("category", sort=True):
        summary = paths.summaries(OWN, dataset, str(category))
        kept = run.row.variant == OWN and run.results.holds(summary)
        results[str(category)] = ImageResults(
            images=images["image_path"].tolist(),
            labels=images["label"].to_numpy(),
            scores=images[run.row.variant].to_numpy(np.float64),
            pixels=read_summaries(run.results.fetch(summary)) if kept else None,
        )
    return results
