"""Normal training images of a tested category, for variants that are not zero-shot."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from fuzzyclip.clip.backbone import Backbone
from fuzzyclip.clip.encoding import encode_images
from fuzzyclip.clip.pixels import iterate_pixels

#: Images encoded at once.
BATCH = 4


def choose_references(rows: pd.DataFrame, count: int, seed: int) -> pd.DataFrame:
    """So many of a category's normal training images; fewer are always the first of more.

    Args:
        rows: index rows of the category's training images.
        count: of them.
        seed: of the choice.

    Raises:
        ValueError: there are fewer.
    """
    normal = rows[rows["label"] == 0].sort_values("image_path")
    if len(normal) < count:
        raise ValueError(f"{len(normal)} normal training images, {count} are asked for")
    return normal.iloc[np.random.default_rng(seed).permutation(len(normal))[:count]]


def encode_references(rows: pd.DataFrame, backbone: Backbone) -> Tensor:
    """Patch tokens of images, (n, L, P, W).

    Args:
        rows: their index rows, 1 or more.
        backbone: the frozen CLIP.
    """
    batches = [rows.iloc[first : first + BATCH] for first in range(0, len(rows), BATCH)]
    pixels = iterate_pixels(
        [[Path(path) for path in batch["image_path"]] for batch in batches],
        backbone,
        digests=[batch["sha256"].tolist() for batch in batches],
    )
    return torch.cat([encode_images(backbone, batch)[1] for batch in pixels])
