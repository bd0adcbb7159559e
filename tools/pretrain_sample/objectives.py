"""The losses of the sample CLIP's pretraining.

Contrast alone learns the categories and not the defects, so the state has a loss of its own, and
so have the patch tokens. Shapes: B images, n captions, m names, D embedding width, P patches.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

PATCH_SHARE = 0.04  # of a patch's pixels, from which the patch counts as defective
DEFECT_WEIGHT = 6.0  # against the many more sound patches
NAME_TEMPERATURE = 0.1


def contrastive_loss(logits: Tensor, positive: Tensor) -> Tensor:
    """CLIP's symmetric loss where an image may match several captions and the reverse.

    Args:
        logits: scaled cosines (B, n).
        positive: bool (B, n), True where category and state agree.
    """
    target = positive.float()
    by_image = -(target * logits.log_softmax(dim=1)).sum(dim=1) / target.sum(dim=1).clamp(min=1)
    by_text = -(target * logits.log_softmax(dim=0)).sum(dim=0) / target.sum(dim=0).clamp(min=1)
    return (by_image.mean() + by_text.mean()) / 2


def state_loss(image: Tensor, text: Tensor, scale: Tensor, states: Tensor) -> Tensor:
    """Cross entropy of the state that an image shows, with the captions of every name.

    Args:
        image: features (B, D).
        text: features (m, s, D) of the captions of s states of m names.
        scale: factor of the cosines.
        states: (B,) number of the image's state.
    """
    logits = scale * torch.einsum("bd,msd->bms", image, text)  # (B, m, s)
    return F.cross_entropy(logits.flatten(0, 1), states.repeat_interleave(text.shape[0]))


def pair_loss(image: Tensor, text: Tensor, scale: Tensor, states: Tensor) -> Tensor:
    """Loss of parts that show a defect no more with it than without, whatever part it is.

    Args:
        image: features (B, D), in pairs of the same part: normal, damaged.
        text: features (m, s, D) of the captions of s states of m names; state 0 is normal.
        scale: factor of the cosines.
        states: (B,) number of the image's state.
    """
    towards = text[:, states[1::2]] - text[:, :1]  # (m, B / 2, D)
    change = image[1::2] - image[0::2]  # (B / 2, D)
    return F.softplus(-scale * (towards * change).sum(dim=-1)).mean()


def name_loss(text: Tensor) -> Tensor:
    """Loss that keeps names apart, whatever the state: two captions of a name find each other.

    Args:
        text: features (m, 2, D) of the normal and the abnormal caption of m names.
    """
    names = F.normalize(text - text.mean(dim=0, keepdim=True), dim=-1)  # the state taken out
    logits = names[:, 0] @ names[:, 1].T / NAME_TEMPERATURE  # (m, m)
    own = torch.arange(len(logits))
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def patch_targets(coverage: Tensor) -> Tensor:
    """Defective or not: each patch and its nine cells, (B, P, 10).

    Args:
        coverage: (B, 3 h, 3 w) defective pixels of each cell of 16; P = h w.
    """
    cells = coverage.float().unfold(1, 3, 3).unfold(2, 3, 3)  # (B, h, w, 3, 3)
    cells = cells.flatten(3).flatten(1, 2)  # (B, P, 9)
    patch = cells.sum(dim=-1, keepdim=True) > PATCH_SHARE * 144
    return torch.cat([patch, cells >= 3], dim=-1).float()


def dense_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy of the patch read-outs: logits (blocks, B, P, 10), targets (B, P, 10)."""
    weight = torch.tensor(DEFECT_WEIGHT)
    each = F.binary_cross_entropy_with_logits(
        logits, targets.expand_as(logits), pos_weight=weight, reduction="none"
    )
    return each[..., 0].mean() + each[..., 1:].mean()
