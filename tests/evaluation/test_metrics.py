"""Each metric against scikit-learn or a slow version written from its description."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from properties import try_examples
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score
from summary_cases import CURVE_METRICS, draw_maps, slow_aupro_steps, slow_pro

from fuzzyclip.evaluation import metrics


def slow_aupro_std(maps, masks):
    """Area to FPR 0.3 of the polyline through every distinct threshold."""
    cuts = np.unique(maps)[::-1]
    pros, fprs = np.array([(0.0, 0.0)] + [slow_pro(maps, masks, cut, False) for cut in cuts]).T
    grid = np.unique(np.append(fprs[fprs <= 0.3], 0.3))
    area = 0.0
    for left, right in pairwise(grid):  # between vertices it is straight
        inner = np.linspace(left, right, 3)[1]
        area += np.interp(inner, fprs, pros) * (right - left)
    return area / 0.3


@pytest.mark.parametrize("levels", [None, 3])
@pytest.mark.parametrize("seed", range(4))
def test_pixel_metrics_agree_with_references(seed, levels):
    maps, masks = draw_maps(seed, images=4, side=24, blob=5, levels=levels)
    values = metrics.compute_pixel_metrics(maps, masks)
    flat, truth = maps.ravel(), masks.ravel()
    precision, recall, _ = precision_recall_curve(truth, flat)
    with np.errstate(invalid="ignore"):
        f1 = np.nanmax(2 * precision * recall / (precision + recall))
    assert values["pixel_auroc"] == pytest.approx(roc_auc_score(truth, flat), abs=1e-12)
    assert values["pixel_ap"] == pytest.approx(average_precision_score(truth, flat), abs=1e-12)
    assert values["pixel_f1_max"] == pytest.approx(f1, abs=1e-12)
    stepped = slow_aupro_steps(maps, masks, float(maps.min()), float(maps.max()))
    assert values["pixel_aupro"] == pytest.approx(stepped, abs=1e-9)
    assert values["pixel_aupro_std"] == pytest.approx(slow_aupro_std(maps, masks), abs=1e-9)


scores_and_labels = st.lists(
    st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=40
).filter(lambda rows: len({label for _, label in rows}) == 2)


@try_examples(200)
@given(scores_and_labels)
def test_image_metrics_agree_with_scikit_learn_on_ties(rows):
    scores, labels = np.array([score for score, _ in rows]), np.array([label for _, label in rows])
    values = metrics.compute_image_metrics(scores, labels)
    assert values["image_auroc"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert values["image_ap"] == pytest.approx(average_precision_score(labels, scores), abs=1e-12)


@try_examples(50)
@given(st.integers(0, 10_000))
def test_exact_metrics_do_not_change_under_a_monotone_map(seed):
    maps, masks = draw_maps(seed, images=3, side=12, blob=5, levels=9)
    plain = metrics.compute_pixel_metrics(maps, masks)
    bent = metrics.compute_pixel_metrics(np.exp(maps), masks)
    for name in CURVE_METRICS:
        assert bent[name] == pytest.approx(plain[name], abs=1e-12)


def test_perfect_and_inverted_maps():
    _, masks = draw_maps(0)
    sharp = masks + np.random.default_rng(0).uniform(0, 0.5, masks.shape)
    perfect = metrics.compute_pixel_metrics(sharp, masks)
    assert perfect["pixel_aupro"] == pytest.approx(1.0, abs=0.02)  # 200 steps, not all thresholds
    assert [perfect[name] for name in CURVE_METRICS] == pytest.approx([1.0] * 4)
    inverted = metrics.compute_pixel_metrics(-masks.astype(np.float32), masks)
    assert inverted["pixel_auroc"] == 0.0
    assert inverted["pixel_aupro_std"] == 0.0


def test_two_regions_count_alike_whatever_their_size():
    masks = np.zeros((1, 10, 10), dtype=bool)
    masks[0, 0, 0] = True  # one pixel
    masks[0, 5:9, 5:9] = True  # sixteen pixels
    weights = metrics.weigh_regions(masks)
    assert weights.sum() == pytest.approx(1.0)
    assert weights[0] == pytest.approx(0.5)


def test_corner_contact_is_one_region():
    assert metrics.weigh_regions(np.eye(4, dtype=bool)[None]) == pytest.approx(np.full(4, 0.25))


def test_one_class_gives_no_metric():
    assert metrics.compute_image_metrics([0.1, 0.2], [0, 0]) == {}
    assert metrics.compute_pixel_metrics(np.zeros((1, 4, 4)), np.zeros((1, 4, 4))) == {}


def test_constant_maps_have_no_stepped_aupro_but_an_exact_one():
    _, masks = draw_maps(1)
    values = metrics.compute_pixel_metrics(np.ones(masks.shape), masks)
    assert "pixel_aupro" not in values
    assert values["pixel_auroc"] == pytest.approx(0.5)
    assert values["pixel_aupro_std"] == pytest.approx(0.15)  # the diagonal's area over 0.3


def test_bad_scores_are_refused():
    with pytest.raises(ValueError, match="not finite"):
        metrics.compute_image_metrics([0.1, float("nan")], [0, 1])
    with pytest.raises(ValueError, match="differ in shape"):
        metrics.compute_image_metrics([0.1], [0, 1])


@pytest.mark.parametrize(
    ("scores", "tied"),
    [
        ([], 0),
        ([1.0, 2.0, 2.0, 2.0, 3.0], 0),  # in the middle
        ([1.0, 1.0, 2.0, 5.0, 5.0, 5.0], 5),
        ([7.0, 7.0, 7.0], 3),  # lowest and highest, and counted once
        ([-0.0, 0.0, 1.0], 2),
        (np.float32([1, 1 - 2**-24, 1 - 2**-24, 0]), 0),
    ],
)
def test_tied_ends_are_counted(scores, tied):
    assert metrics.count_tied_ends(scores) == tied


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=30))
def test_tied_ends_are_what_a_sort_shows(scores):
    ordered = sorted(scores)
    low, high = ordered.count(ordered[0]), ordered.count(ordered[-1])
    expected = (low if low > 1 else 0) + (high if high > 1 else 0)
    assert metrics.count_tied_ends(scores) == (low if low == len(scores) > 1 else expected)


def test_mean_is_unweighted_and_skips_what_is_absent():
    rows = {"a": {"image_auroc": 1.0, "pixel_ap": 0.2}, "b": {"image_auroc": 0.5}}
    assert metrics.average_categories(rows) == {"image_auroc": 0.75, "pixel_ap": 0.2}


@given(
    scores=st.lists(st.floats(-4, 4, width=32), min_size=1, max_size=60),
    cuts=st.lists(st.floats(-4, 4), min_size=1, max_size=20),
)
def test_scores_above_a_cut_of_a_finer_type_are_counted_exactly(scores, cuts):
    ordered = np.sort(np.array(scores, np.float32))
    near = np.array([*cuts, *np.nextafter(ordered.astype(float), 9), *ordered.astype(float)])
    expected = [(ordered.astype(float) > cut).sum() for cut in near]
    assert metrics.count_above(ordered, near).tolist() == expected
