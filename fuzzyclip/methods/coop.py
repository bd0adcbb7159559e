"""CoOp: words before "good [class]" and "damaged [class]" are learned, all else stays frozen.

Zhou et al., "Learning to Prompt for Vision-Language Models" (2021); `methods.context` says how it
is brought to anomaly detection.

Shapes: B images, N training images, E learnable words, V text width, D embedding width.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fuzzyclip.clip.encoding import normalise
from fuzzyclip.clip.name_encoder import NameEncoder
from fuzzyclip.methods.context import (
    Context,
    build_scorer,
    check_words,
    compute_logits,
    descend,
    embed_sentences,
    place_names,
)
from fuzzyclip.methods.interface import FeatureKind, TrainingSet
from fuzzyclip.methods.kinds import TOKENS
from fuzzyclip.scoring import Scorer


@dataclass(frozen=True)
class CoOp(Context):
    """CoOp with shared words; see `Context` for the settings.

    16 random words, 32 images a step and a rate of 0.002 are CoOp's own. So are 50 epochs, its
    number for the largest set (ImageNet); its 200 are meant for 16 images a class, an auxiliary
    set has about ten times as many.
    """

    init: str = ""
    words: int = 16
    epochs: int = 50
    batch_size: int = 32
    learning_rate: float = 0.002
    sigma: float = 0.0

    name: ClassVar[str] = "coop"
    title: ClassVar[str] = "CoOp"
    kind: ClassVar[FeatureKind] = TOKENS
    trains: ClassVar[bool] = True

    def fit(self, encode: NameEncoder, images: TrainingSet, seed: int) -> Mapping[str, Tensor]:
        """Learn the words by cross entropy; `words` (E, V)."""
        return self.learn(encode, images, seed)[0]

    def learn(
        self, encode: NameEncoder, images: TrainingSet, seed: int
    ) -> tuple[dict[str, Tensor], list[float]]:
        """What `fit` gives, and the loss of each step."""
        backbone = encode.backbone
        torch.manual_seed(seed)
        words = nn.Parameter(self.start_words(backbone))
        known, places = place_names(images.names)
        sentences = embed_sentences(encode, known, len(words))
        embeds = normalise(images.image_embed.to(backbone.device))
        labels, places = images.labels.to(backbone.device), places.to(backbone.device)

        def compute_loss(rows: list[int]) -> Tensor:
            # a name is encoded once, however many of the images bear it
            present, back = torch.unique(places[rows], return_inverse=True)
            text_embed = sentences.encode(backbone, present, words)[back]  # (B, 2, D)
            return F.cross_entropy(compute_logits(embeds[rows], text_embed), labels[rows])

        module = nn.ParameterList([words])
        curve = descend(
            module, compute_loss, self, count=len(embeds), seed=seed, description=self.title
        )
        return {"words": words.detach().cpu()}, curve

    @torch.no_grad()
    def build(self, encode: NameEncoder, category: str, tensors: Mapping[str, Tensor]) -> Scorer:
        """See `interface.Method.build`; the text features are computed once."""
        backbone = encode.backbone
        words = check_words(tensors.get("words"), backbone, self.title)
        sentences = embed_sentences(encode, [category], len(words))
        first = torch.zeros(1, dtype=torch.long, device=backbone.device)
        text_embed = sentences.encode(backbone, first, words)  # (1, 2, D)
        return build_scorer(backbone, encode.stack([category]), lambda image_embed: text_embed)
