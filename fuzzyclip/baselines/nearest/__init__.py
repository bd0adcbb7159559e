"""Comparison with a few good parts, and with nothing else: no text, no training.

A patch is as anomalous as its nearest counterpart in the good parts is far: the memory that
few-shot forms of zero-shot methods have beside their text (WinCLIP+, APRIL-GAN), alone. So any
frozen tower will do. Results with it are not zero-shot.

Distances are halves of one minus a cosine, in [0, 1], and mean something else for every kind of
part. Two good parts or more tell what is usual: each is compared with the others, and that gives a
threshold and a scale. Then what is rare within an image itself counts beside the distance, too, as
it does beside a batch (`shared.own_image`). One alone tells nothing of it, and is all there is.

Shapes: n good parts, B images, L blocks, P patches, W vision width, S image size; a part that is
looked at by tiles has P patches in each.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fuzzyclip.baselines.shared.own_image import Looks, OwnImage
from fuzzyclip.clip.encoding import normalise
from fuzzyclip.clip.name_encoder import NameEncoder
from fuzzyclip.features.kinds import TOKENS, FeatureKind
from fuzzyclip.method import Scale
from fuzzyclip.method.efa import upsample
from fuzzyclip.method.interface import Learned, Target, Untrained
from fuzzyclip.method.scorer import NormalMemory, Scorer, remember
from fuzzyclip.utils.ranges import COUNT, FACTOR, POSITIVE, SIGMA

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
        own: how what is rare within an image counts beside the distance.
    """

    middle: float
    spread: float
    typical: float
    own: OwnImage

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
def read_usual(memory: NormalMemory, own_image: float = 0.0) -> Usual | None:
    """What is usual among the remembered parts, each compared with the others; None of one part.

    Args:
        memory: the parts.
        own_image: how much what is rare within an image itself counts beside the distance.
    """
    blocks, _, width = memory.tokens.shape
    patches = memory.grid[0] * memory.grid[1]
    views = memory.tokens.view(blocks, -1, patches, width)  # (L, all tiles, P, W)
    counts = memory.tiles if isinstance(memory, TiledMemory) else (1,) * count_parts(memory)
    if len(counts) < 2:
        return None
    parts = torch.split(views, list(counts), dim=1)
    nearer = ((len(counts) - 1) / len(counts)) ** DECAY
    looks, distances, rarity = Looks(memory.grid, own_image), [], []
    for place, part in enumerate(parts[:STUDIED]):
        others = torch.cat([*parts[:place], *parts[place + 1 :]], dim=1).flatten(1, 2)
        rest = NormalMemory(others, memory.grid, memory.image_size)
        tokens = part.transpose(0, 1)  # (tiles, L, P, W)
        distances.append(nearer * rest.compute_map(tokens))
        rarity.append(draw_rarity(looks, tokens, memory))
    far, rare = torch.cat(distances).flatten(1), torch.cat(rarity).flatten(2)
    own = OwnImage.weigh(far, rare, own_image)
    joined = [own.join(*each) for each in zip(distances, rarity, strict=True)]  # (tiles, S, S)
    peaks = torch.stack([maps.amax() for maps in joined]).double()
    middle = float(peaks.mean())
    spread = max(float(peaks.std()), LEAST_SPREAD * middle, 1e-6)
    typical = float(torch.stack([maps.median() for maps in joined]).mean())
    return Usual(middle, spread, min(typical, middle), own)


def draw_rarity(looks: Looks, patch_tokens: Tensor, memory: NormalMemory) -> Tensor:
    """How rare places are in their images, as maps (B, E, S, S); by unit tokens, as remembered."""
    size = (memory.image_size, memory.image_size)
    if not looks.looks:
        return patch_tokens.new_zeros(len(patch_tokens), 0, *size)
    return upsample(looks.measure(normalise(patch_tokens)), memory.grid, size)


@dataclass(frozen=True)
class Nearest(Untrained):
    """The comparison's settings.

    Attributes:
        shots: good parts of a tested category that are remembered.
        cut: deviations above the usual at which a score is 0.
        own_image: how much what is rare within an image itself counts beside the distance, each in
            deviations of its own among two good parts or more; 0 leaves it out.
        sigma: Gaussian smoothing of its maps in pixels; the image score is taken before it.
    """

    shots: int = 4
    cut: float = 2.0
    own_image: float = 0.5
    sigma: float = 0.0

    name: ClassVar[str] = "nearest"
    title: ClassVar[str] = "Nearest good parts"
    kind: ClassVar[FeatureKind] = TOKENS
    note: ClassVar[str] = NOTE
    reads_text: ClassVar[bool] = False

    def __post_init__(self) -> None:
        COUNT.check(self.name, shots=self.shots)
        POSITIVE.check(self.name, cut=self.cut)
        FACTOR.check(self.name, own_image=self.own_image)
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
        usual = read_usual(memory, self.own_image)
        looks = Looks(memory.grid, self.own_image if usual else 0.0)

        def compute_map(patch_tokens: Tensor, image_embed: Tensor) -> Tensor:
            del image_embed
            far = memory.compute_map(patch_tokens)  # (B, S, S)
            if usual is None:
                return far.clamp(*ENDS).logit()
            rare = draw_rarity(looks, patch_tokens, memory)  # (B, E, S, S)
            return usual.place(usual.own.join(far, rare), self.cut)

        def compute_score(image_embed: Tensor, maps: Tensor) -> Tensor:
            del image_embed
            return maps.amax(dim=(1, 2))

        return Scorer("", compute_map, compute_score, Scale.LOG_ODDS)


METHOD = Nearest
