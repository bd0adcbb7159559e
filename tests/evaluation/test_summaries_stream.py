"""Summaries made an image at a time against the exact metrics and against those of arrays."""

from collections.abc import Iterable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pixel_cases import MASKS, SCORES, Case, draw_case
from properties import try_examples
from summary_cases import CURVE_METRICS, draw_maps, name_images, repeat, summarise

from fuzzyclip.evaluation.bounded_curves import HIGH, LOW
from fuzzyclip.evaluation.metrics import compute_pixel_metrics
from fuzzyclip.evaluation.pixel_meters import StreamingMeter
from fuzzyclip.evaluation.summaries import (
    LEVELS,
    TENSORS,
    PixelSummaries,
    choose_thresholds,
    estimate_pixel_metrics,
    summarise_stream,
)

Pair = tuple[np.ndarray, np.ndarray]


def summarise_as_it_comes(maps: np.ndarray, masks: np.ndarray) -> PixelSummaries:
    """In memory that does not grow: once to choose thresholds, once to count."""
    meter = StreamingMeter()
    meter.add(maps, masks)
    thresholds = choose_thresholds(meter.histogram)
    pairs = zip(maps, masks, strict=True)
    return summarise_stream(pairs, name_images(len(maps)), thresholds)


@try_examples(150)
@given(
    st.builds(Case, st.sampled_from(SCORES), st.sampled_from(MASKS), st.integers(0, 10_000)),
    st.lists(st.integers(1, 3), min_size=3, max_size=3),
)
def test_summaries_of_a_stream_hold_the_exact_metrics(case: Case, times: list[int]) -> None:
    maps, masks = draw_case(case)
    kept, exact = summarise_as_it_comes(maps, masks), repeat(maps, masks, times)
    low, high = estimate_pixel_metrics(kept, times, LOW), estimate_pixel_metrics(kept, times, HIGH)
    assert low.keys() == high.keys() == exact.keys()
    for name in exact:
        assert low[name] - 1e-6 <= exact[name] <= high[name] + 1e-6, name
    if "pixel_aupro" in exact:
        assert low["pixel_aupro"] == pytest.approx(exact["pixel_aupro"], abs=1e-6)
    if case.scores in ("tied", "binary", "constant"):
        assert low == pytest.approx(high, abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_summaries_of_a_stream_are_as_good_as_those_of_arrays(seed: int) -> None:
    maps, masks = draw_maps(seed, images=10, side=96, blob=40)
    kept = summarise_as_it_comes(maps, masks)
    low, high = estimate_pixel_metrics(kept, place=LOW), estimate_pixel_metrics(kept, place=HIGH)
    for name in ("pixel_auroc", "pixel_aupro_std"):
        assert high[name] - low[name] < 2 / LEVELS
    for name in CURVE_METRICS:
        assert high[name] - low[name] < 0.015
    exact = compute_pixel_metrics(maps, masks)
    assert estimate_pixel_metrics(kept) == pytest.approx(exact, abs=0.001)


def test_the_largest_number_has_a_threshold_above_it() -> None:
    maps, masks = draw_maps(0)
    maps[0, :2, :2] = np.finfo(np.float32).max
    kept, exact = summarise_as_it_comes(maps, masks), compute_pixel_metrics(maps, masks)
    assert kept.thresholds[0] == np.inf
    assert estimate_pixel_metrics(kept) == pytest.approx(exact, abs=0.003)


def test_counts_do_not_depend_on_the_way() -> None:
    maps, masks = draw_maps(4, levels=300)
    whole = summarise(maps, masks)
    pairs = zip(maps, masks, strict=True)
    one_by_one = summarise_stream(pairs, whole.images, whole.thresholds)
    for name in TENSORS:
        first, second = getattr(whole, name), getattr(one_by_one, name)
        assert first.dtype == second.dtype
        assert first == pytest.approx(second, rel=1e-6), name


def test_a_bad_stream_is_refused() -> None:
    maps, masks = draw_maps(0)
    thresholds, names = summarise(maps, masks).thresholds, name_images(len(maps))

    def use(pairs: Iterable[Pair], images: Sequence[str] = names) -> None:
        summarise_stream(pairs, images, thresholds)

    with pytest.raises(ValueError, match="7 images, but 6 maps"):
        use(zip(maps, masks, strict=True), name_images(7))
    with pytest.raises(ValueError, match="0 images, but 0 maps"):
        use([], [])
    with pytest.raises(ValueError, match=r"map 1 .* differ or are empty"):
        use([(maps[0], masks[0]), (maps[1], masks[1, 1:])])
    with pytest.raises(ValueError, match="not finite"):
        use([(np.full_like(maps[0], np.nan), masks[0])])
    for other in (maps[0] + 1, maps[0] - 1):
        with pytest.raises(ValueError, match="beyond the thresholds"):
            use([(other, masks[0])])
    with pytest.raises(ValueError, match="no scores yet"):
        choose_thresholds(StreamingMeter().histogram)
