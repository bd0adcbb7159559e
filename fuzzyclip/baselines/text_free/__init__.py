"""Text-free layers: a pair of directions for each taken block, learned in place of a text.

After the idea of UniADet (arXiv 2601.05552; written from its description, no code of it is public):
the text of a zero-shot method is only ever a normal and an anomalous direction that tokens are
compared with. Here both are learned themselves, one pair for each block and one for the class
feature, so that a few thousand numbers stand in place of layers and prompts, and any frozen tower
will do. Losses are EFA's (paper, eqs. 7 and 8) over the maps, and for the images the cross entropy.

Shapes: B images of a batch, N training images, L blocks, P patches, W vision width, D width of the
class feature, S image size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fuzzyclip.clip.backbone import Backbone
from fuzzyclip.clip.encoding import normalise
from fuzzyclip.clip.name_encoder import NameEncoder
from fuzzyclip.features.kinds import TOKENS, FeatureKind
from fuzzyclip.method import Scale
from fuzzyclip.method.efa import LOGIT_SCALE, compute_margins, compute_plane, join_planes
from fuzzyclip.method.efa_training import compute_map_losses, read_batch
from fuzzyclip.method.interface import Learned, Trained, TrainingSet, check_training
from fuzzyclip.method.rpl import compute_image_score
from fuzzyclip.method.scorer import Scorer, compare_class
from fuzzyclip.method.training import train
from fuzzyclip.method.training_set import plan_mosaics
from fuzzyclip.utils.prefetch import send
from fuzzyclip.utils.ranges import SHARE

#: How far apart the two directions of a pair begin, as a share of their length. From one place all
#: margins are 0, and a pair moves to where its images pull it; two random directions in a hundred
#: begin with margins of tens, which few images take long to undo.
APART = 0.01
#: Tokens, masks, class features and labels of a training step.
Batch = tuple[Tensor, Tensor, Tensor, Tensor]


class Pairs(nn.Module):
    """A normal and an anomalous direction for each block, (L, W, 2), and for the image, (2, D).

    Directions count alone: lengths are divided out, as they are of a text's feature.
    """

    def __init__(self, blocks: int, vision_width: int, embed_dim: int) -> None:
        super().__init__()
        self.pixel = nn.Parameter(_draw_pairs(blocks, vision_width, 2, pair=2))
        self.image = nn.Parameter(_draw_pairs(2, embed_dim, pair=0))

    def unit_pixel(self) -> Tensor:
        """(L, W, 2), unit columns."""
        return F.normalize(self.pixel, dim=1)

    def unit_image(self) -> Tensor:
        """(2, D), unit rows."""
        return F.normalize(self.image, dim=1)


def _draw_pairs(*shape: int, pair: int) -> Tensor:
    """Two directions along the axis `pair`, near to one another; lengths of about 1."""
    width = max(size for axis, size in enumerate(shape) if axis != pair % len(shape))
    common = torch.randn(*(1 if axis == pair else size for axis, size in enumerate(shape)))
    drawn: Tensor = (common + APART * torch.randn(*shape)) / width**0.5
    return drawn


@dataclass(frozen=True)
class TextFree(Trained):
    """The pairs' settings; the paper of the idea has no code, so that all are ours.

    Attributes:
        epochs: passes over the auxiliary set.
        mosaic: share of the images that a mosaic of four of their category replaces, anew in each
            epoch, where the map's loss is taken; as of EFA.
        learning_rate: Adam's in the first epoch; it falls to 0 in equal steps, one an epoch, so
            that where a pair ends depends little on the seed. Entries of a direction are of about
            W^-1/2, and each step moves an entry by about this.
        batch_size: images a step.
        sigma: Gaussian smoothing of its maps in pixels.
    """

    epochs: int = 15
    mosaic: float = 0.0
    learning_rate: float = 0.02
    batch_size: int = 16
    sigma: float = 0.0

    name: ClassVar[str] = "text_free"
    title: ClassVar[str] = "Text-free pairs"
    kind: ClassVar[FeatureKind] = TOKENS
    reads_text: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_training(self.name, self)
        SHARE.check(self.name, mosaic=self.mosaic)

    def fit(
        self, encode: NameEncoder, images: TrainingSet, seed: int, checkpoint: Path | None = None
    ) -> Learned:
        """The pairs as `pixel` (L, W, 2) and `image` (2, D), unit directions, and the curve.

        Raises:
            ValueError: no image shows a defect, or none shows none.
        """
        if images.labels.min() == images.labels.max():
            raise ValueError(
                f"{self.name} learns from normal and from anomalous images, and all of the "
                "auxiliary set have one label: choose another auxiliary set"
            )
        backbone = encode.backbone
        torch.manual_seed(seed)
        width = images.image_embed.shape[1]
        pairs = Pairs(len(backbone.blocks), backbone.vision_width, width).to(backbone.device)
        plan = plan_mosaics(images.members, self.epochs, self.mosaic, seed)

        def load(rows: Sequence[int], epoch: int) -> Batch:
            tokens, masks, _ = read_batch(images, plan, rows, epoch)
            own = images.image_embed[list(rows)], images.labels[list(rows)]
            embeds, labels = (send(each, backbone.device).float() for each in own)
            return tokens, send(masks, backbone.device).float(), normalise(embeds), labels

        curve = train(
            pairs,
            load,
            lambda batch: compute_losses(pairs, batch, backbone),
            count=len(images),
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            seed=seed,
            rate=lambda epoch: self.learning_rate * (1 - (epoch - 1) / self.epochs),
            checkpoint=checkpoint,
            description=self.title,
        )
        with torch.no_grad():
            learned = {"pixel": pairs.unit_pixel().cpu(), "image": pairs.unit_image().cpu()}
        return Learned(learned, curve=curve)

    def build(self, encode: NameEncoder, category: str, learned: Learned) -> Scorer:
        """The scorer of any category: its name plays no part.

        Raises:
            ValueError: the tensors are not pairs of this backbone.
        """
        del category
        backbone = encode.backbone
        pixel, image = (learned.tensors[name].to(backbone.device) for name in ("pixel", "image"))
        expected = (len(backbone.blocks), backbone.vision_width, 2)
        if pixel.shape != expected:
            raise ValueError(
                f"pairs of shape {tuple(pixel.shape)} do not fit this backbone, which needs "
                f"{expected}"
            )
        size = (backbone.image_size, backbone.image_size)

        def compute_map(patch_tokens: Tensor, image_embed: Tensor) -> Tensor:
            del image_embed
            blocks = zip(patch_tokens.unbind(dim=1), pixel, strict=True)  # (B, P, W) and (W, 2)
            planes = (compute_plane(own, pair, backbone.grid, size) for own, pair in blocks)
            return join_planes((plane, None) for plane in planes)

        return Scorer(
            prompt="",
            compute_map=compute_map,
            compute_score=compare_class(image),
            scale=Scale.LOG_ODDS,
        )


def compute_losses(pairs: Pairs, batch: Batch, backbone: Backbone) -> dict[str, Tensor]:
    """Focal and dice of the maps, as of EFA, and the cross entropy of the images.

    Args:
        pairs: what is trained.
        batch: tokens (B, L, P, W), masks (B, S, S) in {0, 1}, unit class features (B, D) and labels
            (B,) in {0, 1}. Where a mosaic stands for an image, the last two are the image's own.
        backbone: whose grid the tokens lie on.
    """
    tokens, masks, image_embed, labels = batch
    margins = [
        compute_margins(tokens[:, block], pair) for block, pair in enumerate(pairs.unit_pixel())
    ]
    losses = compute_map_losses(torch.stack(margins, dim=1), masks, backbone.grid)
    scores = compute_image_score(image_embed, pairs.unit_image(), LOGIT_SCALE)
    image = F.binary_cross_entropy_with_logits(scores, labels)
    return losses | {"loss": losses["loss"] + image, "image": image.detach()}


METHOD = TextFree
