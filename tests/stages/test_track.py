"""The stage on the committed results: what a run of MLflow says of one."""

import re
import shutil
from contextlib import chdir, contextmanager

import mlflow
import pandas as pd
import pytest
from imports import ROOT
from mlflow.tracking import MlflowClient
from pipelines import FROM_OUTSIDE, commit, run

from stages import track
from stages.tracking.store import find_store

#: The example of the page, which is the only one.
(RANK,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/tracking.md").read_text(), re.DOTALL)
COMMITTED = ("params.yaml", "dvc.yaml", "dvc.lock")
MODEL = """
import mlflow
class Model(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input):
        return model_input
mlflow.models.set_model(Model())
"""


@contextmanager
def describe_plain(folder):
    """A model that is quick to log, in place of a packaged one."""
    path = folder.with_suffix(".py")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(MODEL)
    yield {"python_model": str(path), "pip_requirements": ["mlflow"]}


def lower(folder):
    """The result of another penalty: all of FuzzyCLIP's pixel AP on MVTec is a point lower."""
    for name in ("params.yaml", "dvc.lock"):
        text = (folder / name).read_text()
        (folder / name).write_text(re.sub(r"penalty: 0\.1\b", "penalty: 0.2", text))
    means = pd.read_csv(folder / "metrics/tables/means.csv")
    mine = (means["dataset"] == "mvtec") & (means["variant"] == "fuzzyclip")
    means.loc[mine, "pixel_ap"] -= 1
    means.to_csv(folder / "metrics/tables/means.csv", index=False)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory, made_store):
    """A checkout with the committed results, recorded, and with another penalty once more."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(made_store, folder, dirs_exist_ok=True)
    for name in COMMITTED:
        shutil.copyfile(ROOT / name, folder / name)
    shutil.copytree(ROOT / "metrics", folder / "metrics")
    for name in ("page/index.html", "report/overview.png", "timing/efa@visa.json"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text('{"seconds": 2.5, "peak_mib": 300}')
    shutil.copyfile(ROOT / ".gitignore", folder / ".gitignore")
    run(folder, "git", "init", "-q")
    commit(folder, "start")
    with pytest.MonkeyPatch.context() as patch, chdir(folder):
        patch.setattr(track, "describe_model", describe_plain)
        for name in FROM_OUTSIDE:
            patch.delenv(name, raising=False)
        track.track_own()
        track.track_own()  # is recorded already
        lower(folder)
        patch.setenv("DVC_EXP_NAME", "tawny-jaws")
        track.track_own()
        track.track_baselines()
    return folder


@pytest.fixture(autouse=True)
def own_store(checkout, monkeypatch):
    for name in FROM_OUTSIDE:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(checkout)
    mlflow.set_tracking_uri(find_store().uri)


@pytest.fixture
def runs():
    """Runs by their names."""
    client = MlflowClient()
    listed = client.search_runs(["1"], "tags.method LIKE '%'")
    named = {run.info.run_name: run for run in listed}
    assert len(named) == len(listed)
    return named


def test_runs_are_named_and_described(runs):
    assert {"baseline", "csp.penalty=0.2", "winclip", "april_gan"} <= {*runs}
    averages = pd.read_csv("metrics/tables/averages.csv").set_index("variant")
    text = runs["csp.penalty=0.2"].data.tags["mlflow.note.content"]
    for metric, title in (("pixel_ap", "pixel AP"), ("image_auroc", "image AUROC")):
        assert f"{title} **{averages.loc['fuzzyclip', metric]:.1f}**" in text
    assert "Changed: `csp.penalty=0.2`" in text
    run_id = runs["csp.penalty=0.2"].info.run_id
    assert f"](#/experiments/1/runs/{run_id}/artifacts/page/index.html)" in text
    assert "As committed" in runs["baseline"].data.tags["mlflow.note.content"]
    means = pd.read_csv("metrics/method_tables/means.csv").set_index("variant")
    said = runs["winclip"].data.tags["mlflow.note.content"]
    assert f"pixel AP **{means.loc['winclip', 'pixel_ap'].mean():.1f}**" in said


def test_a_run_has_no_empty_tags_and_few_parameters(runs):
    for recorded in runs.values():
        assert all(recorded.data.tags.values())
        assert 0 < len(recorded.data.params) <= 60
    assert runs["csp.penalty=0.2"].data.params["csp.penalty"] == "0.2"
    assert runs["april_gan"].data.params["settings.epochs"].startswith("mvtec, ")


def test_charts_open_with_quality_and_times_are_a_file(runs):
    """MLflow orders what stands before the slash by the alphabet."""
    for name in ("baseline", "coop"):
        metrics = runs[name].data.metrics
        first, *others = sorted({metric.partition("/")[0] for metric in metrics})
        assert first == "average"
        assert all(
            other.startswith(("image_", "pixel_", "training", "variants")) for other in others
        )
    assert not [metric for metric in runs["baseline"].data.metrics if "tim" in metric]
    assert "training/efa_visa_cluster0_loss" in runs["baseline"].data.metrics
    client = MlflowClient()
    times = client.download_artifacts(runs["baseline"].info.run_id, "timings.csv")
    (line,) = pd.read_csv(times).to_dict("records")
    assert line == {"stage": "efa@visa", "seconds": 2.5, "peak_mib": 300}


def test_metrics_know_their_model_and_their_data(runs):
    client = MlflowClient()
    recorded = runs["baseline"]
    models = {m.name: m for m in mlflow.search_logged_models(["1"], output_format="list")}
    assert set(models) == {"fuzzyclip-visa", "fuzzyclip-mvtec"}
    digests = {used.dataset.name: used.dataset.digest for used in recorded.inputs.dataset_inputs}
    assert len(digests) == 7
    for model, other in (("visa", "mvtec"), ("mvtec", "visa")):
        (found,) = mlflow.search_logged_models(
            ["1"],
            f"name = 'fuzzyclip-{model}' AND source_run_id = '{recorded.info.run_id}'",
            output_format="list",
        )
        (bound,) = [m for m in found.metrics if m.key == f"pixel_ap/{other}"]
        assert (bound.dataset_name, bound.dataset_digest) == (other, digests[other])
        assert bound.value == recorded.data.metrics[f"pixel_ap/{other}"]
        assert not [m for m in found.metrics if m.key == f"pixel_ap/{model}"]  # its own data
    assert client.get_metric_history(recorded.info.run_id, "average/pixel_ap")[0].timestamp > 0
    used = {used.dataset.name: used.dataset.digest for used in runs["coop"].inputs.dataset_inputs}
    assert used == digests


def test_the_pages_example_ranks_models_on_a_dataset(runs, capsys):
    exec(compile(RANK, "docs/tracking.md", "exec"), {})
    first, second = capsys.readouterr().out.splitlines()
    assert [line.split()[2] for line in (first, second)] == ["baseline", "csp.penalty=0.2"]
    assert float(first.split()[0]) == pytest.approx(float(second.split()[0]) + 1, abs=0.11)
    address = first.split()[3]
    assert mlflow.pyfunc.load_model(address).metadata.model_uuid in address
