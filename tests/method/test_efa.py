"""EFA's maps and weights against loops over blocks, clusters and pixels."""

import numpy as np
import pytest
import references
import torch
from scipy.ndimage import gaussian_filter
from scipy.special import expit
from torch.nn import functional as F

from fuzzyclip.method import Scale, efa

GRID, SIZE = (3, 4), (9, 13)


def draw_unit(*shape, seed=0, dim=-1):
    """Random unit vectors along one axis."""
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=dim)


@pytest.fixture
def heads():
    """Two clusters' layers: two blocks, width 6 to 5."""
    torch.manual_seed(0)
    return [efa.Heads(2, 6, 5) for _ in range(2)]


@pytest.fixture
def tokens():
    """Patch tokens (B, L, P, W) = (3, 2, 12, 6)."""
    return torch.randn(3, 2, 12, 6, generator=torch.Generator().manual_seed(1))


def interpolate_by_hand(plane, size):
    """Bilinear with aligned corners, pixel by pixel: corner pixels are corner patches."""
    (rows, columns), (height, width) = plane.shape, size
    out = torch.zeros(size)
    for y in range(height):
        for x in range(width):
            v, u = y * (rows - 1) / (height - 1), x * (columns - 1) / (width - 1)
            top, left = min(int(v), rows - 2), min(int(u), columns - 2)
            b, a = v - top, u - left
            out[y, x] = (1 - b) * ((1 - a) * plane[top, left] + a * plane[top, left + 1]) + b * (
                (1 - a) * plane[top + 1, left] + a * plane[top + 1, left + 1]
            )
    return out


def slow_margins(head, tokens, text_embed):
    """Margins of one image and one cluster, (L, *SIZE): project, cosine, upsample, subtract."""
    margins = []
    for block, layer in enumerate(head.layers):
        planes = torch.zeros(2, *GRID)
        for patch, token in enumerate(tokens[block]):
            mapped = layer.weight @ token + layer.bias
            cosines = (mapped / mapped.norm()) @ text_embed
            planes[:, patch // GRID[1], patch % GRID[1]] = 100 * cosines.detach()
        normal, anomalous = (interpolate_by_hand(plane, SIZE) for plane in planes)
        margins.append(anomalous - normal)
    return torch.stack(margins)


def test_each_block_has_its_own_affine_layer(heads, tokens):
    mapped = heads[0](tokens)
    assert mapped.shape == (3, 2, 12, 5)
    for block, layer in enumerate(heads[0].layers):
        expected = tokens[:, block] @ layer.weight.T + layer.bias
        assert torch.allclose(mapped[:, block], expected, atol=1e-6)
    assert not torch.equal(heads[0].layers[0].weight, heads[0].layers[1].weight)


def test_parameter_count_at_the_papers_shapes():
    with torch.device("meta"):
        heads = efa.Heads(4, 1024, 768)
    assert sum(parameter.numel() for parameter in heads.parameters()) == 3_148_800


def test_the_ensemble_map_equals_the_slow_one(heads, tokens):
    text_embeds = torch.stack([draw_unit(5, 2, seed=seed, dim=0) for seed in range(2)])
    weights = torch.tensor([[0.5, 0.5], [1.0, 0.0], [0.2, 0.8]])
    maps = efa.compute_ensemble_map(heads, tokens, text_embeds, weights, GRID, SIZE)
    assert maps.shape == (3, *SIZE)
    for image in range(3):
        slow = [slow_margins(heads[k], tokens[image], text_embeds[k]) for k in range(2)]
        share = weights[image].repeat_interleave(2)  # of each cluster's two blocks
        expected = references.join_margins(torch.cat(slow), share)
        assert torch.allclose(maps[image], expected, atol=1e-3)
        probs = [margins.sigmoid().mean(dim=0) for margins in slow]
        mean = weights[image, 0] * probs[0] + weights[image, 1] * probs[1]
        assert torch.allclose(maps[image].sigmoid().float(), mean, atol=1e-4)


def test_margins_are_the_difference_of_the_logits_and_of_no_token_none(tokens):
    text_embed = draw_unit(6, 2, dim=0)
    normal, anomalous = references.compute_logits(tokens, text_embed).unbind(dim=-1)
    assert torch.allclose(efa.compute_margins(tokens, text_embed), anomalous - normal, atol=1e-4)
    nothing = efa.compute_margins(torch.zeros_like(tokens), text_embed)
    assert torch.equal(nothing, torch.zeros(3, 2, 12))


def test_the_ensemble_map_equals_the_one_of_two_channels(heads, tokens):
    text_embeds = torch.stack([draw_unit(5, 2, seed=seed, dim=0) for seed in range(2)])
    weights = torch.tensor([[0.5, 0.5], [1.0, 0.0], [0.2, 0.8]])
    expected = torch.zeros(3, *SIZE)
    for k, head in enumerate(heads):
        maps = references.compute_maps(head(tokens), text_embeds[k], GRID, SIZE)
        expected += weights[:, k, None, None] * references.sum_maps(maps)
    maps = efa.compute_ensemble_map(heads, tokens, text_embeds, weights, GRID, SIZE)
    assert torch.allclose(2 * maps.sigmoid().float(), expected, atol=1e-5)  # of two blocks


def test_weights_are_a_softmax_of_cosines_and_sum_to_one():
    image_embed, anchors = draw_unit(5, 8), draw_unit(3, 8, seed=1)
    for temperature in (1.0, 100.0):
        weights = efa.compute_weights(image_embed, anchors, temperature)
        raw = torch.exp(temperature * torch.einsum("bd,kd->bk", image_embed, anchors).double())
        assert torch.allclose(weights.double(), raw / raw.sum(dim=1, keepdim=True), atol=1e-5)
        assert torch.allclose(weights.sum(dim=1), torch.ones(5), atol=1e-6)
    nearest = efa.compute_weights(anchors, anchors, 100.0)
    assert torch.equal(nearest.argmax(dim=1), torch.arange(3))


def test_one_cluster_weighs_one_and_its_map_is_the_ensembles(heads, tokens):
    weights = efa.compute_weights(draw_unit(3, 5), draw_unit(1, 5, seed=1))
    assert torch.equal(weights, torch.ones(3, 1))
    text_embed = draw_unit(5, 2, dim=0)
    ensemble = efa.compute_ensemble_map(heads[:1], tokens, text_embed[None], weights, GRID, SIZE)
    alone = references.sum_maps(references.compute_maps(heads[0](tokens), text_embed, GRID, SIZE))
    assert torch.allclose(2 * ensemble.sigmoid().float(), alone, atol=5e-6)
    assert not ensemble.requires_grad  # nothing is learned at test time


def test_smoothing_treats_each_map_alone():
    maps = np.random.default_rng(0).random((3, 8, 9), dtype=np.float32)
    assert efa.smooth(maps, 0.0) is maps
    smoothed = efa.smooth(maps, 1.5)
    for result, plain in zip(smoothed, maps, strict=True):
        assert result == pytest.approx(gaussian_filter(plain, 1.5), abs=1e-6)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_probabilities_are_smoothed_and_not_their_log_odds(kind):
    rng = np.random.default_rng(0)
    maps = (5 * rng.normal(size=(3, 8, 9))).astype(kind)
    assert efa.smooth(maps, 0.0, Scale.LOG_ODDS) is maps
    smoothed = efa.smooth(maps, 1.5, Scale.LOG_ODDS)
    for result, odds in zip(smoothed, maps.astype(np.float64), strict=True):
        mean = gaussian_filter(1 / (1 + np.exp(-odds)), 1.5)
        assert result == pytest.approx(np.log(mean / (1 - mean)), abs=1e-4)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_smoothing_tells_sure_pixels_apart(kind):
    """Each side is smoothed by itself: neither end is lost beside 1."""
    ramp = np.linspace(30, 50, 21)
    for side in (1, -1):
        maps = side * np.broadcast_to(ramp, (1, 21, 21)).astype(kind)
        smoothed = efa.smooth(maps, 1.0, Scale.LOG_ODDS)[0]
        assert (side * np.diff(smoothed, axis=1) > 0).all()
        assert abs(smoothed).min() > 25


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_smoothing_loses_nothing_between_sure_pixels_and_contrary_ones(kind):
    """Across an edge the mean lies between the sides, where float32 does not show how sure."""
    ramp = np.linspace(18, 24, 21).astype(kind)
    maps = np.repeat(np.stack([ramp, -ramp], axis=1), 5, axis=1)[None]  # (1, 21, 10)
    smoothed = efa.smooth(maps, 1.0, Scale.LOG_ODDS)[0]
    assert (np.diff(smoothed[:, :5], axis=0) > 0).all()
    assert (np.diff(smoothed[:, 5:], axis=0) < 0).all()
    assert 0 < smoothed[:, 4].max() < 2


def test_joined_maps_are_finite_and_as_precise_as_float64():
    """Sure and contrary maps: what is left beside 1/2 is not lost, and no margin is too large."""
    margins = torch.tensor(
        [[200.0, 200.0, -200.0, 45.0, 45.0], [200.0, -200.0, -200.0, -20, -20.5]]
    )
    joined = efa.join_planes((plane.view(1, 1, -1), None) for plane in margins).flatten()
    assert joined.dtype == torch.float64
    expected = references.join_margins(margins).tolist()
    assert joined.tolist() == pytest.approx(expected, rel=1e-12, abs=1e-15)
    assert joined[3] > joined[4]
    assert expit(joined[3:].numpy()).astype(np.float32).tolist() == [0.5, 0.5]
    lone = efa.join_planes([(margins[:1, None] / 10, torch.tensor([0.25]))])
    assert torch.allclose(lone.flatten(), margins[0].double() / 10, rtol=1e-6)
    with pytest.raises(ValueError, match="no maps to join"):
        efa.join_planes([])
