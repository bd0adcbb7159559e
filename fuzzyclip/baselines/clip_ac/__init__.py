"""CLIP-AC: CLIP as it is, with the ImageNet templates of CLIP's authors around the two states."""

from dataclasses import dataclass
from typing import ClassVar

from open_clip import OPENAI_IMAGENET_TEMPLATES

from fuzzyclip.baselines.shared.plain_clip import PlainClip


@dataclass(frozen=True)
class ClipAC(PlainClip):
    """CLIP with an ensemble of prompts for anomaly classification.

    Both states stand in each of the 80 templates as they are: "a anomalous bottle".
    """

    name: ClassVar[str] = "clip_ac"
    title: ClassVar[str] = "CLIP-AC"
    sentences = tuple(
        tuple(template(state) for template in OPENAI_IMAGENET_TEMPLATES)
        for state in ("normal {}", "anomalous {}")
    )


METHOD = ClipAC
