"""What of a decoded mask is defect, whatever its mode: values, palettes and alpha.

- Gray, colour and class ids: what is above the threshold in any channel.
- A palette whose first colour is black (VOC's and its kind): the indices are class ids and compared
  themselves. Else the background is black as in other masks, wherever black stands in the palette,
  and of each colour the brightest channel is compared. Without black nobody knows the background.
- Alpha that agrees with the colours, or is the same everywhere, changes nothing. A shape that is in
  alpha alone would make the whole image defect, or nothing of it; that is refused.

Shapes: H rows, W columns.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

#: Modes in which zero is not black.
FOREIGN = frozenset({"CMYK", "YCbCr", "LAB", "HSV"})
WITH_ALPHA = frozenset({"RGBA", "LA", "PA", "La", "RGBa"})
#: Values of a mask that a person may have given meanings, class ids for example.
MAX_LEVELS = 32


class MaskValues(NamedTuple):
    """A mask as it was compared.

    Attributes:
        defect: (H, W), true on defect.
        values: (H, W), what was compared: the brightest channel of what has several.
        lossy: whether it was saved as JPEG, which moves values.
    """

    defect: NDArray[np.bool_]
    values: NDArray[np.generic]
    lossy: bool

    @property
    def is_blurred(self) -> bool:
        """True for values between two meanings, as JPEG and smoothing leave them."""
        levels = len(np.unique(self.values))
        return levels > (2 if self.lossy else MAX_LEVELS)


def find_defect(image: Image.Image, above: int, *, lossy: bool = False) -> MaskValues:
    """Defect pixels of a mask.

    Raises:
        OSError: it leaves open what is defect; says how to save it.
    """
    if image.mode in FOREIGN:
        raise OSError(f"a mask in {image.mode}: save it in gray")
    channels = np.asarray(image)  # (H, W) or (H, W, C); indices of a palette
    alpha = channels[..., -1] if image.mode in WITH_ALPHA else None  # (H, W)
    values = channels if alpha is None else channels[..., :-1]
    if values.ndim == 3:
        values = values.max(axis=-1)
    if image.mode in ("P", "PA"):
        values = _compare_colours(image, values)
    defect: NDArray[np.bool_] = values > above
    if alpha is not None:
        _check_alpha(alpha, defect)
    return MaskValues(defect, values, lossy)


def _compare_colours(image: Image.Image, indices: NDArray[np.generic]) -> NDArray[np.generic]:
    """Values to compare of a picture with a palette, (H, W)."""
    flat = image.getpalette("RGB") or [0, 0, 0]
    colours = np.zeros((256, 3), np.uint8)
    colours[: len(flat) // 3] = np.reshape(flat, (-1, 3))
    brightest = colours.max(axis=-1)  # (256,)
    if brightest[0] == 0:
        return indices
    values: NDArray[np.uint8] = brightest[indices.astype(np.uint8)]
    if values.min() > 0:
        raise OSError(
            "a palette whose first colour is not black, and no black in the picture: what is the "
            "background is not known; save it in gray, the background black"
        )
    return values


def _check_alpha(alpha: NDArray[np.generic], defect: NDArray[np.bool_]) -> None:
    """Refuse a shape in alpha that the colours do not have."""
    if alpha.min() == alpha.max():
        return
    if not defect.any() or (defect & (alpha == 0)).any():
        raise OSError(
            "its alpha has a shape that its colours do not have: save the mask in gray without "
            "alpha, defects white on black"
        )
