"""Engines where users meet them: the feature store, `FuzzyCLIP`, the commands."""

import csv
import hashlib
import json
import logging
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from command import draw, run
from PIL import Image
from tiny_models import make_model

from fuzzyclip import FuzzyCLIP
from fuzzyclip.clip.encoding import encode_images
from fuzzyclip.engines import choice
from fuzzyclip.engines.choice import EngineError, choose_engine
from fuzzyclip.features.encode import write_category
from fuzzyclip.features.kinds import TOKENS, FeatureKind
from fuzzyclip.features.shards import RUNTIME, compute_identity
from fuzzyclip.features.store import adopt_shards, open_category, plan_category
from fuzzyclip.utils.tensor_files import read_header
from stages import features as stage


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Index rows of four drawn images."""
    folder = tmp_path_factory.mktemp("images")
    paths = [draw(folder / f"{number}.png", number) for number in range(4)]
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    return pd.DataFrame({"image_path": list(map(str, paths)), "sha256": digests})


@pytest.fixture
def faster(kept, tiny):
    """The tiny CLIP by onnxruntime."""
    return choose_engine(tiny, "onnx")


def write(folder, rows, backbone, kind=TOKENS):
    write_category(folder, rows, backbone, dtype="float32", shard_size=2, kind=kind)
    return sorted(folder.glob("*.safetensors"))


def test_a_store_says_what_made_it_and_binds_nobody_to_it(rows, tiny, faster, tmp_path):
    label, identity = faster.engine.label, compute_identity(tiny, list(rows["sha256"]))
    by_torch, by_onnx = (write(tmp_path / n, rows, b) for n, b in (("a", tiny), ("b", faster)))
    assert [read_header(path).get(RUNTIME) for path in by_torch + by_onnx] == [
        None, None, label, label,
    ]  # fmt: skip
    first, second = open_category(tmp_path / "a", identity), open_category(tmp_path / "b", identity)
    assert (first.runtimes, second.runtimes) == ((), (label,))
    assert torch.allclose(second.image_embed, first.image_embed, rtol=1e-4, atol=1e-5)
    assert torch.allclose(second.read_tokens(range(4)), first.read_tokens(range(4)), atol=1e-4)
    for folder, backbone in ((tmp_path / "b", tiny), (tmp_path / "a", faster)):
        shards = plan_category(folder, rows, backbone, dtype="float32", shard_size=2)
        assert all(shard.is_placed() and shard.is_written() for shard in shards)


def test_shards_of_both_may_lie_together(rows, tiny, faster, tmp_path):
    earlier = write(tmp_path / "b", rows, faster)
    kept = earlier[0].read_bytes()
    adopt_shards(plan_category(tmp_path / "c", rows, tiny, dtype="float32", shard_size=2), earlier)
    (tmp_path / "c/00001.safetensors").unlink()
    mixed = write(tmp_path / "c", rows, tiny)
    assert mixed[0].read_bytes() == kept
    assert RUNTIME not in read_header(mixed[1])
    stored = open_category(tmp_path / "c", compute_identity(tiny, list(rows["sha256"])))
    assert stored.runtimes == (faster.engine.label,)


def test_another_kind_of_features_is_pytorchs_and_says_nothing(rows, tiny, faster, tmp_path):
    def look(backbone, pixels):
        return backbone.image_tower.encode(pixels, backbone.blocks)

    kind = FeatureKind("other", torch.no_grad()(look))
    made, expected = (write(tmp_path / n, rows, b, kind) for n, b in (("a", faster), ("b", tiny)))
    assert [path.read_bytes() for path in made] == [path.read_bytes() for path in expected]


def test_the_features_stage_asks_for_an_engine_with_what_is_ahead(
    rows, tiny, tmp_path, monkeypatch
):
    asked = []

    def choose(backbone, runtime, images):
        asked.append((runtime, images))
        return backbone

    monkeypatch.setattr(stage, "choose_engine", choose)
    machine = SimpleNamespace(engine="local", runtime="auto", workers=1)
    params = SimpleNamespace(machine=machine)
    for number, kind in enumerate((TOKENS, FeatureKind("other", encode_images))):
        folder = tmp_path / str(number)
        stage.encode(plan_category(folder, rows, tiny, shard_size=3, kind=kind), tiny, params, "")
        assert len(list(folder.iterdir())) == 2
    stage.encode([], tiny, params, "")
    assert asked == [("auto", 4)]


@pytest.fixture(scope="module")
def model(tmp_path_factory, tiny_config):
    return make_model(tmp_path_factory.mktemp("model"), tiny_config)[0]


@pytest.fixture
def parts(tmp_path):
    return [draw(tmp_path / "parts" / f"{number}.png", number) for number in range(3)]


def test_a_detector_gives_the_same_maps_and_scores(model, parts, caplog):
    caplog.set_level(logging.INFO, logger="fuzzyclip")
    detector = FuzzyCLIP.load(model, device="cpu")
    faster = detector.run_by("onnx")
    assert caplog.messages[-1].startswith("image tower by onnxruntime ")
    assert detector.backbone.engine is None
    assert (
        FuzzyCLIP.load(model, device="cpu", runtime="openvino").backbone.engine.name == "openvino"
    )
    for own, expected in zip(faster(parts, "nut"), detector(parts, "nut"), strict=True):
        assert own.image_score == pytest.approx(expected.image_score, abs=1e-3)
        assert np.allclose(own.anomaly_map, expected.anomaly_map, atol=1e-3)
        assert own.decision == expected.decision
    assert detector.run_by("auto", 3) is detector
    assert faster.run_by("torch").backbone.engine is None


def test_a_method_that_looks_into_the_tower_stays_with_pytorch(kept, tiny):
    detector = FuzzyCLIP.build(tiny, "winclip")
    assert detector.run_by("auto", 10**6) is detector
    with pytest.raises(EngineError, match=r"runtime onnx: the method winclip reads more than the"):
        detector.run_by("onnx")


def read_lines(out):
    return [json.loads(line) for line in (out / "scores.jsonl").read_text().splitlines()]


def test_predict_by_an_engine_says_so_and_finds_the_same(model, parts, tmp_path):
    rows, masks = {}, {}
    for name in ("torch", "onnx"):
        out = tmp_path / name
        done = run("predict", *parts, "--model", model, "--device", "cpu", "--runtime", name,
                   "--category", "nut", "--out", out, "--report")  # fmt: skip
        assert done.exit_code == 0, done.output
        rows[name] = read_lines(out)
        masks[name] = [np.asarray(Image.open(path)) for path in sorted(out.rglob("*.mask.png"))]
        assert ("tower was run by onnxruntime " in (out / "report.html").read_text()) == (
            name == "onnx"
        )
    assert (tmp_path / "torch/settings.json").read_text() == (
        tmp_path / "onnx/settings.json"
    ).read_text()
    assert [row["runtime"].split()[0] for row in rows["onnx"]] == ["onnxruntime"] * 3
    assert not any("runtime" in row for row in rows["torch"])
    for own, expected in zip(rows["onnx"], rows["torch"], strict=True):
        assert own["image_score"] == pytest.approx(expected["image_score"], abs=1e-3)
    assert len(masks["onnx"]) == 3
    assert all(map(np.array_equal, masks["onnx"], masks["torch"]))
    with (tmp_path / "onnx/scores.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 3


def test_a_run_goes_on_by_another_engine(model, parts, tmp_path):
    words = ("predict", "--model", model, "--device", "cpu", "--category", "nut")
    words += ("--out", tmp_path / "out", "--save", "none")
    assert run(*words, parts[0], "--runtime", "onnx").exit_code == 0
    done = run(*words, *parts)
    assert done.exit_code == 0, done.output
    assert "1 done before" in done.stderr
    assert ["runtime" in row for row in read_lines(tmp_path / "out")] == [True, False, False]


def test_auto_counts_the_images_of_a_command(model, parts, tmp_path, monkeypatch):
    asked = []

    def see(backbone, images, engines, clock):
        asked.append(images)
        return False

    monkeypatch.setattr(choice, "is_worth_measuring", see)
    assert run("predict", *parts, "--model", model, "--device", "cpu").exit_code == 0
    done = run("calibrate", "--model", model, "--good", parts[0], "--good", parts[1],
               "--category", "nut", "--device", "cpu", "--out", tmp_path / "out")  # fmt: skip
    assert done.exit_code == 0, done.output
    assert asked == [3, 2]


def test_an_engine_that_is_asked_for_in_vain_ends_the_command_in_words(model, parts, monkeypatch):
    monkeypatch.setattr(choice, "_find_obstacle", lambda backbone: "the image tower is on cuda")
    done = run("predict", *parts, "--model", model, "--device", "cpu", "--runtime", "onnx")
    assert done.exit_code == 1
    assert "runtime onnx: the image tower is on cuda; take auto or torch" in done.stderr
    refused = run("predict", *parts, "--model", model, "--runtime", "tensorrt")
    assert refused.exit_code == 2
