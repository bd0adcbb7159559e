"""`fuzzyclip export` as typed, with a model of its own, in every format of a file."""

import numpy as np
import pytest
from command import export

from fuzzyclip import FuzzyCLIP
from fuzzyclip.deploy.facts import read_facts
from fuzzyclip.deploy.runtimes import OnnxRuntime, OpenVino


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
        own = FuzzyCLIP.load(model, device="cpu")(path, "gear")
        assert np.allclose(anomaly_map, own.anomaly_map, atol=1e-4)
        assert score == pytest.approx(own.image_score, abs=1e-4)
    facts = read_facts(out)
    assert facts["category"] == "gear"
    assert facts["thresholds"] == {"image_score": 0.25, "anomaly_map": 0.75}
    beside = {path.name for path in out.parent.iterdir()}
    assert beside == ({"a.onnx"} if kind == "onnx" else {"a.xml", "a.bin"})
