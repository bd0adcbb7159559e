"""Feature surgery: what two texts have in common is taken from each token's similarity to them.

CLIP Surgery and CLIP-AD share it.

Shapes: B images, P patches, D embedding width, S image size.
"""

from torch import Tensor
from torch.nn import functional as F

from fuzzyclip.clip.encoding import normalise


def compute_surgery(
    tokens: Tensor, class_embed: Tensor, text_embed: Tensor, factor: float
) -> Tensor:
    """Feature surgery of two texts, the abnormal one's similarity to each token, (B, P).

    The element-wise products of a token with each text, weighted by w, lose their mean over the
    texts and are summed. Of two texts this is half the difference of the weighted cosines. The
    weights, softmax(factor * class cosines) divided by its mean, restrain the text that the image
    as a whole resembles.

    Args:
        tokens: (B, P, D), any length.
        class_embed: (B, D), unit rows.
        text_embed: (D, 2), unit columns: normal, abnormal.
        factor: on the class feature's cosines.
    """
    weights = 2 * (factor * class_embed @ text_embed).softmax(dim=-1)  # (B, 2), mean 1
    weighted = normalise(tokens) @ text_embed * weights[:, None]  # (B, P, 2)
    return (weighted[..., 1] - weighted[..., 0]) / 2


def upsample_patches(patches: Tensor, grid: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Values of patches (B, P) as pixels (B, S, S), bilinear between the patches' centres.

    Corners are not aligned, as in the published code of CLIP Surgery and CLIP-AD; EFA's maps align
    them (`fuzzyclip.method.efa.upsample`).
    """
    planes = patches.unflatten(1, grid)[:, None]  # type: ignore[no-untyped-call]
    return F.interpolate(planes, size=size, mode="bilinear", align_corners=False)[:, 0]
