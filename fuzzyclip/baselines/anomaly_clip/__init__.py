"""AnomalyCLIP: two prompts that name no category, learned for images and for patches at once.

Zhou et al., "AnomalyCLIP: Object-agnostic Prompt Learning for Zero-shot Anomaly Detection" (ICLR
2024). Its prompts are 12 learnable words before "object." and 12 others before "damaged object.",
with 4 learnable tokens after the start token in text blocks 2 to 9; its patch tokens are those of a
V-V stream (`shared.vv`). Image and patches share the two text features.

The published code rounds the deep tokens to half precision and back, and carries projections that
nothing uses; neither form does so here.

Shapes: B images, N training images, L taps, P = h * w patches, D embedding width, S image size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from fuzzyclip.baselines.shared.forms import TwoForms
from fuzzyclip.baselines.shared.vv import DPAM_DEPTH, DPAM_LEVELS, make_vv_kind, read_class
from fuzzyclip.clip.encoding import normalise
from fuzzyclip.clip.name_encoder import NameEncoder
from fuzzyclip.features.kinds import FeatureKind
from fuzzyclip.method import Scale
from fuzzyclip.method.efa import LOGIT_SCALE, compute_margins
from fuzzyclip.method.efa_training import DICE_SMOOTH, FOCAL_SMOOTH, GAMMA
from fuzzyclip.method.interface import Learned, Trained, TrainingSet, check_training
from fuzzyclip.method.rpl import PromptLearner, compute_classification
from fuzzyclip.method.scorer import Scorer, compare_class
from fuzzyclip.method.training import train
from fuzzyclip.utils.ranges import FACTOR, FEW, FEW_OR_ZERO, POSITIVE
from fuzzyclip.utils.settings import PromptShape

#: What stands in the prompts for any category.
OBJECT = "object"
#: Maps that AnomalyCLIP collected until 2025-04, all of them the same tensor.
IDENTICAL = 4

#: Patch tokens (B, L, P, D), masks (B, S, S), unit class features (B, D) and labels (B,).
Batch = tuple[Tensor, Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class AnomalyClip(TwoForms, Trained):
    """AnomalyCLIP with its settings.

    The published form has two faults, which the mended one has not. Until 2025-04 it collected maps
    after blocks 6, 12, 18 and 24, but the stream was updated in place and all four were the last
    block's (issues 18, 64 and 82): each tap's map counts `IDENTICAL` times, in the losses and in
    the map, which with the last tap alone gives its numbers. And the class feature skips ln_post,
    behind which CLIP's projection was trained (issue 14).

    Attributes:
        words: learnable ones of each prompt.
        deep_tokens: learnable ones of each deep block; fewer where they would overwrite an end.
        depth: text blocks with learnable tokens, the words being the first block's; fewer where the
            tower has fewer.
        temperature: what cosines are divided by before every softmax.
        taps: blocks after which the V-V stream is compared with the text, counted in ViT-L's 24;
            `vv.plan_dpam` stretches them over other towers. The official scripts take the last
            alone since 2025-04. The published form has no other: its maps were that one.
        pixel_weight: factor on the patches' losses.
        epochs: passes over the auxiliary images, Adam taking `batch_size` of them a step.
        sigma: Gaussian smoothing of the maps in pixels, at 518 pixels as published.
    """

    words: int = 12
    deep_tokens: int = 4
    depth: int = 9
    temperature: float = 0.07
    taps: tuple[int, ...] = (DPAM_DEPTH,)
    pixel_weight: float = 4.0
    epochs: int = 15
    batch_size: int = 8
    learning_rate: float = 1e-3
    sigma: float = 4.0

    name: ClassVar[str] = "anomaly_clip"
    title: ClassVar[str] = "AnomalyCLIP"

    def __post_init__(self) -> None:
        self.check_form(self.name)
        check_training(self.name, self)
        FEW.check(self.name, words=self.words, depth=self.depth)
        FEW_OR_ZERO.check(self.name, deep_tokens=self.deep_tokens)
        POSITIVE.check(self.name, temperature=self.temperature)
        FACTOR.check(self.name, pixel_weight=self.pixel_weight)
        make_vv_kind(self.taps)  # refuses taps that do not exist
        if self.published and self.taps != (DPAM_DEPTH,):
            raise ValueError(
                f"{self.name}: as published all maps are the last block's, so taps must be "
                f"[{DPAM_DEPTH}], not {list(self.taps)}; other taps go with `as: mended`"
            )

    @property
    def shape(self) -> PromptShape:
        """RPL's prompts in the layout that it took from AnomalyCLIP."""
        return PromptShape(
            layout="prepend", words=self.words, deep_tokens=self.deep_tokens, depth=self.depth
        )

    @property
    def kind(self) -> FeatureKind:
        return make_vv_kind(self.taps)

    @property
    def repeats(self) -> int:
        """Number of times that each map counts."""
        return IDENTICAL if self.published else 1

    def fit(
        self, encode: NameEncoder, images: TrainingSet, seed: int, checkpoint: Path | None = None
    ) -> Learned:
        """Learn the prompts; `text_embed` (2, D), unit rows, is all that is needed of them.

        The curve has `loss`, `cls`, `focal` and `dice` of each step.

        Raises:
            ValueError: there is no image.
        """
        if not len(images.labels):
            raise ValueError(f"{self.title} needs at least one training image")
        backbone = encode.backbone
        device = backbone.device
        learner = PromptLearner(backbone, OBJECT, self.shape, seed)
        embeds = read_class(images.image_embed, plain=self.published).to(device)  # (N, D)
        labels = images.labels.to(device)

        def load(rows: Sequence[int], epoch: int) -> Batch:
            del epoch  # no augmentation
            tokens = images.load_tokens(rows)[:, DPAM_LEVELS]  # (B, L, P, D)
            masks = images.load_masks(rows).to(device).float()  # (B, S, S)
            return tokens, masks, embeds[list(rows)], labels[list(rows)]

        def compute_losses(batch: Batch) -> dict[str, Tensor]:
            tokens, masks, image_embed, label = batch
            text_embed = normalise(learner(backbone))  # (2, D)
            cls = compute_classification(image_embed, text_embed, label, 1 / self.temperature)
            size = (masks.shape[-2], masks.shape[-1])
            probs = compute_probs(tokens, text_embed, self.temperature, backbone.grid, size)
            focal, dice = compute_focal(probs, masks), compute_dice(probs, masks)
            loss = cls + self.pixel_weight * (self.repeats * (focal + dice))
            return {"loss": loss, "cls": cls, "focal": focal, "dice": dice}

        curve = train(
            learner,
            load,
            compute_losses,
            count=len(embeds),
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            seed=seed,
            checkpoint=checkpoint,
            description=self.title,
        )
        with torch.no_grad():
            return Learned({"text_embed": normalise(learner(backbone)).cpu()}, curve=curve)

    def build(self, encode: NameEncoder, category: str, learned: Learned) -> Scorer:
        """The scorer, which is the same for every category.

        Raises:
            ValueError: what was learned is of another method or model.
        """
        del category
        backbone = encode.backbone
        text_embed = learned.tensors.get("text_embed")
        if text_embed is None or text_embed.shape != (2, backbone.embed_dim):
            given = None if text_embed is None else tuple(text_embed.shape)
            raise ValueError(
                f"{self.title} needs text_embed of shape (2, {backbone.embed_dim}) from its "
                f"training with this model, not {given}"
            )
        text = text_embed.to(backbone.device)
        size = (backbone.image_size, backbone.image_size)
        compare = compare_class(text, 1 / self.temperature)

        def compute_score(image_embed: Tensor, maps: Tensor) -> Tensor:
            return compare(read_class(image_embed, plain=self.published), maps)

        def compute_map(patch_tokens: Tensor, image_embed: Tensor) -> Tensor:
            del image_embed
            tokens = patch_tokens[:, DPAM_LEVELS]  # (B, L, P, D)
            probs = compute_probs(tokens, text, self.temperature, backbone.grid, size)
            return self.repeats * probs.sum(dim=1)

        return Scorer(
            prompt=OBJECT,
            compute_map=compute_map,
            compute_score=compute_score,
            scale=Scale.PLAIN,
        )


def compute_probs(
    tokens: Tensor,
    text_embed: Tensor,
    temperature: float,
    grid: tuple[int, int],
    size: tuple[int, int],
) -> Tensor:
    """Probability that each pixel is anomalous at each tap, (B, L, S, S).

    Softmax comes before upsampling, and corners are not aligned, as AnomalyCLIP does. What it maps,
    (anomalous + 1 - normal) / 2, is the anomalous channel, since the two add up to 1.

    Args:
        tokens: (B, L, P, D), any length.
        text_embed: (2, D), unit rows: normal, anomalous.
        temperature: what cosines are divided by.
        grid: patches down and across.
        size: pixels down and across.
    """
    margins = compute_margins(tokens, text_embed.T) / (LOGIT_SCALE * temperature)  # (B, L, P)
    planes = margins.sigmoid().unflatten(-1, grid)  # type: ignore[no-untyped-call]
    return F.interpolate(planes, size=size, mode="bilinear", align_corners=False)


def compute_focal(probs: Tensor, masks: Tensor) -> Tensor:
    """Two-class focal loss of `compute_probs` against masks (B, S, S) in {0, 1}.

    Mean over images and pixels, summed over taps. Both classes weigh the same; labels are smoothed
    as in `fuzzyclip.method.efa_training`.
    """
    mask = masks[:, None]
    true = probs * mask + (1 - probs) * (1 - mask)  # (B, L, S, S), of the true class
    true = (1 - 2 * FOCAL_SMOOTH) * true + 2 * FOCAL_SMOOTH
    return -((1 - true) ** GAMMA * true.log()).mean(dim=(0, 2, 3)).sum()


def compute_dice(probs: Tensor, masks: Tensor) -> Tensor:
    """Dice losses of the anomalous and of the normal class, mean over images, summed over taps."""
    total = probs.new_zeros(())
    for prob, mask in ((probs, masks[:, None]), (1 - probs, 1 - masks[:, None])):
        overlap = (prob * mask).sum(dim=(2, 3))  # (B, L)
        whole = prob.sum(dim=(2, 3)) + mask.sum(dim=(2, 3))  # (B, L)
        total = total + (1 - (2 * overlap + DICE_SMOOTH) / (whole + DICE_SMOOTH)).mean(dim=0).sum()
    return total


METHOD = AnomalyClip
