"""The only place that opens images and masks: all that works with pixels sees the same ones.

- Pictures are turned upright as their EXIF orientation says, masks too.
- Gray of more than 8 bits is scaled to 8: 16 bits over their full range, others from 0 to `white`.
  Of colour with 16 bits a channel Pillow reads the upper 8.
- What is transparent lies on white. CMYK is converted plainly; ICC profiles are not applied.
- A header that promises more pixels than its file can hold is refused (`floors`); images that are
  decoded at once share the memory of one large one (`room`).
- A file of several pictures is refused, since the one that is left out could show the defect. Of a
  phone's MPO the first is taken; the others are previews of it.

Shapes: H rows, W columns of one image; B rows of an index, S size of the anomaly maps.
"""

import hashlib
import io
import math
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile

from fuzzyclip.images.floors import check_floor
from fuzzyclip.images.mask_values import MaskValues, find_defect
from fuzzyclip.images.names import is_image_name, is_visible
from fuzzyclip.images.room import ROOM

if TYPE_CHECKING:
    import pandas as pd

#: What is read, whatever the suffix; `names` has those. Pillow knows more, of which some run other
#: programs (EPS).
FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF", "PPM")
#: Pixels of the largest image that is read unless said otherwise: from here on Pillow sees an
#: attack, a small file that unfolds to gigabytes.
MAX_PIXELS = 178_956_970
#: Rows of an image that are laid on white at a time.
STRIP = 512
#: Shortest side of an image that is worth inspecting, pixels.
MIN_SIDE = 8

#: EXIF orientation -> what makes the picture upright.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
BITS_PER_SAMPLE, PHOTOMETRIC = 258, 262  # tags of TIFF

Image.init()  # fills the table of readers that `_identify` looks into


class ImageFacts(NamedTuple):
    """Facts of a picture for the index: size in pixels, upright, and SHA-256 of its files."""

    width: int
    height: int
    sha256: str
    mask_sha256: str = ""


def load_image(
    path: Path,
    sha256: str | None = None,
    *,
    white: int | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Image.Image:
    """An image of mode RGB without metadata; gray (MVTec's grid, screw, zipper; DAGM) is repeated.

    Args:
        path: image file.
        sha256: digest that the file must have, as the index keeps it; None does not look.
        white: value of gray images of more than 8 bits that is shown as white, 4095 for a 12-bit
            camera; larger ones are white too. None takes the type's largest: 65535, or 1 of
            floating-point numbers. Images of 8 bits do not depend on it.
        max_pixels: width times height of the largest image that is decoded.

    Raises:
        OSError: the file is missing, truncated, no image, several images, too large, or another
            file than expected; names it.
        ValueError: `white` is below 1.
    """
    with open_image_file(path) as stream:
        if sha256 is None:
            return _load_rgb(stream, str(path), white, max_pixels)
        content = stream.read()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise OSError(f"{path}: not the file that was indexed; build the index again")
    return decode_image(content, str(path), white=white, max_pixels=max_pixels)


def decode_image(
    content: bytes, name: str, *, white: int | None = None, max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """An image as `load_image` gives it, from the bytes of its file.

    Raises:
        OSError: truncated, no image, several images or too large; names the file by `name`.
        ValueError: `white` is below 1.
    """
    return _load_rgb(io.BytesIO(content), name, white, max_pixels)


def examine_image(path: Path, *, max_pixels: int = MAX_PIXELS) -> ImageFacts:
    """Facts of a file that is read once and decoded whole.

    Raises:
        OSError: where `load_image` would raise it.
    """
    content = read_image_file(path)
    width, height = decode_image(content, str(path), max_pixels=max_pixels).size
    return ImageFacts(width, height, hashlib.sha256(content).hexdigest())


def load_mask(path: Path, above: int = 0, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.bool_]:
    """A ground truth mask, (H, W): all above a threshold, zero for all datasets, is defect.

    Masks come with 0/255, with 0/1 (KolektorSDD), with class ids 1 to 9 that look black (VisA)
    and with three equal channels (BTAD), so that the comparison must come before any resize and
    before any conversion to gray, which would round (0, 0, 1) down to 0. Raise the threshold for
    masks of your own that were saved as JPEG. `fuzzyclip.images.mask_values` has palettes and
    alpha.

    Args:
        path: of a file, or of a folder of masks of one image (MVTec LOCO), which are united.
        above: values above this are defect.
        max_pixels: as `load_image`.

    Raises:
        OSError: as `load_image`, or the file leaves it open what is defect.
    """
    return unite_masks([read_mask(file, above, max_pixels) for file in list_mask_files(path)], path)


def list_mask_files(path: Path) -> list[Path]:
    """Files of one image's mask: the images of a folder of some, sorted, else the file itself."""
    inside = path.iterdir() if path.is_dir() else ()
    masks = [file for file in inside if is_visible(file.name) and is_image_name(file.name)]
    return sorted(masks) or [path]


def read_mask(path: Path, above: int = 0, max_pixels: int = MAX_PIXELS) -> NDArray[np.bool_]:
    """Defect pixels of one file, (H, W); raises as `load_mask`."""
    return decode_mask(read_image_file(path), str(path), above, max_pixels=max_pixels).defect


def unite_masks(masks: Sequence[NDArray[np.bool_]], path: Path) -> NDArray[np.bool_]:
    """What is defect in any of an image's masks, (H, W).

    Raises:
        OSError: their sizes differ; names `path`.
    """
    if len({mask.shape for mask in masks}) > 1:
        raise OSError(f"{path}: masks of different sizes of one image")
    united: NDArray[np.bool_] = np.logical_or.reduce(masks)
    return united


def decode_mask(
    content: bytes, name: str, above: int = 0, *, max_pixels: int = MAX_PIXELS
) -> MaskValues:
    """Defect pixels and values of a mask file's content, upright; `name` stands in errors.

    Raises:
        OSError: as `load_mask`.
    """
    with io.BytesIO(content) as stream, _naming(name), ExitStack() as room:
        image = _decode(stream, max_pixels, room)
        return find_defect(_turn(image, image), above, lossy=image.format == "JPEG")


def resize_mask(mask: NDArray[np.bool_], size: int) -> NDArray[np.bool_]:
    """A mask squashed to (S, S): bilinear, then what is covered by more than half."""
    full = Image.fromarray(mask.astype(np.uint8) * 255)
    squashed = np.asarray(full.resize((size, size), Image.Resampling.BILINEAR))
    return squashed > 127


def load_masks(rows: "pd.DataFrame", size: int) -> NDArray[np.bool_]:
    """Masks of index rows, (B, S, S); all false where a row has none."""
    masks = np.zeros((len(rows), size, size), dtype=bool)
    for mask, path, above in zip(masks, rows["mask_path"], rows["mask_above"], strict=True):
        if path:
            mask[:] = resize_mask(load_mask(Path(path), above), size)
    return masks


def check_inspectable(image: Image.Image, name: str) -> None:
    """Refuse what is too small to show a defect; a map of it would be made of nothing.

    Raises:
        OSError: a side is below `MIN_SIDE`; names the file.
    """
    width, height = image.size
    if min(width, height) < MIN_SIDE:
        raise OSError(f"{name}: {width} x {height} pixels, at least {MIN_SIDE} a side are needed")


def check_size(width: int, height: int, max_pixels: int, name: str = "") -> None:
    """Refuse what is larger than was allowed.

    Raises:
        OSError: it is; begins with the name where there is one.
    """
    if width * height > max_pixels:
        where = f"{name}: " if name else ""
        raise OSError(
            f"{where}{width} x {height} pixels, the limit is {max_pixels:,} in all; raise it by "
            "max_pixels (--max-pixels) if you trust the file"
        )


def open_image_file(path: Path) -> BinaryIO:
    """A file for reading. A pipe would make the reader wait, and a device never end.

    Raises:
        OSError: missing, no regular file, or not readable; names the file.
    """
    try:
        kind = path.stat().st_mode
        if stat.S_ISREG(kind):
            return path.open("rb")
    except PermissionError as error:
        raise PermissionError(f"{path}: no permission to read it") from error
    if stat.S_ISDIR(kind):
        raise IsADirectoryError(f"{path}: a folder, not an image file")
    raise OSError(f"{path}: a pipe, socket or device, not an image file")


def read_image_file(path: Path) -> bytes:
    """Content of a file, for `decode_image`; raises as `open_image_file` does."""
    with open_image_file(path) as stream:
        return stream.read()


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Every failure becomes an OSError that names the file."""
    try:
        yield
    except Exception as error:  # on broken files decoders raise nearly everything there is
        reason = str(error) or type(error).__name__
        raise OSError(f"{name}: not a readable image ({reason})") from error


def _load_rgb(stream: BinaryIO, name: str, white: int | None, max_pixels: int) -> Image.Image:
    if white is not None and white < 1:
        raise ValueError(f"white must be at least 1, not {white}")
    with _naming(name), ExitStack() as room:
        file = _decode(stream, max_pixels, room, deep_colour=white is None)
        image = _turn(_to_rgb(file, white), file)
    image.info.clear()  # the orientation would turn it again, wherever it is looked at
    return image


def _decode(
    stream: BinaryIO, max_pixels: int, room: ExitStack, *, deep_colour: bool = True
) -> ImageFile.ImageFile:
    """The picture of a file, in its own mode, not yet upright.

    Until `room` is closed other threads leave it the memory that it takes. `deep_colour` says
    whether colour with 16 bits a channel may lose its lower 8.
    """
    image = _identify(stream)
    check_size(*image.size, max_pixels)
    check_floor(image, stream)
    if getattr(image, "is_animated", False) and image.format != "MPO":
        frames = getattr(image, "n_frames", "several")
        raise OSError(f"{frames} frames; save the one to be inspected as a file of its own")
    if not deep_colour and image.mode.startswith("RGB") and ";16" in str(image.tile):
        raise OSError("16-bit colour, whose lower 8 bits are not read, can have no `white`")
    if image.format == "BMP" and image.mode == "1":
        _check_one_bit(stream)
    room.enter_context(ROOM.take(image.width * image.height))
    image.load()  # until here only the header was read; truncation shows now
    return image


def _check_one_bit(stream: BinaryIO) -> None:
    """Refuse a BMP of 4 or 8 bits whose palette is black and white: Pillow takes it for one of 1.

    It would be read as other pixels, most of them black.
    """
    stream.seek(14)
    header = stream.read(16)
    bits = header[10] if header[0] == 12 else header[14]  # of OS/2, of Windows
    if bits != 1:
        raise OSError(f"a BMP of {bits} bits with two colours can not be read; save it as PNG")


def _identify(stream: BinaryIO) -> ImageFile.ImageFile:
    """Read the header, as `Image.open` does.

    That function compares with a limit of the whole process and warns from half of it on; here each
    call has its own, in threads too.
    """
    prefix = stream.read(16)
    if not prefix:
        raise OSError("the file is empty")
    for name in FORMATS:
        read_header, accepts = Image.OPEN[name]
        if accepts is None or accepts(prefix) is True:
            stream.seek(0)
            return read_header(stream, "")
    raise OSError(f"it is none of {', '.join(FORMATS)}")


def _to_rgb(image: ImageFile.ImageFile, white: int | None) -> Image.Image:
    if image.mode == "F" or image.mode.startswith("I"):
        return Image.fromarray(_scale_gray(image, white)).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    picture = Image.new("RGB", image.size)
    for top in range(0, image.height, STRIP):  # as a whole it would take four times the memory
        strip = image.crop((0, top, image.width, min(top + STRIP, image.height))).convert("RGBA")
        if strip.getchannel("A").getextrema()[0] != 255:
            ground = Image.new("RGBA", strip.size, "white")
            ground.alpha_composite(strip)
            strip = ground
        picture.paste(strip.convert("RGB"), (0, top))
    return picture


def _scale_gray(image: ImageFile.ImageFile, white: int | None) -> NDArray[np.uint8]:
    """Gray of more than 8 bits in 8, (H, W): 0 is black, `white` and above is white."""
    values = np.asarray(image)  # (H, W)
    tags = getattr(image, "tag_v2", {})
    if image.mode.startswith("I;16"):
        largest = 2 ** tags.get(BITS_PER_SAMPLE, (16,))[0] - 1  # TIFF knows 12 bits too
        gray: NDArray[np.uint8] = _scale(np.arange(2**16), white or largest)[values]
    else:
        gray = _scale(values, white or _find_white(image, values))
    if tags.get(PHOTOMETRIC) == 0:  # white is zero; Pillow inverts only up to 8 bits
        gray = 255 - gray
    if "transparency" in image.info:
        gray[values == image.info["transparency"]] = 255
    return gray


def _find_white(image: ImageFile.ImageFile, values: NDArray[np.generic]) -> int:
    """White of 32-bit numbers, where the file lets no doubt."""
    high = float(values.max())
    if image.mode == "F" and high <= 1:
        return 1
    if image.mode == "I" and image.format == "PPM":  # of 16 bits, which comes as 32
        return 65535
    raise OSError(
        f"32-bit values up to {high:g}, of which white is not known; convert the image to 8 or 16 "
        "bits, or say which value is white (`white`)"
    )


def _scale(values: NDArray[np.generic], white: int) -> NDArray[np.uint8]:
    shares = values.astype(np.float64) / white
    if not (shares.min() >= 0 and shares.max() < math.inf):  # nor with a NaN among them
        raise OSError("values below 0 or not finite; convert the image to 8 or 16 bits")
    scaled: NDArray[np.uint8] = np.rint(np.minimum(shares, 1) * 255).astype(np.uint8)
    return scaled


def _turn(image: Image.Image, file: ImageFile.ImageFile) -> Image.Image:
    """The image upright, as the file it comes from says."""
    try:
        turn = TURNS.get(file.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged metadata raise anything, and say nothing about the pixels
        turn = None
    return image if turn is None else image.transpose(turn)
