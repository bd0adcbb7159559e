"""CLIP-AC: CLIP as it is, with the ImageNet templates of CLIP's authors around the two states.

A row of the field's tables, as AnomalyCLIP's paper defines it (its Table 1 and appendix).
"""

from dataclasses import dataclass
from typing import ClassVar

from open_clip import OPENAI_IMAGENET_TEMPLATES

from fuzzyclip.baselines.shared.plain_clip import PlainClip

#: What stands in every template: normal, abnormal.
STATES = ("normal {}", "anomalous {}")


@dataclass(frozen=True)
class ClipAC(PlainClip):
    """CLIP with an ensemble of prompts for anomaly classification; settings are `PlainClip`'s."""

    name: ClassVar[str] = "clip_ac"
    title: ClassVar[str] = "CLIP-AC"

    def write_prompts(self, category: str) -> list[list[str]]:
        """Both states in each of the 80 ImageNet templates, as they are: "a anomalous bottle"."""
        return [
            [template(state.format(category)) for template in OPENAI_IMAGENET_TEMPLATES]
            for state in STATES
        ]


METHOD = ClipAC
