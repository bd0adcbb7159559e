"""`fuzzyclip export` as typed: what is written agrees with the model, and what is refused."""

import base64

import mlflow
import numpy as np
import pandas as pd
import pytest
from command import draw, run
from PIL import Image
from tiny_models import make_model

from fuzzyclip import FuzzyCLIP
from fuzzyclip.deploy.facts import read_facts
from fuzzyclip.deploy.runtimes import OnnxRuntime, OpenVino
from fuzzyclip.model.card import Calibration
from fuzzyclip.model.storing import store
from fuzzyclip.model.threshold import Threshold


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def model(tmp_path_factory, tiny_config):
    """A model whose gears are calibrated."""
    folder = make_model(tmp_path_factory.mktemp("made"), tiny_config)[0]
    chosen = [Threshold(value=value, method="f1_max") for value in (0.25, 0.75)]
    store(folder, "gear", Calibration(image=chosen[0], pixel=chosen[1]))
    return folder


@pytest.fixture
def parts(tmp_path):
    return [draw(tmp_path / "parts" / f"{seed}.png", seed, (32, 32)) for seed in range(3)]


def export(model, *arguments):
    return run("export", "--model", model, "--category", "gear", *arguments)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "name", "runtime"), [("onnx", "a.onnx", OnnxRuntime), ("openvino", "a.xml", OpenVino)]
)
def test_a_file_gives_the_models_own_numbers_and_its_thresholds(
    model, parts, tmp_path, kind, name, runtime
):
    out = tmp_path / "new" / name
    done = export(model, "--format", kind, "--check", tmp_path / "parts", "--out", out)
    assert done.exit_code == 0, done.output
    assert "differs from PyTorch by at most" in done.stdout
    exported = runtime(out)
    maps, scores = exported(exported.load(parts))
    for path, anomaly_map, score in zip(parts, maps, scores, strict=True):
        found = FuzzyCLIP.load(model, device="cpu")(path, "gear")
        assert np.allclose(anomaly_map, found.anomaly_map, atol=1e-4)
        assert score == pytest.approx(found.image_score, abs=1e-4)
    facts = read_facts(out)
    assert facts["category"] == "gear"
    assert facts["thresholds"] == {"image_score": 0.25, "anomaly_map": 0.75}
    beside = {path.name for path in out.parent.iterdir()}
    assert beside == ({"a.onnx"} if kind == "onnx" else {"a.xml", "a.bin"})


@pytest.mark.slow
def test_a_folder_for_mlflow_answers_like_the_model(model, parts, tmp_path):
    out = tmp_path / "served"
    done = run("export", "--model", model, "--format", "mlflow", "--out", out)
    assert done.exit_code == 0, done.output
    image = base64.b64encode(parts[0].read_bytes()).decode()
    served = mlflow.pyfunc.load_model(str(out))
    rows = served.predict(pd.DataFrame({"image": [image], "category": ["gear"]}))
    (row,) = pd.DataFrame(rows).to_dict("records")
    found = FuzzyCLIP.load(model, device="cpu")(parts[0], "gear")
    assert row["image_score"] == found.image_score
    assert (row["threshold"], row["decision"]) == (0.25, found.decision)


def test_what_can_not_be_is_refused_and_nothing_is_written(model, parts, tmp_path):
    taken = tmp_path / "taken.onnx"
    taken.write_text("mine")
    Image.new("RGB", (4, 4)).save(tmp_path / "small.png")
    for arguments, code, said in (
        (("--out", taken, "--check", parts[0]), 1, "exists already"),
        (("--out", tmp_path / "a.onnx"), 2, "--check"),
        (("--out", tmp_path / "a.txt", "--check", parts[0]), 1, "ends in .onnx"),
        (("--out", tmp_path / "a.onnx", "--check", tmp_path / "absent"), 1, "absent"),
        (("--out", tmp_path / "a.xml", "--format", "tensorrt"), 2, "tensorrt"),
    ):
        done = export(model, *arguments)
        assert done.exit_code == code, done.output
        assert said in done.stderr
        assert "Traceback" not in done.output
    assert taken.read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} <= {
        "parts",
        "taken.onnx",
        "small.png",
        "cache",
    }
