"""Log-odds: cuts where the plain ones are, and no pixel lost that float64 tells apart."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pixel_cases import MASKS, Case, draw_case
from properties import try_examples
from scipy.special import expit
from summary_cases import CURVE_METRICS, name_images

from fuzzyclip.evaluation.bounded_curves import HIGH, LOW, MIDDLE
from fuzzyclip.evaluation.metrics import PIXEL_METRICS, compute_pixel_metrics
from fuzzyclip.evaluation.pixel_meters import ROUNDING, ExactMeter, PixelResult, StreamingMeter
from fuzzyclip.evaluation.score_histogram import OPEN_BITS, find_keys
from fuzzyclip.evaluation.summaries import (
    PixelSummaries,
    choose_thresholds,
    estimate_pixel_metrics,
    place_steps,
    summarise_pixels,
    summarise_stream,
)
from fuzzyclip.method.scales import Scale, place_cuts

Pair = tuple[np.ndarray, np.ndarray]

#: How log-odds lie: over the whole scale; next to those of 1/3 and 2/3, as sums of sure maps do; on
#: floats of their own; all of them within one float32, or a few.
KINDS = ("wide", "plateaus", "ends", "float32", "one", "few")
cases = st.tuples(st.sampled_from(KINDS), st.sampled_from(MASKS), st.integers(0, 10_000))


def draw_odds(kind: str, masks: str, seed: int) -> Pair:
    """Log-odds of float64 and masks, (3, 10, 10)."""
    noise, truth = draw_case(Case("smooth", masks, seed))
    rng, fine = np.random.default_rng(seed), noise.astype(np.float64)
    whole = np.log(rng.choice([0.5, 2.0], noise.shape))  # of 1/3 and 2/3
    if kind == "plateaus":
        return whole + fine * np.exp(rng.uniform(-28, -17, noise.shape)), truth
    if kind == "ends":
        return 30 * np.sign(fine) + fine, truth
    if kind == "float32":
        return np.float32(10 * noise).astype(np.float64), truth
    if kind == "one":
        single = float(np.float32(rng.choice([rng.normal(), 0.5, 1.0, -2.0])))
        return single * (1 + 2.0**-28 * fine / np.abs(fine).max()), truth
    if kind == "few":
        single = np.float32(rng.normal()) + rng.integers(3, size=noise.shape) * 2.0**-24
        return single * (1 + 2.0**-28 * fine), truth
    return rng.choice([3.0, 12.0]) * fine, truth


def stream(maps: np.ndarray, masks: np.ndarray) -> PixelResult:
    meter = StreamingMeter(Scale.LOG_ODDS)
    meter.add(maps, masks)
    return meter.compute()


def hold(result: PixelResult, exact: dict[str, float]) -> None:
    """The exact metrics lie between the bounds."""
    assert exact.keys() <= result.values.keys()
    for name, value in exact.items():
        low, high = result.low[name], result.high[name]
        assert 0 <= low <= min(value, 1.0) <= high <= 1, name
        assert low <= result.values[name] <= high, name


# --- cuts


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6), st.integers(1, 300))
def test_plain_cuts_are_equal_steps(low: float, width: float, steps: int) -> None:
    high = low + width
    expected = low + (high - low) / steps * np.arange(steps)
    assert place_cuts(low, high, steps, Scale.PLAIN).tolist() == expected.tolist()


@given(st.floats(-30, 14), st.floats(0.01, 20), st.integers(2, 300))
def test_cuts_of_log_odds_are_equal_steps_of_the_probability(
    low: float, width: float, steps: int
) -> None:
    high = min(low + width, 15.0)  # beyond, a probability of float64 has no 7 digits left
    first, last = (1 / (1 + np.exp(-end)) for end in (low, high))
    plain = first + (last - first) * np.arange(steps) / steps
    cuts = place_cuts(low, high, steps, Scale.LOG_ODDS)
    assert cuts.dtype == np.float64
    assert cuts[0] == low
    assert cuts == pytest.approx(np.log(plain / (1 - plain)), rel=1e-6, abs=1e-8)


@given(st.floats(-700, 700), st.floats(0, 100))
def test_cuts_rise_and_the_first_is_the_lowest_value(low: float, width: float) -> None:
    cuts = place_cuts(low, low + width, 200, Scale.LOG_ODDS)
    assert cuts[0] == low
    assert (np.diff(cuts[np.isfinite(cuts)]) >= 0).all()
    assert not np.isnan(cuts).any()


@given(st.floats(-30, 30), st.floats(0, 30), st.sampled_from([np.float32, np.float64]))
def test_steps_are_the_smallest_numbers_above_the_cuts(
    low: float, width: float, kind: type[np.float32 | np.float64]
) -> None:
    ends = np.array([low, low + width], dtype=kind)
    steps = place_steps(ends, Scale.LOG_ODDS)
    cuts = place_cuts(float(ends[0]), float(ends[1]), 200, Scale.LOG_ODDS)
    assert steps.dtype == kind
    assert (steps > cuts)[np.isfinite(cuts)].all()
    below = np.nextafter(steps, kind(-np.inf))
    assert (below <= cuts).all()


# --- metrics of all maps at once


@try_examples(100)
@given(st.sampled_from(MASKS), st.integers(0, 10_000), st.floats(0.2, 3))
def test_log_odds_have_the_metrics_of_their_probabilities(
    mask: str, seed: int, spread: float
) -> None:
    noise, masks = draw_case(Case("smooth", mask, seed))
    odds = spread * noise.astype(np.float64)  # within 15, where probabilities are as far apart
    plain = compute_pixel_metrics(1 / (1 + np.exp(-odds)), masks)
    found = compute_pixel_metrics(odds, masks, Scale.LOG_ODDS)
    assert found.keys() == plain.keys()
    for name in CURVE_METRICS:
        assert found.get(name) == plain.get(name)
    assert found.get("pixel_aupro") == pytest.approx(plain.get("pixel_aupro"), abs=1e-12)


def test_steps_of_log_odds_are_not_those_of_plain_values() -> None:
    odds, masks = draw_odds("wide", "blobs", 1)
    plain, own = (compute_pixel_metrics(odds, masks, scale)["pixel_aupro"] for scale in Scale)
    assert abs(plain - own) > 1e-3


@pytest.mark.parametrize("kind", ["plateaus", "ends"])
def test_pixels_that_float32_does_not_tell_apart_are_ranked(kind: str) -> None:
    odds, masks = draw_odds(kind, "blobs", 3)
    ranks = odds.argsort(axis=None).argsort().reshape(odds.shape)
    exact, expected = (
        compute_pixel_metrics(maps, masks, Scale.LOG_ODDS) for maps in (odds, 1e-3 * ranks)
    )
    lost = compute_pixel_metrics(expit(odds).astype(np.float32), masks)
    for name in CURVE_METRICS:
        assert exact[name] == expected[name], name
    assert abs(lost["pixel_auroc"] - exact["pixel_auroc"]) > 1e-3
    assert abs(lost["pixel_ap"] - exact["pixel_ap"]) > 1e-3


# --- meters


@try_examples(150)
@given(cases, st.integers(0, 3))
def test_the_exact_meter_is_exact_to_the_bit(case: tuple[str, str, int], cut: int) -> None:
    maps, masks = draw_odds(*case)
    for scale in Scale:
        with ExactMeter(scale=scale) as meter:
            meter.add(maps[:cut], masks[:cut])
            meter.add(maps[cut:], masks[cut:])
            result = meter.compute()
        assert (
            result.values == result.low == result.high == compute_pixel_metrics(maps, masks, scale)
        )


@try_examples(500)
@given(cases)
def test_the_bounds_hold_the_exact_metrics(case: tuple[str, str, int]) -> None:
    maps, masks = draw_odds(*case)
    hold(stream(maps, masks), compute_pixel_metrics(maps, masks, Scale.LOG_ODDS))
    coarse = maps.astype(np.float32)
    hold(stream(coarse, masks), compute_pixel_metrics(coarse, masks, Scale.LOG_ODDS))


@try_examples(100)
@given(st.sampled_from(MASKS), st.integers(0, 10_000))
def test_floats_of_32_bits_are_known_as_well_in_64(mask: str, seed: int) -> None:
    maps, masks = draw_odds("float32", mask, seed)
    assert stream(maps, masks) == stream(maps.astype(np.float32), masks)


def test_equal_float32s_of_unequal_scores_are_not_taken_for_exact() -> None:
    """Scores on two plateaus, a float32 each: nobody knows how they rank within one."""
    rng = np.random.default_rng(0)
    sides = np.log(rng.choice([0.5, 2.0], (2, 20, 20))).astype(np.float32).astype(np.float64)
    masks = rng.random(sides.shape) < 0.3
    maps = sides * (1 + 2.0**-30 * np.where(masks, 1, -1) * np.sign(sides))
    assert len(np.unique(maps.astype(np.float32))) == 2
    result, exact = stream(maps, masks), compute_pixel_metrics(maps, masks, Scale.LOG_ODDS)
    hold(result, exact)
    assert exact["pixel_auroc"] > 0.7
    assert result.high["pixel_auroc"] - result.low["pixel_auroc"] > 0.3
    flat = stream(sides, masks)  # the same where they are equal indeed
    assert flat.high["pixel_auroc"] - flat.low["pixel_auroc"] <= 2.001 * ROUNDING


def find_step(rng: np.random.Generator, end: type[np.float32 | np.float64]) -> tuple[float, ...]:
    """Ends of scores, a cut between them, and a score beside it that a histogram can misplace.

    With ends of float32 the score is the cut itself and rounds up into the bin above it; with ends
    of float64 it lies between the cut and that of the rounded ends, which a bin's edge parts.
    """
    while True:
        low, high = (float(end(one)) for one in (-rng.uniform(1, 9), rng.uniform(1, 9)))
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
        found = np.flatnonzero(fits[20:190]) + 20
        if len(found):
            return low, high, cuts[found[0]], beside[found[0]]


@pytest.mark.parametrize("end", [np.float32, np.float64])
@try_examples(100)
@given(seed=st.integers(0, 10_000))
def test_a_crowd_beside_a_step_is_counted_on_neither_side(
    end: type[np.float32 | np.float64], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    low, high, cut, beside = find_step(rng, end)
    maps = rng.uniform(low, cut, (2, 24, 24))
    masks = np.zeros(maps.shape, dtype=bool)
    masks[0, 3:9, 3:9] = True
    maps[rng.random(maps.shape) < 0.35] = beside
    above = masks | (rng.random(maps.shape) < 0.1)
    maps[above] = rng.uniform(cut - 0.1 * masks, high)[above]
    maps[0, 0, :2] = low, high
    hold(stream(maps, masks), compute_pixel_metrics(maps, masks, Scale.LOG_ODDS))


# --- summaries


def summarise(maps: np.ndarray, masks: np.ndarray) -> PixelSummaries:
    return summarise_pixels(maps, masks, name_images(len(maps)), Scale.LOG_ODDS)


def summarise_as_it_comes(maps: np.ndarray, masks: np.ndarray) -> PixelSummaries:
    meter = StreamingMeter(Scale.LOG_ODDS)
    meter.add(maps, masks)
    thresholds = choose_thresholds(meter.histogram, Scale.LOG_ODDS)
    pairs = zip(maps.astype(np.float32), masks, strict=True)
    return summarise_stream(pairs, name_images(len(maps)), thresholds)


def lie_between(kept: PixelSummaries, exact: dict[str, float]) -> None:
    """The exact metrics lie between the bounds; that of the steps is free of error."""
    low, middle, high = (estimate_pixel_metrics(kept, place=at) for at in (LOW, MIDDLE, HIGH))
    assert low.keys() == middle.keys() == high.keys() == exact.keys()
    for name, value in exact.items():
        assert low[name] - 1e-6 <= value <= high[name] + 1e-6, name
        assert low[name] - 1e-6 <= middle[name] <= high[name] + 1e-6, name
    assert middle.get("pixel_aupro") == pytest.approx(exact.get("pixel_aupro"), abs=1e-6)


@try_examples(150)
@given(cases)
def test_summaries_hold_the_exact_metrics(case: tuple[str, str, int]) -> None:
    maps, masks = draw_odds(*case)
    kept = summarise(maps, masks)
    assert kept.thresholds.dtype == np.float64
    lie_between(kept, compute_pixel_metrics(maps, masks, Scale.LOG_ODDS))


@try_examples(150)
@given(cases)
def test_summaries_of_a_stream_hold_the_metrics_of_its_float32s(case: tuple[str, str, int]) -> None:
    maps, masks = draw_odds(*case)
    coarse = maps.astype(np.float32)
    exact = compute_pixel_metrics(coarse, masks, Scale.LOG_ODDS)
    for given_ in (maps, coarse):  # the meter may have seen finer ones
        lie_between(summarise_as_it_comes(given_, masks), exact)


def test_log_odds_beyond_a_probability_of_float64_have_no_steps() -> None:
    """All is sure there, and the steps of a probability are all one."""
    odds, masks = draw_odds("wide", "blobs", 0)
    odds = 60 + odds
    exact = compute_pixel_metrics(odds, masks, Scale.LOG_ODDS)
    assert exact.keys() == {*CURVE_METRICS}
    hold(stream(odds, masks), exact)
    lie_between(summarise(odds, masks), exact)
    with ExactMeter(scale=Scale.LOG_ODDS) as meter:
        meter.add(odds, masks)
        assert meter.compute().values == exact
    assert "pixel_aupro" in compute_pixel_metrics(odds, masks)
    assert set(exact) < set(PIXEL_METRICS)
