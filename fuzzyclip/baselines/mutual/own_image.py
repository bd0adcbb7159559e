"""What is rare within an image itself, counted beside its distance to the batch.

Both are needed: a defect that is small, or that many images have, stands out within its image more
than in the batch; a missing part stands out in the batch alone. Each piece of evidence counts in
deviations of its own over the studied images, and those of the image together count a given share
of what the batch does. Values stay in the batch's units.

Shapes: B images of a call, n studied images, E looks (`shared.own_image.LOOKS`, or none of them),
L blocks, P patches, W vision width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from fuzzyclip.baselines.shared.own_image import LOOKS, Rarity

#: A deviation is not taken for less.
LEAST_SPREAD = 1e-6


@dataclass(frozen=True)
class OwnImage:
    """How what is rare within an image counts.

    Attributes:
        middles: of what each of E looks measures, over the studied images.
        factors: what a difference from that counts, in the batch's units, E of them.
    """

    middles: tuple[float, ...]
    factors: tuple[float, ...]

    @classmethod
    def weigh(cls, far: Tensor, rare: Tensor, share: float) -> "OwnImage":
        """By the studied images' distances (n, P) and what looks measured of them, (n, E, P).

        Args:
            far: how far patches are from the batch.
            rare: how rare they are in their images.
            share: of what the batch counts, all looks together.
        """
        if not rare.shape[1]:
            return cls((), ())
        fine = rare.double()
        spreads = fine.std(dim=(0, 2)).clamp_min(LEAST_SPREAD)
        factors = share / rare.shape[1] * far.double().std() / spreads
        return cls(tuple(fine.mean(dim=(0, 2)).tolist()), tuple(factors.tolist()))

    def join(self, far: Tensor, rare: Tensor) -> Tensor:
        """Distances to the batch (B, P) and what looks measured, (B, E, P), as one: (B, P)."""
        joined = far
        for each, middle, factor in zip(rare.unbind(1), self.middles, self.factors, strict=True):
            joined = joined + factor * (each - middle)
        return joined


class Looks:
    """Measures how rare patches are in their own images: every look at a grid, or none of them."""

    def __init__(self, grid: tuple[int, int], share: float) -> None:
        """Find out what may be compared.

        Raises:
            ValueError: the grid is too small to have patches that are not beside one another.
        """
        self.looks = [Rarity(grid, look) for look in LOOKS] if share else []

    @torch.no_grad()
    def measure(self, patch_tokens: Tensor) -> Tensor:
        """(B, L, P, W) to (B, E, P); one image at a time, so that its numbers are its own."""
        rare = patch_tokens.new_zeros(len(patch_tokens), len(self.looks), patch_tokens.shape[2])
        for row, image in enumerate(patch_tokens):
            for number, look in enumerate(self.looks):
                rare[row, number] = look(image[None], image[None])[0]
        return rare
