"""A tiny detector with two clusters, images for it, and what an exported file of it must give."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import torch
from PIL import Image
from tiny_models import TEMPERATURE

from fuzzyclip.clip.encoding import preprocess
from fuzzyclip.deploy.facts import Origin
from fuzzyclip.deploy.parity import Difference
from fuzzyclip.method.efa import Heads
from fuzzyclip.method.scorer import build_trained
from fuzzyclip.model.inference import CategoryModel

ORIGIN = Origin("bottle", ["one bottle", "two"], {"image_score": 0.25}, "ab" * 32)
LOOSE = Difference(1.0, 1.0, 1.0)


def draw_images(count=5):
    """Noise of several sizes, gray among it."""
    rng = np.random.default_rng(0)
    shapes = [(40, 50, 3), (33, 20), (32, 32, 3), (70, 31, 3), (8, 9)]
    drawn = [rng.integers(0, 256, shapes[i % 5], dtype=np.uint8) for i in range(count)]
    return [*map(Image.fromarray, drawn)]


def draw_unit(*shape, near=None):
    """Unit vectors along the last axis; near another, so that a softmax of both is no 0 or 1."""
    drawn = torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape)))
    drawn = drawn if near is None else near + 0.02 * drawn
    return torch.nn.functional.normalize(drawn, dim=-1)


def build(backbone, sigma=0.0, memory=None):
    """A detector with two clusters of layers and texts, all drawn."""
    torch.manual_seed(1)
    depth = backbone.embed_dim
    heads = [Heads(len(backbone.blocks), backbone.vision_width, depth) for _ in range(2)]
    texts = draw_unit(2, 2, depth).mT
    learned = draw_unit(2, depth, near=draw_unit(depth))
    anchors = draw_unit(2, depth, near=draw_unit(depth))
    trained = build_trained(backbone, "drawn", heads, texts, anchors, 100.0, learned, TEMPERATURE)
    return CategoryModel(backbone, replace(trained, compute_weights=None, memory=memory), sigma)


def detect(detector, images):
    """Maps in [0, 1] and log-odds by the detector alone, one image after the other."""
    inputs = [preprocess(image.convert("RGB"), detector.backbone)[None] for image in images]
    outputs = zip(*map(detector, inputs), strict=True)
    return tuple(np.concatenate(parts) for parts in outputs)


def assert_same(run, detector, images, atol=1e-5, score_atol=1e-5):
    maps, scores = detect(detector, images)
    for first, last in ((0, 1), (1, 3), (0, 5)):
        own_maps, own_scores = run(run.load(images[first:last]))
        assert own_maps.dtype == own_scores.dtype == np.float32
        assert np.allclose(own_maps, maps[first:last], atol=atol)
        assert np.allclose(own_scores, scores[first:last], atol=score_atol)
    assert min(maps.std(), scores.std()) > 1e-2  # there is something to compare
    assert 0 <= maps.min() <= maps.max() <= 1


def run_python(*lines):
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()
