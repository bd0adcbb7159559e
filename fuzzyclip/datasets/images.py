"""The only place that opens images and masks.

Shapes: H rows, W columns of one image.
"""

import hashlib
import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"})


class ImageFacts(NamedTuple):
    """What the index keeps of a picture: size in pixels, and SHA-256 of the file."""

    width: int
    height: int
    sha256: str


def _open(path: Path | str, content: bytes | None = None) -> Image.Image:
    """Decode a whole image file; every failure becomes an OSError that names the file."""
    try:
        with Image.open(path if content is None else io.BytesIO(content)) as image:
            image.load()  # Image.open reads the header only; truncation shows here
            return image.copy() if content is None else image
    except FileNotFoundError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = str(error).replace("<_io.BytesIO object at ", "file ").split(" file 0x")[0]
        raise OSError(f"{path}: not a readable image ({reason})") from error


def load_image(path: Path, sha256: str | None = None) -> Image.Image:
    """Load an image as RGB; gray images (MVTec's grid, screw, zipper; DAGM) get three channels.

    Args:
        path: image file.
        sha256: digest that the file must have, as the index keeps it; None does not look.

    Returns:
        PIL image of mode RGB, size (W, H).

    Raises:
        OSError: the file is missing, truncated, no image or another one; names the file.
    """
    if sha256 is None:
        return _open(path).convert("RGB")
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise OSError(f"{path}: not the file that was indexed; build the index again")
    return _open(path, content).convert("RGB")


def decode_image(content: bytes, name: str) -> Image.Image:
    """An image as `load_image` gives it, from the bytes of its file.

    Args:
        content: the whole file.
        name: of the file, for errors.

    Raises:
        OSError: truncated or no image; names the file.
    """
    return _open(name, content).convert("RGB")


def examine_image(path: Path) -> ImageFacts:
    """Read a file once, decode it whole and keep only facts.

    Raises:
        OSError: the file is missing, truncated or no image; names the file.
    """
    content = path.read_bytes()
    width, height = _open(path, content).size
    return ImageFacts(width, height, hashlib.sha256(content).hexdigest())


def load_mask(path: Path, above: int = 0) -> NDArray[np.bool_]:
    """Load a ground truth mask: every value above a threshold, zero for all datasets, is defect.

    Masks come with 0/255, with 0/1 (KolektorSDD), with class ids 1 to 9 that look black (VisA)
    and with three equal channels (BTAD), so that the comparison must come before any resize and
    before any conversion to gray, which would round (0, 0, 1) down to 0.

    Args:
        path: mask file.
        above: threshold; raise it for masks of your own that were saved as JPEG.

    Returns:
        Boolean array (H, W).

    Raises:
        OSError: the file is missing, truncated or no image; names the file.
    """
    image = _open(path)
    values = np.asarray(image)  # (H, W) or (H, W, C); a palette image gives its indices
    if image.mode in {"RGBA", "LA"}:
        values = values[..., :-1]  # alpha is not a class id
    positive: NDArray[np.bool_] = values > above
    return np.any(positive, axis=-1) if positive.ndim == 3 else positive  # (H, W)
