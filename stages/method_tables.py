"""method_tables: all methods and FuzzyCLIP side by side, in the layout of Tables 2 and 3.

Also shown by `fuzzyclip tables show`: what the work tree holds, beside what the paper prints.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import typer

from fuzzyclip.evaluation.metrics import METRICS
from fuzzyclip.method import OWN
from fuzzyclip.report.ranking import (
    MARKDOWN,
    PLAIN,
    PLAIN_LEGEND,
    build_ranked_table,
    describe_level,
)
from fuzzyclip.report.tables import (
    LEVELS,
    list_sample_notes,
    list_ties,
    name_dataset,
    to_markdown,
)
from fuzzyclip.utils.files import write_text
from fuzzyclip.utils.tables import write_csv
from stages import paths
from stages.experiments.catalog import (
    Catalog,
    CatalogError,
    PaperExperiment,
    TableRow,
    read_catalog,
)
from stages.experiments.results import (
    WORKSPACE,
    MissingResultError,
    Results,
    read_means,
    read_method,
)
from stages.params import load_params
from stages.run import run_stage
from stages.schema import Params
from stages.times import Time, add_times, describe_times, read_time

TABLES = ("table-2", "table-3")
#: Method to dataset to how that result came about.
Facts = Mapping[str, Mapping[str, Mapping[str, Any]]]
#: What the numbers are, whatever the run.
FORM_NOTE = (
    "Percent, unweighted means over categories; AUPRO is the 200-threshold form. Ranks compare "
    "values as printed, ties share the best; a metric that a method's maps leave undefined counts "
    "as last."
)
NO_RANK = "random weights take no rank"
NOT_ZERO_SHOT = "not zero-shot as the others are, and so without a rank"
#: What a method's results rest on besides the tested image and the text, in the order of tables.
GROUPS = {
    "training-free": "no training",
    "trained": "trained on the auxiliary set",
    "few-shot": "good parts of the tested category",
    "batch": "the other tested images, unlabelled",
}
#: Groups that are no zero-shot methods.
BESIDE = ("few-shot", "batch")
HERE = Results(WORKSPACE)


def main() -> None:
    """Make metrics/method_tables."""
    params = load_params("method_tables")
    facts, catalog, titles = read_facts(params.methods), read_catalog(), read_titles(params.pairs)
    sample_notes = list_sample_notes(params.data.source, params.backbone)
    notes = [FORM_NOTE, *sample_notes, *list_method_notes(facts)]
    for name in TABLES:
        experiment = catalog.get(name)
        values = collect_comparison(experiment, facts)
        own = [*notes, *describe_settings(name, experiment, {}), *catalog.list_notes(experiment)]
        text = render(f"{name}: {experiment.title}", values, own, titles, experiment)
        write_text(paths.METHOD_TABLES / f"{name}.md", text)
        write_csv(paths.METHOD_TABLES / f"{name}.csv", values)
    means = collect_method_means(name_methods(facts) | {OWN: "FuzzyCLIP"}, list(params.pairs))
    write_csv(paths.METHOD_TABLES / "means.csv", means)
    averages = means.groupby(["method", "variant"], sort=False)[[*METRICS]].mean().reset_index()
    averages.insert(1, "group", [name_group(facts, each) for each in averages.pop("variant")])
    write_csv(paths.METHOD_TABLES / "averages.csv", averages)
    lines = [f"# Methods, mean over {len(params.pairs)} dataset(s)", ""]
    for group, words in GROUPS.items():
        of_group = averages[averages["group"] == group].drop(columns="group")
        if len(of_group):
            lines += [f"## {group}: {words}", "", to_markdown(of_group)]
    text = "\n".join([*lines, *(f"- {note}" for note in notes), ""])
    write_text(paths.METHOD_TABLES / "averages.md", text)


def collect_method_means(titles: dict[str, str], datasets: list[str]) -> pd.DataFrame:
    """Means of every method and dataset: `dataset`, `variant`, `method` (title), the metrics."""
    lines = [
        {"dataset": dataset, "variant": method, "method": title} | means
        for method, title in titles.items()
        for dataset in datasets
        if (means := read_means(HERE, dataset, method))
    ]
    return pd.DataFrame(lines, columns=["dataset", "variant", "method", *METRICS])


def show_methods(
    catalog: Catalog, name: str, params: Params, out: Path, done: Mapping[str, Results]
) -> None:
    """One table of methods: on the screen, .md and .csv (long form).

    Results are the work tree's; those of FuzzyCLIP's rows are `done`, by label, as far as they are
    there.

    Raises:
        CatalogError: the work tree's pairs are not the table's.
    """
    experiment = catalog.get(name)
    check_pairs(name, catalog, params)
    facts = read_facts(params.methods)
    values = collect_comparison(experiment, facts, done)
    sample_notes = list_sample_notes(params.data.source, params.backbone)
    notes = [FORM_NOTE, *sample_notes, *list_method_notes(facts)]
    if missing := list_missing(values, facts):
        notes.append(f"not there yet: {', '.join(missing)}; dvc repro track baselines")
    notes += [*describe_settings(name, experiment, done), *catalog.list_notes(experiment)]
    times = read_times(facts, sorted(set(params.pairs.values())))
    notes.append(describe_times(times, "auxiliary set"))
    titles = read_titles(experiment.datasets)
    title = f"{name}: {experiment.title}"
    write_text(out / f"{name}.md", render(title, values, notes, titles, experiment))
    write_csv(out / f"{name}.csv", values)
    typer.echo(render(title, values, [PLAIN_LEGEND, *notes], titles, experiment, PLAIN))
    typer.echo(f"{out / name}.md and .csv (long form) written")


def read_times(facts: Facts, sets: Sequence[str]) -> dict[str, dict[str, Time | None]]:
    """Time of each method's trainings by title and auxiliary set, FuzzyCLIP's parts together."""
    times = {}
    for method, title in name_methods(facts).items():
        trained = next(iter(facts[method].values())).get("auxiliary") is not None
        times[title] = {
            name: read_time(paths.learned(method, name)) for name in (sets if trained else ())
        }
    own = {
        name: add_times(read_time(paths.heads(name)), read_time(paths.prompts(name)))
        for name in sets
    }
    return times | {"FuzzyCLIP": own}


def render(
    title: str,
    values: pd.DataFrame,
    notes: Sequence[str],
    titles: Mapping[str, str],
    experiment: PaperExperiment,
    marks: Mapping[int, tuple[str, str]] = MARKDOWN,
) -> str:
    """A comparison as text: a table a level with the best and the second best marked, and notes."""
    lines = [f"# {title}", ""]
    for level in LEVELS:
        if values["metric"].str.startswith(LEVELS[level]).any():
            ranks = experiment.list_printed_ranks(level.lower())
            table = build_ranked_table(values, level, titles, marks, ranks)
            lines += [f"## {describe_level(values, level)}", "", to_markdown(table)]
    return "\n".join([*lines, *(f"- {note}" for note in notes), ""])


def describe_settings(
    name: str, experiment: PaperExperiment, done: Mapping[str, Results]
) -> list[str]:
    """Notes on FuzzyCLIP's rows that set something: whether what is shown has it."""
    notes = []
    for row in experiment.measured:
        settings = ", ".join(f"{key}: {value}" for key, value in row.set.items())
        if settings and row.label in done:
            notes.append(f"{row.label} is a run with {settings}.")
        elif settings:
            notes.append(
                f"{row.label} is the run of params.yaml as it stands; the table's own, with "
                f"{settings}, is made by fuzzyclip tables run {name}."
            )
    return notes


def check_pairs(name: str, catalog: Catalog, params: Params) -> None:
    """Refuse to show results of other auxiliary sets under the table's name."""
    for row in catalog.get(name).measured:
        for dataset, auxiliary in row.tests.items():
            if (pair := params.pairs.get(dataset)) != auxiliary:
                raise CatalogError(
                    f"{name} tests {dataset} with what was trained on {auxiliary}; params.yaml has "
                    f"pairs.{dataset}: {pair or 'nothing'}"
                )


def collect_comparison(
    experiment: PaperExperiment, facts: Facts, done: Mapping[str, Results] | None = None
) -> pd.DataFrame:
    """Every value of a comparison in long form.

    In the order of `GROUPS`; in each group first those that the table prints. FuzzyCLIP, and rows
    that name no method, come last in theirs. Results are the work tree's, or those in `done` by the
    row's label.

    Returns:
        Columns `label`, `group`, `dataset`, `metric`, `ours` and `paper` (percent, absent where
        there is nothing), `random`, whether ours are of random weights, and `beside`, whether good
        parts or other tested images took part.
    """
    own = [
        TableRow(label=title, method=method)
        for method, title in name_methods(facts).items()
        if method not in experiment.methods
    ]
    known = [row for row in experiment.rows if row.method]
    rest = [row for row in experiment.rows if not row.method]
    lines = []
    groups = {row.label: name_group(facts, row.method or OWN) for row in (*known, *own, *rest)}
    order = [*GROUPS]
    for row in sorted((*known, *own, *rest), key=lambda row: order.index(groups[row.label])):
        for dataset in experiment.datasets:
            results = (done or {}).get(row.label, HERE)
            means = read_means(results, dataset, row.method or OWN, row.method or row.variant)
            made = facts.get(row.method or "", {}).get(dataset, {})
            group = groups[row.label]
            marks = {"random": is_random(made), "beside": group in BESIDE}
            for metric, printed in experiment.list_printed(row, dataset).items():
                line = {"label": row.label, "group": group, "dataset": dataset, "metric": metric}
                ours = means.get(metric, np.nan)
                lines.append(line | {"ours": ours, "paper": printed} | marks)
    return pd.DataFrame(lines)


def read_facts(methods: Iterable[str]) -> dict[str, dict[str, dict[str, Any]]]:
    """Facts on how each method's results came about: method -> dataset -> facts."""
    return {
        method: {
            path.stem: json.loads(path.read_text(encoding="utf-8"))
            for path in sorted((paths.METHOD_METRICS / method).rglob("*.json"))
        }
        for method in methods
    }


def name_group(facts: Facts, method: str) -> str:
    """The group of `GROUPS` that a method with results is of; FuzzyCLIP's have no facts here."""
    made: Mapping[str, Any] = next(iter(facts.get(method, {}).values()), {"auxiliary": OWN})
    if made.get("batch"):
        return "batch"
    if made.get("settings", {}).get("shots"):
        return "few-shot"
    return "training-free" if made.get("auxiliary") is None else "trained"


def is_random(facts: Mapping[str, Any]) -> bool:
    """True where a result is of random weights: it shows that the method runs, and nothing else."""
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
        remarks += [NOT_ZERO_SHOT] if name_group(facts, method) in BESIDE else []
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
    every = [of_dataset for results in facts.values() for of_dataset in results.values()]
    left_out = {of_dataset["title"] for of_dataset in every if "left_out" in of_dataset}
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


if __name__ == "__main__":
    run_stage(method_tables=main)
