"""CoCoOp: learned words that a small network shifts by what the image shows.

Zhou et al., "Conditional Prompt Learning for Vision-Language Models" (2022), equations 3 and 4;
`shared.context` says how it is brought to anomaly detection. Every image has text features of its
own: the frozen text tower runs twice an image, in training and in use.

Shapes: B images, E learnable words, V text width, D embedding width.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from fuzzyclip.baselines.shared.context import (
    ContextMethod,
    LearnedWords,
    Sentences,
    build_scorer,
)
from fuzzyclip.clip.backbone import Backbone
from fuzzyclip.clip.name_encoder import NameEncoder
from fuzzyclip.method.interface import Learned
from fuzzyclip.method.scorer import Scorer

#: The network's inner layer is narrower than the class feature by this factor.
BOTTLENECK = 16
#: Images whose two prompts go through the text tower at once, when nothing is trained.
CHUNK = 32


class ShiftedWords(LearnedWords):
    """E learnable words, all moved by one vector that depends on the image."""

    def __init__(self, words: Tensor, embed_dim: int) -> None:
        """Start from words (E, V); the network's weights come from torch's global generator."""
        super().__init__(words)
        inner = max(1, embed_dim // BOTTLENECK)
        self.meta = nn.Sequential(
            nn.Linear(embed_dim, inner), nn.ReLU(), nn.Linear(inner, words.shape[1])
        ).to(words.device)

    def forward(self, image_embed: Tensor) -> Tensor:
        """(B, D) unit class features to words, (B, E, V)."""
        shift: Tensor = self.meta(image_embed)  # (B, V)
        return self.words + shift[:, None]

    def encode(
        self, backbone: Backbone, sentences: Sentences, places: Tensor, image_embed: Tensor
    ) -> Tensor:
        """Unit text features of a batch, (B, 2, D), from words of each image's own."""
        return sentences.encode(backbone, places, self(image_embed))


@dataclass(frozen=True)
class CoCoOp(ContextMethod):
    """CoCoOp with one network for all categories; `ContextMethod` explains the settings.

    "a photo of a" to start from, one image a step, 10 epochs and a rate of 0.002 are CoCoOp's own.
    """

    init: str = "a photo of a"
    words: int = 4
    epochs: int = 10
    batch_size: int = 1

    name: ClassVar[str] = "cocoop"
    title: ClassVar[str] = "CoCoOp"

    def make_words(self, backbone: Backbone) -> LearnedWords:
        """`words` (E, V) and the layers `meta`."""
        return ShiftedWords(self.start_words(backbone), backbone.embed_dim)

    def build(self, encode: NameEncoder, category: str, learned: Learned) -> Scorer:
        """The scorer of one category; its text features are computed for each batch of images."""
        backbone = encode.backbone
        words, sentences = self.read_words(encode, category, learned)
        shifted = ShiftedWords(words, backbone.embed_dim)
        try:
            shifted.load_state_dict(dict(learned.tensors))
        except RuntimeError as error:
            raise ValueError(f"{self.title}: {error}; train it anew") from error
        write = share_text(backbone, sentences, shifted.requires_grad_(False))
        return build_scorer(backbone, encode.stack([category]), write)


def share_text(
    backbone: Backbone, sentences: Sentences, shifted: ShiftedWords
) -> Callable[[Tensor], Tensor]:
    """Unit class features (B, D) to each image's unit text features (B, 2, D), of one name.

    It remembers the last batch, by identity: map and score of a batch need the same features. The
    text tower sees `CHUNK` images at a time, which bounds the memory.
    """
    last: list[Tensor] = []

    @torch.no_grad()
    def write(image_embed: Tensor) -> Tensor:
        if not last or last[0] is not image_embed:
            parts = []
            for chunk in image_embed.split(CHUNK):  # type: ignore[no-untyped-call]
                places = torch.zeros(len(chunk), dtype=torch.long, device=chunk.device)
                parts.append(shifted.encode(backbone, sentences, places, chunk))
            last[:] = [image_embed, torch.cat(parts)]
        return last[1]

    return write


METHOD = CoCoOp
