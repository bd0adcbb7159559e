"""What is rare within an image itself: evidence without text, training or other images.

Most of a part looks like other places of the same part, and a defect like none of them. So a patch
is compared with the other patches of its own image, and is as anomalous as those that come nearest
are far. Patches beside it do not count: they show the same defect.

Shapes: B images, L blocks, P patches of a grid, W vision width.
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
