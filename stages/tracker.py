"""Opening MLflow's store. Of the stages, only those that record results import mlflow.

The default store is a SQLite file in the main checkout, also for `dvc exp run --temp` and
`--queue`, which work in copies that are deleted afterwards: its path is absolute and built on
DVC_ROOT. Several processes may start at once: a fresh SQLite store is made by one at a time.
"""

import os
import subprocess
from pathlib import Path

import mlflow
from filelock import FileLock
from mlflow.tracking import MlflowClient

STORE = "mlflow.db"
ARTIFACTS = "mlartifacts"


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
