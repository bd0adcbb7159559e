"""Drawn images and vectors, and the models that several benchmarks measure."""

from hashlib import sha256

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch.nn import functional as F

from fuzzyclip.clip.backbone import load_backbone
from fuzzyclip.method.efa import Heads
from fuzzyclip.method.scorer import build_trained
from fuzzyclip.utils.settings import BackboneSettings

#: The paper's setting: ViT-L/14@336 at 518 px, with random weights.
LARGE = BackboneSettings(
    model="ViT-L-14-336", weights="random", image_size=518, blocks=(6, 12, 18, 24)
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


def build_scorer(backbone):
    """FuzzyCLIP's scorer with random layers of two clusters and random prompts."""
    width, depth = backbone.vision_width, backbone.embed_dim
    heads = [Heads(len(backbone.blocks), width, depth) for _ in range(CLUSTERS)]
    texts, learned = draw_unit(CLUSTERS, 2, depth).mT, draw_unit(2, depth)
    anchors = texts[..., 0].contiguous()
    return build_trained(backbone, "drawn", heads, texts, anchors, 100.0, learned)
