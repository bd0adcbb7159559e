"""Mosaics: four images of one category in one, the augmentation of MVTec-trained layers.

Which row becomes a mosaic of which four rows is planned from the seed before training, so the
result does not depend on how batches are read.

Shapes: S image size.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fuzzyclip.images.masks import resize_mask

#: (epoch from 1, row) -> the four rows whose images take that row's place.
MosaicPlan = Mapping[tuple[int, int], tuple[int, int, int, int]]


def plan_mosaics(
    categories: Sequence[str], epochs: int, probability: float, seed: int
) -> dict[tuple[int, int], tuple[int, int, int, int]]:
    """Replace each row of each epoch by a mosaic with some probability.

    Args:
        categories: category of each row; a mosaic stays within one.
        epochs: epochs of the training.
        probability: chance that a row becomes a mosaic.
        seed: of the plan.
    """
    rng = np.random.default_rng(seed)
    members: dict[str, list[int]] = {}
    for row, category in enumerate(categories):
        members.setdefault(category, []).append(row)
    plan = {}
    for epoch in range(1, epochs + 1):
        chosen = np.flatnonzero(rng.random(len(categories)) < probability)
        for row in chosen.tolist():
            a, b, c, d = rng.choice(members[categories[row]], size=4).tolist()
            plan[epoch, row] = (a, b, c, d)
    return plan


def build_mosaic(images: Sequence[Image.Image], size: int) -> Image.Image:
    """Four images, each squashed to a quarter, as one of (S, S): left to right, top to bottom."""
    canvas = Image.new("RGB", (size, size))
    for image, (left, top, width, height) in zip(images, split_in_four(size), strict=True):
        canvas.paste(image.resize((width, height), Image.Resampling.BICUBIC), (left, top))
    return canvas


def build_mosaic_mask(masks: Sequence[NDArray[np.bool_]], size: int) -> NDArray[np.bool_]:
    """The four masks in the places of their images, (S, S)."""
    canvas = np.zeros((size, size), dtype=bool)
    for mask, (left, top, width, height) in zip(masks, split_in_four(size), strict=True):
        side = max(width, height)
        canvas[top : top + height, left : left + width] = resize_mask(mask, side)[:height, :width]
    return canvas


def split_in_four(size: int) -> list[tuple[int, int, int, int]]:
    """Left, top, width and height of the quarters of an (S, S) square."""
    near, far = size // 2, size - size // 2
    return [
        (0, 0, near, near),
        (near, 0, far, near),
        (0, near, near, far),
        (near, near, far, far),
    ]
