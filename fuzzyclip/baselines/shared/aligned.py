"""Training linear layers against each image's own text; APRIL-GAN's and CLIP-AD's are one.

Shapes: B images of a batch, L layers, P patches, W vision width, D embedding width.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor

from fuzzyclip.clip.backbone import Backbone
from fuzzyclip.method.efa import Heads
from fuzzyclip.method.efa_loss import compute_alignment_losses
from fuzzyclip.method.interface import TrainingSet
from fuzzyclip.method.training import CurveRow, train

#: Row numbers to what belongs to these images.
Load = Callable[[Sequence[int]], Tensor]


def align_heads(
    backbone: Backbone,
    heads: Heads,
    images: TrainingSet,
    load_tokens: Load,
    load_texts: Load,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    checkpoint: Path | None,
    description: str,
) -> list[CurveRow]:
    """Train `heads` in place by focal and dice; the curve.

    Args:
        backbone: the frozen CLIP.
        heads: on its device.
        images: what is trained on.
        load_tokens: what the layers read, (B, L, P, W).
        load_texts: text features of the images' categories, (B, D, 2), on the backbone's device.
        epochs: see `fuzzyclip.method.training.train`, as the arguments below.
        batch_size: likewise.
        learning_rate: likewise.
        seed: likewise.
        checkpoint: likewise.
        description: likewise.
    """

    def load(rows: Sequence[int], epoch: int) -> tuple[Tensor, Tensor, Tensor]:
        del epoch  # nothing is drawn but the order
        masks = images.load_masks(rows).to(backbone.device).float()
        return load_tokens(rows), masks, load_texts(rows)

    def compute_losses(batch: tuple[Tensor, Tensor, Tensor]) -> dict[str, Tensor]:
        return compute_alignment_losses(heads, *batch, backbone.grid)

    return train(
        heads,
        load,
        compute_losses,
        count=len(images.names),
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
        checkpoint=checkpoint,
        description=description,
    )
