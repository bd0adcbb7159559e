"""The command `fuzzyclip`: all that is done outside of the pipeline.

Heavy modules are imported inside the commands, so that `--help` answers at once.
"""

import logging
from pathlib import Path

import typer

from fuzzyclip.cli.calibrate import calibrate
from fuzzyclip.cli.data import data
from fuzzyclip.cli.doctor import doctor
from fuzzyclip.cli.export import export
from fuzzyclip.cli.predict import predict

#: Commands of a checkout's own pipeline: the library knows no stage and hands their arguments over.
CHECKOUT = {"allow_extra_args": True, "ignore_unknown_options": True}

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.command("predict")(predict)
app.command("calibrate")(calibrate)
app.command("export")(export)
app.add_typer(data, name="data")


@app.command("tables", add_help_option=False, context_settings=CHECKOUT)
def tables(context: typer.Context) -> None:
    """The paper's tables and figures, each by one command; run in a checkout."""
    _call_checkout(context.args)


@app.command("compare", add_help_option=False, context_settings=CHECKOUT)
def compare(context: typer.Context) -> None:
    """Two results side by side as an HTML page: A [B] [--out FILE], revisions or experiments."""
    _call_checkout(["report", *context.args])


@app.command("verify", add_help_option=False, context_settings=CHECKOUT)
def verify(context: typer.Context) -> None:
    """Compare finished runs with every number that is known of OpenAI's weights: [--seeds N]."""
    _call_checkout(["verify", *context.args])


app.command("doctor")(doctor)


@app.callback()
def main() -> None:
    """FuzzyCLIP: zero-shot industrial anomaly detection. The pipeline itself is run by DVC."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("fuzzyclip").setLevel(logging.INFO)  # libraries tell of their own insides


def _call_checkout(arguments: list[str]) -> None:
    """Run the experiments' own command in this checkout, and end with its exit code."""
    import subprocess
    import sys

    if not Path("stages/experiments").is_dir():
        typer.echo("this needs the pipeline: change into a checkout of it", err=True)
        raise typer.Exit(2)
    command = [sys.executable, "-m", "stages.experiments", *arguments]
    raise typer.Exit(subprocess.run(command, check=False).returncode)
