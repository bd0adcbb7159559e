"""The command `fuzzyclip`: all that is done outside of the pipeline.

Heavy modules are imported inside the commands, so that `--help` answers at once.
"""

import logging
from typing import Annotated

import typer

import fuzzyclip
from fuzzyclip.cli.calibrate import calibrate
from fuzzyclip.cli.data import data
from fuzzyclip.cli.doctor import doctor
from fuzzyclip.cli.export import export
from fuzzyclip.cli.fetch import fetch
from fuzzyclip.cli.group import Commands
from fuzzyclip.cli.package import package
from fuzzyclip.cli.predict import predict
from fuzzyclip.cli.signatures import sign, verify
from fuzzyclip.cli.tables import compare, tables
from fuzzyclip.utils.files import show_line

app = typer.Typer(
    cls=Commands, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
)
app.command("predict")(predict)
app.command("calibrate")(calibrate)
app.command("package")(package)
app.command("export")(export)
app.command("fetch")(fetch)
app.add_typer(data, name="data")
app.add_typer(tables, name="tables")
app.command("compare")(compare)
app.command("sign")(sign)
app.command("verify")(verify)
app.command("doctor")(doctor)


class OneLine(logging.Formatter):
    """A message as one line, whatever names are in it; a traceback comes after it."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        return show_line(record.message)


def _say_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fuzzyclip {fuzzyclip.__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Say which.")
    ] = False,
) -> None:
    """FuzzyCLIP: zero-shot industrial anomaly detection. The pipeline itself is run by DVC."""
    del version
    handler = logging.StreamHandler()
    handler.setFormatter(OneLine())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("fuzzyclip").setLevel(logging.INFO)  # libraries tell of their own insides
