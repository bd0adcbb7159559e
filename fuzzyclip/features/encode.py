"""Filling the feature store: images through the frozen tower, into shards.

Three things go on at a time: threads decode the next images, the device computes, and a thread
writes what it computed. Held in memory are two batches of images and two of tokens, never a shard.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pandas as pd
from torch import Tensor
from tqdm import tqdm

from fuzzyclip.clip.backbone import Backbone
from fuzzyclip.clip.encoding import iterate_pixels
from fuzzyclip.features.kinds import TOKENS, FeatureKind
from fuzzyclip.features.shards import EMBEDS, Shard, measure_kind, pack, write_shard
from fuzzyclip.features.store import check_space, finish_category, plan_category
from fuzzyclip.utils.prefetch import Fetcher
from fuzzyclip.utils.tensor_files import RowWriter

#: Images a pass of the image tower; the last of a shard may have fewer. No setting of the machine
#: changes it: matrix products of another shape round differently, and trainings make much of a
#: feature's last digits.
PASS_IMAGES = 16


def write_category(
    folder: Path,
    rows: pd.DataFrame,
    backbone: Backbone,
    *,
    dtype: str | None = "float16",
    shard_size: int = 64,
    batch_size: int = PASS_IMAGES,
    workers: int = 1,
    kind: FeatureKind = TOKENS,
) -> None:
    """Encode a category's images into `folder`, skipping shards that are already there.

    For the arguments see `plan_category` and `encode_shards`.

    Raises:
        OSError: no room on the disk, or an image can not be read.
    """
    shards = plan_category(folder, rows, backbone, dtype=dtype, shard_size=shard_size, kind=kind)
    missing = [shard for shard in shards if not shard.is_written()]
    check_space(missing, folder, backbone)
    encode_shards(missing, backbone, batch_size=batch_size, workers=workers, title=folder.name)
    finish_category(folder, rows, shards)


def encode_shards(
    shards: Sequence[Shard],
    backbone: Backbone,
    *,
    batch_size: int = PASS_IMAGES,
    workers: int = 1,
    title: str = "",
) -> None:
    """Encode and write shards, one after the other.

    Args:
        shards: what to write, all of one kind.
        backbone: the frozen CLIP.
        batch_size: images a pass; another number may move the features' last digits. A pass never
            crosses shards, so that a shard's bytes do not depend on what was encoded before it.
        workers: threads that decode images.
        title: shown beside the progress bar.

    Raises:
        OSError: an image can not be read, or is not the one that was indexed.
        ValueError: features of an image are not finite, or its tokens exceed the type's range.
    """
    if not shards:
        return
    shape = measure_kind(shards[0].kind, backbone)
    plan = [(shard, first) for shard in shards for first in range(0, len(shard.images), batch_size)]
    batches = iterate_pixels(
        [shard.images[first : first + batch_size] for shard, first in plan],
        backbone,
        digests=[shard.digests[first : first + batch_size] for shard, first in plan],
        workers=workers,
    )
    total = sum(len(shard.images) for shard in shards)
    fetcher = Fetcher(backbone.device)
    with tqdm(total=total, desc=title, unit="image", disable=None, leave=False) as progress:
        for shard in shards:
            _encode_shard(shard, backbone, shape, batches, batch_size, fetcher)
            progress.update(len(shard.images))


def _encode_shard(
    shard: Shard,
    backbone: Backbone,
    shape: tuple[int, int, int],
    batches: Iterator[Tensor],
    batch_size: int,
    fetcher: Fetcher,
) -> None:
    """One shard; a batch is written while the next one is computed."""
    with write_shard(shard, backbone, shape) as writer, ThreadPoolExecutor(1) as writing:
        pending: Future[None] | None = None
        for first in range(0, len(shard.images), batch_size):
            encoded = _encode_batch(next(batches), backbone, shard, first)
            fetched = {name: fetcher.fetch(tensor) for name, tensor in encoded.items()}
            if pending is not None:
                pending.result()
            pending = writing.submit(_write, writer, first, fetched)
        if pending is not None:
            pending.result()


def _encode_batch(
    pixels: Tensor, backbone: Backbone, shard: Shard, first: int
) -> dict[str, Tensor]:
    """Tensors to keep of a batch (B, 3, S, S) that begins at the shard's image `first`."""
    image_embed, patch_tokens = shard.kind.encode(backbone, pixels)
    images = shard.images[first : first + len(pixels)]
    if not image_embed.isfinite().all():
        faulty = int((~image_embed.isfinite()).any(dim=1).nonzero()[0])
        raise ValueError(
            f"{images[faulty]}: its class feature is not finite; look at the image and the weights"
        )
    dtype = shard.header["tokens"]
    kept = {} if dtype is None else _pack_batch(patch_tokens, dtype, images)
    return {EMBEDS: image_embed} | kept


def _pack_batch(patch_tokens: Tensor, dtype: str, images: Sequence[Path]) -> dict[str, Tensor]:
    """`pack` of a batch (B, L, P, W); what it refuses gets the name of its image."""
    try:
        return pack(patch_tokens, dtype)
    except ValueError:
        for image, tokens in zip(images, patch_tokens, strict=True):
            try:
                pack(tokens, dtype)
            except ValueError as error:
                raise ValueError(f"{image}: {error}") from error
        raise


def _write(writer: RowWriter, first: int, fetched: Mapping[str, Callable[[], Tensor]]) -> None:
    writer.write(first, {name: wait() for name, wait in fetched.items()})
