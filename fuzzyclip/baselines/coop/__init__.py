"""CoOp: words before "good [class]" and "damaged [class]" are learned, all else stays frozen.

Zhou et al., "Learning to Prompt for Vision-Language Models" (2021); `shared.context` says how it
is brought to anomaly detection.

Shapes: B images, E learnable words, V text width, D embedding width.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from fuzzyclip.baselines.shared.context import ContextMethod, LearnedWords, build_scorer
from fuzzyclip.clip.backbone import Backbone
from fuzzyclip.clip.name_encoder import NameEncoder
from fuzzyclip.method.interface import Learned
from fuzzyclip.method.scorer import Scorer


@dataclass(frozen=True)
class CoOp(ContextMethod):
    """CoOp with shared words; `ContextMethod` explains the settings.

    16 random words, 32 images a step and a rate of 0.002 are CoOp's own. So are 50 epochs, its
    number for the largest set (ImageNet); its 200 are meant for 16 images a class, an auxiliary
    set has about ten times as many.
    """

    init: str = ""
    words: int = 16
    epochs: int = 50
    batch_size: int = 32

    name: ClassVar[str] = "coop"
    title: ClassVar[str] = "CoOp"

    def make_words(self, backbone: Backbone) -> LearnedWords:
        """`words` (E, V)."""
        return LearnedWords(self.start_words(backbone))

    @torch.no_grad()
    def build(self, encode: NameEncoder, category: str, learned: Learned) -> Scorer:
        """The scorer of one category; its text features are computed once."""
        backbone = encode.backbone
        words, sentences = self.read_words(encode, category, learned)
        first = torch.zeros(1, dtype=torch.long, device=backbone.device)
        text_embed = sentences.encode(backbone, first, words)  # (1, 2, D)
        return build_scorer(backbone, encode.stack([category]), lambda image_embed: text_embed)


METHOD = CoOp
