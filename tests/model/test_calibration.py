"""Thresholds against scikit-learn, closed forms and simulation."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pixel_cases import MASKS, Case, draw_case
from properties import try_examples
from pydantic import ValidationError
from scipy import stats
from scipy.special import expit
from sklearn.metrics import f1_score, precision_recall_curve, precision_score, recall_score

from fuzzyclip.evaluation.score_histogram import OPEN_BITS
from fuzzyclip.model.calibration import PixelCalibrator, calibrate, choose_by_f1, choose_by_quantile
from fuzzyclip.model.card import NATURAL, Threshold
from fuzzyclip.model.separation import to_percent

labelled = st.lists(
    st.tuples(st.integers(-12, 12).map(lambda step: 2.5 * step), st.integers(0, 1)),
    min_size=2,
    max_size=40,
)


@try_examples(200)
@given(labelled)
def test_f1_is_the_largest_and_the_threshold_the_highest_that_gives_it(
    pairs: list[tuple[float, int]],
) -> None:
    scores = np.array([score for score, _ in pairs], dtype=np.float32)
    labels = np.array([label for _, label in pairs])
    assume(0 < labels.sum() < len(labels))
    threshold = choose_by_f1(scores, labels)
    precision, recall, cuts = precision_recall_curve(labels, scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-30)
    flagged = scores >= threshold.value
    assert threshold.f1 == pytest.approx(f1.max())
    assert threshold.f1 == pytest.approx(f1_score(labels, flagged))
    assert threshold.precision == pytest.approx(precision_score(labels, flagged))
    assert threshold.recall == pytest.approx(recall_score(labels, flagged))
    best = cuts[np.flatnonzero(f1[:-1] >= f1.max() - 1e-12)[-1]]
    if (scores < best).any():
        assert threshold.value == pytest.approx((best + scores[scores < best].max()) / 2)
        assert threshold.value not in scores.tolist()
    else:
        assert threshold.value == best
    assert threshold.false_alarm_rate == pytest.approx(flagged[labels == 0].mean())
    assert threshold.miss_rate == pytest.approx(1 - flagged[labels == 1].mean())
    assert (threshold.normal, threshold.anomalous) == ((labels == 0).sum(), (labels == 1).sum())
    assert threshold.method == "f1_max"


def test_intervals_are_clopper_and_pearsons() -> None:
    """Quantiles of the beta distribution; 0 and 1 are ends, not estimates."""
    scores = np.concatenate([np.full(19, 0.1), [0.9], np.full(10, 0.9)])
    threshold = choose_by_f1(scores, [0] * 20 + [1] * 10)
    assert threshold.value == pytest.approx(0.5)
    assert threshold.false_alarm_rate == 1 / 20
    low, high = stats.beta.ppf(0.025, 1, 20), stats.beta.ppf(0.975, 2, 19)
    assert threshold.false_alarm_interval == pytest.approx((low, high))
    assert threshold.miss_rate == 0
    assert threshold.miss_interval == pytest.approx((0, 1 - 0.025 ** (1 / 10)))
    assert (threshold.precision, threshold.recall) == (10 / 11, 1)


def test_neighbouring_floats_are_told_apart_in_either_precision() -> None:
    low = np.float32(0.3)
    high = np.nextafter(low, np.float32(1))
    for below, above in ((low, high), (high, np.nextafter(high, np.float32(1)))):
        value = choose_by_f1([below, above], [0, 1]).value
        assert float(below) < value <= float(above)
        assert not np.array([below]) >= value  # compared as float32
        assert np.array([above]) >= value
        above_all = choose_by_quantile([below], 0.5).value
        assert above_all > float(below)
        assert not np.array([below]) >= above_all
        assert np.array([above]) >= above_all


@pytest.mark.parametrize(
    ("scores", "labels", "reason"),
    [
        ([], [], "at least one"),
        ([[0.1]], [[1]], "must be a list"),
        ([0.1, 0.2], [0, 0], "of 2 images, 0 are anomalous"),
        ([0.1, 0.2], [1, 1], "of 2 images, 2 are anomalous"),
        ([0.1, 0.2], [0, 1, 1], "do not belong together"),
        ([0.1, 0.2], [0, 2], "labels are 0"),
        ([0.1, float("nan")], [0, 1], "finite numbers"),
        ([float("-inf"), 0.3], [0, 1], "finite numbers"),
    ],
)
def test_images_without_an_f1_are_refused(scores: list, labels: list, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        choose_by_f1(scores, labels)


@try_examples(200)
@given(st.integers(1, 300), st.integers(1, 999), st.integers(0, 100))
def test_the_quantile_is_the_lowest_threshold_within_the_rate(
    count: int, thousandths: int, seed: int
) -> None:
    rate = thousandths / 1000
    scores = 20 * np.random.default_rng(seed).standard_normal(count, dtype=np.float32)
    assume(len(np.unique(scores)) == count)
    threshold = choose_by_quantile(scores, rate)
    reached = int((scores >= threshold.value).sum())
    alarms = reached + 1  # a new image is one of count + 1 alike
    assert threshold.false_alarm_rate == alarms / (count + 1)
    if alarms * 1000 > thousandths * (count + 1):  # integers: no rounding
        assert reached == 0
        assert "can not be had" in threshold.note
    else:
        assert (alarms + 1) * 1000 > thousandths * (count + 1)
        assert threshold.note == ""
    assert threshold.value in np.nextafter(scores, np.float32(np.inf)).tolist()
    assert threshold.false_alarm_interval == pytest.approx(
        stats.beta.ppf([0.025, 0.975], alarms, count + 1 - alarms)
    )


@pytest.mark.parametrize("shape", [(1, 1), (0.3, 5)])
def test_true_rates_follow_the_beta_distribution(shape: tuple[float, float]) -> None:
    """Of 1,000 calibrations, the rate on many new images has the mean and lies in the interval."""
    rng = np.random.default_rng(7)
    new = np.sort(rng.beta(*shape, 200_000).astype(np.float32))
    rates, inside = [], 0
    for scores in rng.beta(*shape, (1000, 59)):
        threshold = choose_by_quantile(scores, 0.05)
        assert threshold.false_alarm_rate == 0.05
        rates.append(1 - np.searchsorted(new, np.float32(threshold.value)) / len(new))
        low, high = threshold.false_alarm_interval or (1, 0)
        inside += low <= rates[-1] <= high
    assert 0.93 < inside / 1000 < 0.97
    assert np.mean(rates) == pytest.approx(0.05, abs=0.003)


@pytest.mark.parametrize("part", [2, 3, 7, 10, 49, 100, 1000, 12345])
def test_rates_are_meant_as_written(part: int) -> None:
    """One in `part` needs `part` - 1 images, although its float may lie on either side."""
    scores = np.linspace(0, 0.9, part - 1)
    assert choose_by_quantile(scores, 1 / part).note == ""
    if part > 2:
        assert f", {part - 1} would do" in choose_by_quantile(scores[1:], 1 / part).note


def test_equal_scores_are_told() -> None:
    same = choose_by_quantile([0.25] * 30, 0.1)
    assert same.value > 0.25
    assert "the rate may be lower" in same.note
    full = choose_by_quantile([0.2, 1.0], 1 / 3, most=1)
    assert full.value > 1
    assert full.note.startswith("a normal image has the highest score")
    assert "nothing reaches" in full.note
    assert choose_by_quantile([0.2, 1.0], 1 / 3).note == ""  # log-odds end nowhere
    with pytest.raises(ValueError, match=r"1\.5, but 1 is the most"):
        choose_by_quantile([0.2, 1.5], 1 / 3, most=1)


SATURATED = np.linspace(20, 60, 40, dtype=np.float32)


def test_normal_images_beyond_what_a_probability_can_tell_leave_anomalous_ones_room() -> None:
    """As float32 probabilities all were 1, and the threshold above it was out of reach."""
    assert (expit(SATURATED) == 1).all()
    normal, anomalous = SATURATED[:30], SATURATED[30:]
    threshold = choose_by_quantile(normal, 0.1)
    assert (anomalous >= threshold.value).all()
    assert (normal >= threshold.value).sum() == 2  # with a new one, 3 of 31
    assert threshold.note == ""


def test_f1_of_images_beyond_what_a_probability_can_tell() -> None:
    apart = choose_by_f1(SATURATED, np.arange(40) >= 30)
    assert SATURATED[29] < apart.value < SATURATED[30]
    assert (apart.f1, apart.false_alarm_rate, apart.miss_rate) == (1, 0, 0)
    labels = np.random.default_rng(0).random(40) < SATURATED / 80
    mixed = choose_by_f1(SATURATED, labels)
    best = max(f1_score(labels, cut <= SATURATED) for cut in SATURATED)
    assert mixed.f1 == pytest.approx(best)
    assert f1_score(labels, mixed.value <= SATURATED) == pytest.approx(best)


@pytest.mark.parametrize("lowest", [-30.0, 0.0, 20.0])
def test_an_anomalous_image_with_the_lowest_score_of_all_is_reached(lowest: float) -> None:
    """No score lies below it: a middle between it and 0 would be none."""
    threshold = choose_by_f1([lowest, lowest + 5, lowest + 9], [1, 0, 0])
    assert threshold.value == lowest
    assert (threshold.recall, threshold.f1, threshold.false_alarm_rate) == (1, 0.5, 1)


def test_rates_that_are_no_shares_and_no_scores_are_refused() -> None:
    for rate in (0, 1, -0.1, 5, float("nan")):
        with pytest.raises(ValueError, match="false alarm rate"):
            choose_by_quantile([0.1, 0.2], rate)
    for scores in ([], [0.1, float("nan")], [0.1, float("inf")]):
        with pytest.raises(ValueError, match="scores"):
            choose_by_quantile(scores, 0.1)


cases = st.builds(
    Case, st.sampled_from(["unit", "tied", "binary", "clumps"]), st.sampled_from(MASKS),
    st.integers(0, 10_000),
)  # fmt: skip


def draw_unit(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Maps in [0, 1] and masks."""
    maps, masks = draw_case(case._replace(scores="smooth") if case.scores == "unit" else case)
    if case.scores == "unit":
        maps = 1 / (1 + np.exp(-2 * maps))
    return maps.astype(np.float32), masks


@try_examples(150)
@given(cases)
def test_pixels_have_the_f1_of_all_at_once(case: Case) -> None:
    maps, masks = draw_unit(case)
    assume(masks.any() and not masks.all())
    forward, backward = PixelCalibrator(), PixelCalibrator()
    for anomaly_map, mask in zip(maps, masks, strict=True):
        forward.add(anomaly_map, mask)
    for anomaly_map, mask in zip(maps[::-1], masks[::-1], strict=True):
        backward.add(anomaly_map, mask)
    threshold = forward.choose()
    assert threshold == backward.choose()
    flagged, truth = maps.ravel() >= threshold.value, masks.ravel()
    assert threshold.f1 == pytest.approx(f1_score(truth, flagged))
    assert threshold.precision == pytest.approx(precision_score(truth, flagged))
    assert threshold.recall == pytest.approx(recall_score(truth, flagged))
    assert threshold.false_alarm_rate == pytest.approx(flagged[~truth].mean())
    assert threshold.miss_rate == pytest.approx(1 - flagged[truth].mean())
    assert (threshold.normal, threshold.anomalous) == (
        3 - masks.any((1, 2)).sum(),
        masks.any((1, 2)).sum(),
    )
    assert threshold.counted == "pixels"
    assert threshold.false_alarm_interval is threshold.miss_interval is None
    exact = choose_by_f1(maps.ravel(), truth)
    scores = np.unique(maps)  # positive floats are ordered as their bits are
    if len(np.unique(scores.view(np.int32) >> OPEN_BITS)) == len(scores):  # none share a bin
        assert threshold.f1 == pytest.approx(exact.f1)
        if exact.value > maps.min():
            assert threshold.value == pytest.approx(exact.value, rel=1e-4)
        else:  # a probability has 0 below it, a score has nothing
            assert threshold.value == pytest.approx(exact.value / 2, rel=1e-4)
    assert (threshold.f1 or 0) <= (exact.f1 or 0) + 1e-12


@pytest.mark.parametrize("help_", [0.0, 1.0])
def test_pixels_that_say_nothing_are_stored_with_what_they_are_worth(help_: float) -> None:
    rng, mask = np.random.default_rng(0), np.zeros((100, 100), bool)
    mask[:3, :4] = True
    calibrator = PixelCalibrator()
    calibrator.add((rng.random((100, 100)) + help_ * mask).clip(0, 1).astype(np.float32), mask)
    threshold = calibrator.choose()
    note = "of little worth: what it outlines agrees with the masks to an F1 of "
    assert threshold.note.startswith(note) == (not help_)
    if not help_:
        assert f"{note}{to_percent(threshold.f1 or 0)}, marking every pixel to 0.2 %" in (
            threshold.note
        )


def test_pixels_of_one_kind_are_refused() -> None:
    calibrator = PixelCalibrator()
    unit = np.full((2, 2), 0.5, dtype=np.float32)
    with pytest.raises(ValueError, match="there are 0 and 0"):
        calibrator.choose()
    for heat, mask, reason in (
        (unit, np.zeros((2, 3), bool), "alike"),
        (unit[0], np.zeros(2, bool), "alike"),
        (unit * 3, np.zeros((2, 2), bool), r"in \[0, 1\]"),
        (unit * np.nan, np.zeros((2, 2), bool), "not finite"),
    ):
        with pytest.raises(ValueError, match=reason):
            calibrator.add(heat, mask)
    calibrator.add(unit, np.zeros((2, 2), bool))
    with pytest.raises(ValueError, match="there are 4 and 0"):
        calibrator.choose()


def test_thresholds_come_back_from_json() -> None:
    rng = np.random.default_rng(1)
    scores, labels = rng.random(50, dtype=np.float32), rng.integers(0, 2, 50)
    calibrator = PixelCalibrator()
    calibrator.add(scores[None], labels[None] == 1)
    by_f1, by_quantile = choose_by_f1(scores, labels), choose_by_quantile(scores, 0.001)
    for threshold in (NATURAL, by_f1, by_quantile, calibrator.choose()):
        assert Threshold.model_validate_json(threshold.model_dump_json()) == threshold


@pytest.mark.parametrize("change", [
    {"value": float("nan")}, {"value": "high"}, {"method": "otsu"}, {"normal": -1}, {"f1": 1.2},
    {"miss_interval": [0.1]}, {"miss_interval": [-0.1, 0.5]}, {"colour": "red"},
])  # fmt: skip
def test_other_json_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(change))):
        Threshold.model_validate({"value": 0.5, "method": "given"} | change)
    with pytest.raises(ValidationError, match="frozen"):
        NATURAL.value = 0.4


@pytest.mark.parametrize("rate", [0, 1, -0.5, float("nan")])
def test_a_rate_that_can_not_be_is_refused_before_anything_is_looked_at(rate: float) -> None:
    untouched: Any = None
    with pytest.raises(ValueError, match="give a share between 0 and 1"):
        calibrate(untouched, "gear", [Path("absent.png")], false_alarm_rate=rate)
