"""What is rare within an image itself: evidence without text, training or other images.

Most of a part looks like other places of the same part, and a defect like none of them. So a patch
is compared with the other patches of its own image, and is as anomalous as those that come nearest
are far. Patches beside it do not count: they show the same defect.

Methods that compare with other images, a batch or good parts, can count it beside that distance
(`OwnImage`): a defect that is small, or that many images have, stands out within its image more
than among them; a missing part stands out among them alone.

Shapes: B images of a call, n studied images, E looks (`LOOKS`, or none of them), L blocks, P
patches of a grid, W vision width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from fuzzyclip.baselines.shared.neighbourhoods import pool


@dataclass(frozen=True)
class Look:
    """One way to compare the patches of an image.

    Attributes:
        side: of the square of patches whose mean token stands for a patch, odd.
        share: of all patches, those that come nearest count.
    """

    side: int
    share: float


#: A small thing among a few like places, and a larger one among many: of looks with 1 or 3 patches
#: and 5 or 30 % these two together did best on the drawn auxiliary sets.
LOOKS = (Look(1, 0.05), Look(3, 0.3))
#: Rows and columns beside a patch that are left out of the comparison.
BESIDE = 1
#: Below any cosine.
NEVER = -2.0
#: A deviation is not taken for less.
LEAST_SPREAD = 1e-6


class Rarity:
    """Measures how rare patches are in their own image, by one look at a grid of patches.

    Half of one minus a cosine, in the mean over blocks and over those patches that come nearest.
    """

    def __init__(self, grid: tuple[int, int], look: Look) -> None:
        """Find out what may be compared.

        Raises:
            ValueError: the grid is too small to have patches that are not beside one another.
        """
        self.grid, self.look = grid, look
        self.beside = list_beside(grid)
        fewest = int((~self.beside).sum(dim=-1).min())
        if not fewest:
            raise ValueError(f"{grid[0]} x {grid[1]} patches have nothing to be compared with")
        self.count = min(max(1, round(look.share * len(self.beside))), fewest)

    def __call__(self, patch_tokens: Tensor, image_embed: Tensor) -> Tensor:
        """Patches (B, L, P, W) to (B, P) in [0, 1]; holds B x P x P numbers."""
        del image_embed
        beside = self.beside.to(patch_tokens.device)
        values = []
        for tokens in patch_tokens.unbind(dim=1):  # (B, P, W) each
            unit = pool(tokens[:, None], self.grid, self.look.side)[:, 0]
            alike = (unit @ unit.transpose(-1, -2)).masked_fill(beside, NEVER)  # (B, P, P)
            values.append((1 - alike.topk(self.count, dim=-1).values.mean(dim=-1)) / 2)
        return torch.stack(values).mean(dim=0).clamp_min(0)


def list_beside(grid: tuple[int, int]) -> Tensor:
    """Which patches are one another, or beside one another, (P, P) bool."""
    down, across = (torch.arange(size) for size in grid)
    rows, columns = down.repeat_interleave(grid[1]), across.repeat(grid[0])  # (P,)
    apart = torch.maximum((rows[:, None] - rows).abs(), (columns[:, None] - columns).abs())
    return apart <= BESIDE


@dataclass(frozen=True)
class OwnImage:
    """How what is rare within an image counts beside a distance to others.

    Each counts in deviations of its own over studied images, and looks together a given share of
    what the distance does. Values stay in the distance's units.

    Attributes:
        middles: of what each of E looks measures, over the studied images.
        factors: what a difference from that counts, in the distance's units, E of them.
    """

    middles: tuple[float, ...]
    factors: tuple[float, ...]

    @classmethod
    def weigh(cls, far: Tensor, rare: Tensor, share: float) -> "OwnImage":
        """By the studied images' distances (n, P) and what looks measured of them, (n, E, P).

        Args:
            far: how far patches are from other images.
            rare: how rare they are in their images.
            share: of what the distance counts, all looks together.
        """
        if not rare.shape[1]:
            return cls((), ())
        fine = rare.double()
        spreads = fine.std(dim=(0, 2)).clamp_min(LEAST_SPREAD)
        factors = share / rare.shape[1] * far.double().std() / spreads
        return cls(tuple(fine.mean(dim=(0, 2)).tolist()), tuple(factors.tolist()))

    def join(self, far: Tensor, rare: Tensor) -> Tensor:
        """Distances (B, P) and what looks measured, (B, E, P), as one: (B, P)."""
        joined = far
        for each, middle, factor in zip(rare.unbind(1), self.middles, self.factors, strict=True):
            joined = joined + factor * (each - middle)
        return joined


class Looks:
    """Measures how rare patches are in their own images, by every look at a grid or by none.

    By none where the image itself does not count, and where the grid is so small that a patch lies
    beside all others (3 x 3 and less): then the distance to others is all there is.
    """

    def __init__(self, grid: tuple[int, int], share: float) -> None:
        """Find out what may be compared; `share` as `OwnImage.weigh` takes it."""
        apart = bool((~list_beside(grid)).any(dim=-1).all())
        self.looks = [Rarity(grid, look) for look in LOOKS] if share and apart else []

    @torch.no_grad()
    def measure(self, patch_tokens: Tensor) -> Tensor:
        """(B, L, P, W) to (B, E, P); one image at a time, so that its numbers are its own."""
        if self.looks and torch.compiler.is_exporting():  # a graph knows no number of images
            return torch.stack([look(patch_tokens, patch_tokens) for look in self.looks], dim=1)
        rare = patch_tokens.new_zeros(len(patch_tokens), len(self.looks), patch_tokens.shape[2])
        for row, image in enumerate(patch_tokens):
            for number, look in enumerate(self.looks):
                rare[row, number] = look(image[None], image[None])[0]
        return rare
