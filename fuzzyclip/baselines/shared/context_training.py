"""Training the words of CoOp and CoCoOp: cross entropy, descended as in CoOp.

Shapes: B images of a batch, N training images, E learnable words, V text width, D embedding width.
"""

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fuzzyclip.baselines.shared.context import Context, Sentences, compute_logits, embed_sentences
from fuzzyclip.clip.backbone import Backbone
from fuzzyclip.clip.encoding import normalise
from fuzzyclip.clip.name_encoder import NameEncoder
from fuzzyclip.features.kinds import TOKENS, FeatureKind
from fuzzyclip.method.interface import Learned, Trained, TrainingSet
from fuzzyclip.method.training import train

#: CoOp's descent: momentum, weight decay, and the first epoch's learning rate, which lets no large
#: first gradient throw the words away.
MOMENTUM, WEIGHT_DECAY, WARM_UP = 0.9, 5e-4, 1e-5


class LearnedWords(nn.Module):
    """E learnable words."""

    def __init__(self, words: Tensor) -> None:
        """Start from words (E, V)."""
        super().__init__()
        self.words = nn.Parameter(words)

    def encode(
        self, backbone: Backbone, sentences: Sentences, places: Tensor, image_embed: Tensor
    ) -> Tensor:
        """Unit text features of a batch, (B, 2, D); keeps gradients.

        Args:
            backbone: the frozen CLIP.
            sentences: of n names.
            places: (B,), number of each image's name.
            image_embed: (B, D), unit rows.
        """
        del image_embed
        # a name is encoded once, however many of the images bear it
        present, back = torch.unique(places, return_inverse=True)
        return sentences.encode(backbone, present, self.words)[back]


@dataclass(frozen=True)
class ContextMethod(Trained, Context):
    """CoOp and CoCoOp but for their scorers."""

    title: ClassVar[str]
    kind: ClassVar[FeatureKind] = TOKENS

    @abstractmethod
    def make_words(self, backbone: Backbone) -> LearnedWords:
        """The words before training; drawn from torch's global generator."""

    def fit(
        self,
        encode: NameEncoder,
        images: TrainingSet,
        seed: int,
        checkpoint: Path | None = None,
    ) -> Learned:
        """The state of `make_words`, trained, and the curve with the `loss` of each step.

        Raises:
            ValueError: there is no image, or the text tower reads no prompt's end.
            PromptTooLongError: words and a name exceed the text tower's context.
        """
        torch.manual_seed(seed)
        learned = self.make_words(encode.backbone)
        compute_loss = make_loss(learned, encode, images)
        curve = train(
            learned,
            lambda rows, epoch: list(rows),  # class features are in memory
            lambda rows: {"loss": compute_loss(rows)},
            count=len(images),
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            seed=seed,
            make_optimizer=make_sgd,
            rate=self.compute_rate,
            checkpoint=checkpoint,
            description=self.title,
        )
        tensors = {name: value.cpu() for name, value in learned.state_dict().items()}
        return Learned(tensors, curve=curve)

    def compute_rate(self, epoch: int) -> float:
        """Learning rate of an epoch, from 1: a warm-up, then a cosine that begins in epoch 2.

        As in CoOp's code the cosine would reach 0 one epoch after the last.
        """
        if epoch == 1:
            return WARM_UP
        return self.learning_rate * (1 + math.cos(math.pi * (epoch - 2) / self.epochs)) / 2


def make_sgd(parameters: Iterator[nn.Parameter], learning_rate: float) -> torch.optim.Optimizer:
    """Stochastic descent as in CoOp."""
    return torch.optim.SGD(
        parameters, lr=learning_rate, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
    )


def make_loss(
    learned: LearnedWords, encode: NameEncoder, images: TrainingSet
) -> Callable[[Sequence[int]], Tensor]:
    """A function from row numbers of a batch to its cross entropy.

    Raises:
        ValueError: there is no image, or the text tower reads no prompt's end.
        PromptTooLongError: words and a name exceed the text tower's context.
    """
    backbone = encode.backbone
    known, numbers = place_names(images.names)
    sentences = embed_sentences(encode, known, len(learned.words))
    embeds = normalise(images.image_embed.to(backbone.device))
    labels, places = images.labels.to(backbone.device), numbers.to(backbone.device)

    def compute_loss(rows: Sequence[int]) -> Tensor:
        text_embed = learned.encode(backbone, sentences, places[rows], embeds[rows])  # (B, 2, D)
        return F.cross_entropy(compute_logits(embeds[rows], text_embed), labels[rows])

    return compute_loss


def place_names(names: Sequence[str]) -> tuple[list[str], Tensor]:
    """The different names in order, and the number of each image's name, (N,).

    Raises:
        ValueError: there is no image.
    """
    if not names:
        raise ValueError("learned prompts need at least one training image")
    known = sorted(set(names))
    numbers = {name: number for number, name in enumerate(known)}
    return known, torch.tensor([numbers[name] for name in names], dtype=torch.long)
