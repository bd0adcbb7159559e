"""Comparison with a few good parts alone, against its definition computed slowly."""

import numpy as np
import pytest
import torch

from fuzzyclip.baselines.nearest import DECAY, LEAST_SPREAD, Nearest, TiledMemory, read_usual
from fuzzyclip.baselines.registry import build_method
from fuzzyclip.baselines.shared.own_image import LOOKS, Rarity
from fuzzyclip.clip.encoding import normalise
from fuzzyclip.method import Scale
from fuzzyclip.method.efa import upsample
from fuzzyclip.method.interface import Learned, Target
from fuzzyclip.method.scorer import remember

GRID, SIZE = (2, 3), 12


def draw_tokens(count, seed=0):
    return torch.randn(count, 2, 6, 5, generator=torch.Generator().manual_seed(seed))


def memory_of(parts):
    return remember(parts, GRID, SIZE)


def measure_slowly(image, parts):
    """Half the distance of each patch to the nearest of all parts, mean over blocks, (P,)."""
    rows = []
    for block in range(image.shape[0]):
        known = [token / token.norm() for part in parts for token in part[block]]
        rows.append(
            [min((1 - float(token / token.norm() @ each)) / 2 for each in known)
             for token in image[block]]
        )  # fmt: skip
    return np.mean(rows, axis=0)


def test_the_highest_patch_is_that_of_the_definition():
    """Bilinear resizing of 2 x 3 patches to 12 x 12 pixels keeps the extreme values at corners."""
    parts, images = draw_tokens(3), draw_tokens(4, seed=1)
    memory = remember(parts, GRID, SIZE)
    usual = read_usual(memory)
    maps = Nearest(cut=2.0, own_image=0.0).build_from(memory).compute_map(images, torch.empty(4, 0))
    for image, anomaly_map in zip(images, maps, strict=True):
        slow = measure_slowly(image, parts).reshape(GRID)
        end = usual.middle + 2.0 * usual.spread
        corner = 4 * (slow[0, 0] - end) / (end - usual.typical)
        assert float(anomaly_map[0, 0]) == pytest.approx(corner, abs=1e-3)


def test_what_is_usual_is_each_part_among_the_others():
    parts = draw_tokens(4)
    usual = read_usual(remember(parts, GRID, SIZE))
    peaks = []
    for place in range(4):
        others = parts[[other for other in range(4) if other != place]]
        memory = remember(others, GRID, SIZE)
        peaks.append(float(memory.compute_map(parts[place : place + 1]).max()) * (3 / 4) ** DECAY)
    assert usual.middle == pytest.approx(np.mean(peaks), abs=1e-6)
    scorer = Nearest(cut=2.0, own_image=0.0).build_from(memory_of(parts))
    end = usual.middle + 2.0 * usual.spread
    odds = usual.place(torch.tensor([end, usual.typical]), 2.0)
    torch.testing.assert_close(odds, torch.tensor([0.0, -4.0]), atol=1e-4, rtol=0)
    assert scorer.scale is Scale.LOG_ODDS
    assert usual.spread == pytest.approx(
        max(np.std(peaks, ddof=1), LEAST_SPREAD * np.mean(peaks)), abs=1e-6
    )


def test_tiles_of_a_part_are_not_compared_with_its_others():
    """Two tiles of one part that are alike tell nothing of what is usual among parts."""
    tiles = draw_tokens(3)[[0, 0, 1, 2]]  # of the first part two, of the others one
    memory = remember(tiles, GRID, SIZE)
    tiled = TiledMemory(memory.tokens, GRID, SIZE, (2, 1, 1))
    usual, plain = read_usual(tiled), read_usual(memory)
    peaks = []
    for own, others in (([0, 1], [2, 3]), ([2], [0, 1, 3]), ([3], [0, 1, 2])):
        rest = remember(tiles[others], GRID, SIZE)
        peaks.append(float(rest.compute_map(tiles[own]).max()))
    assert usual.middle == pytest.approx(np.mean(peaks) * (2 / 3) ** DECAY, abs=1e-6)
    assert plain.middle < usual.middle
    assert read_usual(TiledMemory(memory.tokens, GRID, SIZE, (4,))) is None


def test_one_part_tells_nothing_of_what_is_usual():
    """Scores keep their order, and none reaches the natural threshold."""
    parts, images = draw_tokens(1), draw_tokens(5, seed=1)
    memory = remember(parts, GRID, SIZE)
    assert read_usual(memory) is None
    scorer = Nearest().build_from(memory)
    maps = scorer.compute_map(images, torch.empty(5, 0))
    far = memory.compute_map(images)
    torch.testing.assert_close(maps.sigmoid(), far, atol=1e-5, rtol=1e-4)
    assert torch.equal(scorer.compute_score(torch.empty(5, 0), maps), maps.amax(dim=(1, 2)))


def test_a_remembered_part_scores_lowest_and_copies_have_a_spread():
    parts = draw_tokens(1).repeat(3, 1, 1, 1)
    memory = remember(parts, GRID, SIZE)
    scorer = Nearest(own_image=0.0).build_from(memory)
    images = torch.cat([parts[:1], draw_tokens(1, seed=1)])
    own, other = scorer.compute_map(images, torch.empty(2, 0)).amax(dim=(1, 2)).tolist()
    assert np.isfinite([own, other]).all()
    assert own < 0 < other


@pytest.mark.parametrize("share", [0.5, 2.0])
def test_what_is_rare_within_an_image_counts_in_deviations_beside_the_distance(share):
    grid, shape = (4, 5), (4, 2, 20, 5)
    parts = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    images = torch.randn(shape, generator=torch.Generator().manual_seed(3))
    memory = remember(parts, grid, SIZE)
    maps = Nearest(cut=2.0, own_image=share).build_from(memory).compute_map(images, None)

    def draw_own(tokens):
        return [
            upsample(Rarity(grid, look)(normalise(tokens), None)[:, None], grid, (SIZE, SIZE))[:, 0]
            for look in LOOKS
        ]

    among = []
    for place in range(4):
        rest = remember(parts[[other for other in range(4) if other != place]], grid, SIZE)
        among.append(rest.compute_map(parts[place : place + 1])[0] * (3 / 4) ** DECAY)
    far, known = torch.stack(among), draw_own(parts)

    def join(distance, own):
        z = sum((each - one.mean()) / one.std() for each, one in zip(own, known, strict=True))
        return distance + share * far.std() * z / len(LOOKS)

    usual = join(far, known)
    peaks, typical = usual.amax(dim=(1, 2)), usual.flatten(1).median(dim=1).values.mean()
    end = peaks.mean() + 2 * max(peaks.std(), LEAST_SPREAD * peaks.mean())
    expected = 4 * (join(memory.compute_map(images), draw_own(images)) - end) / (end - typical)
    torch.testing.assert_close(maps, expected, atol=1e-3, rtol=1e-3)


def test_a_grid_without_anything_to_compare_within_an_image_leaves_the_distance_alone():
    memory, images = memory_of(draw_tokens(2)), draw_tokens(3, seed=1)
    maps = [
        Nearest(own_image=share).build_from(memory).compute_map(images, None)
        for share in (0.0, 0.5)
    ]
    assert torch.equal(*maps)


def test_the_method_takes_the_targets_good_parts(tiny):
    asked = []

    def load(count):
        asked.append(count)
        shape = (count, len(tiny.blocks), tiny.grid[0] * tiny.grid[1], tiny.vision_width)
        return torch.randn(shape, generator=torch.Generator().manual_seed(count))

    encode = type("Encode", (), {"backbone": tiny})()
    method = build_method("nearest", {"shots": 3})
    scorers = method.build_variants(encode, Target("part", load_references=load), Learned())
    assert asked == [3]
    assert [*scorers] == ["nearest"]
    with pytest.raises(ValueError, match="needs good parts of 'part'"):
        method.build(encode, "part", Learned())


@pytest.mark.parametrize("settings", [{"shots": 0}, {"cut": 0.0}, {"cut": float("nan")},
                                      {"own_image": -0.5}, {"sigma": -1.0}])  # fmt: skip
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ValueError, match=f"nearest: {next(iter(settings))}"):
        build_method("nearest", settings)
