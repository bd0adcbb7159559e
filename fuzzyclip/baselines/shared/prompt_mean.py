"""One text feature for many prompts: their mean.

Shapes: n prompts, D embedding width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from fuzzyclip.clip.encoding import normalise
from fuzzyclip.clip.prompts import EncodeText


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
