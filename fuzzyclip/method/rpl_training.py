"""Training RPL's prompts on cached class features, by the sum of two losses.

Shapes: N images, B rows, D embedding width.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from fuzzyclip.clip.backbone import Backbone
from fuzzyclip.clip.encoding import normalise
from fuzzyclip.clip.name_encoder import NameEncoder
from fuzzyclip.method.rpl import PromptLearner
from fuzzyclip.method.training import CurveRow, train
from fuzzyclip.utils.ranges import FACTOR, POSITIVE
from fuzzyclip.utils.settings import PromptShape, RplSettings


def fit_prompts(
    encode: NameEncoder,
    image_embed: Tensor,
    labels: Tensor,
    names: Sequence[str],
    settings: RplSettings,
    seed: int,
    *,
    checkpoint: Path | None = None,
    description: str = "RPL",
) -> tuple[dict[str, Tensor], list[CurveRow]]:
    """RPL: the two prompts learned on an auxiliary set, held near its stacked one.

    Args:
        encode: names to text features.
        image_embed: (N, D) class features of the auxiliary images.
        labels: (N,) 0 normal or 1 anomalous.
        names: of all auxiliary categories, one stack whatever the partition (section 3.1.2 and
            appendix A.4).
        settings: see `RplSettings`.
        seed: of random tokens and of the order of images.
        checkpoint: a file that a killed training goes on from; the caller removes it.
        description: of the progress bar.

    Returns:
        `text_embed`, the learned text features (2, D), beside the learner's own tensors; and the
        curve with `loss`, `cls` and `text` of each step.
    """
    stacked = choose_stack(settings, names)
    learner, text_embed, curve = train_prompts(
        encode.backbone,
        image_embed,
        labels,
        encode(stacked),
        encode.stack(stacked),
        shape=settings,
        temperature=settings.temperature,
        text_weight=settings.weigh_text(encode.backbone.embed_dim),
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        seed=seed,
        checkpoint=checkpoint,
        description=description,
    )
    return {"text_embed": text_embed} | dict(learner.state_dict()), curve


def choose_stack(settings: RplSettings, names: Sequence[str]) -> list[str]:
    """Names that stand for [cluster] in the learned prompts."""
    return ["object"] if settings.stack == "object" else list(names)


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
        epochs: passes over the images.
        batch_size: rows a step.
        learning_rate: of Adam.
        seed: of random tokens and of the order of rows.
        checkpoint: a file that a killed training goes on from; the caller removes it.
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


def compute_classification(
    image_embed: Tensor, text_embed: Tensor, label: Tensor, temperature: float
) -> Tensor:
    """Cross entropy of unit image features against the two prompt features (eq. 12, left).

    Args:
        image_embed: (B, D), unit rows.
        text_embed: (2, D), unit rows: normal, abnormal.
        label: (B,) int64, 0 normal or 1 anomalous.
        temperature: factor on the cosines (the paper is silent; CLIP's own is 100).
    """
    return F.cross_entropy(temperature * image_embed @ text_embed.T, label)


def compute_text_regularisation(text_embed: Tensor, stacked_embed: Tensor) -> Tensor:
    """Mean squared error to the stacked prompt's features (eq. 12, right), over all 2 * D entries.

    Args:
        text_embed: (2, D) learned prompts, unit rows.
        stacked_embed: (2, D) untrained stacked prompt, unit rows, no gradient.
    """
    return F.mse_loss(text_embed, stacked_embed)
