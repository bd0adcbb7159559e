"""Tiles cover the image as promised, and blending gives back what was cut."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from properties import try_examples

from fuzzyclip.model.prediction import resize_map
from fuzzyclip.model.tiles import (
    LONGEST_SHAPE,
    SMALLEST_SIDE,
    Box,
    MapBlender,
    combine_scores,
    plan_tiles,
)


@st.composite
def draw_plans(draw: st.DrawFn) -> tuple[int, int, int, int]:
    """Width, height, side and overlap of an image and its tiling."""
    width, height = draw(st.integers(1, 200)), draw(st.integers(1, 200))
    side = draw(st.integers(SMALLEST_SIDE, 90))
    return width, height, side, draw(st.integers(0, side - 1))


def blend(width: int, height: int, boxes: list[Box], whole: np.ndarray) -> np.ndarray:
    blender = MapBlender(width, height)
    for box in boxes:
        blender.add(box, whole[box.top : box.bottom, box.left : box.right])
    return blender.finish()


@try_examples(300)
@given(draw_plans())
@example((1, 200, 32, 31))
@example((200, 200, 90, 89))
def test_tiles_cover_every_pixel_and_keep_their_promises(plan: tuple[int, int, int, int]) -> None:
    width, height, side, overlap = plan
    boxes = plan_tiles(*plan)
    met = np.zeros((height, width), dtype=int)
    for left, top, right, bottom in boxes:
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        met[top:bottom, left:right] += 1
    assert met.all()
    sizes = {(box.right - box.left, box.bottom - box.top) for box in boxes}
    assert len(sizes) == 1
    across, down = sizes.pop()
    assert max(across, down) <= side
    assert max(across, down) <= max(LONGEST_SHAPE * min(across, down), SMALLEST_SIDE)
    if min(width, height) >= side:
        assert across == down == side
    assert boxes == sorted(boxes, key=lambda box: (box.top, box.left))
    assert len(set(boxes)) == len(boxes)
    lefts, tops = ({box[place] for box in boxes} for place in (0, 1))
    assert len(boxes) == len(lefts) * len(tops)
    for length, starts, tile in ((width, sorted(lefts), across), (height, sorted(tops), down)):
        gaps = np.diff(starts)
        shared = min(overlap * tile / side, tile - 1)
        assert (tile - gaps >= shared).all()
        assert not len(gaps) or gaps.max() - gaps.min() <= 1  # evenly spaced
        if min(width, height) >= side and len(starts) > 1:  # none is one too many
            fewer = len(starts) - 1
            assert fewer * side - (fewer - 1) * overlap < length


@pytest.mark.parametrize(
    ("size", "tile", "count"),
    [
        ((518, 518), (518, 518), 1),
        ((500, 4000), (500, 518), 9),  # 1 + ceil((4000 - 518) / (518 - 64))
        ((100, 4000), (100, 125), 37),  # 16 of 125 shared: 1 + ceil(3875 / 109)
        ((1036, 518), (518, 518), 3),
        ((4000, 10), (32, 10), 143),  # 4 of 32 shared: 1 + ceil(3968 / 28)
    ],
)
def test_tiles_of_known_images(size: tuple[int, int], tile: tuple[int, int], count: int) -> None:
    boxes = plan_tiles(*size, side=518, overlap=64)
    assert {(box.right - box.left, box.bottom - box.top) for box in boxes} == {tile}
    assert len(boxes) == count


@pytest.mark.parametrize(
    ("plan", "reason"),
    [
        ((0, 5, 64, 0), "0 x 5"),
        ((5, -1, 64, 0), "5 x -1"),
        ((99, 99, SMALLEST_SIDE - 1, 0), "at least 32"),
        ((99, 99, 64, 64), "give 0 to 63"),
        ((99, 99, 64, -1), "give 0 to 63"),
    ],
)
def test_impossible_tilings_are_refused(plan: tuple[int, int, int, int], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        plan_tiles(*plan)


@try_examples(60)
@given(draw_plans(), st.integers(0, 1000))
def test_crops_of_a_map_give_it_back_in_any_order(
    plan: tuple[int, int, int, int], seed: int
) -> None:
    width, height, *_ = plan
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    whole = (0.5 + 0.5 * np.sin(x / 9 + rng.random()) * np.cos(y / 7)).astype(np.float32)
    boxes = plan_tiles(*plan)
    back = blend(width, height, boxes, whole)
    assert back.dtype == np.float32
    np.testing.assert_allclose(back, whole, atol=1e-4)  # thousands of tiles may share a pixel
    shuffled = [boxes[place] for place in rng.permutation(len(boxes))]
    np.testing.assert_allclose(blend(width, height, shuffled, whole), back, atol=1e-4)
    assert back.min() >= whole.min()
    assert back.max() <= whole.max()
    constant = np.full_like(whole, rng.random())
    assert np.array_equal(blend(width, height, boxes, constant), constant)


def test_weights_are_those_of_a_slow_mean() -> None:
    rng = np.random.default_rng(3)
    boxes = plan_tiles(70, 50, 32, 20)
    maps = [rng.random((32, 32), dtype=np.float32) for _ in boxes]
    blender = MapBlender(70, 50)
    total, weights = np.zeros((50, 70)), np.zeros((50, 70))
    for box, anomaly_map in zip(boxes, maps, strict=True):
        blender.add(box, anomaly_map)
        for y in range(32):
            for x in range(32):
                weight = min(y + 0.5, 31.5 - y) * min(x + 0.5, 31.5 - x)
                total[box.top + y, box.left + x] += weight * anomaly_map[y, x]
                weights[box.top + y, box.left + x] += weight
    np.testing.assert_allclose(blender.finish(), total / weights, atol=1e-6)


def test_a_long_line_scan_needs_one_map_and_its_weights() -> None:
    width, height = 30_000, 200
    tracemalloc.start()
    blender = MapBlender(width, height)
    for box in plan_tiles(width, height, 518, 64):
        blender.add(box, np.full((box.bottom - box.top, box.right - box.left), 0.25, np.float32))
    whole = blender.finish()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (whole == 0.25).all()
    assert peak < 1.2 * 2 * whole.nbytes


@pytest.mark.parametrize(
    ("box", "tile", "reason"),
    [
        (Box(0, 0, 9, 4), np.zeros((4, 9), np.float32), "not inside"),
        (Box(-1, 0, 4, 4), np.zeros((4, 5), np.float32), "not inside"),
        (Box(4, 0, 4, 4), np.zeros((4, 0), np.float32), "not inside"),
        (Box(0, 0, 4, 3), np.zeros((4, 3), np.float32), r"is \(4, 3\), not \(3, 4\)"),
        (Box(0, 0, 1, 1), np.full((1, 1), np.nan, np.float32), "not finite"),
        (Box(0, 0, 1, 1), np.zeros((1, 1)), "float64"),
    ],
)
def test_maps_that_do_not_fit_are_refused(box: Box, tile: np.ndarray, reason: str) -> None:
    blender = MapBlender(8, 8)
    blender.add(Box(0, 0, 8, 8), np.ones((8, 8), np.float32))
    with pytest.raises(ValueError, match=reason):
        blender.add(box, tile)
    assert (blender.finish() == 1).all()


def test_a_pixel_without_a_tile_is_named() -> None:
    blender = MapBlender(8, 6)
    blender.add(Box(0, 0, 8, 5), np.ones((5, 8), np.float32))
    with pytest.raises(ValueError, match="row 5 and column 0"):
        blender.finish()
    with pytest.raises(ValueError, match="0 x 6"):
        MapBlender(0, 6)


def test_the_worst_tile_is_the_image() -> None:
    assert combine_scores([0.1, 0.7, 0.3]) == 0.7
    for scores in ([], [0.1, float("nan")]):
        with pytest.raises(ValueError, match="scores of tiles"):
            combine_scores(scores)


@pytest.mark.parametrize("value", [1.0, 0.3])
@pytest.mark.parametrize("size", [(123, 42), (500, 333), (50, 51), (20, 700)])
def test_no_resized_map_leaves_the_values_it_was_made_of(value: float, size: tuple) -> None:
    """Rounding would lift a saturated map above 1, which pixel thresholds and overlays refuse."""
    given = np.full((64, 64), value, dtype=np.float32)
    resized = resize_map(given, size)
    assert resized.shape == size[::-1]
    assert (resized == given[0, 0]).all()
    given[:] = np.random.default_rng(0).choice(np.float32([0.25, value]), (64, 64))
    resized = resize_map(given, size)
    assert given.min() <= resized.min() < resized.max() <= given.max()
