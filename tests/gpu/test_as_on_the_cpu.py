"""A GPU gives the CPU's numbers, but for what its arithmetic rounds.

PyTorch lets cuDNN round the patch embedding's convolution to TF32 unless told otherwise, so that
float32 differs by about a thousandth. Skipped without a GPU; `python benchmarks/gpu.py` runs them.
"""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.shared import build_scorer, draw_images, draw_training_set, measure_gap
from fuzzyclip import FuzzyCLIP
from fuzzyclip.clip.encoding import encode_images, encode_text
from fuzzyclip.clip.name_encoder import NameEncoder
from fuzzyclip.features.encode import write_category
from fuzzyclip.features.shards import compute_identity
from fuzzyclip.features.store import open_category, read_or_encode
from fuzzyclip.method.efa_training import train_heads
from fuzzyclip.method.rpl import fit_prompts
from fuzzyclip.method.scorer import score_batch
from fuzzyclip.utils.prefetch import Fetcher, send
from fuzzyclip.utils.settings import RplSettings, TextSettings

pytestmark = pytest.mark.gpu

GPU = "cuda"
#: Largest relative differences of what is computed in a type.
FLOAT32, BFLOAT16 = 5e-3, 1e-1


@pytest.fixture(scope="module")
def on_gpu(load_tiny):
    """The tiny CLIP with the same weights, on the GPU."""
    return load_tiny(device=GPU)


@pytest.mark.parametrize(("precision", "most"), [("float32", FLOAT32), ("bfloat16", BFLOAT16)])
def test_features(tiny, load_tiny, pixels, precision, most):
    expected = encode_images(tiny, pixels)
    measured = encode_images(load_tiny(device=GPU, precision=precision), pixels)
    for part, whole in zip(measured, expected, strict=True):
        assert part.device.type == GPU
        assert part.dtype == torch.float32
        assert measure_gap(part, whole) < most


def test_a_prompt_has_one_feature_whatever_it_is_encoded_with(tiny, on_gpu):
    prompts = [f"a photo of a {'very ' * (number % 5)}bent screw" for number in range(40)]
    together = encode_text(on_gpu, prompts)
    assert measure_gap(together, encode_text(tiny, prompts)) < FLOAT32
    for number in (0, 4, 39):
        assert torch.equal(encode_text(on_gpu, [prompts[number]])[0], together[number])


def test_copies_that_nobody_waits_for_arrive_whole():
    """What is fetched is overwritten at once by what is computed next, as in a store's writing."""
    device, generator = torch.device(GPU), torch.Generator().manual_seed(0)
    fetcher, waiting = Fetcher(device), []
    for _ in range(20):
        tensor = torch.randn(1 << 20, generator=generator)
        waiting.append((tensor * 2, fetcher.fetch(send(tensor, device) * 2)))
    for expected, wait in waiting:
        assert torch.equal(wait(), expected)


def test_the_feature_store(tiny, on_gpu, tmp_path):
    rows = draw_images(tmp_path, 5, side=64)
    paths, measured = [Path(path) for path in rows["image_path"]], []
    for backbone in (on_gpu, tiny):
        folder = tmp_path / backbone.device.type
        write_category(folder, rows, backbone, batch_size=2, shard_size=3)
        stored = open_category(folder, compute_identity(backbone, list(rows["sha256"])))
        places = [(stored, place) for place in range(len(rows))]
        measured.append((stored.image_embed, read_or_encode(paths, places, backbone)))
    for part, whole in zip(*measured, strict=True):
        assert measure_gap(part, whole) < FLOAT32


def test_maps_and_scores(tiny, on_gpu, pixels):
    measured = []
    for backbone in (on_gpu, tiny):
        torch.manual_seed(0)
        image_embed, tokens = encode_images(backbone, pixels)
        measured.append(score_batch(build_scorer(backbone), tokens, image_embed, backbone, sigma=2))
    own, expected = measured
    assert own.maps.dtype == np.float64
    assert np.abs(own.shown - expected.shown).max() < 0.05
    assert np.abs(own.weights - expected.weights).max() < 0.05
    assert measure_gap(own.image_scores, expected.image_scores) < 0.05


def test_training_of_the_layers(tiny, on_gpu):
    settings = {"epochs": 3, "batch_size": 4, "learning_rate": 1e-3, "seed": 0}
    losses = []
    for backbone in (on_gpu, tiny):
        torch.manual_seed(0)
        images, text = draw_training_set(backbone, 8), torch.randn(backbone.embed_dim, 2)
        text = torch.nn.functional.normalize(text, dim=0)
        losses.append([row["loss"] for row in train_heads(backbone, images, text, **settings)[1]])
    assert measure_gap(*losses) < FLOAT32


def test_training_of_the_prompts(tiny, on_gpu):
    settings = RplSettings(depth=3, epochs=3, batch_size=4, learning_rate=0.01)
    image_embed, labels = torch.randn(8, tiny.embed_dim), torch.arange(8) % 2
    losses = []
    for backbone in (on_gpu, tiny):
        text = TextSettings(ensemble="single")
        encode = NameEncoder(backbone, partial(encode_text, backbone), text)
        curve = fit_prompts(encode, image_embed, labels, ["nut", "bolt"], settings, seed=0)[1]
        losses.append([row["loss"] for row in curve])
    assert measure_gap(*losses) < FLOAT32


def test_a_packaged_model(packaged):
    noise = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    measured, expected = (
        FuzzyCLIP.load(packaged, device=device)(Image.fromarray(noise), "nut")
        for device in (GPU, "cpu")
    )
    assert measured.image_score == pytest.approx(expected.image_score, rel=0.05, abs=0.05)
    assert np.abs(measured.anomaly_map - expected.anomaly_map).max() < 0.05
