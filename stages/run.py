"""What every stage does around its work: arguments, logging, timing, errors in words."""

import json
import logging
import os
import resource
import sys
import time
from collections.abc import Callable
from typing import Annotated

import typer

from fuzzyclip.utils.files import BrokenFileError, UnsummedFileError
from stages import paths
from stages.earlier import discard_output
from stages.values import check_key

Key = Annotated[str | None, typer.Argument(help="By default that of the stage that DVC runs.")]


def run_stage(name: str, work: Callable[[str], None] | Callable[[], None], keyed: bool) -> None:
    """Run a stage from the command line, `python -m stages.<name> [KEY]`; DVC gives no key.

    A failure ends the process with one message, without a traceback where the message says it all.

    Args:
        name: of the stage.
        work: the stage's main function.
        keyed: whether it takes the key of a dataset or an auxiliary set.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)

    def keyed_main(key: Key = None) -> None:
        chosen = read_key(name) if key is None else key
        _run(f"{name}@{chosen}", lambda: work(check_key(chosen)))  # type: ignore[call-arg]

    def plain_main() -> None:
        _run(name, work)  # type: ignore[arg-type]

    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(keyed_main if keyed else plain_main)
    app()


def run_matrix_stage(name: str, work: Callable[[str, str], None]) -> None:
    """Run a stage of a matrix, `python -m stages.<name> [FIRST SECOND]`; see `run_stage`.

    DVC joins the keys by `-`, which the first must not hold.

    Args:
        name: of the stage.
        work: the stage's main function.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)

    def main(first: Key = None, second: Key = None) -> None:
        one, other = first, second
        if one is None or other is None:
            one, _, other = read_key(name).partition("-")
        _run(f"{name}@{one}-{other}", lambda: work(check_key(one), check_key(other)))

    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    app()


def read_key(stage: str) -> str:
    """Key of the stage that DVC runs: what stands behind the `@` in DVC_STAGE.

    It is no argument of the command in dvc.yaml, since that is text for a shell: there are keys
    that leave any quotes.

    Args:
        stage: its name without key.

    Raises:
        typer.BadParameter: DVC does not run this stage.
    """
    running = os.environ.get("DVC_STAGE", "").rpartition(":")[2]  # behind the path of dvc.yaml
    name, _, key = running.partition("@")
    if name != stage or not key:
        raise typer.BadParameter(f"DVC does not run {stage}: give its key", param_hint="KEY")
    return key


def _discard(error: BrokenFileError) -> None:
    """Make way for a whole file where a stage has met a broken one of another stage."""
    if isinstance(error, UnsummedFileError):  # it may be whole, and of use to an earlier version
        error.add_note("run `dvc repro`: it makes anew what an earlier version made")
    elif said := discard_output(error.path):
        error.add_note(said)


def _run(label: str, work: Callable[[], None]) -> None:
    start = time.perf_counter()
    try:
        work()
    except (ValueError, OSError, RuntimeError) as error:
        if isinstance(error, BrokenFileError):
            _discard(error)
        if logging.getLogger().isEnabledFor(logging.DEBUG) or not str(error):
            raise
        said = "; ".join([str(error), *getattr(error, "__notes__", ())])
        logging.error("stage %s failed: %s: %s", label, type(error).__name__, said)
        raise typer.Exit(1) from error
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    path = paths.timing(label)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"seconds": round(seconds, 3), "peak_mib": round(peak)}) + "\n")
