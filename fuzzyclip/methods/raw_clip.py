"""CLIP and CLIP-AC: CLIP as it is, against sentences about a normal and an anomalous thing.

The two plainest rows of the field's tables, as AnomalyCLIP's paper defines them (its Table 1 and
appendix): CLIP with one sentence a side, CLIP-AC with the ImageNet templates of CLIP's authors
around the same two states. Nothing is trained; tokens of the last taken block are projected like
the class token and compared with the text.

Shapes: n prompts, D embedding width, L x P x W patch tokens.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from open_clip import OPENAI_IMAGENET_TEMPLATES
from torch import Tensor

from fuzzyclip.clip.encoding import normalise, project_tokens
from fuzzyclip.clip.name_encoder import NameEncoder
from fuzzyclip.methods.interface import FeatureKind, TrainingSet
from fuzzyclip.methods.kinds import TOKENS
from fuzzyclip.scoring import Scorer, build_untrained
from fuzzyclip.text import EncodeText

#: The one sentence of each side: normal, abnormal.
SENTENCES = ("A photo of a normal {}", "A photo of an anomalous {}")
#: What CLIP-AC puts into every template.
STATES = ("normal {}", "anomalous {}")


@dataclass(frozen=True)
class Clip:
    """CLIP's own zero-shot classifier, for the image and for each patch.

    Attributes:
        name: in params.yaml.
        title: in tables.
        sigma: Gaussian smoothing of its maps in pixels; CLIP has none.
    """

    name: str = "clip"
    title: str = "CLIP"
    sigma: float = 0.0

    def __post_init__(self) -> None:
        if not self.sigma >= 0:
            raise ValueError(f"{self.name}: sigma must be 0 or more, but is {self.sigma}")

    @property
    def kind(self) -> FeatureKind:
        return TOKENS

    @property
    def trains(self) -> bool:
        return False

    def write_prompts(self, category: str) -> list[list[str]]:
        """All prompts of both sides, normal and abnormal."""
        return [[sentence.format(category)] for sentence in SENTENCES]

    def fit(self, encode: NameEncoder, images: TrainingSet, seed: int) -> Mapping[str, Tensor]:
        """Nothing is trained."""
        del encode, images, seed
        return {}

    def build(self, encode: NameEncoder, category: str, tensors: Mapping[str, Tensor]) -> Scorer:
        """See `Method.build`.

        Raises:
            PromptTooLongError: the name does not fit a prompt.
        """
        del tensors
        backbone, name = encode.backbone, encode.stack([category])
        text_embed = average_prompts(encode.encode, self.write_prompts(name))

        def project_last(patch_tokens: Tensor) -> Tensor:
            return project_tokens(backbone, patch_tokens[:, -1:])  # (B, 1, P, D)

        return build_untrained(backbone, name, text_embed, project_last)


@dataclass(frozen=True)
class ClipAC(Clip):
    """CLIP with an ensemble of prompts for anomaly classification; settings as those of `Clip`."""

    name: str = "clip_ac"
    title: str = "CLIP-AC"

    def write_prompts(self, category: str) -> list[list[str]]:
        """Both states in each of the 80 ImageNet templates, as they are: "a anomalous bottle"."""
        return [
            [template(state.format(category)) for template in OPENAI_IMAGENET_TEMPLATES]
            for state in STATES
        ]


def average_prompts(
    encode: EncodeText, sides: Sequence[Sequence[str]], unit: bool = True
) -> Tensor:
    """One text feature for each side's prompts, (D, 2), unit columns.

    Args:
        encode: see `EncodeText`.
        sides: prompts of the normal and of the abnormal side.
        unit: whether each prompt's feature is brought to unit length before the mean, as CLIP's
            authors do for ImageNet.
    """
    columns = []
    for prompts in sides:
        embeds = encode(prompts)  # (n, D)
        mean = (normalise(embeds) if unit else embeds).mean(dim=0)
        columns.append(normalise(mean))
    return torch.stack(columns, dim=1)
