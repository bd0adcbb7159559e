"""Types in which patch tokens are kept on disk.

Shapes: ... any leading axes, W vision width.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

#: Names of the tensors of a shard that hold the tokens.
TOKENS, SCALES = "patch_tokens", "patch_scales"
#: Types to choose from. What each changes in the metrics: `python benchmarks/token_types.py`.
DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "int8": torch.int8,
}
#: Largest int8 used; -128 is left out, so that a token and its negative are packed alike.
LEVELS = 127


def pack(tokens: Tensor, dtype: str) -> dict[str, Tensor]:
    """Tokens (..., W) as they are kept: `patch_tokens`, and for int8 also `patch_scales`.

    int8 keeps each token as W whole numbers and one float32 scale (...,): its largest entry over
    127, so that no entry is off by more than half of that.

    Raises:
        ValueError: an entry is not finite, or a float16 cannot hold it. CLIP's outliers reach
            hundreds, so that this means broken weights or another kind of model; bfloat16 and
            float32 hold any finite one.
    """
    packed = _pack(tokens, dtype)
    held = packed.get(SCALES, packed[TOKENS])  # an int8 is always finite, its scale is not
    if not held.isfinite().all():
        if tokens.isfinite().all():
            raise ValueError(f"patch tokens exceed {dtype}'s range; set features.dtype to bfloat16")
        raise ValueError("patch tokens are not finite; look at the image and the weights")
    return packed


def _pack(tokens: Tensor, dtype: str) -> dict[str, Tensor]:
    if dtype == "int8":
        largest = tokens.abs().amax(dim=-1).float()  # (...)
        scales = largest.clamp(min=torch.finfo(torch.float32).tiny * LEVELS) / LEVELS
        whole = (tokens / scales[..., None]).round().clamp(-LEVELS, LEVELS)
        return {SCALES: scales, TOKENS: whole.to(torch.int8)}
    return {TOKENS: tokens.to(DTYPES[dtype])}


def unpack(packed: Mapping[str, Tensor]) -> Tensor:
    """What `pack` made, as float32 (..., W)."""
    tokens = packed[TOKENS].float()
    return tokens * packed[SCALES][..., None] if SCALES in packed else tokens


def count_bytes(tokens: int, width: int, dtype: str) -> int:
    """Bytes on disk of a number of tokens of a width W."""
    scale = torch.float32.itemsize if dtype == "int8" else 0
    return tokens * (width * DTYPES[dtype].itemsize + scale)
