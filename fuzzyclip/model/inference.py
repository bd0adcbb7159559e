"""From images to anomaly maps and scores, with a model that is ready.

Shapes: B images of a batch, S image size.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Generic, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fuzzyclip.clip.backbone import Backbone
from fuzzyclip.clip.encoding import encode_images, preprocess
from fuzzyclip.images.decode import decode_image, read_image_file
from fuzzyclip.method.scorer import NotFiniteError, Scorer, score_batch
from fuzzyclip.model.opening import Opened
from fuzzyclip.utils.prefetch import prefetch
from fuzzyclip.utils.ranges import SIGMA

T = TypeVar("T")


@dataclass(frozen=True)
class CategoryModel:
    """A frozen CLIP and one way to score what it gives.

    Attributes:
        backbone: the frozen CLIP.
        scorer: from patch tokens and class features to maps and scores.
        sigma: Gaussian smoothing of the maps in pixels.
    """

    backbone: Backbone
    scorer: Scorer
    sigma: float = 0.0

    def __post_init__(self) -> None:
        SIGMA.check("a detector", sigma=self.sigma)

    def __call__(self, pixels: Tensor) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Maps (B, S, S) and scores (B,), higher is more anomalous, of pixels (B, 3, S, S).

        Scores are log-odds and maps probabilities, where the scorer's are.

        Raises:
            NotFiniteError: the scorer has no finite answer to an image.
        """
        image_embed, patch_tokens = encode_images(self.backbone, pixels)
        scores = score_batch(self.scorer, patch_tokens, image_embed, self.backbone, self.sigma)
        return scores.shown, scores.image_scores


@dataclass(frozen=True)
class Finding(Generic[T]):
    """Map and score of one image.

    Attributes:
        item: the image as it was given.
        size: width and height in pixels; None where it can not be read.
        score: of the whole image; None where it can not be read.
        map: (S, S); None where the image can not be read.
        error: why the image can not be read; empty where it can.
        sha256: of the image's file; empty where it is none or can not be read.
        picture: the image as it was opened, where it was to be kept.
    """

    item: T
    size: tuple[int, int] | None = None
    score: float | None = None
    map: NDArray[np.float32] | None = None
    error: str = ""
    sha256: str = ""
    picture: Image.Image | None = None

    @classmethod
    def begin(cls, item: T, opened: Opened, keep_picture: bool) -> Self:
        """An image that is open, before the model has seen it."""
        picture = opened.picture if keep_picture else None
        return cls(item, opened.picture.size, sha256=opened.sha256, picture=picture)


#: What was found in a file, by its path as it was given.
Detection = Finding[str]


def read_file(path: str) -> bytes:
    """Content of a local image file.

    Raises:
        OSError: it is missing, unreadable or no regular file.
    """
    return read_image_file(Path(path))


def detect_files(
    paths: Sequence[str | Path],
    detector: CategoryModel,
    *,
    batch_size: int,
    workers: int = 1,
    read: Callable[[str], bytes] = read_file,
) -> Iterator[Detection]:
    """`detect_images` over image files.

    Args:
        paths: image files.
        detector: the model.
        batch_size: images a pass.
        workers: threads that read and decode.
        read: path to content, called in threads; raises OSError.
    """
    names = [str(path) for path in paths]
    return detect_images(
        names,
        lambda name: Opened(decode_image(read(name), name)),
        detector,
        batch_size=batch_size,
        workers=workers,
    )


def detect_images(
    items: Iterable[T],
    open_image: Callable[[T], Opened],
    detector: CategoryModel,
    *,
    batch_size: int,
    workers: int = 1,
    keep_pictures: bool = False,
) -> Iterator[Finding[T]]:
    """Maps and scores of images, in their order; the next batch is decoded while one is computed.

    An image that can not be read, or that the model has no finite answer to, is told by what is
    found, and the others go on. A blank one takes its place in the batch, so that the others'
    numbers do not depend on it.

    Args:
        items: what `open_image` opens.
        open_image: item to what it shows, called in threads; raises OSError.
        detector: the model.
        batch_size: images a pass. The same images in the same batches give the same bytes; other
            batches may change the last digits.
        workers: threads that read and decode.
        keep_pictures: whether what is found has the picture; two batches of them are then held.

    Raises:
        NotFiniteError: the model has no finite answer to a blank image either.
    """
    size = detector.backbone.image_size

    def load(item: T) -> tuple[Tensor, Finding[T]]:
        try:
            opened = open_image(item)
        except OSError as error:
            return torch.zeros(3, size, size), Finding(item, error=str(error))
        begun = Finding.begin(item, opened, keep_pictures)
        return preprocess(opened.picture, detector.backbone), begun

    loaded = prefetch(load, items, ahead=batch_size, workers=workers)
    while batch := list(islice(loaded, batch_size)):
        pixels, given = torch.stack([image for image, _ in batch]), [begun for _, begun in batch]
        try:
            maps, scores = detector(pixels)
        except NotFiniteError as error:
            for row in error.rows:
                pixels[row] = 0
                given[row] = Finding(given[row].item, error=given[row].error or str(error))
            maps, scores = detector(pixels)
        for finding, anomaly_map, score in zip(given, maps, scores, strict=True):
            if finding.error:
                yield finding
            else:
                yield replace(finding, score=float(score), map=anomaly_map)
