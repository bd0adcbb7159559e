"""Meters that take maps a few at a time against the exact metrics of all maps at once."""

import tracemalloc
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pixel_cases import MASKS, SCORES, Case, draw_case
from properties import try_examples

from fuzzyclip.evaluation.map_file import MapFile
from fuzzyclip.evaluation.metrics import PIXEL_METRICS, compute_pixel_metrics
from fuzzyclip.evaluation.pixel_meters import (
    ROUNDING,
    ExactMeter,
    PixelMeter,
    PixelResult,
    StreamingMeter,
)
from fuzzyclip.evaluation.score_histogram import OPEN_BITS, find_keys, find_scores

cases = st.builds(Case, st.sampled_from(SCORES), st.sampled_from(MASKS), st.integers(0, 10_000))
splits = st.lists(st.integers(0, 3), max_size=3)


def feed(meter: PixelMeter, maps: np.ndarray, masks: np.ndarray, cuts: list[int]) -> PixelResult:
    """Add all maps, split at some places."""
    ends = [0, *sorted(cuts), len(maps)]
    for first, end in pairwise(ends):
        meter.add(maps[first:end], masks[first:end])
    return meter.compute()


def stream(maps: np.ndarray, masks: np.ndarray) -> PixelResult:
    return feed(StreamingMeter(), maps, masks, [])


@try_examples(150)
@given(cases, splits)
def test_the_exact_meter_is_exact_to_the_bit(case: Case, cuts: list[int]) -> None:
    maps, masks = draw_case(case)
    with ExactMeter() as meter:
        result = feed(meter, maps, masks, cuts)
        assert meter.compute() == result  # computing disturbs nothing
    assert result.values == result.low == result.high == compute_pixel_metrics(maps, masks)


@try_examples(500)
@given(cases)
def test_the_bounds_hold_the_exact_metrics(case: Case) -> None:
    maps, masks = draw_case(case)
    exact, result = compute_pixel_metrics(maps, masks), stream(maps, masks)
    assert result.values.keys() == result.low.keys() == result.high.keys()
    assert exact.keys() <= result.values.keys()
    assert result.values.keys() - exact.keys() <= {"pixel_aupro"}
    for name in exact:
        low, high = result.low[name], result.high[name]
        value = min(exact[name], 1.0)  # sums of the stepped AUPRO round up to 1 + 2e-16
        assert 0 <= low <= value <= high <= 1, name
        assert low <= result.values[name] <= high, name
        assert abs(result.values[name] - value) <= high - low, name


@try_examples(100)
@given(
    st.sampled_from(["tied", "binary", "constant", "zeros"]),
    st.sampled_from(MASKS),
    st.integers(0, 10_000),
)
def test_bins_of_equal_scores_are_exact(scores: str, mask: str, seed: int) -> None:
    maps, masks = draw_case(Case(scores, mask, seed))
    if scores == "zeros":
        maps = np.round(maps)  # both zeros, but no neighbours of theirs
    exact, result = compute_pixel_metrics(maps, masks), stream(maps, masks)
    assert result.values == pytest.approx(exact, abs=ROUNDING)
    for name in exact:
        assert result.high[name] - result.low[name] <= 2.001 * ROUNDING


@try_examples(100)
@given(cases)
def test_estimates_are_the_metrics_of_scores_moved_within_their_bins(case: Case) -> None:
    maps, masks = draw_case(case)
    moved = find_scores(find_keys(maps) >> OPEN_BITS << OPEN_BITS)
    exact, result = compute_pixel_metrics(moved, masks), stream(maps, masks)
    for name in ("pixel_auroc", "pixel_f1_max", "pixel_aupro_std"):
        assert result.values.get(name) == pytest.approx(exact.get(name), abs=1e-9), name


@try_examples(100)
@given(cases)
def test_auroc_is_unsure_by_the_pairs_that_share_a_bin(case: Case) -> None:
    maps, masks = draw_case(case)
    meter = StreamingMeter()
    result = feed(meter, maps, masks, [])
    cells = meter.histogram.list_cells()
    shared = (cells.positives * cells.negatives)[~cells.single].sum()
    if result.values:
        share = shared / (masks.sum() * (~masks).sum())
        width = result.high["pixel_auroc"] - result.low["pixel_auroc"]
        assert share - 1e-12 <= width <= share + 2.001 * ROUNDING


@try_examples(100)
@given(cases, splits, st.permutations(range(3)))
def test_neither_order_nor_split_matters(case: Case, cuts: list[int], order: list[int]) -> None:
    maps, masks = draw_case(case)
    assert feed(StreamingMeter(), maps[order], masks[order], cuts) == stream(maps, masks)


@try_examples(60)
@given(st.integers(0, 10_000), st.integers(1, 199), st.floats(0.25, 0.35))
def test_steps_inside_a_crowded_bin_near_the_limit(seed: int, step: int, share: float) -> None:
    """Many negatives lie about one step, so that the rate passes the limit between its floats."""
    rng = np.random.default_rng(seed)
    maps = rng.uniform(0, step / 200, (2, 24, 24))
    masks = np.zeros(maps.shape, dtype=bool)
    masks[0, 3:9, 3:9] = masks[1, 12:14, :5] = True
    crowd = rng.random(maps.shape) < share
    floats = rng.integers(-60, 61, maps.shape) * 2.0**-24 * (step / 200)
    maps[crowd] = (step / 200 + floats)[crowd]
    maps[masks] += rng.uniform(0, 1 - step / 200, masks.sum())
    maps[0, 0, :2] = 0, 1
    maps = maps.clip(0, 1).astype(np.float32)
    exact, result = compute_pixel_metrics(maps, masks), stream(maps, masks)
    if "pixel_aupro" in exact:
        value = min(exact["pixel_aupro"], 1.0)
        assert result.low["pixel_aupro"] <= value <= result.high["pixel_aupro"]


def test_many_pixels_are_known_well() -> None:
    maps, masks = draw_case(Case("smooth", "blobs", 0), images=30, side=100)
    exact, result = compute_pixel_metrics(maps, masks), stream(maps, masks)
    for name in PIXEL_METRICS:
        assert result.high[name] - result.low[name] < 0.002, name
        assert result.values[name] == pytest.approx(exact[name], abs=2e-4), name


def test_memory_does_not_grow_with_the_images() -> None:
    maps, masks = draw_case(Case("smooth", "blobs", 1), images=8)
    meter = StreamingMeter()
    meter.add(maps, masks)
    pages = meter.histogram.pages
    for _ in range(20):
        meter.add(np.roll(maps, 1, axis=2), masks)
    assert meter.histogram.pages == pages
    tracemalloc.start()
    try:
        for _ in range(50):
            meter.add(maps, masks)
        left, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert left < 50_000  # bytes, after 400 images


def test_repeated_images_change_nothing_but_rounding() -> None:
    maps, masks = draw_case(Case("smooth", "blobs", 2))
    meter = StreamingMeter()
    for _ in range(5):
        meter.add(maps, masks)
    assert meter.compute().values == pytest.approx(stream(maps, masks).values, abs=1e-12)


def test_the_exact_meter_holds_one_copy_of_the_maps(tmp_path: Path) -> None:
    maps, masks = draw_case(Case("smooth", "one pixel", 0), images=16, side=256)
    with MapFile(tmp_path / "x.maps", 256) as file:
        meter = ExactMeter(file)
        feed(meter, maps, masks, list(range(1, 16)))
        tracemalloc.start()
        try:
            meter.compute()
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 1.05 * maps.nbytes


def test_a_file_is_shared_or_its_own(tmp_path: Path) -> None:
    maps, masks = draw_case(Case("smooth", "blobs", 0))
    with MapFile(tmp_path / "x.maps", 10) as file:
        assert ExactMeter(file).compute() == PixelResult()
        with ExactMeter(file) as meter:
            expected = feed(meter, maps, masks, [1])
        assert (file.view_all() == maps).all()  # still open
        assert meter.compute() == expected
        with pytest.raises(ValueError, match="holds 3 maps already"):
            ExactMeter(file)
        file.append(maps)
        with pytest.raises(ValueError, match="holds 6 maps, not 3"):
            meter.compute()


def test_its_own_file_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with ExactMeter() as meter:
        for side in (0, 4):
            with pytest.raises(ValueError, match=f"{side} x 5 are not square"):
                meter.add(np.zeros((1, side, 5), np.float32), np.zeros((1, side, 5)))
        assert not list(tmp_path.iterdir())
        meter.add(*draw_case(Case("smooth", "blobs", 0)))
        assert len(list(tmp_path.iterdir())) == 1
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="closed"):
        meter.compute()


@pytest.mark.parametrize("make", [ExactMeter, StreamingMeter])
def test_nothing_and_one_class_have_no_metric(make: type[ExactMeter | StreamingMeter]) -> None:
    meter = make()
    assert meter.compute() == PixelResult({}, {}, {})
    meter.add(np.zeros((0, 5, 5), np.float32), np.zeros((0, 5, 5)))
    assert meter.compute() == PixelResult({}, {}, {})
    meter.add(np.zeros((1, 5, 5), np.float32), np.ones((1, 5, 5)))
    assert meter.compute() == PixelResult({}, {}, {})
    meter.add(np.ones((1, 5, 5), np.float32), np.zeros((1, 5, 5)))
    assert meter.compute().values["pixel_auroc"] == 0.0
    if isinstance(meter, ExactMeter):
        meter.close()


@pytest.mark.parametrize("make", [ExactMeter, StreamingMeter])
def test_bad_input_is_refused_and_not_counted(make: type[ExactMeter | StreamingMeter]) -> None:
    maps, masks = draw_case(Case("smooth", "blobs", 0))
    meter = make()
    meter.add(maps, masks)
    before = meter.compute()
    for bad in (np.nan, np.inf, -np.inf):
        broken = maps.copy()
        broken[-1, -1, -1] = bad
        with pytest.raises(ValueError, match="not finite"):
            meter.add(broken, masks)
    with pytest.raises(ValueError, match="alike"):
        meter.add(maps, masks[:, :-1])
    with pytest.raises(ValueError, match="alike"):
        meter.add(maps[0], masks[0])
    with pytest.raises(ValueError, match="rounded"):
        meter.add(maps.astype(np.int64), masks)
    assert meter.compute() == before
    if isinstance(meter, ExactMeter):
        with pytest.raises(ValueError, match="are not"):
            meter.add(maps[:, :4, :4], masks[:, :4, :4])
        assert meter.compute() == before
        meter.close()


@pytest.mark.parametrize("dtype", [np.float16, np.int8])
def test_types_that_fit_into_float32(dtype: type) -> None:
    maps, masks = draw_case(Case("smooth", "blobs", 3))
    maps = (10 * maps).astype(dtype)
    with ExactMeter() as meter:
        exact = feed(meter, maps, masks, [])
    assert exact.values == pytest.approx(compute_pixel_metrics(maps.astype(np.float64), masks))
