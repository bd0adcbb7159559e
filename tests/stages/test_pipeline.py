"""The pipeline as DVC runs it, in a temporary repository with two small datasets."""

import json
import math
import re
import sys

import pytest
import yaml
from mlflow.tracking import MlflowClient
from pipelines import list_runs, ran, run

from stages.evaluate import summarise

DATASETS = ("visa", "sdd")


def test_every_stage_runs_and_a_second_repro_does_nothing(pipeline):
    folder, output = pipeline
    data = {f"{stage}@{key}" for stage in ("download", "index", "features") for key in DATASETS}
    trained = {f"{stage}@visa" for stage in ("auxiliary", "csp", "efa", "rpl", "package")}
    shown = {"evaluate@sdd", "report", "page", "track"}
    assert set(ran(output)) == {"check", "sample"} | data | trained | shown
    assert ran(run(folder, "dvc", "repro")) == []
    assert run(folder, "git", "status", "--porcelain") == ""


def test_results_have_every_metric_and_variant(pipeline):
    folder, _ = pipeline
    metrics = json.loads((folder / "metrics/datasets/sdd.json").read_text())
    assert set(metrics) == {
        "pixel_auroc", "pixel_ap", "pixel_f1_max", "pixel_aupro", "pixel_aupro_std",
        "image_auroc", "image_ap", "image_f1_max",
    }  # fmt: skip
    assert all(0 <= value <= 100 for value in metrics.values())
    summary = (folder / "metrics/tables/summary.md").read_text()
    assert "AUPRO, AP, F1-max" in summary
    assert "not comparable" in summary  # the sample says what it is
    assert "### pixel AP [%]" in summary
    facts = json.loads((folder / "metrics/methods/fuzzyclip/sdd.json").read_text())
    assert json.loads((folder / "metrics/csp/visa.json").read_text())["exact"]
    # 8 and 16 images, eight epochs in batches of 16
    goods, boards = facts["short_clusters"]
    assert goods == {"names": ["capsules"], "steps": 8}
    assert boards == {"names": ["pcb1", "pcb2"], "steps": 8}
    for page in (summary, (folder / "page/index.html").read_text()):
        assert "{capsules} made 8 steps" in page
    # the 200-threshold AUPRO of what is not trained may be undefined, and then so is its gain
    assert set(facts["gains"]) | {"pixel_aupro"} == set(metrics)
    gain = facts["gains"]["image_auroc"]
    shown = f"{gain['difference']:+.1f} ({gain['low']:+.1f} to {gain['high']:+.1f})"
    assert shown in summary
    assert shown in (folder / "page/index.html").read_text()
    for picture in ("overview", "heatmaps_sdd"):
        assert (folder / f"report/{picture}.png").read_bytes().startswith(b"\x89PNG")


def test_stages_say_what_they_do_in_lines_for_people(pipeline):
    _, output = pipeline
    counts = "10 train normal, 4 test normal, 4 test anomalous, 0 train anomalous images"
    assert f"sdd/electrical commutators: {counts}" in output
    value = r"\d+\.\d"
    scores = f"image AUROC {value}, pixel AP {value}, AUPRO {value}"
    line = rf"FuzzyCLIP on sdd/electrical commutators: {scores} \(8 images\)"
    assert len(re.findall(line, output)) == 1
    assert re.findall(r".*(?:\{'|\['|\('|\d\.\d{5}).*", output) == []


def test_a_line_on_a_category_leaves_out_what_is_undefined():
    counts = {"normal": 5, "anomalous": 7}
    own = {"variant": "coop", "image_auroc": 94.23456, "pixel_aupro_std": math.nan} | counts
    table = [own, {"variant": "other", "image_auroc": 1.0} | counts]
    assert summarise("coop", table) == "image AUROC 94.2 (12 images)"
    bare = [{"variant": "coop"} | counts]
    assert summarise("coop", bare) == "no metric is defined (12 images)"


def test_the_page_shows_the_results_and_is_attached_to_the_run(pipeline):
    folder, _ = pipeline
    page = (folder / "page/index.html").read_text()
    assert "not comparable with any published number" in page
    metrics = json.loads((folder / "metrics/datasets/sdd.json").read_text())
    for metric in ("pixel_aupro", "image_auroc"):
        assert f"<td>{metrics[metric]:.1f}</td>" in page
    shown = set(re.findall(r'data-category="(sdd/[^"]+)" data-kind="', page))
    assert shown == {"sdd/electrical commutators"}
    (recorded,) = list_runs(folder)[:1]
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    (kept,) = client.list_artifacts(recorded.info.run_id, "page")
    assert kept.path == "page/index.html"
    assert kept.file_size == (folder / "page/index.html").stat().st_size


def test_one_run_holds_metrics_tables_data_and_versions(pipeline):
    folder, _ = pipeline
    (recorded,) = list_runs(folder)
    metrics = json.loads((folder / "metrics/datasets/sdd.json").read_text())
    assert recorded.data.metrics["pixel_aupro/sdd"] == pytest.approx(metrics["pixel_aupro"])
    assert recorded.info.run_name == "baseline"
    assert recorded.data.params["csp.penalty"] == "0.1"
    assert "training/efa_visa_cluster0_loss" in recorded.data.metrics
    assert len(recorded.data.tags["dvc.lock_sha256"]) == 64
    (used,) = recorded.inputs.dataset_inputs
    locked = yaml.safe_load((folder / "dvc.lock").read_text())["stages"]["download@sdd"]["outs"]
    assert used.dataset.name == "sdd"
    assert len(recorded.outputs.model_outputs) == 1  # the packaged model, ready to be served
    assert used.dataset.digest in {out["md5"] for out in locked}


def test_recording_again_adds_no_run(pipeline):
    folder, _ = pipeline
    output = run(folder, sys.executable, "-m", "stages.track")
    assert "recorded already" in output
    assert len(list_runs(folder)) == 1
    (folder / "mlflow.db").rename(folder / "elsewhere.db")  # as in a fresh clone
    assert "recorded as MLflow run" in run(folder, sys.executable, "-m", "stages.track")
    assert len(list_runs(folder)) == 1
    (folder / "elsewhere.db").replace(folder / "mlflow.db")
