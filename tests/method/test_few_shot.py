"""The memory of normal images: distances to what is remembered, their place in maps and scores."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from properties import try_examples
from ray_jobs import build_detector
from scipy.special import expit
from torch.nn import functional as F

from fuzzyclip.clip.encoding import encode_images
from fuzzyclip.method.scorer import join_memory, remember, score_batch

GRID, SIZE = (4, 4), 32


def draw_tokens(images, seed=0):
    return torch.randn(images, 3, 16, 8, generator=torch.Generator().manual_seed(seed))


def measure_slowly(tokens, known):
    """Half of 1 - cosine to the nearest remembered token of the same block, one by one."""
    far = np.empty(tokens.shape[:3])
    for image, block, patch in np.ndindex(*far.shape):
        cosines = [
            F.cosine_similarity(tokens[image, block, patch], other, dim=0).item()
            for other in known[:, block].flatten(0, 1)
        ]
        far[image, block, patch] = (1 - max(cosines)) / 2
    return far


def test_a_patch_is_as_far_as_its_nearest_remembered_token():
    tokens, known = draw_tokens(2), draw_tokens(3, seed=1)
    maps = remember(known, GRID, SIZE).compute_map(tokens)
    far = torch.tensor(measure_slowly(tokens, known), dtype=torch.float32).view(2, 3, 4, 4)
    whole = F.interpolate(far, size=(SIZE, SIZE), mode="bilinear", align_corners=True).mean(dim=1)
    assert torch.allclose(maps, whole, atol=1e-5)
    assert maps.std() > 0.01


def test_remembered_images_themselves_are_normal_and_opposite_ones_are_the_most_they_can_be():
    known = draw_tokens(3)
    memory = remember(known, GRID, SIZE)
    assert memory.compute_map(known).abs().max() < 1e-5
    ones = remember(torch.ones(1, 3, 16, 8), GRID, SIZE)
    assert torch.allclose(ones.compute_map(-torch.ones(2, 3, 16, 8)), torch.ones(2, 32, 32))


def test_nothing_to_remember_is_refused():
    with pytest.raises(ValueError, match="at least one image"):
        remember(draw_tokens(1)[:0], GRID, SIZE)


def test_maps_and_scores_are_means_of_text_and_memory(tiny, pixels):
    scorer = build_detector(lambda: tiny, sigma=0.0).scorer
    image_embed, tokens = encode_images(tiny, pixels)
    memory = remember(tokens[:1], tiny.grid, tiny.image_size)
    both = score_batch(replace(scorer, memory=memory), tokens, image_embed, tiny)
    text = score_batch(scorer, tokens, image_embed, tiny)
    far = memory.compute_map(tokens).numpy()
    assert np.allclose(expit(both.maps), (expit(text.maps) + far) / 2, atol=1e-6)
    highest = far.max(axis=(1, 2))
    joint, alone = (expit(scores.image_scores) for scores in (both, text))
    assert np.allclose(joint, (alone + highest) / 2, atol=1e-6)
    assert joint[0] == pytest.approx(alone[0] / 2, abs=1e-5)
    assert highest[1:].min() > 1e-3


@try_examples(40)
@given(share=st.floats(0, 1))
def test_a_surer_text_makes_a_surer_score_whatever_the_memory_says(share):
    """At the temperature of RPL's training; at 100 a float32 loses what is far from 0."""
    cosines = torch.linspace(-0.5, 0.5, 2001, dtype=torch.float64)
    odds = (14.285714 * cosines).float()
    far = torch.full((2001, 1, 1), share)
    maps, scores = join_memory(odds[:, None, None].double(), odds, far)
    assert scores.dtype == torch.float32
    assert (scores.diff() > 0).all()
    assert (maps.diff(dim=0) > 0).all()
    mean = (odds.double().sigmoid() + float(far[0])) / 2
    assert torch.allclose(scores.double(), mean.logit(), atol=1e-6, rtol=1e-6)
    assert torch.allclose(maps[:, 0, 0], mean.logit(), atol=1e-6, rtol=1e-6)


def test_sure_text_and_memory_stay_finite():
    odds = torch.tensor([-200.0, 200.0, -200.0, 200.0])
    far = torch.tensor([0.0, 1.0, 1.0, 0.0])[:, None, None]
    maps, scores = join_memory(odds[:, None, None].double(), odds, far)
    assert maps.isfinite().all()
    assert scores.isfinite().all()
    assert scores[0] < -80
    assert scores[1] > 80
    assert scores[2:].tolist() == [0, 0]
