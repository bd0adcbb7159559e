"""Mutual scoring: distances against a slow reference, and what a batch's images mean to each other.

Tokens are drawn about a few directions that images have in common, as those of parts of one kind.
"""

from dataclasses import asdict

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from properties import try_examples
from scipy.stats import norm
from torch.nn import functional as F

from fuzzyclip.baselines.mutual.scoring import (
    FEWEST,
    SAME,
    BatchError,
    MutualSettings,
    References,
    build_mutual,
    draw_maps,
    find_peaks,
    place_on_scale,
    pool,
    read_scale,
)
from fuzzyclip.features.shards import pack, unpack
from fuzzyclip.method.interface import order_images

GRID, SIZE = (4, 4), 32
SEEDS = st.integers(0, 2**32 - 1)


def draw_tokens(images, seed=0, noise=0.3):
    """(n, 3, 16, 8): every patch of an image is one that all images have there, and noise."""
    common = torch.randn(1, 3, 16, 8, generator=torch.Generator().manual_seed(1))
    drawn = torch.randn(images, 3, 16, 8, generator=torch.Generator().manual_seed(seed))
    return common + noise * drawn


def average_slowly(tokens, side):
    """The mean of the squares around patches (16, 8), those of them that there are."""
    planes, reach = tokens.reshape(4, 4, 8), side // 2
    means = [
        planes[max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1].mean((0, 1))
        for y in range(4)
        for x in range(4)
    ]
    return np.stack(means)


def compare_slowly(image, others, settings):
    """Values of an image's patches, (16,), patch by patch and image by image."""
    levels = []
    for side in settings.neighbourhoods:
        for block in range(3):
            own = average_slowly(image[block].double().numpy(), side)
            far = np.empty((16, len(others)))
            for number, other in enumerate(others):
                known = average_slowly(other[block].double().numpy(), side)
                for patch, token in enumerate(own):
                    lengths = np.linalg.norm(token) * np.linalg.norm(known, axis=1)
                    far[patch, number] = (1 - (known @ token / lengths).max()) / 2
            count = max(1, round(settings.share * len(others)))
            levels.append(np.sort(far, axis=1)[:, :count].mean(axis=1))
    return np.mean(levels, axis=0)


@pytest.mark.parametrize(
    "settings",
    [
        MutualSettings(),
        MutualSettings(neighbourhoods=(1,), share=1.0),
        MutualSettings(neighbourhoods=(3, 5), share=0.01),
    ],
)
def test_values_are_those_of_a_slow_comparison(settings):
    tokens, known = draw_tokens(3, seed=5), draw_tokens(9, seed=6)
    values = References.take(known, GRID, settings).compare(tokens)
    slow = [compare_slowly(image, known, settings) for image in tokens]
    assert values.numpy() == pytest.approx(np.stack(slow), abs=1e-6)
    assert values.std() > 0.001


@pytest.mark.parametrize("side", [1, 3, 5])
def test_a_neighbourhood_is_the_mean_of_the_patches_there_are(side):
    tokens = draw_tokens(2)
    pooled = pool(tokens, GRID, side)
    for image, block in np.ndindex(2, 3):
        slow = torch.from_numpy(average_slowly(tokens[image, block].double().numpy(), side))
        expected = F.normalize(slow, dim=-1).float()
        assert torch.allclose(pooled[image, block], expected, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int8"])
def test_an_image_is_not_compared_with_itself_however_its_tokens_are_stored(dtype):
    """A batch's references are among its images. A second copy is another image, and counts."""
    known = draw_tokens(8)
    stored = unpack(pack(known, dtype)).float()
    references = References.take(torch.cat([known, known[:1]]), GRID, MutualSettings())
    values = references.compare(stored)
    for row in range(8):
        others = [known[other] for other in [*range(8), 0]]
        del others[row]
        slow = compare_slowly(stored[row], torch.stack(others), MutualSettings())
        assert values[row].numpy() == pytest.approx(slow, abs=1e-6)
    assert values[1:].min() > 10 * SAME


def test_of_many_nearly_equal_images_each_is_normal_and_another_one_is_not():
    """As of a camera that looks at a part that stands still."""
    frames = draw_tokens(1).expand(12, -1, -1, -1) + 1e-4 * draw_tokens(12, noise=1.0)
    other = draw_tokens(1, seed=9)
    values = References.take(torch.cat([frames[:6], other]), GRID, MutualSettings()).compare(
        torch.cat([frames, other])
    )
    assert values[:12].max() < SAME < 0.01 < values[12].min()


@given(seed=SEEDS, count=st.integers(5, 30))
@try_examples(40)
def test_the_order_of_images_changes_nothing(seed, count):
    rng = np.random.default_rng(seed)
    tokens, keys = draw_tokens(count, seed), [f"{rng.integers(10**9)}" for _ in range(count)]
    turned = rng.permutation(count)
    settings = MutualSettings(references=4, studied=8)

    def judge(rows):
        order = [rows[place] for place in order_images([keys[row] for row in rows], 7)]
        references = References.take(tokens[order[:4]], GRID, settings)
        studied = find_peaks(draw_maps(references.compare(tokens[order[:8]]), GRID, SIZE))
        scorer = build_mutual(references, read_scale(studied.numpy()), SIZE)
        maps = scorer.compute_map(tokens[rows], torch.zeros(count, 1))
        return [keys[row] for row in order], maps[np.argsort(rows)]

    order, maps = judge(list(range(count)))
    other, again = judge(turned.tolist())
    assert order == other
    assert torch.equal(maps, again)


def test_the_seed_chooses_and_copies_count_once():
    keys = [f"{number:03}" for number in range(200)]
    first = order_images(keys, 0)
    assert sorted(first) == list(range(200))
    assert first[:20] != order_images(keys, 1)[:20]
    assert first == order_images(keys, 0)
    doubled = order_images([*keys, *keys], 0)
    assert doubled == first
    places = [order_images(keys, seed).index(0) for seed in range(400)]
    assert np.mean(places) == pytest.approx(99.5, abs=4 * 57.7 / 20)  # as of a random order


@given(seed=SEEDS, count=st.integers(8, 20))
@try_examples(40)
def test_one_image_more_moves_the_others_little(seed, count):
    """It takes one reference's place at most, and one of those that count has that share."""
    rng = np.random.default_rng(seed)
    keys = [f"{rng.integers(10**9)}" for _ in range(count + 1)]
    tokens, settings = draw_tokens(count + 1, seed), MutualSettings(references=8, studied=8)
    chosen = [
        [keys[place] for place in order_images(keys[:known], 3)[:8]] for known in (count, count + 1)
    ]
    assert len({*chosen[0]} - {*chosen[1]}) <= 1
    values = [
        References.take(tokens[[keys.index(key) for key in of_batch]], GRID, settings)
        .compare(tokens[:count])
        for of_batch in chosen
    ]  # fmt: skip
    nearest = max(1, round(settings.share * 7))  # of the 8, an image may be one
    assert (values[0] - values[1]).abs().max() <= 1 / nearest + 1e-6
    typical = (values[0] - values[1]).abs().mean() / values[0].std()
    assert typical < 1.0


def test_a_defect_is_the_highest_value_of_its_image():
    tokens = draw_tokens(24, seed=2)
    tokens[0, :, 5] = draw_tokens(1, seed=3, noise=2.0)[0, :, 0]
    references = References.take(tokens[:12], GRID, MutualSettings())
    values = references.compare(tokens)
    assert int(values[0].argmax()) == 5
    peaks = values.amax(dim=1)
    assert int(peaks.argmax()) == 0
    scale = read_scale(peaks.numpy())
    scorer = build_mutual(references, scale, SIZE)
    maps = scorer.compute_map(tokens, torch.zeros(24, 1))
    scores = scorer.compute_score(torch.zeros(24, 1), maps)
    assert scores[0] > 0
    assert (scores[1:] < 0).float().mean() > 0.9
    assert int(maps[0].argmax()) // SIZE in range(5, 17)  # of 32 rows, patch 5's are about 11


@given(seed=SEEDS, shift=st.floats(-3, 3), stretch=st.floats(0.1, 10))
@try_examples(40)
def test_the_scale_is_read_off_two_low_quantiles_however_high_anomalous_ones_lie(
    seed, shift, stretch
):
    """Of anomalous images it is their share alone that moves it, as the closed form says."""
    rng = np.random.default_rng(seed)
    normal = shift + 100 + stretch * rng.normal(size=3000)
    for share in (0, 0.1, 0.4):
        count = round(len(normal) * share / (1 - share))
        anomalous = normal.max() + stretch * rng.uniform(0.1, 1000, count)
        scale = read_scale(np.concatenate([normal, anomalous]))
        low, high = norm.ppf(0.10 / (1 - share)), norm.ppf(0.35 / (1 - share))
        spread = (high - low) / (norm.ppf(0.35) - norm.ppf(0.10))
        usual = high - norm.ppf(0.35) * spread
        assert scale.spread / stretch == pytest.approx(spread, rel=0.15)
        assert (scale.usual - 100 - shift) / stretch == pytest.approx(usual, abs=0.15)
        assert usual < 0.8  # deviations, of the 4 that the threshold lies above


def test_a_scale_takes_part_in_no_units():
    """Deviations are what scores are counted in, so that a factor on all values cancels."""
    maps = torch.rand(30, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    placed = []
    for factor in (1.0, 0.25):
        scale = read_scale(find_peaks(factor * maps).numpy())
        placed.append(place_on_scale(factor * maps, scale, MutualSettings()))
    assert torch.allclose(*placed, rtol=1e-4, atol=1e-3)


def test_a_mixed_batch_is_noticed_and_a_clean_one_is_not():
    rng = np.random.default_rng(0)
    noticed = {0.0: 0, 0.1: 0, 0.5: 0, 0.7: 0}
    for share in noticed:
        for _ in range(50):
            count = round(64 * share)
            normal = rng.normal(0.1, 0.012, 64 - count)
            anomalous = rng.uniform(0.15, 0.5, count)
            scale = read_scale(np.concatenate([normal, anomalous]))
            noticed[share] += "lie far apart" in scale.warning
    assert noticed[0.0] == noticed[0.1] == 0
    assert noticed[0.5] > 25
    assert noticed[0.7] > 45


def test_few_images_are_said_to_be_few_and_copies_have_a_scale():
    assert "8 images tell little" in read_scale(np.linspace(0.1, 0.11, 8)).warning
    assert read_scale(np.linspace(0.1, 0.11, 40)).warning == ""
    scale = read_scale(np.full(40, 0.2))
    assert (scale.usual, scale.warning) == (pytest.approx(0.2, abs=1e-3), "")
    assert scale.spread > 0
    assert place_on_scale(torch.zeros(1, 2, 2), scale, MutualSettings()).isfinite().all()


def test_too_few_images_are_refused_in_words():
    with pytest.raises(BatchError, match=f"a batch of 3 images: {FEWEST} or more"):
        References.take(draw_tokens(3), GRID, MutualSettings())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"references": 3}, "references must be 4 or more"),
        ({"references": 64, "studied": 32}, "no more than studied"),
        ({"neighbourhoods": ()}, "odd numbers of patches"),
        ({"neighbourhoods": (2,)}, r"odd numbers of patches, such as \[1, 3\], not \[2\]"),
        ({"neighbourhoods": (0,)}, "neighbourhoods must be from 1"),
        ({"share": 0.0}, "share"),
        ({"share": 1.5}, "share"),
        ({"own_image": -1.0}, "own_image"),
        ({"cut": float("nan")}, "cut"),
    ],
)
def test_settings_that_nobody_means_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        MutualSettings(**asdict(MutualSettings()) | settings)
