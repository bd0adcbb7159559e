"""The losses of RPL as pure functions of tensors; EFA's are in `fuzzyclip.method.efa_loss`.

Shapes: B images, D embedding width.
"""

from torch import Tensor
from torch.nn import functional as F


def compute_classification(
    image_embed: Tensor, text_embed: Tensor, label: Tensor, temperature: float
) -> Tensor:
    """Cross entropy of unit image features against the two prompt features (eq. 12, left).

    Args:
        image_embed: (B, D), unit rows.
        text_embed: (2, D), unit rows: normal, abnormal.
        label: (B,) int64, 0 normal or 1 anomalous.
        temperature: factor on the cosines (the paper is silent; CLIP's own is 100).
    """
    return F.cross_entropy(temperature * image_embed @ text_embed.T, label)


def compute_text_regularisation(text_embed: Tensor, stacked_embed: Tensor) -> Tensor:
    """Mean squared error to the stacked prompt's features (eq. 12, right), over all 2 * D entries.

    Args:
        text_embed: (2, D) learned prompts, unit rows.
        stacked_embed: (2, D) untrained stacked prompt, unit rows, no gradient.
    """
    return F.mse_loss(text_embed, stacked_embed)
