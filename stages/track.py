"""track: one MLflow run for this experiment.

The last stage, and without outs on purpose: DVC never takes such a stage from its run cache, so a
result is recorded also when every other stage was a cache hit, and not again when nothing changed.
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterator
from typing import Any

import mlflow
import pandas as pd
import yaml
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.http_dataset_source import HTTPDatasetSource
from mlflow.data.meta_dataset import MetaDataset
from mlflow.entities import Metric, Param, RunTag
from mlflow.tracking import MlflowClient

from fuzzyclip.evaluation.metrics import METRICS
from fuzzyclip.evaluation.rows import TRAINED
from stages import paths
from stages.model_log import log_models
from stages.params import LOADER, read_params
from stages.run import run_stage
from stages.tracker import describe_ui, find_run, open_experiment, run_git

PARAMS = ("params.yaml",)
BATCH = 100
#: Stages with a training curve of each auxiliary set.
TRAINED_BY = ("efa", "rpl")

log = logging.getLogger(__name__)


def main() -> None:
    """Record parameters, metrics, tables, curves, pictures, data and versions."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    params = read_params()
    client, experiment = open_experiment(params.tracking.experiment)
    tags = collect_tags()
    identity = {key: tags[key] for key in ("dvc.lock_sha256", "dvc.exp_name")}
    if existing := find_run(client, experiment, identity):
        log.info("this result is recorded already, as run %s", existing)
    else:
        name = tags["dvc.exp_name"] or f"repro-{tags['dvc.lock_sha256'][:8]}"
        mlflow.set_experiment(experiment_id=experiment)
        with mlflow.start_run(run_name=name) as run:
            log_numbers(client, run.info.run_id, tags)
            log_files()
            log_datasets(list(params.pairs))
            log_models(params.auxiliary if params.tracking.models else ())
        log.info("recorded as MLflow run %s (%s)", name, run.info.run_id)
    log.info("compare the runs:\n  %s", describe_ui(experiment))


def read_lock() -> dict[str, Any]:
    """dvc.lock's stages without this one, which is not in it yet the first time."""
    stages: dict[str, Any] = yaml.load(paths.LOCK.read_text(), LOADER)["stages"]
    return {name: stage for name, stage in stages.items() if name != "track"}


def collect_tags() -> dict[str, str]:
    """Where this result comes from: DVC's experiment, its lock and the commit."""
    locked = json.dumps(read_lock(), sort_keys=True)
    return {
        # which row of which of the paper's tables this run was made for, if for one
        "paper.experiment": os.environ.get("FUZZYCLIP_EXPERIMENT", ""),
        "paper.row": os.environ.get("FUZZYCLIP_ROW", ""),
        "dvc.lock_sha256": hashlib.sha256(locked.encode()).hexdigest(),
        "dvc.exp_name": os.environ.get("DVC_EXP_NAME", ""),
        "dvc.baseline_rev": os.environ.get("DVC_EXP_BASELINE_REV", ""),
        "git.commit": run_git("rev-parse", "HEAD"),
        "git.dirty": str(bool(run_git("status", "--porcelain", "--untracked-files=no"))).lower(),
    }


def log_numbers(client: MlflowClient, run: str, tags: dict[str, str]) -> None:
    """Parameters, tags, metrics and curves, in batches as large as the store takes."""
    metrics = [*list_results(), *list_curves(), *list_timings()]
    for part in batch(metrics, 10 * BATCH):
        client.log_batch(run, metrics=part)
    for part in batch([Param(key, value) for key, value in flatten_params()], BATCH):
        client.log_batch(run, params=part)
    client.log_batch(run, tags=[RunTag(key, value) for key, value in tags.items()])


def batch(items: list[Any], size: int) -> Iterator[list[Any]]:
    """Consecutive pieces of at most `size` items."""
    return (items[i : i + size] for i in range(0, len(items), size))


def flatten_params() -> Iterator[tuple[str, str]]:
    """params.yaml as dotted keys; of the backbones only the one in use."""
    tree = yaml.load(paths.PARAMS.read_text(), LOADER)
    tree["backbones"] = {tree["backbone"]: tree["backbones"][tree["backbone"]]}

    def walk(value: Any, key: str) -> Iterator[tuple[str, str]]:
        if isinstance(value, dict):
            for name, inner in value.items():
                yield from walk(inner, f"{key}.{name}".removeprefix("."))
        else:
            yield key, json.dumps(value) if isinstance(value, list) else str(value)

    return walk(tree, "")


def list_results() -> list[Metric]:
    """FuzzyCLIP's metrics by dataset, `pixel_aupro/mvtec`, and every row's mean over datasets."""
    found = []
    means = pd.read_csv(paths.TABLES / "means.csv")
    averages = pd.read_csv(paths.TABLES / "averages.csv")
    own = means[means["row"] == TRAINED]
    for metric in METRICS:
        for dataset, value in zip(own["dataset"], own[metric], strict=True):
            found.append((f"{metric}/{dataset}", value))
        for row, value in zip(averages["row"], averages[metric], strict=True):
            name = "mean" if row == TRAINED else f"mean_{row}"
            found.append((f"{metric}/{name}", value))
    for auxiliary in read_params().auxiliary:
        scores = json.loads(paths.csp_scores(auxiliary).read_text())
        found.append((f"csp_k/{auxiliary}", scores["k"]))
    return [Metric(name, float(value), 0, 0) for name, value in found if pd.notna(value)]


def list_curves() -> list[Metric]:
    """Training curves, `efa_visa/cluster0_loss` by step."""
    found = []
    curves = [paths.curve(stage, name) for name in read_params().auxiliary for stage in TRAINED_BY]
    for path in curves:
        for line in pd.read_csv(path).to_dict("records"):
            step, cluster = int(line.pop("step")), line.pop("cluster", None)
            line.pop("epoch")
            prefix = "" if cluster is None else f"cluster{int(cluster)}_"
            for loss, value in line.items():
                found.append(Metric(f"{path.stem}/{prefix}{loss}", float(value), 0, step))
    return found


def list_timings() -> list[Metric]:
    """Seconds and peak memory of the stages that ran here; cached stages have none."""
    found = []
    for path in sorted(paths.TIMING.glob("*.json")):
        for name, value in json.loads(path.read_text()).items():
            found.append(Metric(f"timing_{name}/{path.stem.replace('@', '-')}", float(value), 0, 0))
    return found


def log_files() -> None:
    """Tables, pictures, CSP's clusters and what made them, as artifacts."""
    for folder in (paths.TABLES, paths.CATEGORY_METRICS, paths.CSP_METRICS, paths.CURVES):
        mlflow.log_artifacts(str(folder), folder.as_posix())
    mlflow.log_artifacts(str(paths.REPORT), "report")
    mlflow.log_artifacts(str(paths.PAGE.parent), "page")
    for path in (paths.PARAMS, paths.LOCK):
        mlflow.log_artifact(str(path))
    means = pd.read_csv(paths.TABLES / "means.csv")
    own = means[means["row"] == TRAINED].drop(columns="row")
    mlflow.log_table(own, "results_table.json")  # `dataset` first: the UI groups by it


def log_datasets(datasets: list[str]) -> None:
    """What was evaluated, by DVC's own digest of the images, with licence, protocol and counts."""
    locked = read_lock()
    for name in datasets:
        info = json.loads(paths.tested(name).read_text())
        digests = {
            out["path"]: out["md5"] for out in locked.get(f"download@{name}", {}).get("outs", [])
        }
        origin: Any = HTTPDatasetSource(info["page"])
        if info["source"] != "official":
            made = {"sample": "fuzzyclip.sample.archives", "own": "own images"}[info["source"]]
            origin = CodeDatasetSource({"mlflow.source.name": made})
        data = MetaDataset(origin, name=name, digest=digests.get(paths.raw(name).as_posix()))
        mlflow.log_input(data, context="eval")
    for line in pd.read_csv(paths.TABLES / "datasets.csv").to_dict("records"):
        name = line.pop("dataset")
        mlflow.set_tags(
            {
                f"licence.{name}": line["licence"],
                f"protocol.{name}": line["protocol"],
                f"images.{name}": f"{line['normal']} normal, {line['anomalous']} anomalous",
            }
        )


if __name__ == "__main__":
    run_stage("track", main, keyed=False)
