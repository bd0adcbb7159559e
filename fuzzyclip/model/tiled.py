"""Looking at an image tile by tile.

Shapes: B tiles of a batch, S model's image size, H rows, W columns of the image.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import torch

from fuzzyclip.clip.encoding import preprocess
from fuzzyclip.method.scorer import NotFiniteError
from fuzzyclip.model.card import Tiling
from fuzzyclip.model.inference import Detector, Found
from fuzzyclip.model.opening import Opened
from fuzzyclip.model.prediction import resize_map
from fuzzyclip.model.tiles import MapBlender, combine_scores, plan_tiles

T = TypeVar("T")


def detect_tiled(
    item: T,
    open_image: Callable[[T], Opened],
    detector: Detector,
    tiling: Tiling,
    batch_size: int,
    keep_picture: bool = False,
) -> Found[T]:
    """What is found in one image by tiles; its map has the image's own size, (H, W).

    Args:
        item: what `open_image` opens.
        open_image: item to what it shows; raises OSError.
        detector: the model.
        tiling: side and overlap of the tiles.
        batch_size: tiles a pass.
        keep_picture: whether what is found has the picture.
    """
    try:
        opened = open_image(item)
    except OSError as error:
        return Found(item, error=str(error))
    image = opened.picture
    boxes = plan_tiles(*image.size, tiling.side, tiling.overlap)
    whole, scores = MapBlender(*image.size), []
    for first in range(0, len(boxes), batch_size):
        batch = boxes[first : first + batch_size]
        tiles = [preprocess(image.crop(box), detector.backbone) for box in batch]
        try:
            maps, found = detector(torch.stack(tiles))
        except NotFiniteError as error:
            return Found(item, error=str(error))
        scores += found.tolist()
        for box, anomaly_map in zip(batch, maps, strict=True):
            size = (box.right - box.left, box.bottom - box.top)
            whole.add(box, resize_map(anomaly_map, size))
    begun = Found.begin(item, opened, keep_picture)
    return replace(begun, score=combine_scores(scores), map=whole.finish())
