"""Results of finished runs, kept apart from the work tree, which the next run changes."""

import json
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from fuzzyclip.utils.files import (
    BrokenFileError,
    compute_sha256,
    find_changed,
    flush_tree,
    read_digests,
    write_json,
)
from stages import paths
from stages.experiments.plan import Run

log = logging.getLogger(__name__)

RECORD = "run.json"


def is_done(run: Run) -> bool:
    """Whether the run's results are kept, whole; what is broken is named, and run again."""
    path = run.folder / RECORD
    if not path.is_file():
        return False
    try:
        changed = find_changed(run.folder, read_digests(path, "sha256"))
    except BrokenFileError:
        changed = [RECORD]
    if changed:
        log.warning("%s: %s broken; the run is made anew", run.folder, ", ".join(changed))
    return not changed


def collect(run: Run, seconds: float) -> None:
    """Copy the work tree's results into the run's folder, which appears when it is complete."""
    temporary = run.folder.with_name(f".{run.folder.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    for path in list_results(run):
        target = temporary / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
        target.chmod(0o644)  # DVC's links are read-only
    kept = sorted(path for path in temporary.rglob("*") if path.is_file())
    record = {
        "key": run.key,
        "name": run.name,
        "experiment": run.experiment,
        "label": run.row.label,
        "seed": run.seed,
        "set": run.row.set,
        "tests": run.row.tests,
        "seconds": round(seconds, 1),
        "sha256": {path.relative_to(temporary).as_posix(): compute_sha256(path) for path in kept},
    }
    write_json(temporary / RECORD, record)
    flush_tree(temporary)
    if run.folder.exists():
        shutil.rmtree(run.folder)
    temporary.rename(run.folder)


def list_results(run: Run) -> Iterator[Path]:
    """Files that belong to this run; others lie in the same folders from runs before."""
    yield paths.PARAMS
    yield paths.LOCK
    for dataset in run.row.tests:
        yield paths.category_metrics(dataset)
        yield from sorted(p for p in paths.results(dataset).rglob("*") if p.is_file())
    for auxiliary in sorted(set(run.row.tests.values())):
        yield paths.csp_scores(auxiliary)
        yield paths.curve("efa", auxiliary)
        yield paths.curve("rpl", auxiliary)


def read_categories(run: Run, dataset: str) -> pd.DataFrame:
    """The per-category table of a finished run."""
    path = run.folder / paths.category_metrics(dataset)
    return pd.read_csv(path, dtype={"category": str, "prompt": str})


def read_tested(run: Run, dataset: str) -> dict[str, Any]:
    """What a finished run was measured on."""
    tested: dict[str, Any] = json.loads((run.folder / paths.tested(dataset)).read_text())
    return tested


def read_csp(run: Run, auxiliary: str) -> dict[str, Any]:
    """CSP's scores and clusters of a finished run."""
    scores: dict[str, Any] = json.loads((run.folder / paths.csp_scores(auxiliary)).read_text())
    return scores
