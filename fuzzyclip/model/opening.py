"""Images as the user gives them, and their opening.

Shapes: H rows, W columns.
"""

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fuzzyclip.images.decode import MAX_PIXELS, check_inspectable, decode_image, read_image_file

#: A file, the bytes of one, a PIL image, or an array (H, W, 3) or (H, W) of uint8.
ImageLike: TypeAlias = str | Path | bytes | Image.Image | NDArray[np.uint8]

#: What a PNG holds with its transparency; TIFF holds the others.
PNG_MODES = ("1", "L", "LA", "P", "RGBA")


class Opened(NamedTuple):
    """An image as it was opened.

    Attributes:
        picture: RGB.
        sha256: of the file; empty where the image came as pixels.
    """

    picture: Image.Image
    sha256: str = ""


@dataclass(frozen=True)
class Opener:
    """Opens images for inspection; a file is read once.

    Attributes:
        max_pixels: larger ones are refused before they are decoded.
        white: value shown as white in images of more than 8 bits; None for their type's largest.
    """

    max_pixels: int = MAX_PIXELS
    white: int | None = None

    def __call__(self, image: ImageLike) -> Opened:
        """The picture, and the digest of its file.

        Raises:
            OSError: it can not be read, or is too large or too small to be inspected.
            ValueError: an array of another type or shape.
        """
        name, sha256 = name_image(image), ""
        if isinstance(image, np.ndarray):
            picture = _from_array(image)
        elif isinstance(image, Image.Image) and image.mode == "RGB":
            picture = image
        elif isinstance(image, Image.Image):
            picture = self._decode(_encode(image), name)
        else:
            content = image if isinstance(image, bytes) else read_image_file(Path(image))
            picture, sha256 = self._decode(content, name), hashlib.sha256(content).hexdigest()
        check_inspectable(picture, name)
        return Opened(picture, sha256)

    def _decode(self, content: bytes, name: str) -> Image.Image:
        return decode_image(content, name, white=self.white, max_pixels=self.max_pixels)


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
    """The name of an image in messages and results."""
    if isinstance(image, str | Path):
        return str(image)
    if isinstance(image, Image.Image):
        return str(getattr(image, "filename", "")) or "image"
    return {bytes: "bytes", np.ndarray: "array"}.get(type(image), "image")
