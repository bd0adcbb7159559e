"""CLIP as it is, against the mean of some prompts a side: what `clip` and `clip_ac` share.

Nothing is trained; tokens of the last taken block are projected like the class token and compared
with the text. Both are rows of AnomalyCLIP's table 1, defined in its appendix.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from fuzzyclip.clip.encoding import project_tokens
from fuzzyclip.clip.name_encoder import NameEncoder
from fuzzyclip.clip.prompts import average_prompts
from fuzzyclip.features.kinds import TOKENS, FeatureKind
from fuzzyclip.method.interface import Learned, Untrained
from fuzzyclip.method.scorer import Scorer, build_untrained
from fuzzyclip.utils.ranges import SIGMA


@dataclass(frozen=True)
class PlainClip(Untrained):
    """CLIP's own zero-shot classifier, for the image and for each patch.

    Attributes:
        sigma: Gaussian smoothing of its maps in pixels; CLIP has none.
        sentences: of each side, normal and anomalous, with braces for the category's name.
    """

    sigma: float = 0.0

    kind: ClassVar[FeatureKind] = TOKENS
    sentences: ClassVar[Sequence[Sequence[str]]]

    def __post_init__(self) -> None:
        SIGMA.check(self.name, sigma=self.sigma)

    def write_prompts(self, category: str) -> list[list[str]]:
        """All prompts of both sides."""
        return [[sentence.format(category) for sentence in side] for side in self.sentences]

    def build(self, encode: NameEncoder, category: str, learned: Learned) -> Scorer:
        """The scorer of one category, from its two texts.

        Raises:
            PromptTooLongError: the name does not fit a prompt.
        """
        del learned
        backbone, name = encode.backbone, encode.stack([category])
        text_embed = average_prompts(encode.encode, self.write_prompts(name))

        def project_last(patch_tokens: Tensor) -> Tensor:
            return project_tokens(backbone, patch_tokens[:, -1:])  # (B, 1, P, D)

        return build_untrained(backbone, name, text_embed, project_last)
