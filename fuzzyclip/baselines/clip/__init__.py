"""CLIP as it is, against one sentence about a normal and one about an anomalous thing."""

from dataclasses import dataclass
from typing import ClassVar

from fuzzyclip.baselines.shared.plain_clip import PlainClip


@dataclass(frozen=True)
class Clip(PlainClip):
    """CLIP with one sentence a side: the plainest row of the field's tables."""

    name: ClassVar[str] = "clip"
    title: ClassVar[str] = "CLIP"
    sentences = (("A photo of a normal {}",), ("A photo of an anomalous {}",))


METHOD = Clip
