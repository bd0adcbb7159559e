"""The memory of good parts: distances to what is remembered, their place in maps and scores."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from ray_jobs import build_detector
from torch.nn import functional as F

from fuzzyclip.clip.encoding import encode_images
from fuzzyclip.few_shot import remember
from fuzzyclip.scoring import score_batch

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
    whole = F.interpolate(far, size=(SIZE, SIZE), mode="bilinear", align_corners=True).sum(dim=1)
    assert torch.allclose(maps, whole, atol=1e-5)
    assert maps.std() > 0.01


def test_remembered_images_themselves_are_normal_and_opposite_ones_are_the_most_they_can_be():
    known = draw_tokens(3)
    memory = remember(known, GRID, SIZE)
    assert memory.compute_map(known).abs().max() < 1e-5
    one = remember(torch.ones(1, 3, 16, 8), GRID, SIZE)
    assert torch.allclose(one.compute_map(-torch.ones(2, 3, 16, 8)), torch.full((2, 32, 32), 3.0))


def test_more_images_never_make_a_patch_stranger():
    tokens, known = draw_tokens(2), draw_tokens(4, seed=1)
    few, more = (remember(known[:count], GRID, SIZE).compute_map(tokens) for count in (1, 4))
    assert (more <= few + 1e-6).all()
    assert (more < few - 1e-3).any()


def test_length_of_tokens_does_not_matter():
    tokens, known = draw_tokens(1), draw_tokens(2, seed=1)
    plain = remember(known, GRID, SIZE).compute_map(tokens)
    assert torch.allclose(
        remember(7 * known, GRID, SIZE).compute_map(0.1 * tokens), plain, atol=1e-5
    )


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
    assert np.allclose(both.maps, (text.maps + far) / 2, atol=1e-6)
    highest = far.max(axis=(1, 2)) / len(tiny.blocks)
    assert np.allclose(both.image_scores, (text.image_scores + highest) / 2, atol=1e-6)
    assert both.image_scores[0] == pytest.approx(text.image_scores[0] / 2, abs=1e-5)
    assert highest[1:].min() > 1e-3
