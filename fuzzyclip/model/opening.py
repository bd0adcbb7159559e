"""What a detector takes as an image, and how it is opened.

Shapes: H rows, W columns.
"""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fuzzyclip.images.decode import MAX_PIXELS, check_inspectable, decode_image, load_image

#: A file, the bytes of one, a PIL image, or an array (H, W, 3) or (H, W) of uint8.
ImageLike: TypeAlias = str | Path | bytes | Image.Image | NDArray[np.uint8]

#: What a PNG holds with its transparency; TIFF holds the others.
PNG_MODES = ("1", "L", "LA", "P", "RGBA")


@dataclass(frozen=True)
class Opener:
    """Opens images for inspection.

    Attributes:
        max_pixels: larger ones are refused before they are decoded.
        white: value shown as white in images of more than 8 bits; None for their type's largest.
    """

    max_pixels: int = MAX_PIXELS
    white: int | None = None

    def __call__(self, image: ImageLike) -> Image.Image:
        """RGB image.

        Raises:
            OSError: it can not be read, or is too large or too small to be inspected.
            ValueError: an array of another type or shape.
        """
        if isinstance(image, np.ndarray):
            opened = _from_array(image)
        elif isinstance(image, Image.Image) and image.mode == "RGB":
            opened = image
        elif isinstance(image, str | Path):
            opened = load_image(Path(image), white=self.white, max_pixels=self.max_pixels)
        else:
            content = image if isinstance(image, bytes) else _encode(image)
            opened = decode_image(
                content, name_image(image), white=self.white, max_pixels=self.max_pixels
            )
        check_inspectable(opened, name_image(image))
        return opened


def _from_array(image: NDArray[np.uint8]) -> Image.Image:
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)):
        raise ValueError(
            f"an array of {image.dtype} and shape {image.shape} is no image: give uint8, (H, W, 3) "
            "in the order red, green, blue, or (H, W)"
        )
    return Image.fromarray(image).convert("RGB")


def _encode(image: Image.Image) -> bytes:
    """A PIL image as a file, so that all kinds of pixels are read in one way."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG" if image.mode in PNG_MODES else "TIFF")
    return buffer.getvalue()


def name_image(image: ImageLike) -> str:
    """What an image is called in messages and results."""
    if isinstance(image, str | Path):
        return str(image)
    if isinstance(image, Image.Image):
        return str(getattr(image, "filename", "")) or "image"
    return {bytes: "bytes", np.ndarray: "array"}.get(type(image), "image")
