"""The paired bootstrap against scikit-learn, a slow version, and what is known of its answers."""

from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from properties import try_examples
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score
from summary_cases import name_images

from fuzzyclip.evaluation import metrics
from fuzzyclip.evaluation.bootstrap import (
    ImageResults,
    Spread,
    compare_experiments,
    draw_weights,
    summarise_runs,
    weigh_image_metrics,
)
from fuzzyclip.evaluation.summaries import summarise_pixels


def draw_result(rng, shift=1.0, normal=12, anomalous=18):
    """Image scores in which anomalous images lie `shift` deviations higher."""
    labels = np.repeat([0, 1], [normal, anomalous])
    scores = rng.normal(size=len(labels)) + shift * labels
    return ImageResults(name_images(len(labels)), labels, scores)


def draw_experiments(seed, shift_a=1.0, shift_b=1.0, categories=3, **sizes):
    rng = np.random.default_rng(seed)
    return tuple(
        {f"c{index}": draw_result(rng, shift, **sizes) for index in range(categories)}
        for shift in (shift_a, shift_b)
    )


def draw_maps(seed, quality, images=6, side=16):
    """Noisy maps of one square an anomalous image; the last third of the images is normal."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((images, side, side), dtype=bool)
    for index, mask in enumerate(masks[: 2 * images // 3]):
        mask[index : index + 3, 2:6] = True
    return (rng.normal(size=masks.shape) + quality * masks).astype(np.float32), masks


def draw_pixel_result(seed, quality, images=6):
    maps, masks = draw_maps(seed, quality, images)
    names = name_images(images)
    labels = masks.any(axis=(1, 2)).astype(int)
    pixels = summarise_pixels(maps, masks, names)
    return ImageResults(names, labels, maps.max(axis=(1, 2)), pixels)


weighted_rows = st.lists(
    st.tuples(st.integers(-3, 3), st.booleans(), st.integers(0, 4)), min_size=1, max_size=30
)


@try_examples(200)
@given(weighted_rows)
def test_image_metrics_under_weights_are_those_of_repeated_images(rows):
    scores, labels, times = (np.array(column) for column in zip(*rows, strict=True))
    values = weigh_image_metrics(scores, labels, np.stack([times, 2 * times]))
    repeated, truth = np.repeat(scores, times), np.repeat(labels, times)
    exact = metrics.compute_image_metrics(repeated, truth)
    for name in metrics.IMAGE_METRICS:
        assert values[name][0] == pytest.approx(exact.get(name, np.nan), abs=1e-12, nan_ok=True)
        assert values[name][1] == pytest.approx(values[name][0], abs=1e-12, nan_ok=True)
    assume(exact)
    assert values["image_auroc"][0] == pytest.approx(roc_auc_score(truth, repeated), abs=1e-12)
    ap = average_precision_score(truth, repeated)
    assert values["image_ap"][0] == pytest.approx(ap, abs=1e-12)
    precision, recall, _ = precision_recall_curve(truth, repeated)
    f1 = np.max(2 * precision * recall / np.maximum(precision + recall, 1e-300))
    assert values["image_f1_max"][0] == pytest.approx(f1, abs=1e-12)


def test_a_slow_bootstrap_gives_the_same():
    """Written out: repeat maps and scores, compute exactly, average, subtract, sort."""
    resamples, keys = 60, ("bolt", "cable")
    qualities = {"a": 0.6, "b": 1.2}
    raw = {
        (name, key): draw_maps(seed, quality)
        for seed, key in enumerate(keys)
        for name, quality in qualities.items()
    }
    a, b = (
        {key: draw_pixel_result(seed, quality) for seed, key in enumerate(keys)}
        for quality in qualities.values()
    )
    results = compare_experiments(a, b, resamples=resamples, seed=5)
    rng = np.random.default_rng(5)
    weights = {key: draw_weights(a[key].labels, resamples, rng) for key in keys}
    once = {key: np.ones((1, len(a[key].labels)), dtype=int) for key in keys}

    def measure(name, row, weights=weights):
        lines = {}
        for key in keys:
            maps, masks = (np.repeat(part, weights[key][row], 0) for part in raw[name, key])
            lines[key] = metrics.compute_pixel_metrics(maps, masks)
            truth = masks.any(axis=(1, 2))
            lines[key] |= metrics.compute_image_metrics(maps.max(axis=(1, 2)), truth)
        return metrics.average_categories(lines)

    draws = [(measure("a", row), measure("b", row)) for row in range(resamples)]
    whole = {name: measure(name, 0, once) for name in qualities}
    assert set(results) == set(metrics.METRICS)
    for metric, fast in results.items():
        difference = whole["a"][metric] - whole["b"][metric]
        assert fast.difference == pytest.approx(difference, abs=1e-6), metric
        if metric == "pixel_aupro":  # its steps stay those of all images
            continue
        slow = np.array([of_a[metric] - of_b[metric] for of_a, of_b in draws])
        assert fast.standard_error == pytest.approx(slow.std(ddof=1), abs=1e-6), metric
        assert [fast.low, fast.high] == pytest.approx(np.quantile(slow, [0.025, 0.975]), abs=1e-6)
        beyond = min((slow <= 1e-9).sum(), (slow >= -1e-9).sum())
        assert fast.p_value == pytest.approx(min(1, 2 * (beyond + 1) / (resamples + 1)))
        assert fast.resamples == resamples
        assert fast.categories == 2


def test_an_experiment_does_not_differ_from_itself():
    a = {"bolt": draw_pixel_result(0, 1.0), "nut": draw_pixel_result(1, 1.0)}
    results = compare_experiments(a, a, resamples=100)
    assert set(results) == set(metrics.METRICS)
    for result in results.values():
        assert result.low == result.difference == result.high == result.standard_error == 0.0
        assert result.p_value == 1.0


def test_a_clearly_better_experiment_is_told_apart():
    a, b = draw_experiments(0, 3.0, 0.3)
    for result in compare_experiments(a, b, resamples=500).values():
        assert 0 < result.low < result.difference
        assert result.p_value == pytest.approx(2 / 501)  # no resample on the other side


@try_examples(25)
@given(st.integers(0, 10_000))
def test_exchanging_the_experiments_turns_the_sign(seed):
    a, b = draw_experiments(seed, 1.2, 0.8)
    there = compare_experiments(a, b, resamples=50, seed=seed)
    back = compare_experiments(b, a, resamples=50, seed=seed)
    for metric, result in there.items():
        turned = back[metric]
        assert turned.difference == -result.difference
        assert (turned.low, turned.high) == pytest.approx((-result.high, -result.low))
        assert turned.p_value == result.p_value


def test_a_seed_fixes_the_result_whatever_the_order_of_categories():
    a, b = draw_experiments(0)
    first = compare_experiments(a, b, resamples=200, seed=3)
    assert compare_experiments(dict(reversed(a.items())), b, resamples=200, seed=3) == first
    other = compare_experiments(a, b, resamples=200, seed=4)
    assert other != first
    for metric, result in first.items():
        assert other[metric].standard_error == pytest.approx(result.standard_error, rel=0.3)


def test_pairing_removes_what_is_hard_for_both():
    rng = np.random.default_rng(0)
    a = {"bolt": draw_result(rng)}
    near = a["bolt"].scores + 0.1 * rng.normal(size=30)
    paired = compare_experiments(a, {"bolt": replace(a["bolt"], scores=near)}, resamples=300)
    alone = compare_experiments(a, {"bolt": draw_result(rng)}, resamples=300)
    error = paired["image_auroc"].standard_error
    assert 0 < error < 0.4 * alone["image_auroc"].standard_error


def test_the_interval_covers_the_true_difference():
    """AUROC of two normal distributions `shift` apart is Phi(shift / sqrt 2)."""
    chance = NormalDist().cdf
    truth = chance(1.5 / 2**0.5) - chance(0.7 / 2**0.5)
    hits, false_alarms = 0, 0
    for seed in range(150):
        a, b = draw_experiments(seed, 1.5, 0.7, categories=2, normal=30, anomalous=30)
        result = compare_experiments(a, b, resamples=200, seed=seed)["image_auroc"]
        hits += result.low <= truth <= result.high
        a, b = draw_experiments(seed, categories=2, normal=30, anomalous=30)
        false_alarms += compare_experiments(a, b, 200, seed)["image_auroc"].p_value < 0.05
    assert 0.89 <= hits / 150 <= 0.99
    assert false_alarms / 150 <= 0.1


def test_resamples_keep_each_label_and_average_to_one():
    labels = np.array([1, 0, 0, 1, 1, 0, 0, 0, 1])
    weights = draw_weights(labels, 4000, np.random.default_rng(0))
    assert weights.shape == (4000, 9)
    assert (weights[:, labels == 1].sum(axis=1) == 4).all()
    assert (weights[:, labels == 0].sum(axis=1) == 5).all()
    assert weights.mean(axis=0) == pytest.approx(np.ones(9), abs=0.06)
    variance = np.where(labels == 1, 1 - 1 / 4, 1 - 1 / 5)  # of a multinomial count
    assert weights.var(axis=0) == pytest.approx(variance, abs=0.08)


def test_what_one_experiment_lacks_is_absent():
    a = {"bolt": draw_pixel_result(0, 1.0), "nut": draw_pixel_result(1, 1.0)}
    b = {"bolt": draw_pixel_result(0, 2.0), "nut": replace(a["nut"], pixels=None)}
    results = compare_experiments(a, b, resamples=20)
    assert results["pixel_ap"].categories == 1
    assert results["image_ap"].categories == 2
    bare = {name: replace(result, pixels=None) for name, result in b.items()}
    assert set(compare_experiments(a, bare, resamples=20)) == set(metrics.IMAGE_METRICS)


def test_a_category_of_one_class_has_no_image_metric():
    a, b = draw_experiments(0, categories=2)
    full = compare_experiments({"c0": a["c0"]}, {"c0": b["c0"]}, resamples=20)
    for side in (a, b):
        side["c1"] = replace(side["c1"], labels=np.ones(30, dtype=int))
    assert compare_experiments(a, b, resamples=20) == full
    for side in (a, b):
        del side["c0"]
    assert compare_experiments(a, b, resamples=20) == {}


def test_resamples_without_the_metric_are_left_out():
    """Of two anomalous images one has an empty mask; a quarter of the draws has only that one."""
    maps, masks = draw_maps(0, 1.0, images=3)
    masks[1] = False
    names, labels = name_images(3), np.array([1, 1, 0])
    a = ImageResults(names, labels, labels * 1.0, summarise_pixels(maps, masks, names))
    b = replace(a, pixels=summarise_pixels(maps[::-1].copy(), masks, names))
    results = compare_experiments({"bolt": a}, {"bolt": b}, resamples=400)
    assert results["image_auroc"].resamples == 400
    assert 250 < results["pixel_auroc"].resamples < 350
    assert np.isfinite(results["pixel_auroc"].standard_error)


def test_other_images_labels_or_masks_are_refused():
    a = draw_pixel_result(0, 1.0)
    maps, masks = draw_maps(0, 1.0)

    def refuse(b, message):
        with pytest.raises(ValueError, match=message):
            compare_experiments({"bolt": a}, {"bolt": b})

    bare = replace(a, pixels=None)
    refuse(replace(bare, images=a.images[::-1]), "bolt: .* in another order")
    refuse(replace(bare, images=[f"x/{name}" for name in a.images]), "bolt: .* different images")
    refuse(draw_pixel_result(0, 1.0, images=9), "different images")
    refuse(replace(a, labels=1 - a.labels), "different labels")
    moved = summarise_pixels(maps, np.roll(masks, 1, axis=0), a.images)
    refuse(replace(a, pixels=moved), "different masks")
    smaller = summarise_pixels(maps[:, ::2, ::2], masks[:, ::2, ::2], a.images)
    assert compare_experiments({"bolt": a}, {"bolt": replace(a, pixels=smaller)}, resamples=5)
    with pytest.raises(ValueError, match="categories"):
        compare_experiments({"bolt": a}, {"nut": a})
    with pytest.raises(ValueError, match="categories"):
        compare_experiments({}, {})


def test_bad_input_is_refused():
    result = draw_pixel_result(0, 1.0)
    for message, changes in {
        "not finite": {"scores": np.where(result.labels == 1, np.nan, result.scores)},
        "0 or 1": {"labels": result.labels + 1},
        "do not match": {"scores": result.scores[1:]},
        "other images": {"images": result.images[::-1]},
    }.items():
        with pytest.raises(ValueError, match=message):
            replace(result, **changes)
    for settings in ({"resamples": 1}, {"confidence": 1.0}):
        with pytest.raises(ValueError, match="two resamples"):
            compare_experiments({"bolt": result}, {"bolt": result}, **settings)


def test_spread_over_seeds():
    runs = [
        {"image_auroc": 0.7, "pixel_ap": 0.2, "pixel_aupro": float("nan")},
        {"image_auroc": 0.9, "pixel_aupro": float("nan")},
        {"image_auroc": 0.8, "pixel_f1_max": 0.0},
    ]
    assert summarise_runs(runs) == {
        "image_auroc": Spread(pytest.approx(0.8), pytest.approx(0.1), 3),
        "pixel_ap": Spread(0.2, None, 1),
        "pixel_f1_max": Spread(0.0, None, 1),
    }
    assert summarise_runs([]) == {}
