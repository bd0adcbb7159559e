"""Tables 2 and 3: what the work tree holds of all methods, beside what the paper prints."""

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import typer

from fuzzyclip.report.ranking import (
    LEVELS,
    MARKDOWN,
    PLAIN,
    PLAIN_LEGEND,
    build_ranked_table,
    describe_level,
)
from fuzzyclip.report.tables import list_sample_notes, list_ties, name_dataset, to_markdown
from fuzzyclip.utils.files import write_csv, write_text
from stages import paths
from stages.experiments.catalog import Catalog, CatalogError, PaperExperiment, TableRow
from stages.experiments.results import (
    WORKSPACE,
    MissingResultError,
    Results,
    read_means,
    read_method,
)
from stages.schema import Params

#: Method to dataset to how that result came about.
Facts = Mapping[str, Mapping[str, Mapping[str, Any]]]
#: What the numbers are, whatever the run.
FORM_NOTE = (
    "Percent, unweighted means over categories; AUPRO is the 200-threshold form. Ranks compare "
    "values as printed, ties share the best; a metric that a method's maps leave undefined counts "
    "as last."
)
NO_RANK = "random weights take no rank"
HERE = Results(WORKSPACE)


def show_methods(catalog: Catalog, name: str, params: Params, out: Path) -> None:
    """One table from the work tree's results: on the screen, .md and .csv (long form).

    Args:
        catalog: the experiments.
        name: of one that compares methods.
        params: as params.yaml stands.
        out: folder for the files.

    Raises:
        CatalogError: the work tree's pairs are not the table's.
    """
    experiment = catalog.get(name)
    check_pairs(name, catalog, params)
    facts = read_facts(params.methods)
    values = collect_comparison(experiment, facts)
    sample_notes = list_sample_notes(params.data.source, params.backbone)
    notes = [FORM_NOTE, *sample_notes, *list_method_notes(facts)]
    if missing := list_missing(values, facts):
        notes.append(f"not there yet: {', '.join(missing)}; dvc repro track baselines")
    notes += [f"{key}: {catalog.notes[key]}" for key in experiment.notes]
    titles = read_titles(experiment.datasets)
    title = f"{name}: {experiment.title}"
    write_text(out / f"{name}.md", render(title, values, notes, titles))
    write_csv(out / f"{name}.csv", values)
    typer.echo(render(title, values, [PLAIN_LEGEND, *notes], titles, PLAIN))
    typer.echo(f"{out / name}.md and .csv (long form) written")


def render(
    title: str,
    values: pd.DataFrame,
    notes: Sequence[str],
    titles: Mapping[str, str],
    marks: Mapping[int, tuple[str, str]] = MARKDOWN,
) -> str:
    """A comparison as text: a table a level, and the notes.

    Args:
        title: heading.
        values: from `collect_comparison`.
        notes: below the tables.
        titles: dataset to its title.
        marks: what surrounds the best and the second best, `MARKDOWN` or `PLAIN`.
    """
    lines = [f"# {title}", ""]
    for level in LEVELS:
        if values["metric"].str.startswith(LEVELS[level]).any():
            table = build_ranked_table(values, level, titles, marks)
            lines += [f"## {describe_level(values, level)}", "", to_markdown(table)]
    return "\n".join([*lines, *(f"- {note}" for note in notes), ""])


def check_pairs(name: str, catalog: Catalog, params: Params) -> None:
    """Refuse to show results of other auxiliary sets under the table's name."""
    for row in catalog.get(name).measured:
        for dataset, auxiliary in row.tests.items():
            if (pair := params.pairs.get(dataset)) != auxiliary:
                raise CatalogError(
                    f"{name} tests {dataset} with what was trained on {auxiliary}; params.yaml has "
                    f"pairs.{dataset}: {pair or 'nothing'}"
                )


def collect_comparison(experiment: PaperExperiment, facts: Facts) -> pd.DataFrame:
    """Every value of a comparison in long form.

    Args:
        experiment: the table; methods that have results and are not of it, for instance one's
            own, come before FuzzyCLIP.
        facts: from `read_facts`.

    Returns:
        Columns `label`, `dataset`, `metric`, `ours` and `paper` (percent, absent where there is
        nothing) and `random`, whether ours are of random weights.
    """
    own = [
        TableRow(label=title, method=method)
        for method, title in name_methods(facts).items()
        if method not in experiment.methods
    ]
    known = [row for row in experiment.rows if row.method]
    rest = [row for row in experiment.rows if not row.method]
    metrics = experiment.metrics or []
    lines = []
    for row in (*known, *own, *rest):
        for dataset in experiment.datasets:
            means = read_row(row, dataset)
            printed = row.printed.get(dataset, [None] * len(metrics))
            for metric, value in zip(metrics, printed, strict=True):
                lines.append(
                    {
                        "label": row.label,
                        "dataset": dataset,
                        "metric": metric,
                        "ours": means.get(metric, np.nan),
                        "paper": np.nan if value is None else value,
                        "random": is_random(facts.get(row.method or "", {}).get(dataset, {})),
                    }
                )
    return pd.DataFrame(lines)


def read_row(row: TableRow, dataset: str) -> dict[str, float]:
    """A row's means over categories in the work tree; empty where it has no result."""
    if row.method:
        return read_means(HERE, dataset, row.method)
    return read_means(HERE, dataset, variant=row.variant)


def read_facts(methods: Iterable[str]) -> dict[str, dict[str, dict[str, Any]]]:
    """How each method's results came about: method -> dataset -> facts."""
    return {
        method: {
            path.stem: json.loads(path.read_text(encoding="utf-8"))
            for path in sorted((paths.METHOD_METRICS / method).rglob("*.json"))
        }
        for method in methods
    }


def is_random(facts: Mapping[str, Any]) -> bool:
    """Whether a result is of random weights: it shows that the method runs, and nothing else."""
    tiny = facts.get("settings", {}).get("tiny_seed") is not None
    return bool(facts.get("random", tiny))


def name_methods(facts: Facts) -> dict[str, str]:
    """Methods that have results, with their titles."""
    return {
        method: next(iter(results.values()))["title"]
        for method, results in facts.items()
        if results
    }


def list_method_notes(facts: Facts) -> list[str]:
    """Notes on methods: left out, run with other weights, of random weights, tied scores."""
    notes = []
    for method, title in name_methods(facts).items():
        any_facts = next(iter(facts[method].values()))
        remarks = [any_facts.get("left_out") or any_facts.get("note")]
        remarks += [NO_RANK] if is_random(any_facts) else []
        if any(remarks):
            notes.append(f"{title}: {'; '.join(filter(None, remarks))}")
        tables = {}
        for dataset in facts[method]:
            with suppress(MissingResultError):
                tables[dataset] = read_method(HERE, dataset, method)
        notes += list_ties(tables, {method: title}, {})
    return notes


def list_missing(values: pd.DataFrame, facts: Facts) -> list[str]:
    """Methods that have no result at all on some dataset, but for those that are left out."""
    left_out = {
        of_dataset["title"]
        for results in facts.values()
        for of_dataset in results.values()
        if "left_out" in of_dataset
    }
    known = values.assign(there=values["ours"].notna()).groupby(["label", "dataset"], sort=False)
    there = known["there"].any().groupby(level="label", sort=False).all()
    return [str(label) for label in there.index[~there] if label not in left_out]


def read_titles(datasets: Iterable[str]) -> dict[str, str]:
    """Titles of datasets in tables, of those that are indexed."""
    return {
        key: name_dataset(key, json.loads(paths.index_info(key).read_text()))
        for key in datasets
        if paths.index_info(key).is_file()
    }
