"""The commands of `python -m stages.experiments`, also reached as `fuzzyclip tables ...`."""

import logging
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer

from fuzzyclip.cli.group import Commands
from fuzzyclip.evaluation.metrics import METRICS
from fuzzyclip.method import OWN
from fuzzyclip.report.comparison import join_results, render_comparison
from fuzzyclip.report.gallery import save_figure
from fuzzyclip.report.tables import is_paper_setting, list_sample_notes, to_markdown
from fuzzyclip.utils.endings import GOES_ON, keeping
from fuzzyclip.utils.files import write_text
from fuzzyclip.utils.tables import write_csv
from stages import paths
from stages.experiments.catalog import FILE, Catalog, CatalogError, read_catalog
from stages.experiments.compare import compare, compare_methods, find_run, list_scores
from stages.experiments.execute import ExperimentError, call_dvc, execute
from stages.experiments.facts import collect_facts, name_experiments, read_expected
from stages.experiments.figures import Drawn, draw, list_pictures
from stages.experiments.history import TARGET, find_results, locate, read_side
from stages.experiments.maps import draw_maps
from stages.experiments.noise import measure_noise
from stages.experiments.plan import Run, estimate, plan_runs, read_base
from stages.experiments.results import WORKSPACE, MissingResultError, Results, read_tested
from stages.experiments.show import collect_values, layout, list_notes
from stages.experiments.verify import Measured, Verdict, summarise, verify
from stages.method_tables import (
    check_pairs,
    is_random,
    name_methods,
    read_facts,
    read_titles,
    show_methods,
)
from stages.params import read_params
from stages.schema import Params

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="The paper's tables and figures: what there is, running them, showing them.",
)
Name = Annotated[str, typer.Argument(help="As `list` shows it, table-1 for example.")]
File = Annotated[Path, typer.Option("--catalog", help="Experiments of your own, as paper.yaml.")]
Seeds = Annotated[int, typer.Option(min=1, help="Runs of each row, seeds one after another.")]


@app.command("list")
def list_experiments(file: File = FILE) -> None:
    """Every experiment, and what it costs from scratch with params.yaml as it stands."""
    catalog, base = read_catalog(file), read_base()
    runs = locate([run for name in catalog.experiments for run in plan_runs(catalog, name, base)])
    lines = []
    for name, experiment in catalog.experiments.items():
        own = [run for run in runs if run.experiment == name]
        cost = estimate(own)
        lines.append(
            {
                "name": name,
                "runs": f"{cost.runs}",
                "done": f"{sum(run.results is not None for run in own)}/{len(own)}",
                "encode": f"{cost.images + cost.mosaics}",
                "EFA heads": f"{cost.heads}",
                "RPL": f"{cost.prompts}",
                "GB": f"{cost.disk / 1e9:.1f}",
                "title": experiment.title,
            }
        )
    frame = pd.DataFrame(lines)
    typer.echo(frame.to_string(index=False, justify="left"))
    typer.echo(
        "\nencode: images and mosaics to encode once, shared by all experiments; EFA heads: sets "
        "of layers\nto train (at least, where CSP chooses their number); GB: patch tokens of the "
        "datasets in use."
    )


@app.command("run")
def run_experiment(name: Name, seeds: Seeds = 1, file: File = FILE) -> None:
    """Run what is not done yet, through `dvc exp run`; the work tree is put back afterwards."""
    catalog = read_catalog(file)
    read_params()  # before DVC makes names and commands of them
    experiment = catalog.get(name)
    with keeping(GOES_ON):
        if experiment.kind != "maps":  # these are of the work tree's own results
            runs = plan_runs(catalog, name, read_base(), seeds)
            execute(runs, partial(list_pictures, experiment))
        if experiment.methods and call_dvc("repro", TARGET, "baselines") != 0:
            raise ExperimentError(
                f"dvc repro {TARGET} baselines failed; the same command goes on from there"
            )
    show_experiment(name, seeds, file=file)


@app.command("show")
def show_experiment(
    name: Name,
    seeds: Seeds = 1,
    out: Annotated[Path, typer.Option(help="Folder for the files.")] = paths.EXPERIMENTS,
    file: File = FILE,
) -> None:
    """Build the table or figure from what has been run: on the screen, and as files.

    Tables that compare methods show the work tree's own results, as `dvc repro` left them, and
    FuzzyCLIP's row of its run; with several seeds, FuzzyCLIP's mean and spread.
    """
    catalog = read_catalog(file)
    experiment = catalog.get(name)
    if experiment.kind == "table" and experiment.methods and seeds == 1:
        located = locate(plan_runs(catalog, name, read_base()))
        done = {run.row.label: run.results for run in located if run.results}
        show_methods(catalog, name, read_params(), out, done)
        return
    if experiment.kind == "maps":
        params = read_params()
        check_pairs(name, catalog, params)
        show_figure(catalog, name, draw_maps(experiment, params), read_base(), out)
        return
    runs = plan_runs(catalog, name, read_base(), seeds)
    runs = locate(runs, partial(list_pictures, experiment))
    if experiment.kind == "table":
        show_table(catalog, name, runs, out)
    else:
        show_figure(catalog, name, draw(experiment, runs, catalog.shown), runs[0].params, out)


@app.command("compare")
def compare_rows(
    name: Name,
    to: Annotated[str | None, typer.Option(help="Label of a row. [default: the first]")] = None,
    other: Annotated[str | None, typer.Option("--in", help="Experiment of that row.")] = None,
    file: File = FILE,
) -> None:
    """Differences of a table's rows from one row, by a paired bootstrap over images.

    Of a table of methods: FuzzyCLIP minus each, as the work tree has them, on all datasets of its
    `pairs` that a method was not left out of.
    """
    catalog, base = read_catalog(file), read_base()
    if catalog.get(name).methods and not (to or other):
        compare_work_tree(read_params())
        return
    runs = locate(plan_runs(catalog, name, base), list_scores)
    others = locate(plan_runs(catalog, other, base), list_scores) if other else runs
    reference = find_run(others, to or others[0].row.label)
    compared = [run for run in runs if run.results and run.row != reference.row]
    metrics = catalog.get(name).metrics or []
    lines = [line for run in compared for line in compare(run, reference, metrics)]
    if not lines:
        raise CatalogError(f"nothing to compare: fuzzyclip tables run {name}")
    typer.echo(pd.DataFrame(lines).to_string(index=False))
    typer.echo(
        "\nPoints; images drawn with replacement within each category and label, the same for both "
        "rows.\nWhat another seed of the training would change is not in the interval: run several."
    )


def compare_work_tree(params: Params) -> None:
    """FuzzyCLIP minus each method: the means on the screen, every dataset in a file."""
    facts, out = read_facts(params.methods), paths.EXPERIMENTS / "methods-compare.csv"
    titles = {
        method: f"{title} (random weights)"
        if any(map(is_random, facts[method].values()))
        else title
        for method, title in name_methods(facts).items()
    }
    here, datasets = Results(WORKSPACE), list(params.pairs)
    frame = pd.DataFrame(compare_methods(here, titles, datasets, METRICS, params.seed))
    if frame.empty:
        raise CatalogError("nothing to compare: dvc repro track baselines")
    write_csv(out, frame)
    means = frame[frame["dataset"].str.startswith("mean of ")]
    typer.echo((frame if means.empty else means).to_string(index=False))
    typer.echo(
        "\nPoints, FuzzyCLIP minus the method; images drawn with replacement within each category "
        f"and label,\nthe same for both. Every dataset: {out}"
    )


@app.command("report")
def report_difference(
    first: Annotated[str, typer.Argument(help="A git revision, or a DVC experiment by name.")],
    second: Annotated[str, typer.Argument(help="The same.")] = WORKSPACE,
    out: Annotated[Path, typer.Option(help="HTML file to write.")] = Path("compare.html"),
) -> None:
    """Compare any two results as one HTML page: parameters, datasets, categories.

    Differences stand beside what other test images would have changed, where scores are at hand.
    """
    sides = read_side(first), read_side(second)
    noise = measure_noise(find_results(first), find_results(second), join_results(*sides))
    write_text(out, render_comparison(*sides, noise))
    typer.echo(f"{out} written")


@app.command("verify")
def verify_runs(seeds: Seeds = 1) -> None:
    """Compare finished runs in the paper's setting with every number that is known of them.

    A table has failed where one number is outside of its tolerance; numbers at which the paper
    contradicts itself are named and fail nothing. Other methods are those of the work tree.
    """
    catalog, expected, base = read_catalog(), read_expected(), read_base()
    facts = collect_facts(catalog, expected)
    names = name_experiments(facts, expected)
    runs = locate([run for name in names for run in plan_runs(catalog, name, base, seeds)])
    done = [run for run in runs if run.results]
    if not (has_paper_setting(base) and all(map(is_comparable, done))):
        raise CatalogError(
            "this is not the paper's setting (data.source: official, all of the data, and "
            "backbone: vit_l_14_336 at 518 px): nothing is known of what it must give"
        )
    measured = Measured(runs, Results(WORKSPACE))
    verdicts = list(verify(facts, expected.clusters, measured))
    report_verdicts(verdicts, catalog.notes)
    missing = dict.fromkeys(run.experiment for run in runs if run.results is None)
    option = f" --seeds {seeds}" if seeds > 1 else ""
    remedies = [f"fuzzyclip tables run {name}{option}" for name in missing]
    if any(fact.place.method != OWN and measured.read(fact.place) is None for fact in facts):
        remedies.append("dvc repro baselines")
    if remedies:
        typer.echo(f"\nnot all was run: {', '.join(remedies)}")
    raise typer.Exit(any(verdict.outcome == "failed" for verdict in verdicts))


def report_verdicts(verdicts: Sequence[Verdict], notes: Mapping[str, str]) -> None:
    """Every number outside of its tolerance by name, and a line a table."""
    for verdict in verdicts:
        if verdict.outcome in ("failed", "in doubt"):
            note = f"; {verdict.doubt}: {notes[verdict.doubt]}" if verdict.doubt else ""
            typer.echo(
                f"{verdict.outcome.upper()}  {verdict.name}: {verdict.measured}, expected "
                f"{verdict.expected} ({verdict.source}){note}"
            )
    typer.echo(summarise(verdicts).to_string(index=False))


def show_table(catalog: Catalog, name: str, runs: list[Run], out: Path) -> None:
    """One table: on the screen, .md and .csv (long form)."""
    experiment = catalog.get(name)
    done = [run for run in runs if run.results]
    comparable = bool(done) and all(map(is_comparable, done))
    values = collect_values(experiment, runs, comparable)
    frame = layout(values, read_titles(dataset for run in runs for dataset in run.row.tests))
    base = runs[0].params
    source = f"data.source={base['data']['source']}, backbone={base['backbone']}"
    missing = len({run.identity for run in runs}) - len({run.identity for run in done})
    notes = list_notes(catalog, experiment, comparable, source)
    notes += [f"{missing} run(s) are not done: fuzzyclip tables run {name}"] if missing else []
    write_csv(out / f"{name}.csv", values)
    show_text(f"{name}: {experiment.title}", frame, notes, out / f"{name}.md")
    typer.echo(f"{out / name}.md and .csv (long form) written")


def show_figure(
    catalog: Catalog, name: str, drawn: Drawn, params: dict[str, Any], out: Path
) -> None:
    """One figure: .png, its numbers as .csv, and .md: what sums them up, and notes."""
    experiment = catalog.get(name)
    notes = [*catalog.list_notes(experiment), *drawn.notes]
    notes += list_sample_notes(params["data"]["source"], params["backbone"])
    table = drawn.numbers if drawn.summary is None else drawn.summary
    save_figure(drawn.figure, out / f"{name}.png")
    write_csv(out / f"{name}.csv", drawn.numbers)
    show_text(f"{name}: {experiment.title}", table, notes, out / f"{name}.md")
    typer.echo(f"{out / name}.png, .csv and .md written")


def show_text(title: str, table: pd.DataFrame, notes: Sequence[str], file: Path) -> None:
    """A title, a table and notes: on the screen, and as Markdown."""
    lines = [f"# {title}", "", to_markdown(table), *(f"- {note}" for note in notes), ""]
    write_text(file, "\n".join(lines))
    typer.echo("\n".join(lines))


def is_comparable(run: Run) -> bool:
    """True where a finished run's data and backbone are the paper's: differences mean something."""
    if run.results is None:
        return False
    try:
        tested = {dataset: read_tested(run.results, dataset) for dataset in run.row.tests}
    except MissingResultError:
        return False
    return has_paper_setting(run.params, tested)


def has_paper_setting(
    params: dict[str, Any], tested: Mapping[str, Mapping[str, Any]] | None = None
) -> bool:
    """True where parameters are the paper's, and, if given, the facts of what was tested."""
    run = Params.model_validate(params)
    clip, pairs = run.backbones[run.backbone], {} if tested is None else run.pairs
    return is_paper_setting(run.data.source, clip, pairs, tested or {}, any_pairs=True)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    app()
