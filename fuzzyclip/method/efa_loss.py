"""EFA's training loss: focal and dice of every block's map, in one pass and with its own gradient.

Of a softmax over two channels only one number is free: the abnormal probability is the sigmoid of
the logits' difference, and differences can be taken before upsampling, which is linear. Focal and
dice then are functions of one plane a block. Written in separate operations they would travel
through memory some thirty times, which takes longer than the layers' own products; here each
image's planes stay in the processor's cache while value and slope are computed together.

Shapes: B images, L blocks, P = h * w patches, W vision width, D embedding width, S image size.
"""

from typing import Any

import torch
from torch import Tensor

from fuzzyclip.method.efa import Heads, compute_margins, upsample

#: Focusing exponent of the focal loss (eq. 7).
GAMMA = 2
#: Smoothing of the labels, and guard of the logarithm, as APRIL-GAN trains.
FOCAL_SMOOTH = 1e-5
#: Added to numerator and denominator of dice (eq. 8).
DICE_SMOOTH = 1.0


def compute_alignment_losses(
    heads: Heads,
    patch_tokens: Tensor,
    masks: Tensor,
    text_embed: Tensor,
    grid: tuple[int, int],
) -> dict[str, Tensor]:
    """Focal plus dice, summed over the blocks without weights (eqs. 7 and 8).

    Printed with alpha = 1, eq. 7 has no term for normal pixels (its factor is 1 - alpha). This is
    the form in which both classes carry the same weight, as APRIL-GAN trains: the mean over pixels
    of -(1 - p)^2 log p with the probability p of the true class. Dice is that of the abnormal
    channel, by image, then the mean over the batch.

    Args:
        heads: one cluster's layers.
        patch_tokens: (B, L, P, W).
        masks: (B, S, S) in {0, 1}.
        text_embed: (D, 2), the cluster's prompt, or (B, D, 2), each image's own.
        grid: patches down and across.

    Returns:
        `loss`, which has a gradient, and its parts `focal` and `dice`, which have none.
    """
    margins = [
        compute_margins(layer(patch_tokens[:, block]), text_embed)
        for block, layer in enumerate(heads.layers)
    ]
    size = (masks.shape[-2], masks.shape[-1])
    planes = upsample(torch.stack(margins, dim=1), grid, size)  # (B, L, S, S)
    loss, focal, dice = _FocalDice.apply(planes, masks)
    return {"loss": loss, "focal": focal, "dice": dice}


class _FocalDice(torch.autograd.Function):
    """Planes of logit differences (B, L, S, S) and masks (B, S, S) to loss, focal and dice."""

    @staticmethod
    def forward(ctx: Any, planes: Tensor, masks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        slopes = torch.empty_like(planes)
        focal, dice = planes.new_zeros(()), planes.new_zeros(())
        for plane, mask, slope in zip(planes, masks, slopes, strict=True):
            part, whole = _measure_image(plane, mask, slope)
            focal += part
            dice += whole
        for summed in (focal, dice, slopes):  # over images; the losses are means
            summed /= len(planes)
        ctx.save_for_backward(slopes)
        ctx.mark_non_differentiable(focal, dice)
        return focal + dice, focal, dice

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (slopes,) = ctx.saved_tensors
        return slopes * gradients[0], None


def _measure_image(plane: Tensor, mask: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
    """Focal and dice of one image, summed over its blocks, and their slope, written in place.

    Args:
        plane: (L, S, S) logit differences.
        mask: (S, S) in {0, 1}.
        slope: (L, S, S), the derivative of focal + dice by `plane`.
    """
    keep = 1 - 2 * FOCAL_SMOOTH
    sign = 2 * mask - 1
    true = (plane * sign).sigmoid_()  # (L, S, S), probability of the true class
    bent = true * (1 - true)  # d(true) / d(plane * sign)
    prob = (true - 0.5).mul_(sign).add_(0.5)  # of the abnormal class
    true.mul_(keep).add_(2 * FOCAL_SMOOTH)
    log, rest = true.log(), 1 - true
    focal = -(rest.square() * log).mean(dim=(-2, -1)).sum()
    # d/dt of -(1 - t)^2 log t is (1 - t) (2 log t - (1 - t) / t)
    torch.mul(rest, log.mul_(GAMMA).sub_(rest / true), out=slope)
    slope.mul_(sign * (keep / mask.numel()))

    overlap = (prob * mask).sum(dim=(-2, -1))  # (L,)
    total = prob.sum(dim=(-2, -1)) + mask.sum() + DICE_SMOOTH
    covered = (2 * overlap + DICE_SMOOTH) / total
    dice = (1 - covered).sum()
    slope += (covered / total)[:, None, None]
    slope.addcmul_(mask, (-2 / total)[:, None, None])
    slope.mul_(bent)
    return focal, dice
