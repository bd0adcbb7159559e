"""What every stage does around its work: arguments, logging, timing, errors in words."""

import json
import logging
import resource
import sys
import time
from collections.abc import Callable

import typer

from stages import paths


def run_stage(name: str, work: Callable[[str], None] | Callable[[], None], keyed: bool) -> None:
    """Run a stage from the command line, `python -m stages.<name> [KEY]`.

    A failure ends the process with one message, without a traceback where the message says it all.

    Args:
        name: of the stage.
        work: the stage's main function.
        keyed: whether it takes the key of a dataset or an auxiliary set.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)

    def keyed_main(key: str) -> None:
        _run(f"{name}@{key}", lambda: work(key))  # type: ignore[call-arg]

    def plain_main() -> None:
        _run(name, work)  # type: ignore[arg-type]

    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(keyed_main if keyed else plain_main)
    app()


def run_matrix_stage(name: str, work: Callable[[str, str], None]) -> None:
    """Run a stage of a matrix, `python -m stages.<name> FIRST SECOND`; see `run_stage`.

    Args:
        name: of the stage.
        work: the stage's main function.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)

    def main(first: str, second: str) -> None:
        _run(f"{name}@{first}-{second}", lambda: work(first, second))

    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    app()


def _run(label: str, work: Callable[[], None]) -> None:
    start = time.perf_counter()
    try:
        work()
    except (ValueError, OSError, RuntimeError) as error:
        if logging.getLogger().isEnabledFor(logging.DEBUG) or not str(error):
            raise
        logging.error("stage %s failed: %s: %s", label, type(error).__name__, error)
        raise typer.Exit(1) from error
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    path = paths.timing(label)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"seconds": round(seconds, 3), "peak_mib": round(peak)}) + "\n")
