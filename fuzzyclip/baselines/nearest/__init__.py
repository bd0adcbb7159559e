"""Comparison with a few good parts, and with nothing else: no text, no training.

A patch is as anomalous as its nearest counterpart in the good parts is far: the memory that
few-shot forms of zero-shot methods have beside their text (WinCLIP+, APRIL-GAN), alone. So any
frozen tower will do. Results with it are not zero-shot.

Distances are halves of one minus a cosine, in [0, 1], and mean something else for every kind of
part. Two good parts or more tell what is usual: each is compared with the others, and that gives a
threshold and a scale. One alone tells nothing of it.

Shapes: n good parts, B images, L blocks, P patches, W vision width, S image size; a part that is
looked at by tiles has P patches in each.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fuzzyclip.clip.encoding import normalise
from fuzzyclip.clip.name_encoder import NameEncoder
from fuzzyclip.features.kinds import TOKENS, FeatureKind
from fuzzyclip.method import Scale
from fuzzyclip.method.interface import Learned, Target, Untrained
from fuzzyclip.method.scorer import NormalMemory, Scorer, remember
from fuzzyclip.utils.ranges import COUNT, POSITIVE, SIGMA

#: What results say of themselves.
NOTE = "compared with good parts"
#: Good parts that are compared with the others, to tell what is usual.
STUDIED = 8
#: Mean distance of patches at one place up to which two pictures are one, saved anew perhaps.
SAME = 1e-4
#: A deviation is not taken for less than this share of the middle: few parts tell little of it. It
#: was 6 % among normal capsules of VisA and 22 % among commutators of KolektorSDD (DINOv2 ViT-S).
LEAST_SPREAD = 0.07
#: Of n parts each is compared with n - 1, a tested image with n, which come nearer: the highest
#: value of a map falls with the number to this power (0.124 and 0.130 there, from 1 to 15 parts).
DECAY = 0.13
#: Log-odds of a distance that is typical of normal patches: a probability of 2 %.
TYPICAL = -4.0
#: Farthest and nearest that a distance is taken to be where it becomes log-odds.
ENDS = (1e-6, 1 - 1e-6)


@dataclass(frozen=True)
class TiledMemory(NormalMemory):
    """A memory of parts that were looked at by tiles; `tiles` of each part, in its order."""

    tiles: tuple[int, ...] = ()


@dataclass(frozen=True)
class Usual:
    """What is usual of a normal image that is compared with all good parts.

    Attributes:
        middle: mean of the highest values of maps.
        spread: deviation of these.
        typical: median of all values.
    """

    middle: float
    spread: float
    typical: float

    def place(self, far: Tensor, cut: float) -> Tensor:
        """Distances as log-odds: 0 at `cut` deviations above the middle, `TYPICAL` at the median.

        A deviation as the unit would leave of a map no more than its highest peak.
        """
        end = self.middle + cut * self.spread
        return -TYPICAL * (far - end) / (end - self.typical)


def are_copies(first: Tensor, second: Tensor) -> bool:
    """Whether tokens (views, L, P, W) of two parts are those of one picture."""
    if first.shape != second.shape:
        return False
    alike = (normalise(first) * normalise(second)).sum(dim=-1)
    return bool(((1 - alike) / 2).mean() <= SAME)


def count_parts(memory: NormalMemory) -> int:
    """Parts that are remembered, n."""
    if isinstance(memory, TiledMemory):
        return len(memory.tiles)
    return memory.tokens.shape[1] // (memory.grid[0] * memory.grid[1])


@torch.no_grad()
def read_usual(memory: NormalMemory) -> Usual | None:
    """What is usual among the remembered parts, each compared with the others; None of one part."""
    blocks, _, width = memory.tokens.shape
    patches = memory.grid[0] * memory.grid[1]
    views = memory.tokens.view(blocks, -1, patches, width)  # (L, all tiles, P, W)
    counts = memory.tiles if isinstance(memory, TiledMemory) else (1,) * count_parts(memory)
    if len(counts) < 2:
        return None
    parts = torch.split(views, list(counts), dim=1)
    peaks, medians = [], []
    for place, part in enumerate(parts[:STUDIED]):
        others = torch.cat([*parts[:place], *parts[place + 1 :]], dim=1).flatten(1, 2)
        rest = NormalMemory(others, memory.grid, memory.image_size)
        maps = rest.compute_map(part.transpose(0, 1))
        peaks.append(maps.amax())
        medians.append(maps.median())
    nearer = ((len(counts) - 1) / len(counts)) ** DECAY
    values = nearer * torch.stack(peaks).double()
    middle = float(values.mean())
    spread = max(float(values.std()), LEAST_SPREAD * middle, 1e-6)
    return Usual(middle, spread, min(nearer * float(torch.stack(medians).mean()), middle))


@dataclass(frozen=True)
class Nearest(Untrained):
    """The comparison's settings.

    Attributes:
        shots: good parts of a tested category that are remembered.
        cut: deviations above the usual at which a score is 0.
        sigma: Gaussian smoothing of its maps in pixels; the image score is taken before it.
    """

    shots: int = 4
    cut: float = 2.0
    sigma: float = 0.0

    name: ClassVar[str] = "nearest"
    title: ClassVar[str] = "Nearest good parts"
    kind: ClassVar[FeatureKind] = TOKENS
    note: ClassVar[str] = NOTE
    reads_text: ClassVar[bool] = False

    def __post_init__(self) -> None:
        COUNT.check(self.name, shots=self.shots)
        POSITIVE.check(self.name, cut=self.cut)
        SIGMA.check(self.name, sigma=self.sigma)

    def build(self, encode: NameEncoder, category: str, learned: Learned) -> Scorer:
        """Refused: without good parts there is nothing to compare with."""
        raise ValueError(f"{self.name} needs good parts of {category!r} to compare with")

    def build_variants(
        self, encode: NameEncoder, target: Target, learned: Learned
    ) -> dict[str, Scorer]:
        """The scorer of the target's good parts, by the method's name.

        Raises:
            ValueError: there are fewer of them than `shots`.
        """
        del learned
        backbone = encode.backbone
        tokens = target.load_references(self.shots)
        return {
            self.name: self.build_from(remember(tokens, backbone.grid, backbone.image_size)),
        }

    def build_from(self, memory: NormalMemory) -> Scorer:
        """The scorer of what is compared with remembered parts.

        Its maps are log-odds, see `Usual.place`. Of one part they are 0 where its tokens and an
        image's are at right angles, which next to none are: a threshold must come from elsewhere.
        """
        usual = read_usual(memory)

        def compute_map(patch_tokens: Tensor, image_embed: Tensor) -> Tensor:
            del image_embed
            far = memory.compute_map(patch_tokens)  # (B, S, S)
            if usual is None:
                return far.clamp(*ENDS).logit()
            return usual.place(far, self.cut)

        def compute_score(image_embed: Tensor, maps: Tensor) -> Tensor:
            del image_embed
            return maps.amax(dim=(1, 2))

        return Scorer("", compute_map, compute_score, Scale.LOG_ODDS)


METHOD = Nearest
