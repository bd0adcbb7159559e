"""The command `fuzzyclip`: all that is done outside of the pipeline.

Heavy modules are imported inside the commands, so that `--help` answers at once.
"""

import logging

import typer

from fuzzyclip.cli.checkout import CHECKOUT, tables, verify
from fuzzyclip.cli.data import data

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.add_typer(data, name="data")
app.command("tables", add_help_option=False, context_settings=CHECKOUT)(tables)
app.command("verify")(verify)


@app.callback()
def main() -> None:
    """FuzzyCLIP: zero-shot industrial anomaly detection. The pipeline itself is run by DVC."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
