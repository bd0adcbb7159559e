"""Category names to text features, with the text settings of a run bound in."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from torch import Tensor

from fuzzyclip.clip.backbone import Backbone
from fuzzyclip.clip.encoding import count_tokens
from fuzzyclip.clip.prompts import EncodeText, encode_stack, stack_names
from fuzzyclip.utils.settings import TextSettings


@dataclass(frozen=True)
class NameEncoder:
    """Names to text features, see `fuzzyclip.clip.prompts.encode_stack`.

    Attributes:
        backbone: the frozen CLIP.
        encode: `encode_text` of the backbone or a cache of it.
        text: how names become prompts.
    """

    backbone: Backbone
    encode: EncodeText
    text: TextSettings = field(default_factory=TextSettings)

    def __call__(self, names: Sequence[str], prefix: str = "", suffix: str = "") -> Tensor:
        """T(prefix + stacked names + suffix), (D, 2) with D the embedding width."""
        return encode_stack(
            names,
            self.encode,
            partial(count_tokens, self.backbone),
            context_length=self.backbone.context_length,
            separator=self.text.separator,
            underscore=self.text.underscore,
            ensemble=self.text.ensemble,
            prefix=prefix,
            suffix=suffix,
        )

    def stack(self, names: Sequence[str]) -> str:
        """The names as they stand in a prompt."""
        return stack_names(names, self.text.separator, self.text.underscore)
