"""baselines: one MLflow run a method, beside FuzzyCLIP's in the same experiment.

Without outs on purpose, like `track`: a result is recorded also when it came out of DVC's cache,
and not again when nothing changed.
"""

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from typing import Any

import mlflow
import pandas as pd
from mlflow.entities import Metric, Param, RunTag
from mlflow.tracking import MlflowClient

from fuzzyclip.evaluation.metrics import METRICS
from fuzzyclip.utils.files import compute_sha256
from stages import paths
from stages.params import load_params
from stages.run import run_stage
from stages.tracker import describe_ui, find_run, open_experiment, run_git

PARAMS = ("methods", "pairs", "tracking.experiment")
#: Facts that differ between datasets, or are no choices.
NO_PARAMS = ("auxiliary", "note", "left_out")

log = logging.getLogger(__name__)


def main() -> None:
    """Record every method's settings, metrics and files; what is recorded already is not again."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    params = load_params(PARAMS)
    client, experiment = open_experiment(params.tracking.experiment)
    mlflow.set_experiment(experiment_id=experiment)
    means = pd.read_csv(paths.METHOD_TABLES / "means.csv")
    for method in params.methods:
        own = means[means["row"] == method]
        if own.empty:
            log.info("%s has no result to record", method)
            continue
        tags = collect_tags(method, params.pairs)
        if find_run(client, experiment, {key: tags[key] for key in ("method", "results_sha256")}):
            log.info("%s is recorded already", method)
            continue
        name = f"{method}-{tags['results_sha256'][:8]}"
        with mlflow.start_run(run_name=name) as run:
            record(client, run.info.run_id, own, list_params(method, params.pairs), tags)
            log_files(method)
        log.info("recorded as MLflow run %s", name)
    log.info("compare the runs:\n  %s", describe_ui(experiment))


def collect_tags(method: str, pairs: Mapping[str, str]) -> dict[str, str]:
    """Where a result comes from: its own files, DVC's experiment and the commit."""
    digest = hashlib.sha256()
    for dataset, auxiliary in pairs.items():
        for path in (
            paths.method_metrics(method, auxiliary, dataset),
            paths.method_facts(method, auxiliary, dataset),
        ):
            digest.update(compute_sha256(path).encode())
    digest.update(paths.method_code(method).read_bytes())
    return {
        "method": method,
        "results_sha256": digest.hexdigest(),
        "dvc.exp_name": os.environ.get("DVC_EXP_NAME", ""),
        "git.commit": run_git("rev-parse", "HEAD"),
    }


def record(
    client: MlflowClient,
    run: str,
    means: pd.DataFrame,
    chosen: list[tuple[str, str]],
    tags: dict[str, str],
) -> None:
    """One run: the metrics have the names that FuzzyCLIP's runs give them."""
    metrics = []
    for metric in METRICS:
        for dataset, value in zip(means["dataset"], means[metric], strict=True):
            metrics.append((f"{metric}/{dataset}", value))
        metrics.append((f"{metric}/mean", means[metric].mean()))
    client.log_batch(
        run,
        metrics=[Metric(name, float(value), 0, 0) for name, value in metrics if pd.notna(value)],
        params=[Param(key, value) for key, value in chosen],
        tags=[RunTag(key, value) for key, value in tags.items()],
    )


def log_files(method: str) -> None:
    """A method's results, the tables that it stands in, and what made it, into the run."""
    mlflow.log_artifacts(str(paths.METHOD_METRICS / method), "metrics")
    mlflow.log_artifacts(str(paths.METHOD_TABLES), "method_tables")
    mlflow.log_artifact(str(paths.method_code(method)))


def list_params(method: str, pairs: Mapping[str, str]) -> list[tuple[str, str]]:
    """The method's choices; settings that differ between datasets by the dataset."""
    facts: dict[str, dict[str, Any]] = {
        dataset: json.loads(paths.method_facts(method, auxiliary, dataset).read_text())
        for dataset, auxiliary in pairs.items()
    }
    flat = {dataset: flatten(found) for dataset, found in facts.items()}
    said = []
    for key in next(iter(flat.values())):
        values = {dataset: found[key] for dataset, found in flat.items()}
        if len(set(values.values())) == 1:
            said.append((key, next(iter(values.values()))))
        else:
            said += [(f"{key}/{dataset}", value) for dataset, value in values.items()]
    return said


def flatten(facts: dict[str, Any]) -> dict[str, str]:
    """Facts as dotted keys."""
    flat: dict[str, str] = {}
    for key, value in facts.items():
        if isinstance(value, dict):
            flat |= {f"{key}.{name}": inner for name, inner in flatten(value).items()}
        elif key not in NO_PARAMS:
            flat[key] = json.dumps(value) if isinstance(value, list) else str(value)
    return flat


if __name__ == "__main__":
    run_stage("baselines", main, keyed=False)
