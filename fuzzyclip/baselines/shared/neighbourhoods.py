"""Patches with what is around them, for methods that compare patches with one another.

Shapes: B images, L blocks, P patches, W vision width.
"""

from torch import Tensor
from torch.nn import functional as F

from fuzzyclip.clip.encoding import normalise


def pool(patch_tokens: Tensor, grid: tuple[int, int], side: int) -> Tensor:
    """Unit tokens (B, L, P, W), each the mean of the square of patches around it, cut at the edge.

    The mean of tokens as they are, not of their directions.
    """
    if side > 1:
        count, blocks, patches, width = patch_tokens.shape
        planes = patch_tokens.transpose(2, 3).reshape(count * blocks, width, *grid)
        planes = F.avg_pool2d(planes, side, stride=1, padding=side // 2, count_include_pad=False)
        patch_tokens = planes.reshape(count, blocks, width, patches).transpose(2, 3)
    return normalise(patch_tokens)
