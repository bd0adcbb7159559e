"""Training RPL's prompts on cached class features.

Shapes: N images, B rows, D embedding width.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from fuzzyclip.clip.backbone import Backbone
from fuzzyclip.clip.encoding import normalise
from fuzzyclip.method.losses import compute_classification, compute_text_regularisation
from fuzzyclip.method.rpl import PromptLearner
from fuzzyclip.method.training import CurveRow, train
from fuzzyclip.settings import PromptShape
from fuzzyclip.utils.ranges import FACTOR, POSITIVE


def train_prompts(
    backbone: Backbone,
    image_embed: Tensor,
    label: Tensor,
    stacked_embed: Tensor,
    stack: str,
    *,
    shape: PromptShape,
    temperature: float,
    text_weight: float,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    checkpoint: Path | None = None,
    description: str = "RPL",
) -> tuple[PromptLearner, Tensor, list[CurveRow]]:
    """Learn the normal and the abnormal prompt (eq. 12).

    Args:
        backbone: the frozen CLIP.
        image_embed: (N, D) class features of the auxiliary images; normalised here.
        label: (N,) 0 normal or 1 anomalous.
        stacked_embed: (D, 2) untrained stacked prompt that regularises the learned one.
        stack: the stacked names inside the sentences.
        shape: tensors of the prompt learner.
        temperature: factor on the cosines in training.
        text_weight: factor on L_text. The paper adds the two losses (1); with unit vectors L_text
            is then at most 4 / D and its gradient next to nothing; D restores the squared distance.
        epochs: see `fuzzyclip.method.training.train`, as the arguments below.
        batch_size: rows a step.
        learning_rate: of Adam.
        seed: of random tokens and of the order of rows.
        checkpoint: see there.
        description: of the progress bar.

    Returns:
        The learner, the two learned text features (2, D) with unit rows, and the curve with
        `loss`, `cls` and `text` of each step.
    """
    POSITIVE.check("rpl", temperature=temperature)
    FACTOR.check("rpl", text_weight=text_weight)
    device = backbone.device
    learner = PromptLearner(backbone, stack, shape, seed)
    images, labels = normalise(image_embed).to(device), label.to(device)
    target = stacked_embed.T.detach().to(device)  # (2, D)

    def load(rows: Sequence[int], epoch: int) -> list[int]:
        del epoch  # no augmentation: the class feature of an image never changes
        return list(rows)

    def compute_losses(batch: list[int]) -> dict[str, Tensor]:
        text_embed = normalise(learner(backbone))  # (2, D)
        cls = compute_classification(images[batch], text_embed, labels[batch], temperature)
        text = compute_text_regularisation(text_embed, target)
        return {"loss": cls + text_weight * text, "cls": cls, "text": text}

    curve = train(
        learner,
        load,
        compute_losses,
        count=len(images),
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
        checkpoint=checkpoint,
        description=description,
    )
    with torch.no_grad():
        learned = normalise(learner(backbone))
    return learner, learned, curve
