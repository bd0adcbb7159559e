"""One file of the feature store: what it is bound to, how it is packed, written and read.

Shapes: n images of a shard, D embedding width; L taken blocks, P patches, W vision width, or
whatever another kind of features keeps of an image as L x P x W; ... any leading axes.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fuzzyclip.clip.backbone import Backbone
from fuzzyclip.features.kinds import TOKENS, FeatureKind
from fuzzyclip.utils.files import BrokenFileError
from fuzzyclip.utils.tensor_files import RowWriter, check_tensors, read_header, write_rows
from fuzzyclip.utils.tensor_files import read_rows as read_tensor_rows

log = logging.getLogger(__name__)

#: Layout of the files.
FORMAT = 2
#: Version of the code that makes the content. Raise it when the same image, weights and settings
#: no longer give the same numbers; tests/features/test_features.py compares with kept numbers.
CODE = 2
#: Class features, (n, D) float32, not normalised.
EMBEDS = "image_embed"
#: Header entry of tokens that another engine than PyTorch made, with its name. It binds nothing:
#: engines give equal features, see `fuzzyclip.engines.equality`.
RUNTIME = "runtime"
#: Names of the tensors of a shard that hold the tokens.
PATCH_TOKENS, SCALES = "patch_tokens", "patch_scales"
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
    limited = packed.get(SCALES, packed[PATCH_TOKENS])  # an int8 is always finite
    if not limited.isfinite().all():
        if tokens.isfinite().all():
            raise ValueError(f"patch tokens exceed {dtype}'s range; set features.dtype to bfloat16")
        raise ValueError("patch tokens are not finite; look at the image and the weights")
    return packed


def _pack(tokens: Tensor, dtype: str) -> dict[str, Tensor]:
    if dtype == "int8":
        largest = tokens.abs().amax(dim=-1).float()  # (...)
        scales = largest.clamp(min=torch.finfo(torch.float32).tiny * LEVELS) / LEVELS
        whole = (tokens / scales[..., None]).round().clamp(-LEVELS, LEVELS)
        return {SCALES: scales, PATCH_TOKENS: whole.to(torch.int8)}
    return {PATCH_TOKENS: tokens.to(DTYPES[dtype])}


def unpack(packed: Mapping[str, Tensor]) -> Tensor:
    """Tokens (..., W), float32, of what `pack` made."""
    tokens = packed[PATCH_TOKENS].float()
    return tokens * packed[SCALES][..., None] if SCALES in packed else tokens


def count_bytes(tokens: int, width: int, dtype: str) -> int:
    """Bytes on disk of a number of tokens of a width W."""
    scale = torch.float32.itemsize if dtype == "int8" else 0
    return tokens * (width * DTYPES[dtype].itemsize + scale)


@dataclass(frozen=True)
class Shard:
    """A file to be: consecutive images of one category, and all that decides its content.

    Attributes:
        path: of the file.
        images: files of the images.
        digests: SHA-256 of each.
        header: a file with another one is never used.
        kind: of its features.
    """

    path: Path
    images: tuple[Path, ...]
    digests: tuple[str, ...]
    header: Mapping[str, Any]
    kind: FeatureKind = TOKENS

    def is_written(self) -> bool:
        """True where the file is there, made of the same, and whole to the last byte."""
        if not self.is_placed():
            return False
        try:
            check_tensors(self.path)
        except BrokenFileError as error:
            log.warning("%s; its images are encoded again", error)
            return False
        return True

    def is_placed(self) -> bool:
        """True where the file is there and made of the same; its tensors are not read."""
        return self.path.is_file() and read_shard_header(self.path) == self.header


def compute_identity(
    backbone: Backbone, digests: Sequence[str], kind: FeatureKind = TOKENS
) -> dict[str, Any]:
    """Plain data on which stored features of images depend: backbone, code, content, kind.

    Plain patch tokens are not named, so that stores from before there were kinds stay valid.
    """
    named = {} if kind == TOKENS else {"kind": [kind.name, kind.version]}
    return {
        "format": FORMAT,
        "code": CODE,
        "backbone": backbone.identity,
        "images": list(digests),
    } | named


def measure_kind(kind: FeatureKind, backbone: Backbone) -> tuple[int, int, int]:
    """L, P and W of a kind, seen on a black image, or known of plain patch tokens."""
    if kind == TOKENS:
        return len(backbone.blocks), backbone.grid[0] * backbone.grid[1], backbone.vision_width
    size = backbone.image_size
    levels, patches, width = kind.encode(backbone, torch.zeros(1, 3, size, size))[1].shape[1:]
    return levels, patches, width


def read_shard_header(path: Path) -> dict[str, Any]:
    """What binds a shard; empty where the file can not be read, so that it is written again."""
    try:
        return {name: value for name, value in read_header(path).items() if name != RUNTIME}
    except (BrokenFileError, OSError) as error:
        log.warning("%s; its images are encoded again", error)
        return {}


@contextmanager
def write_shard(
    shard: Shard, backbone: Backbone, shape: tuple[int, int, int]
) -> Iterator[RowWriter]:
    """A writer of the shard's rows; the file is there when the block ends without an error.

    Tokens have the `shape` of `measure_kind`. The header says what made them, if not PyTorch.
    """
    made = {}
    if backbone.engine is not None and shard.kind == TOKENS:
        made = {RUNTIME: backbone.engine.label}
    width = shard.kind.classes * backbone.embed_dim
    embeds: tuple[torch.dtype, Sequence[int]] = (torch.float32, (width,))
    layout = {EMBEDS: embeds}
    if dtype := shard.header["tokens"]:
        if dtype == "int8":
            layout[SCALES] = (torch.float32, shape[:2])
        layout[PATCH_TOKENS] = (DTYPES[dtype], shape)
    with write_rows(shard.path, layout, len(shard.images), {**shard.header, **made}) as writer:
        yield writer


def count_image_bytes(backbone: Backbone, dtype: str | None, kind: FeatureKind = TOKENS) -> int:
    """Bytes that one image takes in the store; `dtype` is None where tokens are not kept."""
    embed = kind.classes * backbone.embed_dim * torch.float32.itemsize
    if dtype is None:
        return embed
    levels, patches, width = measure_kind(kind, backbone)
    return embed + count_bytes(levels * patches, width, dtype)


def read_rows(path: Path, first: int, count: int, device: torch.device | str) -> Tensor:
    """Patch tokens of some rows of a shard, (count, L, P, W) float32 on a device.

    Raises:
        BrokenFileError: the file does not hold what was written.
    """
    rows = read_tensor_rows(path, (PATCH_TOKENS, SCALES), first, count)
    if PATCH_TOKENS not in rows:
        raise BrokenFileError(path, "it has no patch tokens")
    return unpack({name: tensor.to(device) for name, tensor in rows.items()})  # sent while small


def read_embeds(path: Path, count: int) -> Tensor:
    """Class features of all images of a shard, (count, D); errors as of `read_rows`."""
    rows = read_tensor_rows(path, (EMBEDS,), 0, count)
    if EMBEDS not in rows or len(rows[EMBEDS]) != count:
        raise BrokenFileError(path, f"it has no class features of {count} images")
    return rows[EMBEDS]
