"""Dataset trees for tests."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

MASK = np.zeros((6, 8), np.uint8)
MASK[2:4, 3:6] = 255


def write_picture(path: Path, pixels: NDArray[np.generic]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def picture(number: int) -> NDArray[np.uint8]:
    """An image (6, 8, 3) like no other."""
    return np.random.default_rng(number).integers(0, 256, (6, 8, 3), dtype=np.uint8)


def write_images(folder: Path, names: list[str], first: int = 0) -> None:
    """Distinct images under these names."""
    for number, name in enumerate(names):
        write_picture(folder / name, picture(first + number))
