"""Training linear layers on patch tokens and masks: EFA's, and those of the peers that have them.

Shapes: N images, B of a batch, L levels of tokens, P patches, W vision width, D embedding width,
S image size.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from fuzzyclip.clip.backbone import Backbone
from fuzzyclip.method.efa import Heads
from fuzzyclip.method.efa_loss import compute_alignment_losses
from fuzzyclip.method.interface import TrainingSet
from fuzzyclip.method.mosaic import MosaicPlan
from fuzzyclip.method.training import CurveRow, train
from fuzzyclip.utils.transfers import send


def train_heads(
    backbone: Backbone,
    images: TrainingSet,
    text_embed: Tensor,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    levels: int | None = None,
    mosaics: MosaicPlan | None = None,
    checkpoint: Path | None = None,
    after_epoch: Callable[[int, Heads], None] | None = None,
    description: str = "EFA",
) -> tuple[Heads, list[CurveRow]]:
    """Train one layer for each level of tokens, by focal and dice over their maps.

    Args:
        backbone: the frozen CLIP.
        images: what is trained on, N rows; their tokens are what the layers read, (B, L, P, W).
        text_embed: (D, 2), one prompt for all (a stack, "object"), or (N, D, 2), one for each image
            (the precise prompts of Table 4).
        epochs: passes over the images.
        batch_size: images a step.
        learning_rate: of Adam.
        seed: of the layers at the start and of the order of images.
        levels: L; None has one layer for each of the backbone's taken blocks.
        mosaics: images that a mosaic replaces, by epoch; None has no mosaics.
        checkpoint: a file that a killed training goes on from; its name must change with everything
            that changes the result. The caller removes it.
        after_epoch: called with the epoch, from 1, and the layers as they are then.
        description: of the progress bar, and in errors.

    Returns:
        The trained layers, and the curve with `loss`, `focal` and `dice` of each step.

    Raises:
        TrainingError: a loss, a parameter or the optimizer's state is not finite.
    """
    torch.manual_seed(seed)
    count = len(backbone.blocks) if levels is None else levels
    heads = Heads(count, backbone.vision_width, backbone.embed_dim).to(backbone.device)
    text, plan = text_embed.to(backbone.device), mosaics or {}

    def load(rows: Sequence[int], epoch: int) -> tuple[Tensor, Tensor, Tensor]:
        tokens, masks, order = read_batch(images, plan, rows, epoch)
        prompt = text if text.dim() == 2 else text[order]  # (D, 2) or (B, D, 2)
        return tokens, send(masks, backbone.device).float(), prompt

    def compute_losses(batch: tuple[Tensor, Tensor, Tensor]) -> dict[str, Tensor]:
        return compute_alignment_losses(heads, *batch, backbone.grid)

    curve = train(
        heads,
        load,
        compute_losses,
        count=len(images),
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
        checkpoint=checkpoint,
        after_epoch=None if after_epoch is None else lambda epoch: after_epoch(epoch, heads),
        description=description,
    )
    return heads, curve


def read_batch(
    images: TrainingSet, mosaics: MosaicPlan, rows: Sequence[int], epoch: int
) -> tuple[Tensor, Tensor, list[int]]:
    """Tokens (B, L, P, W) and masks (B, S, S), bool, of one step, and the order of its rows.

    Plain images come first, then mosaics, each in the place of its row; a loss is a mean over the
    batch, so that the order does not matter.
    """
    plain = [row for row in rows if (epoch, row) not in mosaics]
    mixed = [row for row in rows if (epoch, row) in mosaics]
    parts = [(images.load_tokens(plain), images.load_masks(plain))] if plain else []
    if mixed:
        parts.append(images.load_mosaics([mosaics[epoch, row] for row in mixed]))
    tokens, masks = zip(*parts, strict=True)
    return torch.cat(tokens), torch.cat(masks), plain + mixed
