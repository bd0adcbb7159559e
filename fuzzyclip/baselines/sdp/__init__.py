"""SDP: CLIP-AD's staged V-V streams alone, without training; see `clip_ad`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from fuzzyclip.baselines.shared.clip_ad import ClipAd
from fuzzyclip.clip.name_encoder import NameEncoder
from fuzzyclip.method.interface import Untrained
from fuzzyclip.method.scorer import Scorer


@dataclass(frozen=True)
class Sdp(Untrained, ClipAd):
    """SDP with its settings, see `ClipAd`."""

    name: ClassVar[str] = "sdp"
    title: ClassVar[str] = "SDP"

    def build(self, encode: NameEncoder, category: str, tensors: Mapping[str, Tensor]) -> Scorer:
        """See `Method.build`.

        Raises:
            PromptTooLongError: the name does not fit a prompt.
        """
        del tensors
        return self.build_scorer(encode, category, None)


METHOD = Sdp
