"""A small defect in a large image: lost in the squashed image, found by tiles."""

import numpy as np
import pytest
import torch
from backbones import load_sample
from imports import ROOT
from PIL import Image
from scipy.special import expit

from fuzzyclip.clip.encoding import encode_images, preprocess
from fuzzyclip.method import Scale
from fuzzyclip.method.scorer import Scorer, remember
from fuzzyclip.model.card import Tiling
from fuzzyclip.model.inference import CategoryModel, Opened
from fuzzyclip.model.prediction import resize_map
from fuzzyclip.model.tiles import detect_tiled

SAMPLE = ROOT / "fuzzyclip/sample/weights"
SIDE = 4000
#: The defect: a scratch, left, top, right, bottom.
SCRATCH = (2710, 1330, 2740, 1336)
TILING = Tiling(side=576, overlap=144)


def weave(width, height, seed=0):
    """A woven texture with noise."""
    rng = np.random.default_rng(seed)
    x, y = np.arange(width)[None, :], np.arange(height)[:, None]
    threads = 120 + 25 * np.sin(x / 3.1) * np.cos(y / 3.7) + rng.normal(0, 4, (height, width))
    return Image.fromarray(np.clip(threads, 0, 255).astype(np.uint8)).convert("RGB")


@pytest.fixture(scope="module")
def detector():
    """The sample CLIP that knows a few normal tiles and no text."""
    backbone = load_sample()
    tiles = [preprocess(weave(TILING.side, TILING.side, seed), backbone) for seed in (1, 2, 3, 4)]
    memory = remember(encode_images(backbone, torch.stack(tiles))[1], backbone.grid, 144)
    nothing = Scorer(
        prompt="",
        compute_map=lambda tokens, embed: torch.full((len(tokens), 144, 144), -100.0),
        compute_score=lambda embed, maps: torch.full((len(embed),), -100.0),
        scale=Scale.LOG_ODDS,
        memory=memory,
    )
    return CategoryModel(backbone, nothing)


@pytest.fixture(scope="module")
def scratched():
    image = weave(SIDE, SIDE, 9)
    image.paste((250, 250, 250), SCRATCH)
    return image


def measure_contrast(anomaly_map):
    """Highest value at the scratch, in deviations of all values from their mean."""
    left, top, right, bottom = SCRATCH
    near = anomaly_map[top - 20 : bottom + 20, left - 20 : right + 20]
    return (near.max() - anomaly_map.mean()) / anomaly_map.std()


def test_a_scratch_of_30_pixels_in_4000_is_found_by_tiles_and_lost_without(detector, scratched):
    marked = detect_tiled("x", lambda item: Opened(scratched), detector, TILING, batch_size=16)
    assert marked.map.shape == (SIDE, SIDE)
    row, column = np.unravel_index(marked.map.argmax(), marked.map.shape)
    assert SCRATCH[0] - 20 <= column <= SCRATCH[2] + 20
    assert SCRATCH[1] - 20 <= row <= SCRATCH[3] + 20
    assert measure_contrast(marked.map) > 8
    maps, scores = detector(preprocess(scratched, detector.backbone)[None])
    assert measure_contrast(resize_map(maps[0], (SIDE, SIDE))) < 3
    unmarked = Opened(weave(SIDE, SIDE, 9))
    clean = detect_tiled("x", lambda item: unmarked, detector, TILING, batch_size=16)
    assert expit(marked.score) > 1.3 * expit(clean.score)
    same = detector(preprocess(weave(SIDE, SIDE, 9), detector.backbone)[None])[1]
    assert expit(scores[0]) < 1.05 * expit(same[0])
