"""Comparing an exported file with the detector it was made of, on real images.

Shapes: N images, S image size.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, astuple, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from fuzzyclip.clip.encoding import preprocess
from fuzzyclip.deploy.runtimes import Floats, Pixels, load_pixels
from fuzzyclip.images.decode import load_image
from fuzzyclip.model.inference import CategoryModel

#: Images in a pass: one as most users send them, and several. Each image is seen both ways.
BATCHES = (1, 3)


class ParityError(ValueError):
    """An exported file gives other numbers than its detector."""


@dataclass(frozen=True)
class Difference:
    """Differences between two ways to score the same images, or the largest that are allowed.

    Attributes:
        score: of image scores, the largest.
        map_mean: of maps in [0, 1], mean over the pixels of an image, the largest of all images.
        map_max: of maps in [0, 1], the largest of all pixels.
    """

    score: float
    map_mean: float
    map_max: float

    def join(self, other: "Difference") -> "Difference":
        """The larger of each."""
        pairs = zip(astuple(self), astuple(other), strict=True)
        return Difference(*(max(pair) for pair in pairs))


#: What float32 may differ by: another order of sums.
FLOAT32 = Difference(score=1e-4, map_mean=1e-5, map_max=1e-4)
#: What int8 may differ by. On 1440 drawn images of 30 categories the largest were 0.21, 0.014 and
#: 0.058 with either sample model, and image AUROC moved by 0.7 at most. Scores are log-odds: 0.4 is
#: a cosine of 0.03 at RPL's 14.3. Thresholds of float32 do not hold for int8.
INT8 = Difference(score=0.4, map_mean=0.03, map_max=0.1)


@dataclass(frozen=True)
class Reference:
    """The detector's own maps (N, S, S) in [0, 1] and scores (N,) of pixels (N, S, S, 3)."""

    pixels: Pixels
    maps: Floats
    scores: Floats


def compute_reference(
    category_model: CategoryModel, images: Sequence[Image.Image | Path]
) -> Reference:
    """Maps and scores by the detector's own way, preprocessing included, image by image.

    Raises:
        ValueError: no images.
        OSError: a file can not be read.
    """
    if not images:
        raise ValueError("an export is compared with PyTorch on images: give at least one")
    opened = [
        load_image(image) if isinstance(image, Path) else image.convert("RGB") for image in images
    ]
    backbone = category_model.backbone
    results = [category_model(preprocess(image, backbone)[None]) for image in opened]
    return Reference(
        pixels=load_pixels(opened, backbone.image_size),
        maps=np.concatenate([maps for maps, _ in results]),
        scores=np.concatenate([scores for _, scores in results]),
    )


def check_parity(
    reference: Reference,
    run: Callable[[Pixels], tuple[Floats, Floats]],
    allowed: Difference,
    name: str,
) -> Difference:
    """Compare a file with its detector, in batches of several sizes.

    Returns:
        The largest differences over all batches.

    Raises:
        ParityError: a difference exceeds what is allowed, or is not a number, or shapes differ.
    """
    worst = Difference(0.0, 0.0, 0.0)
    for size in BATCHES:
        for rows in _split(len(reference.pixels), size):
            try:
                maps, scores = run(reference.pixels[rows])
            except ValueError as error:  # not finite
                raise ParityError(
                    f"{name} differs from PyTorch in a batch of {len(rows)}: {error}. "
                    "Nothing was written"
                ) from error
            expected = (reference.maps[rows], reference.scores[rows])
            if (maps.shape, scores.shape) != (expected[0].shape, expected[1].shape):
                raise ParityError(
                    f"{name}: maps {maps.shape} and scores {scores.shape} of a batch of {len(rows)}"
                )
            difference = measure((maps, scores), expected)
            _refuse(difference, allowed, name, len(rows))
            worst = worst.join(difference)
    return worst


def measure(given: tuple[Floats, Floats], expected: tuple[Floats, Floats]) -> Difference:
    """Differences between two pairs of maps (N, S, S) and scores (N,)."""
    apart = np.abs(given[0].astype(np.float64) - expected[0])  # (N, S, S)
    return Difference(
        score=float(np.abs(given[1].astype(np.float64) - expected[1]).max()),
        map_mean=float(apart.mean(axis=(1, 2)).max()),
        map_max=float(apart.max()),
    )


def _split(count: int, size: int) -> Iterator[list[int]]:
    """Row numbers in batches of one size; the first rows fill the last batch up."""
    for first in range(0, count, size):
        yield [row % count for row in range(first, first + size)]


def _refuse(difference: Difference, allowed: Difference, name: str, batch: int) -> None:
    limits = asdict(allowed)
    apart = [
        f"{kind} by {value:.3g} (allowed {limits[kind]:g})"
        for kind, value in asdict(difference).items()
        if not value <= limits[kind]
    ]
    if apart:
        raise ParityError(
            f"{name} differs from PyTorch in a batch of {batch}: {', '.join(apart)}. "
            "Nothing was written"
        )
