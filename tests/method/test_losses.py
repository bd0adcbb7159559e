"""The losses on toy tensors, against their formulas written out; focal and dice are the references
that tests/test_alignment.py holds EFA's loss against."""

import math

import pytest
import torch
from references import compute_dice, compute_focal

from fuzzyclip.method.rpl import compute_classification, compute_text_regularisation


def draw_maps(seed=0, batch=3, side=5):
    """Random softmax maps (B, 2, H, W) and masks (B, H, W) in {0, 1}."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, 2, side, side, generator=generator)
    mask = (torch.rand(batch, side, side, generator=generator) > 0.7).float()
    return logits, mask


def slow_focal(probs, mask, gamma):
    """Pixel by pixel: -(1 - p)^gamma log p, with 1e-5 of smoothing on labels and under the log."""
    terms = []
    for (normal, abnormal), truth in zip(probs.tolist(), mask.tolist(), strict=True):
        for row, (p_row, q_row) in enumerate(zip(normal, abnormal, strict=True)):
            for column, (p, q) in enumerate(zip(p_row, q_row, strict=True)):
                hot = 1 - 1e-5 if truth[row][column] else 1e-5
                p_true = (1 - hot) * p + hot * q + 1e-5
                terms.append(-((1 - p_true) ** gamma) * math.log(p_true))
    return sum(terms) / len(terms)


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0])
def test_focal_equals_its_formula_at_every_pixel(gamma):
    logits, mask = draw_maps()
    probs = logits.double().softmax(dim=1)
    assert float(compute_focal(probs, mask, gamma)) == pytest.approx(
        slow_focal(probs, mask, gamma), rel=1e-5
    )
    assert float(compute_focal(probs, mask, gamma, alpha=0.5)) == pytest.approx(
        0.5 * slow_focal(probs, mask, gamma), rel=1e-5
    )


def test_focal_with_gamma_zero_is_cross_entropy():
    logits, mask = draw_maps()
    expected = torch.nn.functional.cross_entropy(logits, mask.long())
    assert float(compute_focal(logits.softmax(dim=1), mask, gamma=0.0)) == pytest.approx(
        float(expected), abs=1e-3
    )


def test_focal_weighs_both_classes_alike():
    logits, mask = draw_maps()
    probs = logits.softmax(dim=1)
    swapped = compute_focal(probs.flip(1), 1 - mask)
    assert float(compute_focal(probs, mask)) == pytest.approx(float(swapped), rel=1e-5)
    normal_only = torch.zeros(1, 5, 5)  # eq. 7 as printed, alpha 1, would be zero here
    assert float(compute_focal(torch.full((1, 2, 5, 5), 0.5), normal_only)) == pytest.approx(
        0.25 * math.log(2), rel=1e-3
    )


def test_dice_by_hand():
    prob = torch.tensor([[[0.5, 1.0], [0.0, 0.5]], [[0.0, 0.0], [0.0, 0.0]]])
    mask = torch.tensor([[[1.0, 1.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
    first = 1 - (2 * 1.5 + 1) / (2.0 + 2.0 + 1)
    assert float(compute_dice(prob, mask)) == pytest.approx((first + 0.0) / 2)
    assert float(compute_dice(prob[:1], mask[:1], epsilon=0.0)) == pytest.approx(1 - 3 / 4)


def test_dice_is_the_mean_over_images_not_over_pooled_pixels():
    mask = torch.zeros(2, 4, 4)
    mask[0, 0, 0] = 1
    mask[1] = 1
    prob = torch.stack((torch.zeros(4, 4), torch.ones(4, 4)))
    assert float(compute_dice(prob, mask)) == pytest.approx((1 - 1 / 2) / 2)


def test_classification_is_cross_entropy_of_scaled_cosines():
    image_embed = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    text_embed = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    label = torch.tensor([0, 1])
    first = math.log(1 + math.exp(10 * (0.0 - 1.0)))
    second = math.log(1 + math.exp(10 * (0.6 - 0.8)))
    loss = compute_classification(image_embed, text_embed, label, temperature=10.0)
    assert float(loss) == pytest.approx((first + second) / 2, rel=1e-5)


def test_text_regularisation_is_the_mean_over_both_sides_and_all_widths():
    learned, stacked = torch.eye(2, 8), torch.zeros(2, 8)
    stacked[:, 4] = 1
    assert float(compute_text_regularisation(learned, stacked)) == pytest.approx(4 / 16)
    # opposite unit vectors are the worst case: 4 / D
    assert float(compute_text_regularisation(learned, -learned)) == pytest.approx(4 / 8)


def test_a_perfect_prediction_costs_next_to_nothing():
    _, mask = draw_maps()
    probs = torch.stack((1 - mask, mask), dim=1)
    assert 0 <= abs(float(compute_focal(probs, mask))) < 1e-4
    assert float(compute_dice(mask, mask)) == pytest.approx(0, abs=1e-6)
    unit = torch.eye(2)
    assert float(compute_classification(unit, unit, torch.tensor([0, 1]), 100.0)) < 1e-6
    assert float(compute_text_regularisation(unit, unit)) == 0


def test_a_step_along_the_gradient_lowers_every_loss():
    logits, mask = draw_maps()

    def losses(values):
        probs = values.softmax(dim=1)
        return compute_focal(probs, mask), compute_dice(probs[:, 1], mask)

    for number in range(2):
        start = logits.clone().requires_grad_()
        loss = losses(start)[number]
        loss.backward()
        assert bool((start.grad != 0).all())
        assert bool(losses(start.detach() - start.grad)[number] < loss.detach())


def test_extreme_probabilities_stay_finite():
    mask = torch.ones(1, 2, 2)
    wrong = torch.stack((mask, 1 - mask), dim=1).requires_grad_()
    loss = compute_focal(wrong, mask)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(-math.log(2e-5), rel=1e-3)
    assert bool(wrong.grad.isfinite().all())
