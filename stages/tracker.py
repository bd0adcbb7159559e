"""Opening MLflow's store. Of the stages, only those that record results import mlflow.

The default store is a SQLite file in the main checkout, also for `dvc exp run --temp` and
`--queue`, which work in copies that are deleted afterwards: its path is absolute and built on
DVC_ROOT. Several processes may start at once: a fresh SQLite store is made by one at a time.
"""

import logging
import os
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import mlflow
import pandas as pd
from filelock import FileLock
from mlflow.entities import Metric, Param, RunTag
from mlflow.tracking import MlflowClient

STORE = "mlflow.db"
ARTIFACTS = "mlartifacts"
#: What a store takes at a time.
BATCH = 100

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrackedResult:
    """One result, as a run of MLflow.

    Attributes:
        name: of the run.
        identity: names of the tags by which the same result is known again.
        tags: where it comes from.
        params: the choices that made it.
        metrics: its numbers; those that are not there are left out.
        log_files: logs files, data and models to the run that is open.
    """

    name: str
    identity: Sequence[str]
    tags: Mapping[str, str]
    params: Iterable[tuple[str, str]]
    metrics: Iterable[tuple[str, float, int]]
    log_files: Callable[[], None]


def keep(record: TrackedResult, client: MlflowClient, experiment: str) -> None:
    """Make a run of a result, unless there is one already."""
    identity = {tag: record.tags[tag] for tag in record.identity}
    if existing := find_run(client, experiment, identity):
        log.info("%s is recorded already, as run %s", record.name, existing)
        return
    metrics = [
        Metric(name, float(value), 0, step)
        for name, value, step in record.metrics
        if pd.notna(value)
    ]
    params = [Param(key, value) for key, value in record.params]
    mlflow.set_experiment(experiment_id=experiment)
    with mlflow.start_run(run_name=record.name) as run:
        for first in range(0, len(metrics), 10 * BATCH):
            client.log_batch(run.info.run_id, metrics=metrics[first : first + 10 * BATCH])
        for first in range(0, len(params), BATCH):
            client.log_batch(run.info.run_id, params=params[first : first + BATCH])
        tags = [RunTag(key, value) for key, value in record.tags.items()]
        client.log_batch(run.info.run_id, tags=tags)
        record.log_files()
    log.info("recorded as MLflow run %s (%s)", record.name, run.info.run_id)


def find_root() -> Path:
    """The main checkout: DVC's root where DVC runs us, else the working folder."""
    return Path(os.environ.get("DVC_ROOT", ".")).resolve()


def open_experiment(name: str) -> tuple[MlflowClient, str]:
    """A client of the store and the experiment's id, made if it is not there.

    MLFLOW_TRACKING_URI names another store or a server; then that side decides where artifacts go.
    """
    root = find_root()
    remote = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(remote or f"sqlite:///{root / STORE}")
    with FileLock(root / f"{STORE}.lock"):
        client = MlflowClient()
        experiment = client.get_experiment_by_name(name)
        if experiment is not None:
            if experiment.lifecycle_stage == "deleted":
                client.restore_experiment(experiment.experiment_id)
            return client, str(experiment.experiment_id)
        location = None if remote else (root / ARTIFACTS).as_uri()
        return client, str(client.create_experiment(name, artifact_location=location))


def find_run(client: MlflowClient, experiment: str, tags: dict[str, str]) -> str | None:
    """A finished run that carries all of `tags`, if there is one."""
    terms = [f"tags.`{key}` = '{value}'" for key, value in tags.items()]
    runs = client.search_runs(
        [experiment], " and ".join([*terms, "attributes.status = 'FINISHED'"]), max_results=1
    )
    return str(runs[0].info.run_id) if runs else None


def describe_ui(experiment: str) -> str:
    """How to look at the runs: a command and a link, or the server's address."""
    remote = os.environ.get("MLFLOW_TRACKING_URI")
    # MLflow 3 opens on its GenAI pages; this address opens the classic comparison.
    page = f"#/experiments/{experiment}/runs?workflowType=machine_learning&compareRunsMode=CHART"
    if remote:
        return f"{remote.rstrip('/')}/{page}" if remote.startswith("http") else remote
    command = f"mlflow ui --backend-store-uri sqlite:///{find_root() / STORE}"
    return f"{command}\n  http://127.0.0.1:5000/{page}"


def run_git(*arguments: str) -> str:
    """Git's answer, or nothing where this is no checkout."""
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip()
