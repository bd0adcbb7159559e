"""Whether an engine gives PyTorch's features: compared on fixed images before it is used.

Shapes: B images, S image size, D embedding width, L taken blocks, P patches, W vision width.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fuzzyclip.clip.backbone import Backbone

#: What features may differ by, as `measure_difference` has it. Another order of sums makes 1e-6 to
#: 1e-5 of it; a wrong graph, or one of lower precision, more than 1e-3.
ALLOWED = 1e-3
#: Images that are compared, and the seed of the drawn one.
DRAWN, SEED = 2, 0

Encode = Callable[[Tensor, Sequence[int]], tuple[Tensor, Tensor]]


class UnequalError(ValueError):
    """An engine gives other features than PyTorch."""


def draw_pixels(size: int) -> Tensor:
    """Two inputs as `preprocess` gives them, (2, 3, S, S): noise, and shapes on a slope of grey."""
    noise = torch.randn(3, size, size, generator=torch.Generator().manual_seed(SEED))
    slope = torch.linspace(-1.5, 1.5, size)
    shapes = (slope[:, None] + slope[None, :]).div(2).repeat(3, 1, 1)  # (3, S, S)
    far = (slope[:, None] ** 2 + slope[None, :] ** 2).sqrt()  # (S, S), from the middle
    shapes[0][far < 0.5] = 2.0  # a disc
    shapes[1, size // 8 : size // 4] = -1.5  # a bar
    shapes[2, :, :: max(2, size // 16)] = 1.5  # stripes
    return torch.stack([noise, shapes])


def check_equal(given: Encode, backbone: Backbone, label: str) -> float:
    """`measure_difference` of an engine's features from the tower's own, on `draw_pixels`.

    Raises:
        UnequalError: it is more than `ALLOWED`, or no number, shapes differ, or it does not run.
    """
    pixels = draw_pixels(backbone.image_size)
    with torch.no_grad():
        expected = backbone.image_tower.encode(pixels, backbone.blocks)
    try:
        answered = given(pixels, backbone.blocks)
    except Exception as error:  # runtimes have no common class for what they can not compute
        raise UnequalError(f"{label} can not run the image tower ({error})") from error
    shapes = [[tuple(each.shape) for each in answer] for answer in (answered, expected)]
    if shapes[0] != shapes[1]:
        raise UnequalError(f"{label} gives features of shapes {shapes[0]}, PyTorch {shapes[1]}")
    difference = measure_difference(answered, expected)
    if not difference <= ALLOWED:
        raise UnequalError(
            f"{label} gives features that differ from PyTorch's by {difference:.2g} of their "
            f"largest number, {ALLOWED:g} is allowed"
        )
    return difference


def measure_difference(given: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> float:
    """The largest difference of features (B, D) and tokens (B, L, P, W) from those expected.

    max |given - expected| over max |expected|, of each image's class feature by itself and of each
    image's tokens of each block by themselves, since later blocks have larger numbers; the largest
    of all. NaN where a number is none.
    """
    shares = []
    for own, wanted in zip(given, expected, strict=True):
        kept = max(1, wanted.dim() - 2)  # axes that are compared by themselves: (B) or (B, L)
        apart = (own.double() - wanted.double()).abs().flatten(kept).amax(dim=-1)
        largest = wanted.double().abs().flatten(kept).amax(dim=-1)
        shares.append((apart / largest.clamp(min=torch.finfo(torch.float32).tiny)).flatten())
    return float(torch.cat(shares).max())
