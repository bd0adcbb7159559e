"""CLIP as it is, against one sentence about a normal and one about an anomalous thing.

The plainest row of the field's tables, as AnomalyCLIP's paper defines it (its Table 1 and
appendix).
"""

from dataclasses import dataclass
from typing import ClassVar

from fuzzyclip.baselines.shared.plain_clip import PlainClip

#: The one sentence of each side: normal, abnormal.
SENTENCES = ("A photo of a normal {}", "A photo of an anomalous {}")


@dataclass(frozen=True)
class Clip(PlainClip):
    """CLIP with one sentence a side; settings are `PlainClip`'s."""

    name: ClassVar[str] = "clip"
    title: ClassVar[str] = "CLIP"

    def write_prompts(self, category: str) -> list[list[str]]:
        """The one sentence of each side with the category's name."""
        return [[sentence.format(category)] for sentence in SENTENCES]


METHOD = Clip
