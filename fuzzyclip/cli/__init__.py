"""The command `fuzzyclip`: all that is done outside of the pipeline.

Heavy modules are imported inside the commands, so that `--help` answers at once.
"""

import logging

import typer

from fuzzyclip.cli.calibrate import calibrate
from fuzzyclip.cli.checkout import CHECKOUT, compare, tables, verify
from fuzzyclip.cli.data import data
from fuzzyclip.cli.doctor import doctor
from fuzzyclip.cli.export import export
from fuzzyclip.cli.predict import predict

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.command("predict")(predict)
app.command("calibrate")(calibrate)
app.command("export")(export)
app.add_typer(data, name="data")
app.command("tables", add_help_option=False, context_settings=CHECKOUT)(tables)
app.command("compare", add_help_option=False, context_settings=CHECKOUT)(compare)
app.command("verify")(verify)
app.command("doctor")(doctor)


@app.callback()
def main() -> None:
    """FuzzyCLIP: zero-shot industrial anomaly detection. The pipeline itself is run by DVC."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("fuzzyclip").setLevel(logging.INFO)  # libraries tell of their own insides
