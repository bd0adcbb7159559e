"""Tables 2 and 3: all methods, ours beside the printed values, on the screen and as files."""

from collections.abc import Mapping, Sequence
from pathlib import Path

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
from fuzzyclip.report.tables import to_markdown
from fuzzyclip.utils.files import write_csv, write_text
from stages.experiments.catalog import Catalog, CatalogError
from stages.experiments.comparison import (
    Facts,
    collect_comparison,
    list_method_notes,
    name_others,
    read_facts,
    read_titles,
)
from stages.schema import Params
from stages.setting import list_sample_notes

#: What the numbers are, whatever the run.
FORM_NOTE = (
    "Percent, unweighted means over categories; AUPRO is the 200-threshold form. Ranks compare "
    "values as printed, ties share the best; a metric that a method's maps leave undefined counts "
    "as last."
)


def render(
    title: str,
    values: pd.DataFrame,
    notes: Sequence[str],
    titles: Mapping[str, str],
    marks: Mapping[int, tuple[str, str]] = MARKDOWN,
) -> str:
    """A comparison as text: a table a level, and what is to be said."""
    lines = [f"# {title}", ""]
    for level in LEVELS:
        if values["metric"].str.startswith(LEVELS[level]).any():
            table = build_ranked_table(values, level, titles, marks)
            lines += [f"## {describe_level(values, level)}", "", to_markdown(table)]
    return "\n".join([*lines, *(f"- {note}" for note in notes), ""])


def show_comparison(catalog: Catalog, name: str, params: Params, out: Path) -> None:
    """One table from the work tree's results: .md and .csv (long form).

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
    values = collect_comparison(experiment, name_others(experiment, facts))
    notes = [f"{key}: {catalog.notes[key]}" for key in experiment.notes]
    own = [FORM_NOTE, *list_sample_notes(params), *list_method_notes(facts)]
    if missing := list_missing(values, facts):
        own.append(f"not there yet: {', '.join(missing)}; dvc repro track baselines")
    titles = read_titles(experiment.datasets)
    title = f"{name}: {experiment.title}"
    write_text(out / f"{name}.md", render(title, values, [*own, *notes], titles))
    write_csv(out / f"{name}.csv", values)
    typer.echo(render(title, values, [PLAIN_LEGEND, *own, *notes], titles, PLAIN))
    typer.echo(f"{out / name}.md and .csv (long form) written")


def list_missing(values: pd.DataFrame, facts: Facts) -> list[str]:
    """Methods that have no result at all on some dataset, but for those that are left out."""
    out = {
        said["title"] for found in facts.values() for said in found.values() if "left_out" in said
    }
    found = values.assign(there=values["ours"].notna()).groupby(["label", "dataset"], sort=False)
    there = found["there"].any().groupby(level="label", sort=False).all()
    return [str(label) for label in there.index[~there] if label not in out]


def check_pairs(name: str, catalog: Catalog, params: Params) -> None:
    """Refuse to show results of other auxiliary sets under the table's name."""
    for row in catalog.get(name).measured:
        for dataset, auxiliary in row.tests.items():
            if (found := params.pairs.get(dataset)) != auxiliary:
                raise CatalogError(
                    f"{name} tests {dataset} with what was trained on {auxiliary}; params.yaml has "
                    f"pairs.{dataset}: {found or 'nothing'}"
                )
