"""The feature store: what the frozen image tower gives, computed once and kept on disk.

One folder a category, shards of consecutive test images in it. Each shard's header binds it to
the images, the weights and every setting that decides its content; a store that does not fit is
refused, never used.

Shapes: N images of a category, D embedding width, L taken blocks, P patches, W vision width.
"""

import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors import safe_open
from torch import Tensor
from tqdm import tqdm

from fuzzyclip.backbone import Backbone
from fuzzyclip.encoding import encode_images
from fuzzyclip.pixels import load_pixels
from fuzzyclip.tensor_files import read_header, write_tensors

log = logging.getLogger(__name__)

#: Raise when the same identity no longer gives the same bytes.
FORMAT = 1


class FeatureMismatchError(ValueError):
    """Stored features belong to other images, weights or settings."""


@dataclass(frozen=True)
class Shard:
    """One file: images `first` to `first + count` of the category."""

    path: Path
    first: int
    count: int


@dataclass(frozen=True)
class CategoryFeatures:
    """Features of one category's test images, in index order.

    Attributes:
        image_embed: (N, D) class features, not normalised, float32.
        shards: where the patch tokens lie.
        has_tokens: whether the shards hold patch tokens.
    """

    image_embed: Tensor
    shards: tuple[Shard, ...]
    has_tokens: bool

    def read_tokens(self, rows: Sequence[int]) -> Tensor:
        """Patch tokens of some images, (len(rows), L, P, W), float32; touches only those rows."""
        pieces = []
        for shard, first, count in self._find_runs(rows):
            with safe_open(str(shard.path), framework="pt") as file:
                stored = file.get_slice("patch_tokens")
                pieces.append(stored[first : first + count].float())
        return torch.cat(pieces)  # (rows, L, P, W)

    def _find_runs(self, rows: Sequence[int]) -> Iterator[tuple[Shard, int, int]]:
        """Shard, first row in it and length of each run of consecutive rows, in the given order."""
        start = 0
        while start < len(rows):
            row = rows[start]
            shard = next(one for one in self.shards if one.first <= row < one.first + one.count)
            stop = start + 1
            end = shard.first + shard.count
            while stop < len(rows) and rows[stop] == rows[stop - 1] + 1 and rows[stop] < end:
                stop += 1
            yield shard, row - shard.first, stop - start
            start = stop


def compute_identity(backbone: Backbone, images: Sequence[str]) -> dict[str, Any]:
    """What a category's features depend on, as plain data for headers."""
    return {
        "format": FORMAT,
        "backbone": backbone.fingerprint,
        "images": hashlib.sha256("\n".join(images).encode()).hexdigest(),
        "total": len(images),
    }


def write_category(
    folder: Path,
    rows: pd.DataFrame,
    root: Path,
    backbone: Backbone,
    *,
    tokens: bool = True,
    dtype: str = "float16",
    shard_size: int = 64,
    batch_size: int = 16,
    workers: int = 1,
) -> None:
    """Encode a category's images into `folder`, skipping shards that are already there.

    Args:
        folder: the category's folder in the store.
        rows: its index rows, in order.
        root: the dataset's root, which `image_path` is relative to.
        backbone: the frozen CLIP.
        tokens: keep patch tokens beside the class features.
        dtype: type in which patch tokens are kept: `float32`, `float16` or `bfloat16`.
        shard_size: images a file.
        batch_size: images a pass.
        workers: threads that decode images.
    """
    images = list(rows["image_path"])
    kept = dtype if tokens else None
    identity = compute_identity(backbone, images) | {"tokens": kept}
    starts = range(0, len(images), shard_size)
    for number, first in enumerate(tqdm(starts, desc=folder.name, unit="shard", disable=None)):
        chosen = images[first : first + shard_size]
        header = identity | {"first": first, "count": len(chosen)}
        path = folder / f"{number:05d}.safetensors"
        if path.is_file() and _read_shard_header(path) == header:
            continue
        paths = [root / image for image in chosen]
        tensors = _encode(paths, backbone, tokens, dtype, batch_size, workers)
        write_tensors(path, tensors, header)
    for surplus in sorted(folder.glob("*.safetensors"))[len(starts) :]:
        surplus.unlink()  # of an earlier attempt with smaller shards


def _encode(
    paths: Sequence[Path],
    backbone: Backbone,
    tokens: bool,
    dtype: str,
    batch_size: int,
    workers: int,
) -> dict[str, Tensor]:
    """One shard's tensors."""
    embeds, kept = [], []
    for start in range(0, len(paths), batch_size):
        pixels = load_pixels(paths[start : start + batch_size], backbone, workers)
        image_embed, patch_tokens = encode_images(backbone, pixels)
        embeds.append(image_embed.cpu())
        if tokens:
            kept.append(patch_tokens.to(getattr(torch, dtype)).cpu())
    return {"image_embed": torch.cat(embeds)} | ({"patch_tokens": torch.cat(kept)} if kept else {})


def open_category(folder: Path, expected: dict[str, Any]) -> CategoryFeatures:
    """The stored features of a category.

    Args:
        folder: the category's folder in the store.
        expected: from `compute_identity`; what the caller is about to rely on.

    Raises:
        FeatureMismatchError: nothing is stored there, or it belongs to something else.
    """
    paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        raise FeatureMismatchError(f"{folder}: no features; run the features stage")
    shards, embeds, position, has_tokens = [], [], 0, True
    for path in paths:
        header = _read_shard_header(path)
        stored = {key: header.get(key) for key in expected}
        if stored != expected or header.get("first") != position:
            changed = [key for key in expected if stored[key] != expected[key]]
            raise FeatureMismatchError(
                f"{path} was made with another {' and '.join(changed) or 'set of shards'}; "
                "run the features stage again"
            )
        shards.append(Shard(path, position, header["count"]))
        has_tokens &= header["tokens"] is not None
        with safe_open(str(path), framework="pt") as file:
            embeds.append(file.get_tensor("image_embed"))
        position += header["count"]
    if position != expected["total"]:
        raise FeatureMismatchError(
            f"{folder} holds {position} of {expected['total']} images; run the features stage again"
        )
    return CategoryFeatures(torch.cat(embeds), tuple(shards), has_tokens)


def _read_shard_header(path: Path) -> dict[str, Any]:
    """A shard's header; empty when the file can not be read, so that it is written again."""
    try:
        with safe_open(str(path), framework="pt") as file:
            return read_header(file.metadata())
    except Exception as error:
        log.warning("%s can not be read (%s)", path, error)
        return {}
