"""method_tables: all methods and FuzzyCLIP side by side, in the layout of Tables 2 and 3."""

import pandas as pd

from fuzzyclip.evaluation.metrics import METRICS
from fuzzyclip.method.variants import OWN
from fuzzyclip.report.tables import list_sample_notes, to_markdown
from fuzzyclip.utils.files import write_csv, write_text
from stages import paths
from stages.experiments.catalog import read_catalog
from stages.experiments.methods import (
    FORM_NOTE,
    HERE,
    collect_comparison,
    list_method_notes,
    name_methods,
    read_facts,
    read_titles,
    render,
)
from stages.experiments.results import read_means
from stages.params import load_params
from stages.run import run_stage

TABLES = ("table-2", "table-3")


def main() -> None:
    """Make metrics/method_tables."""
    params = load_params("method_tables")
    facts, catalog, titles = read_facts(params.methods), read_catalog(), read_titles(params.pairs)
    sample_notes = list_sample_notes(params.data.source, params.backbone)
    notes = [FORM_NOTE, *sample_notes, *list_method_notes(facts)]
    for name in TABLES:
        experiment = catalog.get(name)
        values = collect_comparison(experiment, facts)
        text = render(f"{name}: {experiment.title}", values, notes, titles)
        write_text(paths.METHOD_TABLES / f"{name}.md", text)
        write_csv(paths.METHOD_TABLES / f"{name}.csv", values)
    means = collect_means(name_methods(facts) | {OWN: "FuzzyCLIP"}, list(params.pairs))
    write_csv(paths.METHOD_TABLES / "means.csv", means)
    averages = means.groupby("method", sort=False)[[*METRICS]].mean().reset_index()
    write_csv(paths.METHOD_TABLES / "averages.csv", averages)
    lines = [f"# Methods, mean over {len(params.pairs)} dataset(s)", "", to_markdown(averages)]
    text = "\n".join([*lines, *(f"- {note}" for note in notes), ""])
    write_text(paths.METHOD_TABLES / "averages.md", text)


def collect_means(titles: dict[str, str], datasets: list[str]) -> pd.DataFrame:
    """Means of every method and dataset: `dataset`, `variant`, `method` (title), the metrics."""
    lines = [
        {"dataset": dataset, "variant": method, "method": title} | means
        for method, title in titles.items()
        for dataset in datasets
        if (means := read_means(HERE, dataset, method))
    ]
    return pd.DataFrame(lines, columns=["dataset", "variant", "method", *METRICS])


if __name__ == "__main__":
    run_stage(method_tables=main)
