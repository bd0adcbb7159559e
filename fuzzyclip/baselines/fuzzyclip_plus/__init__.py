"""FuzzyCLIP+: FuzzyCLIP's layers and prompts beside evidence that needs no text.

Not of the paper. To the map of EFA's layers come linear discriminants of the tokens
(`discriminants`) and what is rare within the image itself (`shared.own_image`); to RPL's prompts
come a discriminant of the class feature and the highest values of the map. Pieces of evidence count
alike, each in deviations of its own (`joining`). Each is a switch; docs/plus.md has what each is
worth, and what was tried and did not help. Choices were made on auxiliary sets alone, with
categories left out in turn.

Two pieces of evidence of the map and two of the image read no text, so that `text: false` runs with
any frozen tower.

Shapes: B images, L blocks, P patches, W vision width, D embedding width, S image size, E pieces of
evidence, N training images.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from fuzzyclip.baselines.fuzzyclip_plus.discriminants import Moments, measure_shares
from fuzzyclip.baselines.fuzzyclip_plus.joining import Joint, average_top, fit_joint
from fuzzyclip.baselines.shared.own_image import LOOKS, Rarity
from fuzzyclip.clip.backbone import Backbone
from fuzzyclip.clip.encoding import normalise
from fuzzyclip.clip.name_encoder import NameEncoder
from fuzzyclip.features.kinds import TOKENS, FeatureKind
from fuzzyclip.method import Scale
from fuzzyclip.method.efa import compute_margins, upsample
from fuzzyclip.method.fuzzyclip import FuzzyClip, TrainedParts
from fuzzyclip.method.interface import Learned, Target, TrainingSet, check_training
from fuzzyclip.method.scorer import Scorer
from fuzzyclip.utils.prefetch import release_memory
from fuzzyclip.utils.ranges import COUNT, SHARE
from fuzzyclip.utils.settings import EfaTest, EfaTraining, RplSettings

#: Evidence of a map: EFA's layers, discriminants of tokens, what is rare in the image itself.
LAYERS, DISCRIMINANTS, OWN_IMAGE = "layers", "discriminants", "own_image"
#: Evidence of an image: RPL's prompts, a discriminant of the class feature, the map's top.
PROMPTS, DISCRIMINANT, MAP = "prompts", "discriminant", "map"
MAP_EVIDENCE = (LAYERS, DISCRIMINANTS, OWN_IMAGE)
IMAGE_EVIDENCE = (PROMPTS, DISCRIMINANT, MAP)
#: What reads the text.
READS_TEXT = (LAYERS, PROMPTS)
#: Images whose evidence is measured at once while its deviations are read.
STEP = 8

#: Tokens (B, L, P, W) and unit class features (B, D) to a value a patch, (B, P).
MeasurePatches = Callable[[Tensor, Tensor], Tensor]
#: Unit class features (B, D) and log-odds of maps (B, S, S) to a value an image, (B,).
MeasureImages = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class FuzzyClipPlus:
    """Its settings; those of FuzzyCLIP's own parts are named as in `efa` and `rpl`.

    Attributes:
        text: whether there is one; without it layers and prompts take no part, and any frozen
            tower will do.
        map_evidence: of `MAP_EVIDENCE`, what the map is made of.
        image_evidence: of `IMAGE_EVIDENCE`, what the image score is made of.
        shrinkage: of a discriminant's covariance, towards a ball.
        top: share of a map's pixels whose mean stands for the map in the image score.
        epochs, batch_size, learning_rate, mosaic: of EFA's training.
        prompt_epochs: of RPL's.
        sigma: Gaussian smoothing of its maps in pixels.
    """

    text: bool = True
    map_evidence: tuple[str, ...] = MAP_EVIDENCE
    image_evidence: tuple[str, ...] = IMAGE_EVIDENCE
    shrinkage: float = 0.5
    top: float = 0.01
    epochs: int = EfaTraining().epochs
    batch_size: int = EfaTraining().batch_size
    learning_rate: float = EfaTraining().learning_rate
    mosaic: float = EfaTraining().mosaic
    prompt_epochs: int = RplSettings().epochs
    sigma: float = 7.0

    name: ClassVar[str] = "fuzzyclip_plus"
    title: ClassVar[str] = "FuzzyCLIP+"
    kind: ClassVar[FeatureKind] = TOKENS
    trains: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_training(self.name, self)
        COUNT.check(self.name, prompt_epochs=self.prompt_epochs)
        SHARE.check(self.name, shrinkage=self.shrinkage, top=self.top, mosaic=self.mosaic)
        if not self.shrinkage or not self.top:
            raise ValueError(f"{self.name}: shrinkage and top must be more than 0")
        for key, known in (("map_evidence", MAP_EVIDENCE), ("image_evidence", IMAGE_EVIDENCE)):
            given = getattr(self, key)
            if not given or len({*given}) < len(given) or not {*given} <= {*known}:
                raise ValueError(
                    f"{self.name}: {key} must be some of {', '.join(known)}, each once, not "
                    f"{list(given)}"
                )
            if not self.text and {*given} <= {*READS_TEXT}:
                raise ValueError(f"{self.name}: without text nothing is left of {key}")

    @property
    def reads_text(self) -> bool:
        """See `text`."""
        return self.text

    @property
    def for_maps(self) -> tuple[str, ...]:
        """The evidence of maps that takes part, in the order of `MAP_EVIDENCE`."""
        return self._choose(MAP_EVIDENCE, self.map_evidence)

    @property
    def for_images(self) -> tuple[str, ...]:
        """The evidence of images that takes part, in the order of `IMAGE_EVIDENCE`."""
        return self._choose(IMAGE_EVIDENCE, self.image_evidence)

    def _choose(self, known: Sequence[str], given: Sequence[str]) -> tuple[str, ...]:
        read = known if self.text else [each for each in known if each not in READS_TEXT]
        return tuple(each for each in read if each in given)

    def fit(
        self, encode: NameEncoder, images: TrainingSet, seed: int, checkpoint: Path | None = None
    ) -> Learned:
        """FuzzyCLIP's parts, the discriminants, and how all are joined.

        Raises:
            ValueError: no image of the set shows a defect, or none shows none.
        """
        if images.labels.min() == images.labels.max():
            raise ValueError(
                f"{self.name} learns from normal and from anomalous images, and all of the "
                "auxiliary set have one label: choose another auxiliary set"
            )
        learned = Learned()
        if self.text:
            learned = self.fit_parts(encode, images, seed, checkpoint)
        return self.fit_evidence(encode, images, learned, seed)

    def fit_parts(
        self, encode: NameEncoder, images: TrainingSet, seed: int, checkpoint: Path | None = None
    ) -> Learned:
        """CSP, EFA and RPL alone."""
        efa = EfaTraining(
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            mosaic=self.mosaic,
        )
        parts = FuzzyClip(efa=efa, rpl=RplSettings(epochs=self.prompt_epochs))
        return parts.fit(encode, images, seed, checkpoint)

    def fit_evidence(
        self, encode: NameEncoder, images: TrainingSet, parts: Learned, seed: int
    ) -> Learned:
        """The discriminants and what joins all evidence, beside parts that are there.

        Tokens are read twice, masks once; in memory are E + 1 numbers a patch of the set.
        """
        directions, shares = fit_directions(images, encode.backbone, self.shrinkage)
        learned = replace(parts, tensors={**parts.tensors, **directions})
        looked = list(self._look(encode, images, learned))
        order = [row for rows, _ in looked for row in rows]
        evidence = torch.cat([each for _, each in looked], dim=1)  # (E, N, P)
        of_maps = fit_joint(evidence.flatten(1), shares[order].flatten(), seed)
        measures = self._list_images(encode, learned).values()
        values = []
        for rows, each in looked:
            maps = draw(of_maps, each.to(encode.backbone.device), encode.backbone)
            embeds = normalise(images.image_embed[rows].to(maps.device))
            values.append(torch.stack([measure(embeds, maps) for measure in measures]).cpu())
            release_memory()
        of_images = fit_joint(torch.cat(values, dim=1), images.labels[order].double(), seed)
        joints = {"map_joint": of_maps.pack(), "image_joint": of_images.pack()}
        return replace(learned, tensors={**learned.tensors, **joints})

    def _look(
        self, encode: NameEncoder, images: TrainingSet, learned: Learned
    ) -> Iterator[tuple[list[int], Tensor]]:
        """Rows of a few images of one category, and the evidence of their maps, (E, n, P)."""
        for name in dict.fromkeys(images.names):
            measures = self._list_patches(encode, name, learned).values()
            rows = [row for row, owner in enumerate(images.names) if owner == name]
            for first in range(0, len(rows), STEP):
                part = rows[first : first + STEP]
                tokens = images.load_tokens(part)
                embeds = normalise(images.image_embed[part].to(tokens.device))
                with torch.no_grad():
                    evidence = torch.stack([measure(tokens, embeds) for measure in measures])
                yield part, evidence.cpu()
                release_memory()

    def _list_patches(
        self, encode: NameEncoder, category: str, learned: Learned
    ) -> dict[str, MeasurePatches]:
        """What measures each piece of evidence of a category's maps; each look is its own."""
        backbone = encode.backbone
        measures: dict[str, MeasurePatches] = {}
        if LAYERS in self.for_maps:
            measures[LAYERS] = measure_layers(TrainedParts(encode, learned, EfaTest()), category)
        if DISCRIMINANTS in self.for_maps:
            directions = take(learned, "token_direction", backbone)
            expected = (len(backbone.blocks), backbone.vision_width)
            if directions.shape != expected:
                raise ValueError(
                    f"discriminants of shape {tuple(directions.shape)} do not fit this backbone, "
                    f"which needs {expected}"
                )

            def measure_tokens(patch_tokens: Tensor, image_embed: Tensor) -> Tensor:
                del image_embed
                return torch.einsum("blpw,lw->bp", normalise(patch_tokens), directions)

            measures[DISCRIMINANTS] = measure_tokens
        if OWN_IMAGE in self.for_maps:
            for look in LOOKS:
                measures[f"{OWN_IMAGE} {look.side}"] = Rarity(backbone.grid, look)
        return measures

    def _list_images(self, encode: NameEncoder, learned: Learned) -> dict[str, MeasureImages]:
        """What measures each piece of evidence of image scores."""
        measures: dict[str, MeasureImages] = {}
        if PROMPTS in self.for_images:
            text = take(learned, "text_embed", encode.backbone)
            measures[PROMPTS] = lambda embeds, maps: embeds @ (text[1] - text[0])
        if DISCRIMINANT in self.for_images:
            direction = take(learned, "class_direction", encode.backbone)
            measures[DISCRIMINANT] = lambda embeds, maps: embeds @ direction
        if MAP in self.for_images:
            measures[MAP] = lambda embeds, maps: average_top(maps, self.top).to(embeds)
        return measures

    def build(self, encode: NameEncoder, category: str, learned: Learned) -> Scorer:
        """The scorer of one category; without text its name plays no part.

        Raises:
            ValueError: the tensors do not fit this backbone or these settings.
            PromptTooLongError: the name does not fit a prompt.
        """
        backbone = encode.backbone
        for_maps = self._list_patches(encode, category, learned)
        for_images = self._list_images(encode, learned)
        of_maps = Joint.unpack(learned.tensors["map_joint"], len(for_maps))
        of_images = Joint.unpack(learned.tensors["image_joint"], len(for_images))

        def compute_map(patch_tokens: Tensor, image_embed: Tensor) -> Tensor:
            evidence = [measure(patch_tokens, image_embed) for measure in for_maps.values()]
            return draw(of_maps, torch.stack(evidence), backbone)

        def compute_score(image_embed: Tensor, maps: Tensor) -> Tensor:
            evidence = [measure(image_embed, maps) for measure in for_images.values()]
            return of_images.join(torch.stack(evidence))

        return Scorer(
            prompt=category if self.text else "",
            compute_map=compute_map,
            compute_score=compute_score,
            scale=Scale.LOG_ODDS,
        )

    def build_variants(
        self, encode: NameEncoder, target: Target, learned: Learned
    ) -> dict[str, Scorer]:
        """The one scorer, by the method's name."""
        return {self.name: self.build(encode, target.category, learned)}


def take(learned: Learned, name: str, backbone: Backbone) -> Tensor:
    """A learned tensor where the backbone is, in memory of its own.

    In that of a file it may lie at an odd address, and a sum of products ends in other bits then.
    """
    return learned.tensors[name].to(backbone.device, copy=True)


def fit_directions(
    images: TrainingSet, backbone: Backbone, shrinkage: float
) -> tuple[dict[str, Tensor], Tensor]:
    """Discriminants of each block's tokens (L, W) and of the class feature (D,); the shares (N, P).

    Shares are how much of each patch is anomalous.
    """
    blocks, width = len(backbone.blocks), backbone.vision_width
    of_tokens = Moments(blocks, width)
    of_classes = Moments(1, images.image_embed.shape[1])
    kept = []
    for first in range(0, len(images), STEP):
        rows = list(range(first, min(first + STEP, len(images))))
        tokens = normalise(images.load_tokens(rows))  # (n, L, P, W)
        shares = measure_shares(images.load_masks(rows), backbone.grid)  # (n, P)
        of_tokens.add(tokens.transpose(0, 1).flatten(1, 2), shares.flatten())
        of_classes.add(normalise(images.image_embed[rows])[None], images.labels[rows])
        kept.append(shares)
        release_memory()
    directions = {
        "token_direction": of_tokens.solve(shrinkage),
        "class_direction": of_classes.solve(shrinkage)[0],
    }
    return directions, torch.cat(kept)


def measure_layers(parts: TrainedParts, category: str) -> MeasurePatches:
    """EFA's evidence: the mean over blocks of log-odds, whose clusters are weighed as in eq. 11.

    The paper sums the blocks' probabilities, where one block that is sure of itself decides alone.
    """
    weigh = parts.build_scorer(category).compute_weights
    if weigh is None:
        raise ValueError("EFA's layers weigh no clusters")
    tests = parts.encode_tests(category).to(parts.encode.backbone.device)  # (K, D, 2)

    def measure(patch_tokens: Tensor, image_embed: Tensor) -> Tensor:
        likely = weigh(image_embed).clamp_min(torch.finfo(torch.float32).tiny).log()  # (B, K)
        blocks = []
        for block, tokens in enumerate(patch_tokens.unbind(dim=1)):  # (B, P, W)
            margins = torch.stack(
                [
                    compute_margins(head.layers[block](tokens), text)
                    for head, text in zip(parts.heads, tests, strict=True)
                ],
                dim=1,
            )  # (B, K, P)
            blocks.append(mix_odds(margins, likely))  # (B, P)
        return torch.stack(blocks).mean(dim=0)

    return measure


def mix_odds(margins: Tensor, log_weights: Tensor) -> Tensor:
    """Log-odds of the mean of K probabilities, given as log-odds (B, K, P), with weights (B, K).

    In logarithms throughout: as float32 probabilities margins beyond 87 would all be the same. The
    logarithm of a sigmoid is written as a softplus, which exported files have as such.
    """
    sides = [log_weights[..., None] - F.softplus(each) for each in (-margins, margins)]
    above, below = (side.logsumexp(dim=1) for side in sides)
    return above - below


def draw(joint: Joint, evidence: Tensor, backbone: Backbone) -> Tensor:
    """Evidence of patches (E, B, P) as maps of log-odds, (B, S, S)."""
    size = (backbone.image_size, backbone.image_size)
    return upsample(joint.join(evidence)[:, None], backbone.grid, size)[:, 0]


METHOD = FuzzyClipPlus
