"""Mutual scoring: the images of an unlabelled batch, each compared with some of the others.

After MuSc (Li et al., ICLR 2024; written from its description). What most images of a batch have is
normal: a patch is as anomalous as its nearest counterparts in other images are far, in the mean
over the share of those images that come nearest. No text and no training take part, and no label;
but an image is no longer judged alone, so that a result says "uses the unlabelled batch".

As published, every image is compared with every other one, which grows with the square of their
number. Here all are compared with the same few references, chosen by seed and content: whatever the
order of the images, the references are the same; one image more changes one of them at most; and
of 10,000 images no more is held than of 32.

Values are half of one minus a cosine, in [0, 1], and mean something else for every kind of part. So
a scale is read off some images of the batch: log-odds of 0 are the end of what is usual there.

Not of the publication: what is rare within an image itself counts beside that (`own_image`).

Shapes: B images of a call, R references, V levels (taken blocks times neighbourhoods), P patches,
W vision width, S image size, n studied images.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fuzzyclip.baselines.shared.neighbourhoods import pool
from fuzzyclip.baselines.shared.own_image import Looks, OwnImage
from fuzzyclip.method import Scale
from fuzzyclip.method.efa import upsample
from fuzzyclip.method.scorer import Scorer
from fuzzyclip.utils.ranges import COUNT, FACTOR, FEW, POSITIVE, SHARE

#: What results of a batch say of themselves.
NOTE = "uses the unlabelled batch"
#: Images of a batch at least: fewer have nothing that most of them have.
FEWEST = 4
#: Mean value up to which a reference is the image itself. What storing tokens in one byte changes
#: is far below it, what the noise of a camera changes mostly above.
SAME = 1e-4
#: References whose similarities are held at once.
CHUNK = 8
#: Studied images whose maps are held at once.
STEP = 8
#: Scores of studied images between these quantiles are taken for normal images', also where a half
#: of the batch is not; and where a normal distribution of deviation 1 has these quantiles.
LOW, HIGH = (0.10, -1.2816), (0.35, -0.3853)
#: Deviation of the densest half of the scores, as a share of its middle, from which a batch is
#: taken for a mixture (docs/batch.md has how often that is right).
MIXED = 0.3
#: A deviation is not taken for less than this share of the scores: copies of one picture have none.
LEAST_SPREAD = 1e-3


class BatchError(ValueError):
    """There are too few images to compare with one another."""


@dataclass(frozen=True)
class MutualSettings:
    """How a batch is compared; defaults were chosen on the drawn auxiliary sets (docs/batch.md).

    Attributes:
        references: images that every image is compared with.
        studied: images that the scale is read off, the references among them.
        neighbourhoods: sides in patches of the squares whose mean token stands for a patch, odd;
            each is a level of its own.
        share: of the references, those that come nearest count.
        own_image: how much what is rare within an image itself counts beside the batch, each in
            deviations of its own; 0 leaves it out.
        cut: deviations above the usual at which a score is 0.
    """

    references: int = 32
    studied: int = 128
    neighbourhoods: tuple[int, ...] = (1, 3)
    share: float = 0.3
    own_image: float = 0.5
    cut: float = 4.0

    def __post_init__(self) -> None:
        owner = "a batch"
        COUNT.check(owner, references=self.references, studied=self.studied)
        SHARE.check(owner, share=self.share)
        POSITIVE.check(owner, share=self.share, cut=self.cut)
        FACTOR.check(owner, own_image=self.own_image)
        if self.references < FEWEST or self.studied < self.references:
            raise ValueError(
                f"{owner}: references must be {FEWEST} or more, and no more than studied"
            )
        for side in self.neighbourhoods:
            FEW.check(owner, neighbourhoods=side)
        if not self.neighbourhoods or any(side % 2 == 0 for side in self.neighbourhoods):
            raise ValueError(
                f"{owner}: neighbourhoods must be odd numbers of patches, such as [1, 3], not "
                f"{list(self.neighbourhoods)}"
            )


@dataclass(frozen=True)
class References:
    """The images of a batch that all are compared with, and how.

    Attributes:
        levels: (V, R, P, W), unit tokens; a neighbourhood's blocks follow those of the one before.
        grid: patches down and across.
        looks: what measures how rare patches are in their own image.
    """

    levels: Tensor
    grid: tuple[int, int]
    settings: MutualSettings
    looks: Looks

    def __len__(self) -> int:
        """R."""
        return self.levels.shape[1]

    @classmethod
    def take(
        cls, patch_tokens: Tensor, grid: tuple[int, int], settings: MutualSettings
    ) -> "References":
        """References from their patch tokens (R, L, P, W).

        Raises:
            BatchError: they are too few.
        """
        if len(patch_tokens) < FEWEST:
            raise BatchError(
                f"a batch of {len(patch_tokens)} images: {FEWEST} or more are compared with one "
                "another, and 20 or more tell well what is usual"
            )
        levels = _stack_levels(patch_tokens, grid, settings)
        return cls(levels, grid, settings, Looks(grid, settings.own_image))

    @torch.no_grad()
    def compare(self, patch_tokens: Tensor) -> Tensor:
        """(B, L, P, W) to (B, P): how far patches are from their counterparts, in [0, 1].

        One image at a time, so that its numbers are its own. Where it is a reference itself, that
        one is left out; one alone, since of a thousand nearly equal images the others do count.
        """
        return torch.stack([self._compare_one(tokens[None]) for tokens in patch_tokens])

    def judge(self, patch_tokens: Tensor, scale: "BatchScale") -> Tensor:
        """(B, L, P, W) to (B, P): how anomalous patches are in the batch and in their images."""
        return scale.join(self.compare(patch_tokens), self.looks.measure(patch_tokens))

    def _compare_one(self, tokens: Tensor) -> Tensor:
        own = _stack_levels(tokens, self.grid, self.settings)[:, 0]  # (V, P, W)
        far = torch.stack(
            [_measure(unit, known) for unit, known in zip(own, self.levels, strict=True)]
        )  # (V, P, R)
        whole = far.mean(dim=(0, 1))  # (R,)
        closest = int(whole.argmin())
        if whole[closest] <= SAME:
            far = torch.cat([far[..., :closest], far[..., closest + 1 :]], dim=-1)
        nearest = max(1, round(self.settings.share * far.shape[-1]))
        return far.topk(nearest, dim=-1, largest=False).values.mean(dim=(0, 2))  # (P,)


def _stack_levels(patch_tokens: Tensor, grid: tuple[int, int], settings: MutualSettings) -> Tensor:
    """(B, L, P, W) to (V, B, P, W)."""
    pooled = [pool(patch_tokens, grid, side) for side in settings.neighbourhoods]
    return torch.cat([each.transpose(0, 1) for each in pooled]).contiguous()


def _measure(unit: Tensor, known: Tensor) -> Tensor:
    """From each of the patches (P, W) to its nearest in each reference (R, P, W): (P, R)."""
    near = [
        (unit @ part.flatten(0, 1).T).view(len(unit), len(part), -1).amax(dim=-1)
        for part in torch.split(known, CHUNK)
    ]
    return ((1 - torch.cat(near, dim=1)) / 2).clamp_min(0)


@dataclass(frozen=True)
class BatchScale:
    """What is usual in a batch, read off the scores of its studied images.

    Attributes:
        usual: where the middle of normal images' scores is taken to be.
        spread: their deviation.
        mixed: deviation of the densest half of all scores, as a share of its middle.
        images: number of scores.
        own: how what is rare within an image counts; None: not at all.
    """

    usual: float
    spread: float
    mixed: float
    images: int
    own: OwnImage | None = None

    @property
    def warning(self) -> str:
        """What a user should know of the batch, in words; empty where nothing."""
        if self.mixed > MIXED:
            return (
                "the scores of this batch lie far apart: where a half of its images or more are "
                "anomalous, or of several kinds of parts, its decisions miss many (their order "
                "tells more than the threshold)"
            )
        if self.images < 20:
            return f"{self.images} images tell little of what is usual: 20 or more are better"
        return ""

    def join(self, far: Tensor, rare: Tensor) -> Tensor:
        """Distances (B, P), and how rare patches are in their images, (B, E, P), as one: (B, P)."""
        return far if self.own is None else self.own.join(far, rare)


def read_scale(scores: NDArray[np.floating]) -> BatchScale:
    """The scale of a batch by the scores (n,) of its studied images, in [0, 1].

    Two low quantiles tell middle and deviation of a normal distribution: anomalous images lie
    above, and move neither as long as they are fewer than about a half.
    """
    values = np.sort(np.asarray(scores, dtype=np.float64))
    (low, low_normal), (high, high_normal) = LOW, HIGH
    below, above = map(float, np.quantile(values, [low, high]))
    spread = max((above - below) / (high_normal - low_normal), LEAST_SPREAD * above, 1e-9)
    half = len(values) // 2 + 1
    widths = values[half - 1 :] - values[: len(values) - half + 1]
    densest = int(widths.argmin())
    middle = (values[densest] + values[densest + half - 1]) / 2
    # the half of a normal distribution that is densest is 2 * 0.6745 deviations wide
    mixed = widths[densest] / (2 * 0.6745) / max(middle, 1e-9)
    return BatchScale(above - high_normal * spread, spread, float(mixed), len(values))


def study(references: References, far: Tensor, rare: Tensor, image_size: int) -> BatchScale:
    """What is usual in a batch, by distances (n, P) and rarity (n, E, P) of its studied images."""
    own = OwnImage.weigh(far, rare, references.settings.own_image)
    peaks = [
        find_peaks(draw_maps(part, references.grid, image_size))
        for part in torch.split(
            own.join(far, rare), STEP
        )  # a map may have a thousand times its patches
    ]
    return replace(read_scale(torch.cat(peaks).cpu().numpy()), own=own)


def draw_maps(far: Tensor, grid: tuple[int, int], image_size: int) -> Tensor:
    """Values of patches (B, P) as maps (B, S, S)."""
    return upsample(far[:, None], grid, (image_size, image_size))[:, 0]


def find_peaks(maps: Tensor) -> Tensor:
    """The score of each image by its map (B, S, S): the highest value, (B,)."""
    return maps.amax(dim=(1, 2))


def place_on_scale(maps: Tensor, scale: BatchScale, settings: MutualSettings) -> Tensor:
    """Maps in [0, 1] as log-odds: a deviation is 1, and `cut` deviations above the usual are 0."""
    return (maps - (scale.usual + settings.cut * scale.spread)) / scale.spread


def build_mutual(references: References, scale: BatchScale, image_size: int) -> Scorer:
    """The scorer of a batch's images: their maps as log-odds, and the highest value of each."""

    def compute_map(patch_tokens: Tensor, image_embed: Tensor) -> Tensor:
        del image_embed
        values = references.judge(patch_tokens, scale)
        maps = draw_maps(values, references.grid, image_size)
        return place_on_scale(maps, scale, references.settings)

    def compute_score(image_embed: Tensor, maps: Tensor) -> Tensor:
        del image_embed
        return find_peaks(maps)

    return Scorer("", compute_map, compute_score, Scale.LOG_ODDS)
