"""A backbone of int8: another backbone than the float32 one, run by onnxruntime alone."""

import json
import pickle
import shutil
import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from torch.nn import functional as F

from fuzzyclip import FuzzyCLIP
from fuzzyclip.baselines.winclip import encode_windows
from fuzzyclip.clip.encoding import encode_images
from fuzzyclip.engines import int8, tower_files
from fuzzyclip.engines.choice import EngineError, choose_engine
from fuzzyclip.engines.int8 import open_int8
from fuzzyclip.utils.extras import MissingExtraError


@pytest.fixture(scope="module")
def made_int8(tmp_path_factory, load_tiny):
    """A cache with the tiny CLIP's int8 file, and that CLIP."""
    cache = tmp_path_factory.mktemp("int8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        return cache, load_tiny(precision="int8")


@pytest.fixture
def small(made_int8, cache):
    """The tiny CLIP in int8, with its file in this test's cache."""
    shutil.copytree(made_int8[0], cache)
    return made_int8[1]


def test_it_is_another_backbone_with_features_close_by(small, tiny, pixels):
    assert small.fingerprint != tiny.fingerprint
    assert (small.identity["precision"], small.identity["int8"]) == ("int8", 1)
    assert "int8" not in tiny.identity
    assert small.engine.label.endswith(", int8")
    for own, plain in zip(encode_images(small, pixels), encode_images(tiny, pixels), strict=True):
        assert own.shape == plain.shape
        assert own.dtype == torch.float32
        assert F.cosine_similarity(own, plain, dim=-1).min() > 0.99
        assert not torch.allclose(own, plain, atol=1e-5)


def test_its_later_blocks_are_of_integers(small):
    path, _ = tower_files.keep_tower(small)
    model = onnx.load(str(path))
    operators = [node.op_type for node in model.graph.node]
    assert operators.count("MatMulInteger") >= 2 * 3  # two blocks, each with at least three layers
    weights = [t for t in model.graph.initializer if t.data_type == onnx.TensorProto.INT8]
    assert weights
    for tensor in weights:
        assert np.abs(onnx.numpy_helper.to_array(tensor, str(path.parent)).astype(int)).max() <= 64


def test_an_image_is_the_same_to_the_last_bit_in_any_batch(small, pixels):
    pixels = pixels * torch.tensor([1.0, 3.0, 0.2])[:, None, None, None]  # ranges of their own
    together = encode_images(small, pixels)
    for place in range(3):
        alone = encode_images(small, pixels[place : place + 1])
        assert all(
            torch.equal(own[0], all_[place]) for own, all_ in zip(alone, together, strict=True)
        )


def test_no_runtime_replaces_it_and_it_travels(small, pixels):
    assert choose_engine(small, "torch") is small
    assert choose_engine(small, "auto", 10**9) is small
    for name in ("onnx", "openvino"):
        with pytest.raises(EngineError, match="the backbone in int8"):
            choose_engine(small, name)
    sent = pickle.loads(pickle.dumps(small.engine))
    assert sent.label == small.engine.label
    assert torch.equal(sent(pixels, small.blocks)[1], small.engine(pixels, small.blocks)[1])


def test_a_model_of_it_is_loaded_as_it_was_saved(small, tmp_path):
    detector = FuzzyCLIP.build(small)
    card = detector.save(tmp_path / "made")
    assert card.backbone.precision == "int8"
    loaded = FuzzyCLIP.load(tmp_path / "made", device="cpu")
    assert loaded.backbone.fingerprint == small.fingerprint
    assert loaded.backbone.engine.label == small.engine.label


def test_features_far_from_float32s_are_refused_and_near_ones_compared_once(
    small, load_tiny, cache, monkeypatch
):
    (place,) = cache.rglob("near-*.json")
    assert json.loads(place.read_text())["cosine"] > 0.99
    with monkeypatch.context() as patch:
        patch.setattr(int8, "draw_pixels", lambda size: pytest.fail("compared again"))
        load_tiny(precision="int8")
    place.unlink()
    run = int8.Int8Runner.__call__
    for factor in (-1.0, float("nan")):
        monkeypatch.setattr(
            int8.Int8Runner, "__call__", lambda *given, by=factor: [by * f for f in run(*given)]
        )
        with pytest.raises(
            ValueError, match=r"precision int8: .*cosine with float32's is (-1.00|nan)"
        ):
            load_tiny(precision="int8")
        assert not [*cache.rglob("near-*.json")]


def refuse(path):
    """As `quantise` does where it does not know the blocks."""
    raise ValueError("no layers to quantise")


def test_where_it_can_not_be_it_says_why(small, tiny, load_tiny, pixels, monkeypatch):
    with pytest.raises(ValueError, match="on the CPU, not on meta"):
        open_int8(replace(small, device=torch.device("meta")))
    with pytest.raises(ValueError, match="compile goes without it"):
        load_tiny(precision="int8", compiled=True)
    monkeypatch.setattr(tower_files, "quantise", refuse)
    with pytest.raises(ValueError, match=r"precision int8: no layers"):
        load_tiny(precision="int8", image_size=48)
    with pytest.raises(ValueError, match=r"WinCLIP looks into .* int8 changes"):
        encode_windows(small, pixels)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"'fuzzyclip\[export\]'"):
        load_tiny(precision="int8")
