"""Around every stage's work: which stage, logging, timing, errors in words."""

import hashlib
import inspect
import json
import logging
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from fuzzyclip.utils.endings import GOES_ON, ending, keeping
from fuzzyclip.utils.files import BrokenFileError, UnsummedFileError, write_text
from stages import paths
from stages.values import check_key

#: A stage's main function, with the key of a stage that there are several of.
Work = Callable[[str], None] | Callable[[], None]
Stage = Annotated[
    str | None,
    typer.Argument(metavar="[STAGE@KEY]", help="By default the stage that DVC runs."),
]

log = logging.getLogger(__name__)


def run_stage(**stages: Work) -> None:
    """Run a stage from the command line; DVC gives no argument.

        python -m stages.evaluate visa
        python -m stages.evaluate evaluate_baseline@coop

    A failure ends the process with one message, without a traceback where the message says it all.

    Args:
        stages: main functions by stage; those of one module. A key alone is meant for the first.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)

    def main(stage: Stage = None) -> None:
        name, key = choose_stage(read_running() if stage is None else stage, [*stages])
        work = stages[name]
        if not inspect.signature(work).parameters:
            _run(name, work)  # type: ignore[arg-type]
            return
        if not key:
            raise typer.BadParameter(f"{name} needs a key: {name}@KEY", param_hint="STAGE")
        _run(f"{name}@{key}", lambda: work(check_key(key)))  # type: ignore[call-arg]

    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    app()


def read_running() -> str:
    """The stage that DVC runs, `name` or `name@key`; empty where it runs none.

    It is no argument of the command in dvc.yaml, since that is text for a shell: there are keys
    that leave any quotes.
    """
    return os.environ.get("DVC_STAGE", "").rpartition(":")[2]  # behind the path of dvc.yaml


def choose_stage(stage: str, known: list[str]) -> tuple[str, str]:
    """Name and key of a stage of a module, from `name`, `name@key`, a key of the first, or nothing.

    Raises:
        typer.BadParameter: it is another module's.
    """
    name, at, key = stage.partition("@")
    if name in known:
        return name, key
    if at:
        raise typer.BadParameter(f"{stage} is none of {', '.join(known)}", param_hint="STAGE")
    return known[0], name


def discard_output(path: Path) -> str:
    """Remove a broken file of a stage's output; what is to be done now, nothing if it is no output.

    DVC takes a file whose time has not changed for what it was, and a protected file of its cache,
    often the same one, for whole. So both go; what only the work tree has lost comes back from the
    cache.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo() as repo:
            (output,) = repo.find_outs_by_path(str(path), strict=False)
            stage = output.stage.addressing
            oid = _find_oid(output, path)
            kept = None if oid is None else Path(output.cache.oid_to_path(oid))
    except (DvcException, ValueError) as error:
        log.info("%s is left: %s", path, error)
        return ""
    path.unlink(missing_ok=True)
    if kept is not None and kept.is_file() and not _has_md5(kept, str(oid)):
        kept.unlink()
        return f"it is removed, here and from DVC's cache: `dvc repro {stage}` makes it anew"
    return f"it is removed: `dvc repro {stage}` brings it back"


def _find_oid(output: Any, path: Path) -> str | None:
    """Digest by which DVC knows a file of an output."""
    if Path(output.fs_path) == path.absolute():
        return str(output.hash_info.value) if output.hash_info else None
    parts = path.absolute().relative_to(output.fs_path).parts
    tree = output.get_obj()
    return next((entry.value for key, _, entry in tree or () if key == parts), None)


def _has_md5(path: Path, expected: str) -> bool:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest() == expected


def _run(label: str, work: Callable[[], None]) -> None:
    start = time.perf_counter()

    def name_stage(error: BaseException, line: str) -> str:
        kind = f"{type(error).__name__}: " if isinstance(error, Exception) else ""
        return f"stage {label} failed: {kind}{line}"

    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # as `stages` has it until now
        signal.signal(signal.SIGINT, signal.default_int_handler)
    with ending(log.error, name_stage):
        try:
            with keeping(GOES_ON):
                work()
        except UnsummedFileError as error:  # it may be whole, and of use to an earlier version
            error.add_note("run `dvc repro`: it makes anew what an earlier version made")
            raise
        except BrokenFileError as error:
            if advice := discard_output(error.path):
                error.add_note(advice)
            raise
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        measured = {"seconds": round(seconds, 3), "peak_mib": round(peak)}
        write_text(paths.timing(label), json.dumps(measured) + "\n")
