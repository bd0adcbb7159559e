"""CLIP Surgery's map against loops over patches and texts."""

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from fuzzyclip.baselines.clip_surgery import ClipSurgery, stretch
from fuzzyclip.baselines.shared.vv import compute_surgery
from fuzzyclip.clip.encoding import encode_text
from fuzzyclip.clip.name_encoder import NameEncoder
from fuzzyclip.method.interface import Learned
from fuzzyclip.method.scorer import score_batch
from fuzzyclip.utils.settings import TextSettings

MENDED = ClipSurgery(as_="mended")


def draw_unit(*shape, seed=0, dim=-1):
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=dim)


def operate_slowly(token, class_embed, texts, factor):
    """Feature surgery of one token with any number of texts: similarity to each text."""
    weights = torch.softmax(torch.stack([factor * class_embed @ text for text in texts]), dim=0)
    weights = weights / weights.mean()
    products = [
        weight * token / token.norm() * text for weight, text in zip(weights, texts, strict=True)
    ]
    shared = sum(products) / len(products)
    return [float((product - shared).sum()) for product in products]


def interpolate_by_hand(plane, patch):
    """Bilinear between the centres of patches, pixel by pixel; the rim repeats the patches."""
    count = len(plane)
    out = torch.zeros(count * patch, count * patch)
    for y in range(count * patch):
        for x in range(count * patch):
            v, u = (min(max((i + 0.5) / patch - 0.5, 0.0), count - 1.0) for i in (y, x))
            top, left = min(int(v), count - 2), min(int(u), count - 2)
            corners = plane[top : top + 2, left : left + 2]
            down, across = (
                torch.tensor([1 - v + top, v - top]),
                torch.tensor([1 - u + left, u - left]),
            )
            out[y, x] = down @ corners @ across
    return out


@pytest.fixture(scope="module")
def encode(tiny):
    return NameEncoder(tiny, partial(encode_text, tiny), TextSettings(ensemble="single"))


@pytest.fixture(scope="module")
def features(tiny):
    drawn = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return ClipSurgery().kind.encode(tiny, drawn)


@pytest.mark.parametrize("factor", [0.0, 1.0, 2.0])
def test_surgery_subtracts_what_the_texts_share(factor):
    tokens = 3 * torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(1))
    classes, text = draw_unit(2, 6, seed=2), draw_unit(6, 2, seed=3, dim=0)
    similarities = compute_surgery(tokens, classes, text, factor)
    for image in range(2):
        for patch in range(5):
            slow = operate_slowly(tokens[image, patch], classes[image], text.T, factor)
            assert float(similarities[image, patch]) == pytest.approx(slow[1], abs=1e-6)


@given(st.integers(0, 2**31), st.floats(0, 5))
def test_surgery_changes_sign_with_the_texts_and_stays_bounded(seed, factor):
    tokens, classes = draw_unit(1, 7, 4, seed=seed), draw_unit(1, 4, seed=seed + 1)
    text = draw_unit(4, 2, seed=seed + 2, dim=0)
    similarities = compute_surgery(tokens, classes, text, factor)
    swapped = compute_surgery(tokens, classes, text.flip(1), factor)
    torch.testing.assert_close(swapped, -similarities, atol=1e-6, rtol=1e-5)
    assert similarities.abs().max() <= 1 + 1e-5


def test_the_map_is_the_surgery_of_the_first_level_between_the_patches_centres(
    tiny, encode, features
):
    image_embed, tokens = features
    scorer = MENDED.build(encode, "metal_nut", Learned())
    maps = scorer.compute_map(tokens, image_embed)
    assert maps.shape == (3, 32, 32)
    unit = F.normalize(image_embed[:, :32], dim=-1)  # CLIP's own of the two class features
    grid = compute_surgery(tokens[:, 0], unit, encode(["metal_nut"]), 2.0).reshape(3, 4, 4)
    for plane, expected in zip(maps, grid, strict=True):
        torch.testing.assert_close(plane, interpolate_by_hand(expected, 8))
    assert not torch.equal(scorer.compute_map(tokens.flip(1), image_embed), maps)


def test_an_image_alone_has_the_map_and_the_score_it_has_among_others(encode, features):
    image_embed, tokens = features
    scorer = MENDED.build(encode, "bottle", Learned())
    whole = scorer.compute_map(tokens, image_embed)
    scores = scorer.compute_score(image_embed, whole)
    for row in range(3):
        alone = scorer.compute_map(tokens[row : row + 1], image_embed[row : row + 1])
        torch.testing.assert_close(alone[0], whole[row])
    unit = F.normalize(image_embed[:, :32], dim=-1)
    text = encode(["bottle"])
    normal, anomalous = (100 * unit @ text).unbind(dim=1)
    torch.testing.assert_close(scores, anomalous - normal, atol=1e-4, rtol=0)


def test_published_maps_run_from_0_to_1_in_every_image(tiny, encode, features):
    image_embed, tokens = features
    method = ClipSurgery(as_="published")
    scorer = method.build(encode, "bottle", Learned())
    plain = MENDED.build(encode, "bottle", Learned())
    stretched = score_batch(scorer, tokens, image_embed, tiny, method.sigma)
    kept = score_batch(plain, tokens, image_embed, tiny, method.sigma)
    assert stretched.maps.min() >= 0
    assert stretched.maps.max() <= 1
    for anomaly_map, other in zip(stretched.maps, kept.maps, strict=True):
        assert np.corrcoef(anomaly_map.ravel(), other.ravel())[0, 1] == pytest.approx(1, abs=1e-5)
    assert np.array_equal(stretched.image_scores, kept.image_scores)


def test_a_row_without_any_contrast_stretches_to_0():
    rows = torch.tensor([[2.0, 2.0, 2.0], [1.0, 3.0, 2.0]])
    assert stretch(rows).tolist() == [[0, 0, 0], [0, 1, 0.5]]
