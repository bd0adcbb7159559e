"""method_tables: all methods and FuzzyCLIP side by side, in the layout of Tables 2 and 3."""

import pandas as pd

from fuzzyclip.evaluation.metrics import METRICS
from fuzzyclip.evaluation.rows import TRAINED
from fuzzyclip.report.tables import to_markdown
from fuzzyclip.utils.files import write_csv, write_text
from stages import paths
from stages.experiments.catalog import TableRow, read_catalog
from stages.experiments.methods import (
    FORM_NOTE,
    collect_comparison,
    list_method_notes,
    name_methods,
    read_facts,
    read_row,
    read_titles,
    render,
)
from stages.params import load_params
from stages.run import run_stage
from stages.setting import list_sample_notes

PARAMS = ("methods", "pairs", "data.source", "backbone", "backbones.${backbone}")
TABLES = ("table-2", "table-3")


def main() -> None:
    """Make metrics/method_tables."""
    params = load_params(PARAMS)
    facts = read_facts(params.methods)
    notes = [FORM_NOTE, *list_sample_notes(params), *list_method_notes(facts)]
    catalog, named = read_catalog(), read_titles(params.pairs)
    for name in TABLES:
        experiment = catalog.get(name)
        values = collect_comparison(experiment, facts)
        text = render(f"{name}: {experiment.title}", values, notes, named)
        write_text(paths.METHOD_TABLES / f"{name}.md", text)
        write_csv(paths.METHOD_TABLES / f"{name}.csv", values)
    means = collect_means(name_methods(facts), list(params.pairs))
    write_csv(paths.METHOD_TABLES / "means.csv", means)
    averages = means.groupby("method", sort=False)[[*METRICS]].mean().reset_index()
    write_csv(paths.METHOD_TABLES / "averages.csv", averages)
    lines = [f"# Methods, mean over {len(params.pairs)} dataset(s)", ""]
    lines += [to_markdown(averages), *(f"- {note}" for note in notes), ""]
    write_text(paths.METHOD_TABLES / "averages.md", "\n".join(lines))


def collect_means(titles: dict[str, str], datasets: list[str]) -> pd.DataFrame:
    """Means of every method and dataset: `dataset`, `row`, `method` (its title), the metrics."""
    rows = [TableRow(label=title, method=name) for name, title in titles.items()]
    lines = []
    for row in (*rows, TableRow(label="FuzzyCLIP")):
        for dataset in datasets:
            if found := read_row(row, dataset):
                line = {"dataset": dataset, "row": row.method or TRAINED, "method": row.label}
                lines.append(line | found)
    return pd.DataFrame(lines, columns=["dataset", "row", "method", *METRICS])


if __name__ == "__main__":
    run_stage("method_tables", main, keyed=False)
