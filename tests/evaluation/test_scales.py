"""Log-odds: cuts where the plain ones are, and no pixel lost that float64 tells apart."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pixel_cases import (
    MASKS,
    ODDS,
    Case,
    draw_case,
    draw_odds,
    hold,
    measure_exactly,
    measure_stream,
)
from properties import try_examples
from scipy.special import expit
from summary_cases import CURVE_METRICS, lie_between, summarise, summarise_as_it_comes

from fuzzyclip.evaluation.metrics import compute_pixel_metrics, place_cuts
from fuzzyclip.evaluation.pixel_meters import ROUNDING
from fuzzyclip.evaluation.score_histogram import OPEN_BITS, find_keys
from fuzzyclip.evaluation.summaries import place_steps
from fuzzyclip.method import Scale

cases = st.tuples(st.sampled_from(ODDS), st.sampled_from(MASKS), st.integers(0, 10_000))


def compute_exact(maps, masks):
    return compute_pixel_metrics(maps, masks, Scale.LOG_ODDS)


def stream(maps, masks):
    return measure_stream(maps, masks, Scale.LOG_ODDS)


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6), st.integers(1, 300))
def test_plain_cuts_are_equal_steps(low, width, steps):
    high = low + width
    expected = low + (high - low) / steps * np.arange(steps)
    assert place_cuts(low, high, steps, Scale.PLAIN).tolist() == expected.tolist()


@given(st.floats(-30, 14), st.floats(0.01, 20), st.integers(2, 300))
def test_cuts_of_log_odds_are_equal_steps_of_the_probability(low, width, steps):
    high = min(low + width, 15.0)  # beyond, a probability of float64 has no 7 digits left
    first, last = (1 / (1 + np.exp(-end)) for end in (low, high))
    plain = first + (last - first) * np.arange(steps) / steps
    cuts = place_cuts(low, high, steps, Scale.LOG_ODDS)
    assert cuts.dtype == np.float64
    assert cuts[0] == low
    assert cuts == pytest.approx(np.log(plain / (1 - plain)), rel=1e-6, abs=1e-8)


@given(st.floats(-700, 700), st.floats(0, 100))
def test_cuts_rise_and_the_first_is_the_lowest_value(low, width):
    cuts = place_cuts(low, low + width, 200, Scale.LOG_ODDS)
    assert cuts[0] == low
    assert (np.diff(cuts[np.isfinite(cuts)]) >= 0).all()
    assert not np.isnan(cuts).any()


@given(st.floats(-30, 30), st.floats(0, 30), st.sampled_from([np.float32, np.float64]))
def test_steps_are_the_smallest_numbers_above_the_cuts(low, width, kind):
    ends = np.array([low, low + width], dtype=kind)
    steps = place_steps(ends, Scale.LOG_ODDS)
    cuts = place_cuts(float(ends[0]), float(ends[1]), 200, Scale.LOG_ODDS)
    assert steps.dtype == kind
    assert (steps > cuts)[np.isfinite(cuts)].all()
    below = np.nextafter(steps, kind(-np.inf))
    assert (below <= cuts).all()


@try_examples(100)
@given(st.sampled_from(MASKS), st.integers(0, 10_000), st.floats(0.2, 3))
def test_log_odds_have_the_metrics_of_their_probabilities(mask, seed, spread):
    noise, masks = draw_case(Case("smooth", mask, seed))
    odds = spread * noise.astype(np.float64)  # within 15, where probabilities are as far apart
    plain = compute_pixel_metrics(1 / (1 + np.exp(-odds)), masks)
    own = compute_exact(odds, masks)
    assert own.keys() == plain.keys()
    for name in CURVE_METRICS:
        assert own.get(name) == plain.get(name)
    assert own.get("pixel_aupro") == pytest.approx(plain.get("pixel_aupro"), abs=1e-12)


def test_steps_of_log_odds_are_not_those_of_plain_values():
    odds, masks = draw_odds("wide", "blobs", 1)
    plain, own = (compute_pixel_metrics(odds, masks, scale)["pixel_aupro"] for scale in Scale)
    assert abs(plain - own) > 1e-3


@pytest.mark.parametrize("kind", ["plateaus", "ends"])
def test_pixels_that_float32_does_not_tell_apart_are_ranked(kind):
    odds, masks = draw_odds(kind, "blobs", 3)
    ranks = odds.argsort(axis=None).argsort().reshape(odds.shape)
    exact, expected = (compute_exact(maps, masks) for maps in (odds, 1e-3 * ranks))
    lost = compute_pixel_metrics(expit(odds).astype(np.float32), masks)
    for name in CURVE_METRICS:
        assert exact[name] == expected[name], name
    assert abs(lost["pixel_auroc"] - exact["pixel_auroc"]) > 1e-3
    assert abs(lost["pixel_ap"] - exact["pixel_ap"]) > 1e-3


@try_examples(150)
@given(cases, st.integers(0, 3))
def test_the_exact_meter_is_exact_to_the_bit(case, cut):
    maps, masks = draw_odds(*case)
    for scale in Scale:
        result = measure_exactly(maps, masks, [cut], scale)
        exact = compute_pixel_metrics(maps, masks, scale)
        assert result.values == result.low == result.high == exact


@try_examples(500)
@given(cases)
def test_the_bounds_hold_the_exact_metrics(case):
    maps, masks = draw_odds(*case)
    for scores in (maps, maps.astype(np.float32)):
        hold(stream(scores, masks), compute_exact(scores, masks))


@try_examples(100)
@given(st.sampled_from(MASKS), st.integers(0, 10_000))
def test_floats_of_32_bits_are_known_as_well_in_64(mask, seed):
    maps, masks = draw_odds("float32", mask, seed)
    assert stream(maps, masks) == stream(maps.astype(np.float32), masks)


def test_equal_float32s_of_unequal_scores_are_not_taken_for_exact():
    """Scores on two plateaus, a float32 each: nobody knows how they rank within one."""
    rng = np.random.default_rng(0)
    sides = np.log(rng.choice([0.5, 2.0], (2, 20, 20))).astype(np.float32).astype(np.float64)
    masks = rng.random(sides.shape) < 0.3
    maps = sides * (1 + 2.0**-30 * np.where(masks, 1, -1) * np.sign(sides))
    assert len(np.unique(maps.astype(np.float32))) == 2
    result, exact = stream(maps, masks), compute_exact(maps, masks)
    hold(result, exact)
    assert exact["pixel_auroc"] > 0.7
    assert result.high["pixel_auroc"] - result.low["pixel_auroc"] > 0.3
    flat = stream(sides, masks)  # the same where they are equal indeed
    assert flat.high["pixel_auroc"] - flat.low["pixel_auroc"] <= 2.001 * ROUNDING


def find_step(rng, end):
    """Ends of scores, a cut between them, and a score beside it that a histogram can misplace.

    With ends of float32 the score is the cut itself and rounds up into the bin above it; with ends
    of float64 it lies between the cut and that of the rounded ends, which a bin's edge parts.
    """
    while True:
        low, high = (float(end(value)) for value in (-rng.uniform(1, 9), rng.uniform(1, 9)))
        cuts = place_cuts(low, high, 200, Scale.LOG_ODDS)
        ends = np.array([low, high], dtype=np.float32)
        steps, near = place_steps(ends, Scale.LOG_ODDS), cuts.astype(np.float32)
        keys = find_keys(steps)
        if end is np.float32:
            fits = (near == steps) & (keys % (1 << OPEN_BITS) == 0)
            beside = cuts
        else:
            others = find_keys(np.where(near > cuts, near, np.nextafter(near, np.float32(np.inf))))
            fits = keys >> OPEN_BITS != others >> OPEN_BITS
            beside = (cuts + place_cuts(*ends.tolist(), 200, Scale.LOG_ODDS)) / 2
        places = np.flatnonzero(fits[20:190]) + 20
        if len(places):
            return low, high, cuts[places[0]], beside[places[0]]


@pytest.mark.parametrize("end", [np.float32, np.float64])
@try_examples(100)
@given(seed=st.integers(0, 10_000))
def test_a_crowd_beside_a_step_is_counted_on_neither_side(end, seed):
    rng = np.random.default_rng(seed)
    low, high, cut, beside = find_step(rng, end)
    maps = rng.uniform(low, cut, (2, 24, 24))
    masks = np.zeros(maps.shape, dtype=bool)
    masks[0, 3:9, 3:9] = True
    maps[rng.random(maps.shape) < 0.35] = beside
    above = masks | (rng.random(maps.shape) < 0.1)
    maps[above] = rng.uniform(cut - 0.1 * masks, high)[above]
    maps[0, 0, :2] = low, high
    hold(stream(maps, masks), compute_exact(maps, masks))


@try_examples(150)
@given(cases)
def test_summaries_hold_the_exact_metrics_those_of_a_stream_of_its_float32s(case):
    maps, masks = draw_odds(*case)
    kept, coarse = summarise(maps, masks, Scale.LOG_ODDS), maps.astype(np.float32)
    assert kept.thresholds.dtype == np.float64
    lie_between(kept, compute_exact(maps, masks))
    for seen in (maps, coarse):  # the meter may have seen finer ones
        streamed = summarise_as_it_comes(seen, masks, Scale.LOG_ODDS)
        lie_between(streamed, compute_exact(coarse, masks))


def test_log_odds_beyond_a_probability_of_float64_have_no_steps():
    """All is sure there, and the steps of a probability are all one."""
    odds, masks = draw_odds("wide", "blobs", 0)
    odds = 60 + odds
    exact = compute_exact(odds, masks)
    assert exact.keys() == {*CURVE_METRICS}
    hold(stream(odds, masks), exact)
    lie_between(summarise(odds, masks, Scale.LOG_ODDS), exact)
    assert measure_exactly(odds, masks, [], Scale.LOG_ODDS).values == exact
    assert "pixel_aupro" in compute_pixel_metrics(odds, masks)
