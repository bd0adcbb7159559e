"""Running experiments through `dvc exp run`, one by one, and leaving the work tree as it was.

What is done already is skipped, and a killed run goes on: DVC keeps finished stages, and a killed
stage goes on from its scratch files. That is why runs are made in the work tree and not in a copy
(`--temp`), which is removed, with its scratch files, when the run fails.
"""

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from stages import paths
from stages.experiments.history import TARGET, locate
from stages.experiments.plan import Run
from stages.yaml_numbers import dump_yaml

log = logging.getLogger(__name__)
#: What a run changes in the work tree and git tracks, kept here until the runs are over.
BEFORE = paths.BEFORE_EXPERIMENTS
LOCK = BEFORE.with_suffix(".lock")


class ExperimentError(RuntimeError):
    """A run of the pipeline failed."""


def execute(runs: Sequence[Run], list_files: Callable[[Run], Sequence[Path]]) -> None:
    """Run what is not done yet; `list_files` says what must be there of results, see `locate`.

    params.yaml, dvc.lock, metrics and the data behind them are put back in the end.

    Raises:
        ExperimentError: a run failed; what was done before is kept.
    """
    with alone():
        if BEFORE.exists():
            log.info("an earlier call was cut off: putting its work tree back first")
            put_back()
        located = locate(runs, list_files)
        todo = {run.identity: run for run in located if run.results is None}  # rows may share one
        log.info("%d of %d runs are done already", len(runs) - len(todo), len(runs))
        if not todo:
            return
        keep()
        try:
            for number, run in enumerate(todo.values(), 1):
                log.info("run %d of %d: %s", number, len(todo), run.name)
                text = dump_yaml(run.params)
                paths.PARAMS.write_text(text, encoding="utf-8")
                call_dvc("exp", "remove", run.name, quiet=True)  # of other code, or cut off
                if call_dvc("exp", "run", "-n", run.name, TARGET, run=run) != 0:
                    raise ExperimentError(f"{run.name} failed; the same command goes on from there")
        finally:
            put_back()


def call_dvc(*arguments: str, quiet: bool = False, run: Run | None = None) -> int:
    """DVC's exit code."""
    folder = str(Path(sys.executable).parent)  # DVC starts `python`: this environment's
    environment = os.environ | {"PATH": folder + os.pathsep + os.environ.get("PATH", "")}
    if run is not None:
        environment |= {"FUZZYCLIP_EXPERIMENT": run.experiment, "FUZZYCLIP_ROW": run.row.label}
    sink = subprocess.DEVNULL if quiet else None
    command = [sys.executable, "-m", "dvc", *arguments]
    return subprocess.run(
        command, env=environment, stdout=sink, stderr=sink, check=False
    ).returncode


@contextmanager
def alone() -> Iterator[None]:
    """Hold the work tree, which only one call at a time may change.

    Raises:
        ExperimentError: another call holds it.
    """
    LOCK.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(LOCK, timeout=0):
            yield
    except Timeout as error:
        raise ExperimentError("another call runs experiments in this checkout") from error


def keep() -> None:
    """Copy what the runs will change."""
    temporary = BEFORE.with_name(f".{BEFORE.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    for path in (paths.PARAMS, paths.LOCK):
        if path.exists():
            shutil.copy(path, temporary / path.name)
    if paths.METRICS.exists():
        shutil.copytree(paths.METRICS, temporary / paths.METRICS)
    temporary.rename(BEFORE)


def put_back() -> None:
    """Undo what the runs changed."""
    for path in (paths.PARAMS, paths.LOCK):
        path.unlink(missing_ok=True)
        if (BEFORE / path.name).exists():
            shutil.copy(BEFORE / path.name, path)
    shutil.rmtree(paths.METRICS, ignore_errors=True)
    if (BEFORE / paths.METRICS).exists():
        shutil.copytree(BEFORE / paths.METRICS, paths.METRICS)
    gone = BEFORE.with_name(f".{BEFORE.name}-gone")
    shutil.rmtree(gone, ignore_errors=True)
    BEFORE.rename(gone)  # at once: a kill must not leave half of it to be put back later
    shutil.rmtree(gone)
    if paths.LOCK.exists():
        # What was not there before the runs cannot be checked out; that is no failure of theirs.
        call_dvc("checkout", "--force", "--allow-missing", quiet=True)
