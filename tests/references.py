"""Focal and dice as their formulas stand, in plain operations.

Shapes: B images, H x W pixels.
"""

import torch
from torch import Tensor

#: Label smoothing and logarithm guard of the focal loss.
FOCAL_SMOOTH = 1e-5


def compute_focal(probs: Tensor, mask: Tensor, gamma: float = 2.0, alpha: float = 1.0) -> Tensor:
    """Two-class focal loss on softmax maps (eq. 7), mean over all pixels.

    Printed with alpha = 1, eq. 7 has no term for normal pixels (its factor is 1 - alpha). This is
    the form in which both classes carry the weight `alpha`, as APRIL-GAN trains.

    Args:
        probs: (B, 2, H, W) softmax map, channel 1 abnormal.
        mask: (B, H, W) ground truth in {0, 1}.
        gamma: focusing exponent.
        alpha: weight of both classes.
    """
    onehot = torch.stack((1 - mask, mask), dim=1)  # (B, 2, H, W)
    onehot = onehot.clamp(FOCAL_SMOOTH, 1 - FOCAL_SMOOTH)
    p_true = (onehot * probs).sum(dim=1) + FOCAL_SMOOTH  # (B, H, W)
    return (-alpha * (1 - p_true) ** gamma * p_true.log()).mean()


def compute_dice(prob: Tensor, mask: Tensor, epsilon: float = 1.0) -> Tensor:
    """Dice loss of the abnormal channel (eq. 8), per image, mean over the batch.

    Args:
        prob: (B, H, W) probability of abnormal.
        mask: (B, H, W) ground truth in {0, 1}.
        epsilon: added to numerator and denominator.
    """
    overlap = (prob * mask).flatten(1).sum(dim=1)  # (B,)
    total = prob.flatten(1).sum(dim=1) + mask.flatten(1).sum(dim=1)  # (B,)
    return (1 - (2 * overlap + epsilon) / (total + epsilon)).mean()
