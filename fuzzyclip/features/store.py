"""The feature store: what the frozen image tower gives, computed once and kept on disk.

One folder a category: shards of consecutive test images, and `rows.csv`, which says where each
image lies. Each shard's header binds it to the images' content, the weights, every setting that
decides its numbers and the version of the code; what does not fit is refused, never used.

Shapes: N images of a category, D embedding width, L taken blocks, P patches, W vision width.
"""

import json
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from fuzzyclip.clip.backbone import Backbone
from fuzzyclip.clip.encoding import load_pixels
from fuzzyclip.features.kinds import TOKENS, FeatureKind
from fuzzyclip.features.shards import (
    RUNTIME,
    Shard,
    compute_identity,
    count_image_bytes,
    read_embeds,
    read_rows,
    read_shard_header,
)
from fuzzyclip.utils.files import BrokenFileError, replace_file, write_text
from fuzzyclip.utils.tables import format_csv
from fuzzyclip.utils.tensor_files import check_tensors, read_header

log = logging.getLogger(__name__)

#: The index of rows of a category.
ROWS = "rows.csv"
#: Space that is left free on the disk.
SPARE_BYTES = 256 * 2**20


class FeatureMismatchError(ValueError):
    """Stored features belong to other images, weights or settings."""


@dataclass(frozen=True)
class StoredShard:
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
        runtimes: engines that made them beside PyTorch, with their versions, in order.
    """

    image_embed: Tensor
    shards: tuple[StoredShard, ...]
    has_tokens: bool
    runtimes: tuple[str, ...] = ()

    def read_tokens(self, rows: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
        """Patch tokens of some images, (len(rows), L, P, W), float32; touches only those rows."""
        pieces = [
            read_rows(shard.path, first, count, device)
            for shard, first, count in self._find_runs(rows)
        ]
        return torch.cat(pieces)  # (rows, L, P, W)

    def _find_runs(self, rows: Sequence[int]) -> Iterator[tuple[StoredShard, int, int]]:
        """Shard, first row in it and length of each run of consecutive rows, in the given order."""
        start = 0
        while start < len(rows):
            row = rows[start]
            shard = next(
                shard for shard in self.shards if shard.first <= row < shard.first + shard.count
            )
            stop, end = start + 1, shard.first + shard.count
            while stop < len(rows) and rows[stop] == rows[stop - 1] + 1 and rows[stop] < end:
                stop += 1
            yield shard, row - shard.first, stop - start
            start = stop


def read_or_encode(
    images: Sequence[Path],
    stored: Sequence[tuple[CategoryFeatures, int]],
    backbone: Backbone,
    kind: FeatureKind = TOKENS,
    workers: int = 1,
) -> Tensor:
    """Patch tokens of n images, (n, L, P, W), on the backbone's device.

    They are the stored ones; where those of any image are not stored, all are encoded again in one
    pass.

    Args:
        images: files.
        stored: features of each image's category, and the image's place in them.
        backbone: the frozen CLIP.
        kind: of the features.
        workers: threads that decode images.
    """
    if not all(features.has_tokens for features, _ in stored):
        return kind.encode(backbone, load_pixels(images, backbone, workers))[1]
    pieces = []
    for _, group in groupby(stored, key=lambda pair: id(pair[0])):  # one category's at once
        features, places = zip(*group, strict=True)
        pieces.append(features[0].read_tokens(places, backbone.device))
    return torch.cat(pieces)


def plan_category(
    folder: Path,
    rows: pd.DataFrame,
    backbone: Backbone,
    *,
    dtype: str | None = "float16",
    shard_size: int = 64,
    kind: FeatureKind = TOKENS,
) -> list[Shard]:
    """The shards that a category's folder is to hold.

    Args:
        folder: of the category in the store.
        rows: its index rows, in order, with paths that can be opened.
        backbone: the frozen CLIP.
        dtype: of the kept patch tokens, see `shards.DTYPES`; None keeps class features alone.
        shard_size: images a file.
        kind: what is kept of an image.
    """
    shards = []
    for number, first in enumerate(range(0, len(rows), shard_size)):
        chosen = rows.iloc[first : first + shard_size]
        digests = tuple(chosen["sha256"])
        shards.append(
            Shard(
                path=folder / f"{number:05d}.safetensors",
                images=tuple(map(Path, chosen["image_path"])),
                digests=digests,
                header=compute_identity(backbone, digests, kind) | {"tokens": dtype},
                kind=kind,
            )
        )
    return shards


def check_space(shards: Sequence[Shard], folder: Path, backbone: Backbone) -> str:
    """A sentence on the space that shards, all of one kind and type, need on a folder's disk.

    Raises:
        OSError: there is not enough.
    """
    images = sum(len(shard.images) for shard in shards)
    needed = 0
    if shards:
        needed = images * count_image_bytes(backbone, shards[0].header["tokens"], shards[0].kind)
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    summary = f"{images} images to encode, {_to_gb(needed)} of {_to_gb(free)} free"
    if needed > free - SPARE_BYTES:
        raise OSError(
            f"{summary}: not enough room for features in {folder}. Make room, keep fewer patch "
            "tokens (features.tokens: auxiliary or none) or smaller ones (features.dtype: int8)"
        )
    return summary


def _to_gb(count: int) -> str:
    return f"{count / 1e9:.2f} GB"


def adopt_shards(shards: Sequence[Shard], earlier: Sequence[Path]) -> list[Path]:
    """Copy files of an earlier store that fit; the answer is those that would but are broken."""
    known = {_to_key(read_shard_header(path)): path for path in earlier}
    broken = []
    for shard in shards:
        path = known.get(_to_key(shard.header))
        if path is None:
            continue
        try:
            check_tensors(path)
        except BrokenFileError as error:
            log.warning("%s; its images are encoded again", error)
            broken.append(path)
            continue
        with replace_file(shard.path) as temporary:
            shutil.copyfile(path, temporary)
    return broken


def _to_key(header: Mapping[str, Any]) -> str:
    return json.dumps(header, sort_keys=True)


def finish_category(folder: Path, rows: pd.DataFrame, shards: Sequence[Shard]) -> None:
    """Write the index of rows, and remove what is not of these shards."""
    table = rows[["image_path", "sha256"]].copy()
    table["shard"] = [shard.path.name for shard in shards for _ in shard.images]
    table["row"] = [row for shard in shards for row in range(len(shard.images))]
    write_text(folder / ROWS, format_csv(table))
    kept = {ROWS, *(shard.path.name for shard in shards)}
    for path in folder.iterdir():
        if path.name not in kept:
            path.unlink()  # of an earlier attempt with smaller shards, or of a kill


def open_category(folder: Path, expected: Mapping[str, Any]) -> CategoryFeatures:
    """The stored features of a category.

    Args:
        folder: of the category in the store.
        expected: from `compute_identity`; what the caller is about to rely on.

    Raises:
        FeatureMismatchError: nothing is stored there, or it belongs to something else.
        BrokenFileError: a file does not hold what was written.
    """
    paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        raise FeatureMismatchError(f"{folder}: no features; run the features stage")
    shards, embeds, position, has_tokens = [], [], 0, True
    runtimes = set()
    for path in paths:
        header = read_header(path)
        images = header.get("images")
        count = len(images) if isinstance(images, list) else 0
        awaited = {**expected, "images": expected["images"][position : position + count]}
        if changed := _find_changes(header, awaited):
            raise FeatureMismatchError(
                f"{path} was made with another {' and '.join(changed)}; "
                "run the features stage again"
            )
        shards.append(StoredShard(path, position, count))
        has_tokens &= header.get("tokens") is not None
        embeds.append(read_embeds(path, count))
        runtimes |= {str(header[RUNTIME])} if RUNTIME in header else set()
        position += count
    if position != len(expected["images"]):
        raise FeatureMismatchError(
            f"{folder} holds {position} of {len(expected['images'])} images; "
            "run the features stage again"
        )
    return CategoryFeatures(torch.cat(embeds), tuple(shards), has_tokens, tuple(sorted(runtimes)))


def _find_changes(header: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """Names of the entries in which a header differs, with those of the backbone's parts."""
    names = dict.fromkeys((*expected, *header))
    for free in ("tokens", RUNTIME):  # how tokens are kept, and what made them, binds nobody
        names.pop(free, None)
    changed = [name for name in names if header.get(name) != expected.get(name)]
    stored = header.get("backbone")
    if "backbone" in changed and stored and isinstance(stored, Mapping):
        wanted = expected["backbone"]
        parts = [name for name in wanted if stored.get(name) != wanted[name]]
        changed[changed.index("backbone")] = f"backbone ({', '.join(parts) or 'setting'})"
    return changed
