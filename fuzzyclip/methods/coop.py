"""CoOp: words before "good [class]" and "damaged [class]" are learned, all else stays frozen.

Zhou et al., "Learning to Prompt for Vision-Language Models" (2021); `methods.context` says how it
is brought to anomaly detection.

Shapes: B images, E learnable words, V text width, D embedding width.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from fuzzyclip.clip.kinds import TOKENS, FeatureKind
from fuzzyclip.clip.name_encoder import NameEncoder
from fuzzyclip.methods.context import (
    Context,
    Sentences,
    build_scorer,
    check_words,
    embed_sentences,
)
from fuzzyclip.methods.context_training import LearnedWords, learn_words
from fuzzyclip.methods.interface import TrainingSet
from fuzzyclip.scoring import Scorer
from fuzzyclip.training import CurveRow


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

    def fit(
        self,
        encode: NameEncoder,
        images: TrainingSet,
        seed: int,
        checkpoint: Path | None = None,
    ) -> Mapping[str, Tensor]:
        """Learn the words by cross entropy; `words` (E, V)."""
        return self.learn(encode, images, seed, checkpoint)[0]

    def learn(
        self,
        encode: NameEncoder,
        images: TrainingSet,
        seed: int,
        checkpoint: Path | None = None,
    ) -> tuple[dict[str, Tensor], list[CurveRow]]:
        """What `fit` gives, and the curve with the `loss` of each step."""
        backbone = encode.backbone
        torch.manual_seed(seed)
        learned = LearnedWords(self.start_words(backbone))

        def write(sentences: Sentences, places: Tensor, image_embed: Tensor) -> Tensor:
            del image_embed
            # a name is encoded once, however many of the images bear it
            present, back = torch.unique(places, return_inverse=True)
            return sentences.encode(backbone, present, learned.words)[back]

        return learn_words(
            learned,
            write,
            self,
            encode,
            images,
            seed=seed,
            checkpoint=checkpoint,
            description=self.title,
        )

    @torch.no_grad()
    def build(self, encode: NameEncoder, category: str, tensors: Mapping[str, Tensor]) -> Scorer:
        """See `interface.Method.build`; the text features are computed once."""
        backbone = encode.backbone
        words = check_words(tensors.get("words"), backbone, self.title)
        sentences = embed_sentences(encode, [category], len(words))
        first = torch.zeros(1, dtype=torch.long, device=backbone.device)
        text_embed = sentences.encode(backbone, first, words)  # (1, 2, D)
        return build_scorer(backbone, encode.stack([category]), lambda image_embed: text_embed)


METHOD = CoOp
