"""Drawn images and vectors, and the models that several benchmarks measure."""

from hashlib import sha256

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch.nn import functional as F

from fuzzyclip.clip.backbone import load_backbone
from fuzzyclip.clip.weights import SAMPLE_CONFIG, SAMPLE_WEIGHTS
from fuzzyclip.method.efa import Heads
from fuzzyclip.method.interface import TrainingSet
from fuzzyclip.method.scorer import build_trained
from fuzzyclip.utils.prefetch import send
from fuzzyclip.utils.settings import BackboneSettings

#: The paper's setting: ViT-L/14@336 at 518 px, with random weights.
LARGE = BackboneSettings(
    model="ViT-L-14-336", weights="random", image_size=518, blocks=(6, 12, 18, 24)
)
#: The sample's own setting and weights.
SAMPLE = BackboneSettings(
    model=str(SAMPLE_CONFIG), weights=str(SAMPLE_WEIGHTS), image_size=144, blocks=(5, 6, 7, 8)
)
#: The paper's partition of VisA, whose model meets six of the seven datasets.
CLUSTERS = 2


def load_random(model, size, blocks=(1,), device="cpu"):
    """A CLIP with random weights."""
    settings = BackboneSettings(model=model, weights="random", image_size=size, blocks=blocks)
    return load_backbone(settings, device=device)


def draw_images(folder, count, side=1024):
    """PNGs of smooth noise, by default as large as MVTec-AD's largest, and their index rows."""
    rng, rows = np.random.default_rng(0), []
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC), np.int16)
        noisy = np.clip(smooth + rng.integers(-4, 5, smooth.shape), 0, 255).astype(np.uint8)
        path = folder / f"{number:03d}.png"
        Image.fromarray(noisy).save(path)
        rows.append((str(path), sha256(path.read_bytes()).hexdigest()))
    return pd.DataFrame(rows, columns=["image_path", "sha256"])


def draw_unit(*shape):
    """Random unit vectors along the last axis."""
    return F.normalize(torch.randn(*shape), dim=-1)


def build_scorer(backbone, clusters=CLUSTERS):
    """FuzzyCLIP's scorer with random layers of some clusters and random prompts."""
    width, depth = backbone.vision_width, backbone.embed_dim
    heads = [Heads(len(backbone.blocks), width, depth) for _ in range(clusters)]
    heads = [head.to(backbone.device) for head in heads]
    texts, learned = draw_unit(clusters, 2, depth).mT, draw_unit(2, depth)
    anchors = texts[..., 0].contiguous()
    return build_trained(backbone, "drawn", heads, texts, anchors, 100.0, learned)


def draw_training_set(backbone, count):
    """Random tokens in float16, as a store keeps them, with a square defect in every second image.

    They wait on the host and travel in each step, as they do from a store.
    """
    (rows, columns), size = backbone.grid, backbone.image_size
    shape = (count, len(backbone.blocks), rows * columns, backbone.vision_width)
    tokens, labels = torch.randn(shape).half(), torch.arange(count) % 2
    masks = torch.zeros(count, size, size, dtype=torch.bool)
    masks[1::2, size // 4 : size // 2, size // 4 : size // 2] = True
    return TrainingSet(
        image_embed=torch.randn(count, backbone.embed_dim),
        load_tokens=lambda chosen: send(tokens[list(chosen)], backbone.device).float(),
        load_masks=lambda chosen: masks[list(chosen)],
        labels=labels,
        names=["parts"] * count,
        members=["own/parts"] * count,
    )


def measure_gap(measured, expected):
    """Length of the difference over the length of what was expected."""
    own, wanted = (torch.as_tensor(values).cpu().double() for values in (measured, expected))
    return float((own - wanted).norm() / wanted.norm())
