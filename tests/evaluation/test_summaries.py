"""Metrics from summaries, of arrays or of a stream, against those of maps that are repeated."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pixel_cases import MASKS, SCORES, Case, draw_case
from properties import try_examples
from scipy import ndimage
from sklearn.metrics import average_precision_score, roc_auc_score
from summary_cases import (
    CURVE_METRICS,
    draw_maps,
    estimate_pixel_metrics,
    lie_between,
    name_images,
    repeat,
    slow_aupro_steps,
    summarise,
    summarise_as_it_comes,
)

from fuzzyclip.evaluation import metrics, summaries
from fuzzyclip.evaluation.bounded_curves import HIGH, LOW
from fuzzyclip.evaluation.pixel_meters import StreamingMeter
from fuzzyclip.evaluation.summaries import (
    LEVELS,
    TENSORS,
    choose_thresholds,
    summarise_pixels,
    summarise_stream,
)
from fuzzyclip.utils.tensor_files import write_tensors


@try_examples(40)
@given(
    st.integers(0, 10_000),
    st.sampled_from([None, 5, 300]),
    st.lists(st.integers(1, 4), min_size=6, max_size=6),
)
def test_weights_are_repetition_within_certain_bounds(seed, levels, times):
    maps, masks = draw_maps(seed, levels=levels)
    exact = repeat(maps, masks, times)
    _, middle, _ = lie_between(summarise(maps, masks), exact, times)
    assert middle == pytest.approx(exact, abs=0.003)
    assert middle["pixel_auroc"] == pytest.approx(exact["pixel_auroc"], abs=0.0005)


@try_examples(150)
@given(
    st.builds(Case, st.sampled_from(SCORES), st.sampled_from(MASKS), st.integers(0, 10_000)),
    st.lists(st.integers(1, 3), min_size=3, max_size=3),
)
def test_summaries_of_a_stream_hold_the_exact_metrics(case, times):
    maps, masks = draw_case(case)
    exact = repeat(maps, masks, times)
    low, _, high = lie_between(summarise_as_it_comes(maps, masks), exact, times)
    if case.scores in ("tied", "binary", "constant"):
        assert low == pytest.approx(high, abs=1e-9)


@pytest.mark.parametrize("make", [summarise, summarise_as_it_comes])
@pytest.mark.parametrize("seed", range(3))
def test_the_error_is_small_beyond_doubt_on_many_pixels(seed, make):
    maps, masks = draw_maps(seed, images=10, side=96, blob=40)
    assert masks.sum() > 8 * LEVELS  # few pixels get a bin of their own
    kept = make(maps, masks)
    low, high = estimate_pixel_metrics(kept, place=LOW), estimate_pixel_metrics(kept, place=HIGH)
    # The curve rises by less than 2 / LEVELS a bin, and the bins' widths add up to 1.
    for name in ("pixel_auroc", "pixel_aupro_std"):
        assert high[name] - low[name] < 2 / LEVELS
    for name in CURVE_METRICS:
        assert high[name] - low[name] < 0.015
    exact = metrics.compute_pixel_metrics(maps, masks)
    assert estimate_pixel_metrics(kept) == pytest.approx(exact, abs=0.001)


def test_the_largest_number_has_a_threshold_above_it():
    maps, masks = draw_maps(0)
    maps[0, :2, :2] = np.finfo(np.float32).max
    kept, exact = summarise_as_it_comes(maps, masks), metrics.compute_pixel_metrics(maps, masks)
    assert kept.thresholds[0] == np.inf
    assert estimate_pixel_metrics(kept) == pytest.approx(exact, abs=0.003)


@try_examples(40)
@given(st.integers(0, 10_000), st.lists(st.integers(0, 3), min_size=6, max_size=6))
def test_few_positives_make_every_metric_exact(seed, times):
    maps, masks = draw_maps(seed, blob=4, levels=200)
    assert masks.sum() <= LEVELS / 2
    kept = summarise(maps, masks)
    low, high = estimate_pixel_metrics(kept, times, LOW), estimate_pixel_metrics(kept, times, HIGH)
    exact = repeat(maps, masks, times)
    for name in CURVE_METRICS:
        assert low.get(name) == pytest.approx(exact.get(name), abs=1e-6), name
        assert high.get(name) == pytest.approx(exact.get(name), abs=1e-6), name
    if exact:
        weights = np.broadcast_to(np.array(times)[:, None, None], maps.shape).ravel()
        truth, flat = masks.ravel(), maps.ravel()
        auroc = roc_auc_score(truth, flat, sample_weight=weights)
        assert low["pixel_auroc"] == pytest.approx(auroc, abs=1e-9)
        ap = average_precision_score(truth, flat, sample_weight=weights)
        assert low["pixel_ap"] == pytest.approx(ap, abs=1e-9)


def test_steps_stay_those_of_all_images_under_resampling():
    maps, masks = draw_maps(3)
    times = np.array([0, 2, 1, 0, 3, 0])
    times[np.argmax(maps.max(axis=(1, 2)))] = 0  # the highest score is not drawn
    kept = summarise(maps, masks)
    drawn = np.repeat(maps, times, 0), np.repeat(masks, times, 0)
    expected = slow_aupro_steps(*drawn, float(maps.min()), float(maps.max()))
    stepped = estimate_pixel_metrics(kept, times)["pixel_aupro"]
    assert stepped == pytest.approx(expected, abs=1e-6)
    assert stepped != pytest.approx(repeat(maps, masks, times)["pixel_aupro"], abs=1e-6)


def test_counts_are_those_of_the_maps_whichever_way_they_came():
    maps, masks = draw_maps(0, levels=40)
    kept = summarise(maps, masks)
    for column in range(0, len(kept.thresholds), 7):
        hot = maps >= kept.thresholds[column]
        assert (kept.negatives_above[:, column] == (hot & ~masks).sum(axis=(1, 2))).all()
        assert (kept.positives_above[:, column] == (hot & masks).sum(axis=(1, 2))).all()
    assert (kept.pixels == np.stack([(~masks).sum((1, 2)), masks.sum((1, 2))], axis=1)).all()
    assert [ndimage.label(mask, np.ones((3, 3)))[1] for mask in masks] == list(kept.regions)
    assert kept.coverage_above.max(axis=1) == pytest.approx(kept.regions)
    one_by_one = summarise_stream(zip(maps, masks, strict=True), kept.images, kept.thresholds)
    for name in TENSORS:
        first, second = getattr(kept, name), getattr(one_by_one, name)
        assert first.dtype == second.dtype
        assert first == pytest.approx(second, rel=1e-6), name


def test_many_weightings_are_each_on_its_own():
    maps, masks = draw_maps(1)
    kept = summarise(maps, masks)
    weights = np.random.default_rng(0).integers(0, 3, (summaries.CHUNK + 5, len(maps)))
    together = summaries.weigh_pixel_metrics(kept, weights)
    for row in (0, summaries.CHUNK - 1, summaries.CHUNK, len(weights) - 1):
        alone = estimate_pixel_metrics(kept, weights[row])
        assert {name: values[row] for name, values in together.items()} == pytest.approx(alone)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int64])
def test_other_number_types(dtype):
    maps, masks = draw_maps(4)
    maps = (100 * maps).astype(dtype)
    exact = metrics.compute_pixel_metrics(maps, masks)
    estimate = estimate_pixel_metrics(summarise(maps, masks))
    assert estimate == pytest.approx(exact, abs=0.002)
    assert estimate["pixel_aupro"] == pytest.approx(exact["pixel_aupro"], abs=1e-6)


def test_constant_and_saturated_maps():
    maps, masks = draw_maps(5)
    flat = np.ones_like(maps)
    binary = (maps > 0.3).astype(np.float32)  # no two steps lie below the limit, or all alike
    loud = (maps > np.quantile(maps, 0.2)).astype(np.float32)  # every step is beyond the limit
    for scores in (flat, binary, loud):
        exact = metrics.compute_pixel_metrics(scores, masks)
        assert "pixel_aupro" not in exact
        assert estimate_pixel_metrics(summarise(scores, masks)) == pytest.approx(exact, abs=1e-6)


@pytest.mark.parametrize("mask", [False, True])
def test_one_class_has_no_metric(mask):
    maps, masks = draw_maps(0)
    masks[:] = mask
    assert estimate_pixel_metrics(summarise(maps, masks)) == {}


def test_a_weighting_of_normal_images_alone_is_nan():
    maps, masks = draw_maps(0)
    values = summaries.weigh_pixel_metrics(summarise(maps, masks), [[0, 0, 0, 0, 1, 1], [1] * 6])
    assert set(values) == set(metrics.PIXEL_METRICS)
    for value in values.values():
        assert np.isnan(value[0])
        assert 0 <= value[1] <= 1


def test_bad_input_is_refused():
    maps, masks = draw_maps(0)
    broken = maps.copy()
    broken[2, 3, 4] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        summarise(broken, masks)
    with pytest.raises(ValueError, match="differ"):
        summarise(maps, masks[:, :-1])
    with pytest.raises(ValueError, match="5 images"):
        summarise_pixels(maps, masks, name_images(5))
    with pytest.raises(ValueError, match="no pixels"):
        summarise(maps[:0], masks[:0])
    kept = summarise(maps, masks)
    with pytest.raises(ValueError, match="do not fit 6 images"):
        estimate_pixel_metrics(kept, [1, 1])
    for weight in (-1, np.nan):
        with pytest.raises(ValueError, match="not negative"):
            estimate_pixel_metrics(kept, [1, 1, 1, 1, 1, weight])


def test_a_bad_stream_is_refused():
    maps, masks = draw_maps(0)
    kept = summarise(maps, masks)

    def refuse(message, pairs, images=kept.images):
        with pytest.raises(ValueError, match=message):
            summarise_stream(pairs, images, kept.thresholds)

    refuse("7 images, but 6 maps", zip(maps, masks, strict=True), name_images(7))
    refuse("0 images, but 0 maps", [], [])
    refuse(r"map 1 .* differ or are empty", [(maps[0], masks[0]), (maps[1], masks[1, 1:])])
    refuse("not finite", [(np.full_like(maps[0], np.nan), masks[0])])
    for other in (maps[0] + 1, maps[0] - 1):
        refuse("beyond the thresholds", [(other, masks[0])])
    with pytest.raises(ValueError, match="no scores yet"):
        choose_thresholds(StreamingMeter().histogram)


def test_files_give_back_the_same(tmp_path):
    kept = summarise(*draw_maps(0))
    first, second = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    summaries.write_summaries(first, kept)
    summaries.write_summaries(second, summaries.read_summaries(first))
    assert first.read_bytes() == second.read_bytes()
    back = summaries.read_summaries(second)
    assert back.images == kept.images
    assert back.thresholds.dtype == np.float32
    assert estimate_pixel_metrics(back) == estimate_pixel_metrics(kept)
    other = tmp_path / "c.safetensors"
    write_tensors(other, {"maps": torch.zeros(2)}, {})
    with pytest.raises(ValueError, match="no pixel summaries"):
        summaries.read_summaries(other)
