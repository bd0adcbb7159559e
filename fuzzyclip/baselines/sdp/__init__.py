"""SDP: CLIP-AD's staged V-V streams alone, without training (`shared.clip_ad`)."""

from dataclasses import dataclass
from typing import ClassVar

from fuzzyclip.baselines.shared.clip_ad import ClipAd
from fuzzyclip.clip.name_encoder import NameEncoder
from fuzzyclip.method.interface import Learned, Untrained
from fuzzyclip.method.scorer import Scorer


@dataclass(frozen=True)
class Sdp(Untrained, ClipAd):
    """SDP; its settings are those of `ClipAd`."""

    name: ClassVar[str] = "sdp"
    title: ClassVar[str] = "SDP"

    def build(self, encode: NameEncoder, category: str, learned: Learned) -> Scorer:
        """The scorer of one category, from its streams alone."""
        del learned
        return self.build_scorer(encode, category, None)


METHOD = Sdp
