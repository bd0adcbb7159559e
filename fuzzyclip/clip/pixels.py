"""Image files to batches as the backbone wants them.

Shapes: B images, S image size.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from fuzzyclip.clip.backbone import Backbone
from fuzzyclip.clip.encoding import preprocess
from fuzzyclip.images.decode import load_image
from fuzzyclip.utils.prefetch import prefetch


def load_pixels(paths: Sequence[Path], backbone: Backbone, workers: int = 1) -> Tensor:
    """Images as one batch, (B, 3, S, S)."""
    return next(iterate_pixels([paths], backbone, workers=workers))


def iterate_pixels(
    batches: Sequence[Sequence[Path]],
    backbone: Backbone,
    *,
    digests: Sequence[Sequence[str]] | None = None,
    workers: int = 1,
) -> Iterator[Tensor]:
    """Batches (B, 3, S, S); the images of the next one are decoded while one is used.

    Args:
        batches: files of each batch.
        backbone: the frozen CLIP.
        digests: SHA-256 that each file must have; None does not look.
        workers: threads. Decoding and resizing release the interpreter's lock.

    Raises:
        OSError: a file is missing, no image, or another one than `digests` says.
    """
    files = [path for batch in batches for path in batch]
    expected = [digest for batch in digests for digest in batch] if digests else [None] * len(files)

    def load(item: tuple[Path, str | None]) -> Tensor:
        return preprocess(load_image(*item), backbone)

    largest = max(map(len, batches), default=0)
    loaded = prefetch(load, zip(files, expected, strict=True), ahead=largest, workers=workers)
    for batch in batches:
        yield torch.stack(list(islice(loaded, len(batch))))
