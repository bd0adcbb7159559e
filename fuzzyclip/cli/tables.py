"""`fuzzyclip tables` and `compare`: a checkout's own experiments, as typed here.

The library knows no stage. What was typed is checked here, so that help and mistakes are answered
at once and by the command's own name; the rest is handed over to the checkout's command.
"""

from pathlib import Path
from typing import Annotated

import typer

#: The checkout's own commands; what is loaded for them takes seconds.
MODULE = "stages.experiments"

tables = typer.Typer(
    no_args_is_help=True, help="The paper's tables and figures, in a checkout: list, run, show."
)

Name = Annotated[str, typer.Argument(help="As `fuzzyclip tables list` shows it: table-1.")]
Catalog = Annotated[
    Path | None,
    typer.Option(help="Experiments of your own. (default: stages/experiments/paper.yaml)"),
]
Seeds = Annotated[int, typer.Option(min=1, help="Runs of each row, seeds one after another.")]
First = Annotated[str, typer.Argument(help="A git revision, or a DVC experiment by name.")]
Second = Annotated[str | None, typer.Argument(help="The same. (default: the work tree)")]
Page = Annotated[Path, typer.Option(help="HTML file to write.")]


@tables.command("list")
def list_experiments(catalog: Catalog = None) -> None:
    """Every experiment, and what it costs from scratch with params.yaml as it stands."""
    call_checkout("list", catalog=catalog)


@tables.command("run")
def run_experiment(name: Name, seeds: Seeds = 1, catalog: Catalog = None) -> None:
    """Run what is not done yet, through `dvc exp run`; the work tree is put back afterwards."""
    call_checkout("run", name, seeds=seeds, catalog=catalog)


@tables.command("show")
def show_experiment(
    name: Name,
    seeds: Seeds = 1,
    out: Annotated[Path | None, typer.Option(help="Folder for the files.")] = None,
    catalog: Catalog = None,
) -> None:
    """Build the table or figure from what has been run: on the screen, and as files."""
    call_checkout("show", name, seeds=seeds, out=out, catalog=catalog)


@tables.command("compare")
def compare_rows(
    name: Name,
    to: Annotated[str | None, typer.Option(help="Label of a row. (default: the first)")] = None,
    other: Annotated[str | None, typer.Option("--in", help="Experiment of that row.")] = None,
    catalog: Catalog = None,
) -> None:
    """Differences of a table's rows from one row, by a paired bootstrap over images."""
    call_checkout("compare", name, **{"to": to, "in": other, "catalog": catalog})


@tables.command("report")
def report(first: First, second: Second = None, out: Page = Path("compare.html")) -> None:
    """Two results side by side as an HTML page; the same as `fuzzyclip compare`."""
    compare(first, second, out)


@tables.command("verify")
def verify_tables(seeds: Seeds = 1) -> None:
    """Compare finished runs with every number that is known of OpenAI's weights."""
    call_checkout("verify", seeds=seeds)


def compare(first: First, second: Second = None, out: Page = Path("compare.html")) -> None:
    """Two results side by side as an HTML page: parameters, datasets, categories."""
    call_checkout("report", first, *([second] if second else []), out=out)


def call_checkout(command: str, *arguments: str, **options: Path | str | int | None) -> None:
    """Run a command of the experiments in this checkout, and end with its exit code.

    Options that are None are left to the checkout's defaults.
    """
    import subprocess
    import sys

    if not Path(*MODULE.split(".")).is_dir():
        typer.echo("this needs the pipeline: change into a checkout of it", err=True)
        raise typer.Exit(2)
    given = [f"--{name}={value}" for name, value in options.items() if value is not None]
    typed = [sys.executable, "-m", MODULE, command, *given, "--", *arguments]
    raise typer.Exit(subprocess.run(typed, check=False).returncode)
