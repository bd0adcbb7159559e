"""track: one MLflow run for each result, FuzzyCLIP's and each baseline's, in one experiment.

`track` records FuzzyCLIP, `baselines` the methods that it is compared with. The last stages, and
without outs on purpose: DVC never takes such a stage from its run cache, so a result is recorded
also when every other stage was a cache hit, and not again when nothing changed.

The default store is a SQLite file in the main checkout, also for `dvc exp run --temp` and
`--queue`, which work in copies that are deleted afterwards: its path is absolute and built on
DVC_ROOT. Several processes may start at once: a fresh SQLite store is made by one at a time.
"""

import hashlib
import json
import logging
import os
import re
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import yaml
from filelock import FileLock
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.http_dataset_source import HTTPDatasetSource
from mlflow.data.meta_dataset import MetaDataset
from mlflow.entities import Metric, Param, RunTag
from mlflow.tracking import MlflowClient

from fuzzyclip.deploy.mlflow_model import describe_model
from fuzzyclip.evaluation.metrics import METRICS
from fuzzyclip.method import OWN
from fuzzyclip.utils.files import compute_sha256
from stages import paths
from stages.params import LOADER, flatten, load_params, read_params
from stages.run import run_stage
from stages.schema import Params

STORE = "mlflow.db"
ARTIFACTS = "mlartifacts"
#: What a store takes at a time.
BATCH = 100
#: The stages of this module.
RECORDING = ("track", "baselines")
#: Stages with a training curve of each auxiliary set.
TRAINED_BY = ("efa", "rpl")
#: Facts of a baseline that differ between datasets, or are no choices.
NO_PARAMS = ("auxiliary", "note", "left_out", "datasets", "backbone", "tested")

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


def track_own() -> None:
    """Record FuzzyCLIP: parameters, metrics, tables, curves, pictures, data, models, versions."""
    params = read_params()
    tags = collect_tags()
    result = TrackedResult(
        name=tags["dvc.exp_name"] or f"repro-{tags['dvc.lock_sha256'][:8]}",
        identity=("dvc.lock_sha256", "dvc.exp_name"),
        tags=tags,
        params=list_params(),
        metrics=[*list_results(params), *list_curves(params), *list_timings()],
        log_files=partial(log_own, params),
    )
    record(params.tracking.experiment, [result])


def track_baselines() -> None:
    """Record every baseline's settings, metrics and files."""
    params = load_params("baselines")
    means = pd.read_csv(paths.METHOD_TABLES / "means.csv")
    methods = means[means["variant"] != OWN].groupby("variant", sort=False)
    results = (describe_baseline(str(name), own, list(params.pairs)) for name, own in methods)
    record(params.tracking.experiment, results)


def describe_baseline(method: str, means: pd.DataFrame, datasets: list[str]) -> TrackedResult:
    """A baseline's run; its metrics have the names that FuzzyCLIP's run gives them."""
    digest = hashlib.sha256()
    for dataset in datasets:
        for path in (paths.method_metrics(method, dataset), paths.method_facts(method, dataset)):
            digest.update(compute_sha256(path).encode())
    results = digest.hexdigest()
    return TrackedResult(
        name=f"{method}-{results[:8]}",
        identity=("method", "results_sha256"),
        tags={
            "method": method,
            "results_sha256": results,
            "dvc.exp_name": os.environ.get("DVC_EXP_NAME", ""),
            "git.commit": run_git("rev-parse", "HEAD"),
        },
        params=list_choices(method, datasets),
        metrics=[*list_means(means), *((f"{m}/mean", means[m].mean(), 0) for m in METRICS)],
        log_files=partial(log_baseline, method),
    )


def read_lock() -> dict[str, Any]:
    """dvc.lock's stages without the recording ones, which are not in it yet the first time."""
    stages: dict[str, Any] = yaml.load(paths.LOCK.read_text(), LOADER)["stages"]
    return {name: stage for name, stage in stages.items() if name not in RECORDING}


def collect_tags() -> dict[str, str]:
    """The origin of FuzzyCLIP's result: DVC's experiment, its lock and the commit."""
    locked = json.dumps(read_lock(), sort_keys=True)
    return {
        "method": OWN,
        # which row of which of the paper's tables this run was made for, if for one
        "paper.experiment": os.environ.get("FUZZYCLIP_EXPERIMENT", ""),
        "paper.row": os.environ.get("FUZZYCLIP_ROW", ""),
        "dvc.lock_sha256": hashlib.sha256(locked.encode()).hexdigest(),
        "dvc.exp_name": os.environ.get("DVC_EXP_NAME", ""),
        "dvc.baseline_rev": os.environ.get("DVC_EXP_BASELINE_REV", ""),
        "git.commit": run_git("rev-parse", "HEAD"),
        "git.dirty": str(bool(run_git("status", "--porcelain", "--untracked-files=no"))).lower(),
    }


def list_params() -> list[tuple[str, str]]:
    """params.yaml as dotted keys; of the backbones only the one in use."""
    tree = yaml.load(paths.PARAMS.read_text(), LOADER)
    tree["backbones"] = {tree["backbone"]: tree["backbones"][tree["backbone"]]}
    return list(flatten(tree))


def list_choices(method: str, datasets: list[str]) -> list[tuple[str, str]]:
    """A baseline's choices; settings that differ between datasets by the dataset."""
    choices, by_dataset = [], []
    for name in datasets:
        facts = json.loads(paths.method_facts(method, name).read_text())
        by_dataset.append(dict(flatten({key: facts[key] for key in facts if key not in NO_PARAMS})))
    for key in by_dataset[0]:
        values = [chosen.get(key, "") for chosen in by_dataset]
        if len(set(values)) == 1:
            choices.append((key, values[0]))
        else:
            named = zip(datasets, values, strict=True)
            choices += [(f"{key}/{dataset}", value) for dataset, value in named]
    return choices


def list_means(means: pd.DataFrame) -> Iterator[tuple[str, float, int]]:
    """A method's means by dataset, `pixel_aupro/mvtec`."""
    for metric in METRICS:
        for dataset, value in zip(means["dataset"], means[metric], strict=True):
            yield f"{metric}/{dataset}", value, 0


def list_results(params: Params) -> Iterator[tuple[str, float, int]]:
    """FuzzyCLIP's metrics by dataset, every variant's mean over datasets, and CSP's k."""
    means = pd.read_csv(paths.TABLES / "means.csv")
    averages = pd.read_csv(paths.TABLES / "averages.csv")
    yield from list_means(means[means["variant"] == OWN])
    for metric in METRICS:
        for variant, value in zip(averages["variant"], averages[metric], strict=True):
            name = "mean" if variant == OWN else f"mean_{variant}"
            yield f"{metric}/{name}", value, 0
    for auxiliary in params.auxiliary:
        yield f"csp_k/{auxiliary}", json.loads(paths.csp_scores(auxiliary).read_text())["k"], 0


def list_curves(params: Params) -> Iterator[tuple[str, float, int]]:
    """Training curves, `efa_visa/cluster0_loss` by step."""
    for path in (paths.curve(stage, name) for name in params.auxiliary for stage in TRAINED_BY):
        for line in pd.read_csv(path).to_dict("records"):
            step, cluster = int(line.pop("step")), line.pop("cluster", None)
            line.pop("epoch")
            prefix = "" if cluster is None else f"cluster{int(cluster)}_"
            for loss, value in line.items():
                yield f"{path.stem}/{prefix}{loss}", float(value), step


def list_timings() -> Iterator[tuple[str, float, int]]:
    """Seconds and peak memory of the stages that ran here; cached stages have none."""
    for path in sorted(paths.TIMING.glob("*.json")):
        for name, value in json.loads(path.read_text()).items():
            yield f"timing_{name}/{path.stem.replace('@', '-')}", float(value), 0


def log_own(params: Params) -> None:
    """FuzzyCLIP's tables, pictures, clusters, data and models into the run that is open."""
    for folder in (paths.TABLES, paths.METHOD_METRICS / OWN, paths.CSP_METRICS, paths.CURVES):
        mlflow.log_artifacts(str(folder), folder.as_posix())
    mlflow.log_artifacts(str(paths.REPORT), "report")
    mlflow.log_artifacts(str(paths.PAGE.parent), "page")
    for path in (paths.PARAMS, paths.LOCK):
        mlflow.log_artifact(str(path))
    means = pd.read_csv(paths.TABLES / "means.csv")
    own = means[means["variant"] == OWN].drop(columns="variant")
    mlflow.log_table(own, "results_table.json")  # `dataset` first: the UI groups by it
    log_datasets(list(params.pairs))
    for name in params.auxiliary if params.tracking.models else ():
        with describe_model(paths.package(name)) as described:
            logged = mlflow.pyfunc.log_model(name=name_model(name), **described)
        log.info("logged the model %s, to be served from %s", name, logged.model_uri)


def log_baseline(method: str) -> None:
    """A baseline's results and the tables that it stands in, into the run that is open."""
    mlflow.log_artifacts(str(paths.METHOD_METRICS / method), "metrics")
    mlflow.log_artifacts(str(paths.METHOD_TABLES), "method_tables")


def log_datasets(datasets: list[str]) -> None:
    """The evaluated data, by DVC's own digest of the images, with licence, protocol and counts."""
    locked = read_lock()
    for name in datasets:
        info = json.loads(paths.tested(OWN, name).read_text())
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


def name_model(name: str) -> str:
    """An auxiliary set's model by a name for MLflow, which takes no `/:.%"'` in names."""
    return "fuzzyclip-" + re.sub(r"""[/:.%"']""", "_", name)


def record(name: str, results: Iterable[TrackedResult]) -> None:
    """Make a run of each result in an experiment, unless there is one already."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    client, experiment = open_experiment(name)
    for result in results:
        identity = {tag: result.tags[tag] for tag in result.identity}
        if existing := find_run(client, experiment, identity):
            log.info("%s is recorded already, as run %s", result.name, existing)
        else:
            _record_new(result, client, experiment)
    log.info("compare the runs:\n  %s", describe_ui(experiment))


def _record_new(result: TrackedResult, client: MlflowClient, experiment: str) -> None:
    metrics = [
        Metric(name, float(value), 0, step)
        for name, value, step in result.metrics
        if pd.notna(value)
    ]
    params = [Param(key, value) for key, value in result.params]
    mlflow.set_experiment(experiment_id=experiment)
    with mlflow.start_run(run_name=result.name) as run:
        for first in range(0, len(metrics), 10 * BATCH):
            client.log_batch(run.info.run_id, metrics=metrics[first : first + 10 * BATCH])
        for first in range(0, len(params), BATCH):
            client.log_batch(run.info.run_id, params=params[first : first + BATCH])
        tags = [RunTag(key, value) for key, value in result.tags.items()]
        client.log_batch(run.info.run_id, tags=tags)
        result.log_files()
    log.info("recorded as MLflow run %s (%s)", result.name, run.info.run_id)


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
    """The way to look at the runs: a command and a link, or the server's address."""
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


if __name__ == "__main__":
    run_stage(track=track_own, baselines=track_baselines)
