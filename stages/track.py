"""track: one MLflow run for each result, FuzzyCLIP's and each baseline's, in one experiment.

`track` records FuzzyCLIP, `baselines` the methods that it is compared with. The last stages, and
without outs on purpose: DVC never takes such a stage from its run cache, so a result is recorded
also when every other stage was a cache hit, and not again when nothing changed.

MLflow's charts have a section for each word before a slash, by the alphabet: they open with
`average/pixel_ap`, over all datasets; then come `pixel_ap/visa` and its like, `training` and
`variants`. Times are no metrics: they are in the run's file timings.csv.
"""

import hashlib
import json
import logging
import os
import re
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import mlflow
import pandas as pd
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.http_dataset_source import HTTPDatasetSource
from mlflow.data.meta_dataset import MetaDataset

from fuzzyclip.datasets import get_dataset
from fuzzyclip.deploy.mlflow_model import describe_model
from fuzzyclip.evaluation.metrics import METRICS
from fuzzyclip.method import OWN
from fuzzyclip.report.tables import HEADLINE, SAMPLE_DATA_NOTE, name_metric
from fuzzyclip.utils.files import compute_sha256
from fuzzyclip.utils.tables import format_csv, read_table
from stages import paths
from stages.params import flatten, read_params
from stages.run import run_stage
from stages.schema import Params
from stages.tracking.choices import (
    Changes,
    find_changes,
    join_values,
    list_params,
    run_git,
)
from stages.tracking.runs import Number, TrackedResult, record
from stages.yaml_file import read_yaml

#: Name of FuzzyCLIP's run with all as it is committed.
UNCHANGED = "baseline"
#: The stages of this module.
RECORDING = ("track", "baselines")
#: Stages with a training curve of each auxiliary set.
TRAINED_BY = ("efa", "rpl")
#: Stages that no result of FuzzyCLIP comes from.
OF_BASELINES = ("views", "train", "evaluate_baseline", "method_tables", *RECORDING)
#: Where images come from that no official page offers.
MADE_BY = {"sample": "fuzzyclip.sample.archives", "own": "own images"}
#: Facts of a baseline that differ between datasets, or are no choices.
NO_PARAMS = ("auxiliary", "note", "left_out", "datasets", "backbone", "tested", "runtimes")

log = logging.getLogger(__name__)


def track_own() -> None:
    """Record FuzzyCLIP: parameters, metrics, tables, curves, pictures, data, models, versions."""
    params = read_params()
    tags, changes = collect_tags(), find_changes(params)
    result = TrackedResult(
        name=changes.name or UNCHANGED,
        identity=("dvc.lock_sha256", "dvc.exp_name"),
        tags=tags,
        params=list_params(params),
        metrics=[*list_results(params), *list_curves(params)],
        describe=partial(describe_own, params, changes),
        list_data=partial(list_datasets, params, OWN),
        log_models=partial(log_models, params),
        log_files=partial(log_own, params),
    )
    record(params.tracking.experiment, [result])


def track_baselines() -> None:
    """Record every baseline's settings, metrics and files."""
    params = read_params()
    means = read_table(paths.METHOD_TABLES / "means.csv")
    methods = means[means["variant"] != OWN].groupby("variant", sort=False)
    results = (describe_baseline(params, str(name), own) for name, own in methods)
    record(params.tracking.experiment, results)


def describe_baseline(params: Params, method: str, means: pd.DataFrame) -> TrackedResult:
    """A baseline's run; its metrics have the names that FuzzyCLIP's run gives them."""
    datasets, changes = list(params.pairs), find_changes(params, method)
    digest = hashlib.sha256()
    for dataset in datasets:
        for path in (paths.method_metrics(method, dataset), paths.method_facts(method, dataset)):
            digest.update(compute_sha256(path).encode())
    averages = {metric: float(means[metric].mean()) for metric in METRICS}
    return TrackedResult(
        name=", ".join(filter(None, [method, changes.name])),
        identity=("method", "results_sha256"),
        tags={
            "method": method,
            "results_sha256": digest.hexdigest(),
            "dvc.exp_name": os.environ.get("DVC_EXP_NAME", ""),
            "git.commit": run_git("rev-parse", "HEAD"),
        },
        params=list_choices(method, datasets),
        metrics=[*list_averages(averages), *list_means(means)],
        describe=lambda _: f"{describe_means(averages, len(datasets))}\n\n{changes.text}",
        list_data=partial(list_datasets, params, method),
        log_files=partial(log_baseline, method),
    )


def describe_own(params: Params, changes: Changes, artifacts: str) -> str:
    """The description of FuzzyCLIP's run: headline, changes, and where its page lies."""
    means = describe_means(read_averages().loc[OWN].to_dict(), len(params.pairs))
    # MLflow shows a few lines and fades out: first what everybody looks for
    parts = [f"{means}: [the page of this result]({artifacts}/{paths.PAGE})", changes.text]
    if row := os.environ.get("FUZZYCLIP_ROW"):
        parts.append(f"Made for {os.environ.get('FUZZYCLIP_EXPERIMENT')}, row {row!r}.")
    parts.append(f"Among the files: `{paths.PAGE}`, tables, pictures, params.yaml.")
    if params.data.source == "sample":
        parts.append(f"*{SAMPLE_DATA_NOTE}*")
    return "\n\n".join(parts)


def describe_means(means: Mapping[Any, float], datasets: int) -> str:
    """The headline metrics in one line; those that the data do not define are left out."""
    told = [f"{name_metric(m)} **{means[m]:.1f}**" for m in HEADLINE if pd.notna(means[m])]
    over = f"means over {datasets} datasets" if datasets > 1 else "on one dataset"
    return f"{', '.join(told) or 'no headline metric is defined'} ({over}, percent)"


def read_lock() -> dict[str, Any]:
    """dvc.lock's stages without the recording ones, which are not in it yet the first time."""
    stages: dict[str, Any] = read_yaml(paths.LOCK)["stages"]
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


def list_choices(method: str, datasets: list[str]) -> list[tuple[str, str]]:
    """A baseline's choices; one that differs between datasets is one text, with their names."""
    by_dataset: dict[str, dict[str, str]] = {}
    for name in datasets:
        facts = json.loads(paths.method_facts(method, name).read_text())
        chosen = {key: facts[key] for key in facts if key not in NO_PARAMS}
        by_dataset[name] = dict(flatten(chosen))
    keys = dict.fromkeys(key for chosen in by_dataset.values() for key in chosen)
    return [
        (key, join_values({name: chosen.get(key, "") for name, chosen in by_dataset.items()}))
        for key in keys
    ]


def list_averages(averages: Mapping[Any, float]) -> Iterator[Number]:
    """A method's means over datasets, `average/pixel_ap`."""
    for metric in METRICS:
        yield Number(f"average/{metric}", averages[metric])


def list_means(means: pd.DataFrame) -> Iterator[Number]:
    """A method's means by dataset, `pixel_aupro/mvtec`."""
    for metric in METRICS:
        for dataset, value in zip(means["dataset"], means[metric], strict=True):
            yield Number(f"{metric}/{dataset}", value, dataset=dataset)


def read_averages() -> pd.DataFrame:
    """Every variant's means over datasets, by variant."""
    return read_table(paths.TABLES / "averages.csv").set_index("variant")


def list_results(params: Params) -> Iterator[Number]:
    """FuzzyCLIP's metrics over datasets and by dataset, other variants' means, and CSP's k."""
    means, averages = read_table(paths.TABLES / "means.csv"), read_averages()
    yield from list_averages(averages.loc[OWN].to_dict())
    yield from list_means(means[means["variant"] == OWN])
    for metric in METRICS:
        for variant, value in averages[metric].drop(OWN).items():
            yield Number(f"variants/{variant}_{metric}", value)
    for auxiliary in params.auxiliary:
        scores = json.loads(paths.csp_scores(auxiliary).read_text())
        yield Number(f"training/csp_k_{auxiliary}", scores["k"])


def list_curves(params: Params) -> Iterator[Number]:
    """Training curves, `training/efa_visa_cluster0_loss` by step."""
    for path in (paths.curve(stage, name) for name in params.auxiliary for stage in TRAINED_BY):
        for line in read_table(path).to_dict("records"):
            step, cluster = int(line.pop("step")), line.pop("cluster", None)
            line.pop("epoch")
            prefix = "" if cluster is None else f"cluster{int(cluster)}_"
            for loss, value in line.items():
                yield Number(f"training/{path.stem}_{prefix}{loss}", float(value), step)


def log_timings(method: str) -> None:
    """Seconds and peak memory of each stage when it last ran here; cached stages have none."""
    lines = []
    for path in sorted(paths.TIMING.glob("*.json")):
        stage, _, key = path.stem.partition("@")
        if (stage not in OF_BASELINES) if method == OWN else (key == method):
            lines.append({"stage": path.stem} | json.loads(path.read_text()))
    if lines:
        mlflow.log_text(format_csv(pd.DataFrame(lines)), "timings.csv")


def log_own(params: Params) -> None:
    """FuzzyCLIP's tables, pictures, clusters and settings into the run that is open."""
    for folder in (paths.TABLES, paths.METHOD_METRICS / OWN, paths.CSP_METRICS, paths.CURVES):
        mlflow.log_artifacts(str(folder), folder.as_posix())
    mlflow.log_artifacts(str(paths.REPORT), "report")
    mlflow.log_artifacts(str(paths.PAGE.parent), "page")
    for path in (paths.PARAMS, paths.LOCK):
        mlflow.log_artifact(str(path))
    means = read_table(paths.TABLES / "means.csv")
    own = means[means["variant"] == OWN]
    # `dataset` first, by which the UI groups; it opens with the column after it
    columns = ["dataset", *dict.fromkeys([*HEADLINE, *METRICS]), "images"]
    mlflow.log_table(own[columns], "results_table.json")
    log_timings(OWN)
    for line in read_table(paths.TABLES / "datasets.csv").to_dict("records"):
        name = line.pop("dataset")
        mlflow.set_tags(
            {
                f"licence.{name}": line["licence"],
                f"protocol.{name}": line["protocol"],
                f"images.{name}": f"{line['normal']} normal, {line['anomalous']} anomalous",
            }
        )


def log_baseline(method: str) -> None:
    """A baseline's results and the tables that it stands in, into the run that is open."""
    mlflow.log_artifacts(str(paths.METHOD_METRICS / method), "metrics")
    mlflow.log_artifacts(str(paths.METHOD_TABLES), "method_tables")
    log_timings(method)


def log_models(params: Params) -> dict[str, str]:
    """FuzzyCLIP's models into the run that is open; their ids by the dataset that each met."""
    logged = {}
    for name in params.auxiliary if params.tracking.models else ():
        with describe_model(paths.package(name)) as described:
            model = mlflow.pyfunc.log_model(name=name_model(name), **described)
        log.info("logged the model %s, to be served from %s", name, model.model_uri)
        logged[name] = str(model.model_id)
    return {dataset: logged[name] for dataset, name in params.pairs.items() if name in logged}


def list_datasets(params: Params, method: str) -> dict[str, MetaDataset]:
    """The data that a method was tested on, by DVC's own digest of the images."""
    locked, data = read_lock(), {}
    for name in params.pairs:
        source = json.loads(paths.method_facts(method, name).read_text())["tested"]["source"]
        origin: Any = CodeDatasetSource({"mlflow.source.name": MADE_BY.get(source, source)})
        if source == "official":
            origin = HTTPDatasetSource(get_dataset(params.datasets[name].kind).page)
        outs = locked.get(f"download@{name}", {}).get("outs", [])
        digests = {out["path"]: out["md5"] for out in outs}
        digest = digests.get(paths.raw(name).as_posix())
        data[name] = MetaDataset(origin, name=name, digest=digest)
    return data


def name_model(name: str) -> str:
    """An auxiliary set's model by a name for MLflow, which takes no `/:.%"'` in names."""
    return "fuzzyclip-" + re.sub(r"""[/:.%"']""", "_", name)


if __name__ == "__main__":
    run_stage(track=track_own, baselines=track_baselines)
