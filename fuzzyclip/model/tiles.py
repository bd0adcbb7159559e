"""Large and long images by overlapping tiles: where they lie, and how their maps become one.

The model squashes what it is given to a square of S x S pixels. A small defect of a large image is
gone then, and a long image is no longer what it shows; a tile keeps both.

Shapes: H rows, W columns of the whole image; h rows, w columns of a tile; n tiles.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from fuzzyclip.clip.encoding import preprocess
from fuzzyclip.evaluation.metrics import Maps, as_float32
from fuzzyclip.method.scorer import NotFiniteError
from fuzzyclip.model.card import Tiling
from fuzzyclip.model.inference import CategoryModel, Finding, Opened
from fuzzyclip.model.prediction import resize_map
from fuzzyclip.utils.ranges import COUNT, Range

T = TypeVar("T")

#: Pixels; a smaller tile shows nothing that a model could know.
SMALLEST_SIDE = 32
#: A tile of an image narrower than it is at most this many times longer than wide.
LONGEST_SHAPE = 1.25


def detect_tiled(
    item: T,
    open_image: Callable[[T], Opened],
    category_model: CategoryModel,
    tiling: Tiling,
    batch_size: int,
    keep_picture: bool = False,
) -> Finding[T]:
    """Map and score of one image by tiles; the map has the image's own size, (H, W).

    Args:
        open_image: item to what it shows; raises OSError.
        batch_size: tiles a pass.
        keep_picture: whether the finding has the picture.
    """
    try:
        opened = open_image(item)
    except OSError as error:
        return Finding(item, error=str(error))
    image = opened.picture
    boxes = plan_tiles(*image.size, tiling.side, tiling.overlap)
    whole, scores = MapBlender(*image.size), []
    for first in range(0, len(boxes), batch_size):
        batch = boxes[first : first + batch_size]
        tiles = [preprocess(image.crop(box), category_model.backbone) for box in batch]
        try:
            maps, tile_scores = category_model(torch.stack(tiles))
        except NotFiniteError as error:
            return Finding(item, error=str(error))
        scores += tile_scores.tolist()
        for box, anomaly_map in zip(batch, maps, strict=True):
            size = (box.right - box.left, box.bottom - box.top)
            whole.add(box, resize_map(anomaly_map, size))
    begun = Finding.begin(item, opened, keep_picture)
    return replace(begun, score=combine_scores(scores), map=whole.finish())


def cut_tiles(image: Image.Image, tiling: Tiling | None) -> list[Image.Image]:
    """The tiles of an image, or the whole where it is not tiled."""
    if tiling is None:
        return [image]
    return [image.crop(box) for box in plan_tiles(*image.size, tiling.side, tiling.overlap)]


def choose_tiling(tile: int | None, overlap: int | None = None) -> Tiling | None:
    """The tiling that a side and an overlap in pixels ask for; None without a side.

    Without an overlap neighbours share a quarter.

    Raises:
        ValueError: an overlap without a side, or one of them out of range.
    """
    if tile is None:
        if overlap is not None:
            raise ValueError("an overlap needs a tile (--overlap needs --tile)")
        return None
    Range(SMALLEST_SIDE, COUNT.most).check("tiles", tile=tile)
    shared = tile // 4 if overlap is None else overlap
    Range(0, tile - 1).check("tiles", overlap=shared)
    return Tiling(side=tile, overlap=shared)


class Box(NamedTuple):
    """Pixels of a tile: first column and row, and those after the last; as PIL's `crop` has it."""

    left: int
    top: int
    right: int
    bottom: int


def plan_tiles(width: int, height: int, side: int, overlap: int) -> list[Box]:
    """Tiles of equal size, evenly spaced, that cover an image; row by row.

    Tiles are squares of `side`, but never larger than the image. Across an image narrower than
    `side` they are as wide as it, and at most `LONGEST_SHAPE` times as long: 500 x 4000 pixels get
    tiles of 500 x 518, and 100 x 4000 tiles of 100 x 125, not of 100 x 518, which the model would
    see stretched five times. (An image narrower than `SMALLEST_SIDE` gets tiles of that length.)
    The overlap shrinks with a tile's side.

    Args:
        side: pixels of a tile, best the model's image size or what holds a part in full.
        overlap: pixels that neighbours have in common at least. What is not larger is seen whole by
            one of them, wherever it lies.

    Raises:
        ValueError: the image is empty, the side is less than `SMALLEST_SIDE`, or the overlap is
            negative or not less than the side.
    """
    if width < 1 or height < 1:
        raise ValueError(f"an image of {width} x {height} pixels has no tiles")
    if side < SMALLEST_SIDE:
        raise ValueError(f"tiles of {side} pixels: give at least {SMALLEST_SIDE}")
    if not 0 <= overlap < side:
        raise ValueError(f"overlap {overlap} of tiles of {side} pixels: give 0 to {side - 1}")
    longest = min(side, max(SMALLEST_SIDE, int(LONGEST_SHAPE * min(width, height))))
    columns = _place(width, min(longest, width), side, overlap)
    rows = _place(height, min(longest, height), side, overlap)
    return [Box(left, top, right, bottom) for top, bottom in rows for left, right in columns]


def _place(length: int, tile: int, side: int, overlap: int) -> list[tuple[int, int]]:
    """First pixel, and that after the last, of tiles along one direction."""
    if tile == length:
        return [(0, length)]
    # the overlap's share of the tile, rounded up
    shared = min(-(-overlap * tile // side), tile - 1)
    steps = -(-(length - tile) // (tile - shared))
    # Rounded down, neighbours lie at most ceil((length - tile) / steps) apart, which is no more
    # than tile - shared.
    starts = [step * (length - tile) // steps for step in range(steps + 1)]
    return [(start, start + tile) for start in starts]


class MapBlender:
    """One map (H, W) from the maps of tiles, added one after the other in any order.

    A tile weighs most in its middle and falls off evenly to its border, in both directions: where
    two overlap, the one fades into the other and no seam shows. Weights are divided by their sum,
    so that each pixel is a mean of what its tiles say, and never outside of what they say.

    Memory: two float32 arrays (H, W), whatever the number of tiles.
    """

    def __init__(self, width: int, height: int) -> None:
        """Nothing added yet; a map that is empty is refused as a ValueError."""
        if width < 1 or height < 1:
            raise ValueError(f"a map of {width} x {height} pixels is empty")
        self._total: Maps = np.zeros((height, width), dtype=np.float32)
        self._weight: Maps = np.zeros((height, width), dtype=np.float32)
        self._lowest, self._highest = np.inf, -np.inf

    def add(self, box: Box, anomaly_map: ArrayLike) -> None:
        """Add the map (h, w) of one tile.

        Raises:
            ValueError: the box is not inside the map, the tile's map has another size or a type
                finer than float32, or a value is not finite. Nothing is added then.
        """
        height, width = self._total.shape
        left, top, right, bottom = box
        if not (0 <= left < right <= width and 0 <= top < bottom <= height):
            raise ValueError(f"tile {tuple(box)} is not inside a map of {width} x {height} pixels")
        given = as_float32(anomaly_map)
        if given.shape != (bottom - top, right - left):
            raise ValueError(
                f"the map of tile {tuple(box)} is {given.shape}, not {(bottom - top, right - left)}"
            )
        weight = np.outer(_fall_off(bottom - top), _fall_off(right - left))  # (h, w)
        self._total[top:bottom, left:right] += weight * given
        self._weight[top:bottom, left:right] += weight
        self._lowest = min(self._lowest, float(given.min()))
        self._highest = max(self._highest, float(given.max()))

    def finish(self) -> Maps:
        """The map (H, W); the blender can not be used afterwards.

        Raises:
            ValueError: no tile covers some pixel; names it.
        """
        if not self._weight.all():
            row, column = np.unravel_index(self._weight.argmin(), self._weight.shape)
            raise ValueError(f"no tile covers the pixel in row {row} and column {column}")
        np.divide(self._total, self._weight, out=self._total)
        # What rounding added goes: a constant map stays constant, a probability in [0, 1].
        whole: Maps = np.clip(self._total, self._lowest, self._highest, out=self._total)
        return whole


def _fall_off(length: int) -> NDArray[np.float32]:
    """Weights along one direction: a tent, symmetric, 1 / length at its ends and so never 0."""
    places = np.arange(length, dtype=np.float32) + np.float32(0.5)
    return np.asarray(np.minimum(places, length - places) * (2 / length), dtype=np.float32)


def combine_scores(scores: Sequence[float]) -> float:
    """Image score of a tiled image: that of its most anomalous tile.

    One defect is enough, wherever it lies. But each tile is one more chance of a false alarm: if
    one normal tile in 100 reaches a threshold, 20 tiles reach it in up to one image of five. A
    threshold therefore holds only for the tiling (side, overlap and size of images) it was chosen
    with.

    Raises:
        ValueError: no scores, or one is not a number.
    """
    given = np.asarray(scores, dtype=np.float64)
    if not given.size or np.isnan(given).any():
        raise ValueError(f"scores of tiles must be numbers, at least one: {list(scores)}")
    return float(given.max())
