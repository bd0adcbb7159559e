"""Ground truth masks at the size of the anomaly maps.

Shapes: B rows, S image size.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from fuzzyclip.images.decode import load_mask


def resize_mask(mask: NDArray[np.bool_], size: int) -> NDArray[np.bool_]:
    """A binary mask squashed to (S, S): bilinear, then more than half covered."""
    full = Image.fromarray(mask.astype(np.uint8) * 255)
    squashed = np.asarray(full.resize((size, size), Image.Resampling.BILINEAR))
    return squashed > 127


def load_masks(rows: pd.DataFrame, size: int) -> NDArray[np.bool_]:
    """Masks of index rows, (B, S, S); all false where a row has none.

    Args:
        rows: from `fuzzyclip.images.index_file.read_index`.
        size: S.
    """
    masks = np.zeros((len(rows), size, size), dtype=bool)
    for mask, path, above in zip(masks, rows["mask_path"], rows["mask_above"], strict=True):
        if path:
            mask[:] = resize_mask(load_mask(Path(path), above), size)
    return masks
