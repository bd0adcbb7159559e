"""EFA's loss with its own gradient, against the formulas and autograd."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from properties import try_examples
from references import compute_dice, compute_focal, compute_logits, compute_maps
from torch.nn import functional as F

from fuzzyclip.method.efa import Heads, compute_margins
from fuzzyclip.method.efa_training import compute_alignment_losses

GRID, SIZE = (3, 5), (17, 23)


def draw(seed, dtype=torch.float64, spread=1.0, share=0.2, own=False):
    """Layers, tokens, masks and text features of a random case."""
    torch.manual_seed(seed)
    heads = Heads(3, 16, 24).to(dtype)
    tokens = spread * torch.randn(4, 3, 15, 16, dtype=dtype)
    masks = (torch.rand(4, *SIZE) < share).to(dtype)
    masks[0] = 0  # a normal image
    text = torch.randn(*((4,) if own else ()), 24, 2, dtype=dtype)
    return heads, tokens, masks, F.normalize(text, dim=-2), GRID


def reference(heads, tokens, masks, text, grid):
    """Focal and dice by plain operations on softmax maps."""
    maps = compute_maps(heads(tokens), text, grid, SIZE)
    blocks = range(maps.shape[1])
    focal = sum(compute_focal(maps[:, block], masks) for block in blocks)
    return focal, sum(compute_dice(maps[:, block, 1], masks) for block in blocks)


@given(st.integers(0, 999), st.floats(0, 1), st.floats(0.01, 3), st.booleans())
@try_examples(40)
def test_values_and_gradients_are_those_of_the_formulas(seed, share, spread, own):
    case = draw(seed, share=share, spread=spread, own=own)
    losses = compute_alignment_losses(*case)
    focal, dice = reference(*case)
    assert losses["focal"].item() == pytest.approx(focal.item(), rel=1e-9)
    assert losses["dice"].item() == pytest.approx(dice.item(), rel=1e-9)
    assert losses["loss"].item() == pytest.approx((focal + dice).item(), rel=1e-9)
    parameters = list(case[0].parameters())
    ours = torch.autograd.grad(3 * losses["loss"], parameters)
    plain = torch.autograd.grad(3 * (focal + dice), parameters)
    for own, expected in zip(ours, plain, strict=True):
        # where everything is right already, both round 1 - p_true, which is next to nothing
        atol = 1e-9 * max(1.0, float(expected.abs().max()))
        assert torch.allclose(own, expected, rtol=1e-7, atol=atol)


def test_single_precision_is_as_good_as_the_plain_way():
    case = draw(1, dtype=torch.float32, spread=3.0)
    exact = [part.double() if torch.is_tensor(part) else part for part in case[1:]]
    double = Heads(3, 16, 24).double()
    double.load_state_dict(case[0].state_dict())
    focal, dice = reference(double, *exact)
    losses = compute_alignment_losses(*case)
    assert losses["focal"].item() == pytest.approx(focal.item(), rel=1e-4)
    assert losses["dice"].item() == pytest.approx(dice.item(), rel=1e-5)


def test_only_the_loss_has_a_gradient():
    losses = compute_alignment_losses(*draw(0))
    assert losses["loss"].requires_grad
    assert not losses["focal"].requires_grad
    assert not losses["dice"].requires_grad


def test_margins_are_the_difference_of_the_logits():
    heads, tokens, _, text, _ = draw(2)
    logits = compute_logits(heads(tokens), text)  # (B, L, P, 2)
    margins = compute_margins(heads(tokens)[:, 1], text)
    assert torch.allclose(margins, logits[:, 1, :, 1] - logits[:, 1, :, 0])
    nothing = compute_margins(torch.zeros(1, 2, 24, dtype=torch.float64), text)
    assert nothing.tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize("side", [1.0, -1.0])
def test_certain_and_wrong_everywhere_stays_finite(side):
    """The true class has probability 0: two guards of 1e-5 remain under the logarithm."""
    heads = Heads(1, 2, 2)
    with torch.no_grad():
        heads.layers[0].weight.copy_(torch.eye(2))
        heads.layers[0].bias.zero_()
    text = torch.tensor([[1.0, -1.0], [0.0, 0.0]])
    tokens = torch.tensor([side, 0.0]).expand(1, 1, 15, 2)
    masks = torch.full((1, *SIZE), 0.5 + side / 2)
    losses = compute_alignment_losses(heads, tokens, masks, text, GRID)
    losses["loss"].backward()
    assert losses["focal"].item() == pytest.approx(-math.log(2e-5), rel=1e-3)
    assert bool(heads.layers[0].weight.grad.isfinite().all())


def test_dice_is_the_mean_over_images():
    heads, tokens, masks, text, grid = draw(3, own=True)
    both = compute_alignment_losses(heads, tokens, masks, text, grid)["dice"]
    alone = [
        compute_alignment_losses(heads, tokens[i, None], masks[i, None], text[i], grid)["dice"]
        for i in range(4)
    ]
    assert both.item() == pytest.approx(sum(alone).item() / 4, rel=1e-9)


def slow_focal(probs, mask, gamma):
    """Pixel by pixel: -(1 - p)^gamma log p, with 1e-5 of smoothing on labels and under the log."""
    terms = []
    for (normal, anomalous), truth in zip(probs.tolist(), mask.tolist(), strict=True):
        for row, (p_row, q_row) in enumerate(zip(normal, anomalous, strict=True)):
            for column, (p, q) in enumerate(zip(p_row, q_row, strict=True)):
                hot = 1 - 1e-5 if truth[row][column] else 1e-5
                p_true = (1 - hot) * p + hot * q + 1e-5
                terms.append(-((1 - p_true) ** gamma) * math.log(p_true))
    return sum(terms) / len(terms)


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0])
def test_the_reference_focal_equals_its_formula_at_every_pixel(gamma):
    probs = torch.randn(3, 2, 5, 5, dtype=torch.float64).softmax(dim=1)
    masks = (torch.rand(3, 5, 5) > 0.7).double()
    expected = slow_focal(probs, masks, gamma)
    assert float(compute_focal(probs, masks, gamma)) == pytest.approx(expected, rel=1e-5)
    halved = compute_focal(probs, masks, gamma, alpha=0.5)
    assert float(halved) == pytest.approx(0.5 * expected, rel=1e-5)


def test_the_reference_dice_by_hand():
    prob = torch.tensor([[[0.5, 1.0], [0.0, 0.5]], [[0.0, 0.0], [0.0, 0.0]]])
    mask = torch.tensor([[[1.0, 1.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
    first = 1 - (2 * 1.5 + 1) / (2.0 + 2.0 + 1)
    assert float(compute_dice(prob, mask)) == pytest.approx((first + 0.0) / 2)
    assert float(compute_dice(prob[:1], mask[:1], epsilon=0.0)) == pytest.approx(1 - 3 / 4)
