"""Normal memory: patch tokens of a few good parts, as an option beside the text.

With images of good parts at hand a patch can also be compared with what good parts look like: it is
as anomalous as its nearest remembered token is far. This is the field's usual extension (WinCLIP+,
APRIL-GAN's few-shot form), not part of the FuzzyCLIP paper; results with it are not zero-shot.

Shapes: B images, L blocks, P patches of an image, W vision width, R remembered tokens of a block,
S image size.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from fuzzyclip.clip.encoding import normalise
from fuzzyclip.method.efa import choose_sum_type, divide_odds, upsample


@dataclass(frozen=True)
class NormalMemory:
    """Unit tokens of good parts, (L, R, W), and how their maps are laid out.

    Attributes:
        tokens: (L, R, W), unit rows.
        grid: patches down and across.
        image_size: S.
    """

    tokens: Tensor
    grid: tuple[int, int]
    image_size: int

    @torch.no_grad()
    def compute_map(self, patch_tokens: Tensor) -> Tensor:
        """(B, L, P, W) to (B, S, S): half the distance to the nearest token, mean over blocks.

        (1 - cosine) / 2 lies in [0, 1] like a probability. One image and one block at a time bound
        the memory to P x R numbers.
        """
        size = (self.image_size, self.image_size)
        maps = []
        for image in patch_tokens:
            far = torch.stack(
                [
                    (1 - (normalise(tokens) @ known.T).amax(dim=-1)) / 2
                    for tokens, known in zip(image, self.tokens, strict=True)
                ]
            )  # (L, P)
            maps.append(upsample(far[None], self.grid, size).mean(dim=1))  # (1, S, S)
        return torch.cat(maps)


def join_memory(maps: Tensor, image_scores: Tensor, far: Tensor) -> tuple[Tensor, Tensor]:
    """What text says, maps (B, S, S) and scores (B,) as log-odds, with the memory's maps; likewise.

    The text's probabilities and the memory's maps are averaged, and an image's probability with the
    largest value of its memory's map. The published few-shot forms stretch that value over the
    whole test set; here an image is scored alone.
    """
    return _average(maps, far), _average(image_scores, far.amax(dim=(1, 2)))


def _average(log_odds: Tensor, shares: Tensor) -> Tensor:
    """Log-odds of the mean of a probability, given as log-odds, and a share in [0, 1]."""
    fine = log_odds.to(choose_sum_type(log_odds.device))
    odds = divide_odds(fine.sigmoid() + shares, fine.neg().sigmoid() + (1 - shares.to(fine.dtype)))
    return odds.to(log_odds.dtype)


def remember(patch_tokens: Tensor, grid: tuple[int, int], image_size: int) -> NormalMemory:
    """A memory of good parts.

    Args:
        patch_tokens: (B, L, P, W) of images without any defect.
        grid: patches down and across.
        image_size: S.

    Raises:
        ValueError: there is no image.
    """
    if not len(patch_tokens):
        raise ValueError("a normal memory needs at least one image of a good part")
    tokens = F.normalize(patch_tokens.transpose(0, 1).flatten(1, 2), dim=-1)  # (L, B * P, W)
    return NormalMemory(tokens.contiguous(), grid, image_size)
