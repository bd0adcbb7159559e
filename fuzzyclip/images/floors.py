"""How few bytes a picture can be stored in: a header that promises more pixels is not believed.

A blank picture is what packs best, and how well it does each format's own code says: so many bits
at least for a block, a run or a repeated string. A file below that is cut off, damaged or made to
fill a memory, and is refused before any pixel has a place. Whatever a program saved whole passes.
Some codes have no such floor: there a blank picture of 16 megapixels passes, and of larger ones
that which has a byte for every few thousand pixels, as photographs have a hundred times over.
"""

import os
import struct
from collections.abc import Callable
from typing import Any, BinaryIO

from PIL import ImageFile

#: Pixels that are cheap enough never to be doubted.
FREE = 2**20
#: Of codes without a floor: pixels that are never doubted, and pixels a byte of larger pictures.
FREE_UNBOUND, UNBOUND = 2**24, 4096
#: Bytes at most that a byte becomes. Deflate: 258 bytes in two bits. LZW: 4096 in twelve bits.
#: PackBits: 128 in two bytes. JPEG: a block of 64 in a bit.
UNFOLDS = {
    "raw": 1, "tiff_raw_16": 1, "packbits": 64, "tiff_lzw": 2731, "tiff_adobe_deflate": 1032,
    "tiff_deflate": 1032, "jpeg": 512, "tiff_jpeg": 512,
}  # fmt: skip
#: Channels of a PNG by its colour type.
PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
#: Bits that a pixel of an unpacked BMP or PPM has at least, by Pillow's mode; others have one.
BMP_BITS = {"RGB": 16, "RGBA": 32}
PPM_BITS = {"1": 1}
#: Of lossy WebP: a macroblock of 256 pixels takes 3.42 bits, its choices' fixed probabilities.
VP8_PIXELS = 640
#: Parts of a WebP that are looked through for its picture; programs write five at most before it.
WEBP_PARTS = 64
BITS_PER_SAMPLE, PHOTOMETRIC, SAMPLES_PER_PIXEL, YCBCR = 258, 262, 277, 6  # of TIFF


def check_floor(image: ImageFile.ImageFile, stream: BinaryIO) -> None:
    """Refuse a picture, of which the header was read, that its file can not hold.

    Args:
        image: as Pillow opened it, not loaded.
        stream: the file; its position stays.

    Raises:
        OSError: the file is too short; says what to do.
    """
    width, height = image.size
    pixels, size = width * height, _measure(stream)
    if pixels <= FREE:
        return
    floor = _FLOORS[str(image.format)](image, stream)
    if floor is None and pixels > max(FREE_UNBOUND, UNBOUND * size):
        raise OSError(
            f"{width} x {height} pixels in {size:,} bytes: it unfolds too far to be trusted; save "
            "it as PNG if you mean it"
        )
    if floor is not None and size < floor:
        raise OSError(
            f"{width} x {height} pixels take at least {int(floor):,} bytes of {image.format}, and "
            f"the file has {size:,}: it is cut off or its header is damaged; fetch it again"
        )


def _measure(stream: BinaryIO) -> int:
    """Bytes of a file."""
    place = stream.tell()
    size = stream.seek(0, os.SEEK_END)
    stream.seek(place)
    return size


def _read_at(stream: BinaryIO, offset: int, size: int) -> bytes:
    place = stream.tell()
    stream.seek(offset)
    content = stream.read(size)
    stream.seek(place)
    return content


def _bound_png(image: ImageFile.ImageFile, stream: BinaryIO) -> float:
    """Its rows after Deflate; each begins with a byte that names its filter."""
    depth, colour = _read_at(stream, 24, 2)
    width, height = image.size
    return height * (1 + width * depth * PNG_CHANNELS.get(colour, 1) // 8) / UNFOLDS["tiff_deflate"]


def _bound_jpeg(image: Any, stream: BinaryIO) -> float:
    """A bit a block of 64 where it is progressive, else two: its mean and its end.

    Coded by arithmetic it could be less; cameras and programs write Huffman codes.
    """
    width, height = image.size
    layers = [(h, v) for _, h, v, _ in image.layer]
    widest, tallest = max(h for h, _ in layers), max(v for _, v in layers)
    blocks = sum(
        max(1, width * h // (8 * widest)) * max(1, height * v // (8 * tallest)) for h, v in layers
    )
    return float(blocks * (1 if image.info.get("progressive") else 2) / 8)


def _bound_tiff(image: Any, stream: BinaryIO) -> float | None:
    """Its samples, unfolded as far as the code can; chroma may be stored at any coarseness."""
    unfolds = UNFOLDS.get(image.info.get("compression", "raw"))
    if unfolds is None:
        return None
    tags = image.tag_v2
    bits = tags.get(BITS_PER_SAMPLE, (1,))
    samples = 1 if tags.get(PHOTOMETRIC) == YCBCR else tags.get(SAMPLES_PER_PIXEL, len(bits))
    width, height = image.size
    return float(width * height * min(bits) * samples / 8 / unfolds)


def _bound_webp(image: ImageFile.ImageFile, stream: BinaryIO) -> float | None:
    """None of lossless ones: a code of one word takes no bits. None where no picture is near."""
    offset, size = 12, _measure(stream)
    for _ in range(WEBP_PARTS):
        if offset + 8 > size:
            break
        name, length = struct.unpack("<4sL", _read_at(stream, offset, 8))
        if name == b"VP8 ":
            return image.size[0] * image.size[1] / VP8_PIXELS
        if name == b"VP8L":
            break
        offset += 8 + length + length % 2
    return None


def _bound_gif(image: ImageFile.ImageFile, stream: BinaryIO) -> float:
    """By LZW, a byte a pixel; a frame that is smaller than its screen leaves the rest blank."""
    return image.size[0] * image.size[1] / UNFOLDS["tiff_lzw"]


def _bound_bmp(image: ImageFile.ImageFile, stream: BinaryIO) -> float:
    """Runs of 255 in two bytes where it is packed."""
    pixels = image.size[0] * image.size[1]
    packed = image.info.get("compression") in (1, 2)
    return pixels / 127.5 if packed else pixels * BMP_BITS.get(image.mode, 1) / 8


def _bound_ppm(image: ImageFile.ImageFile, stream: BinaryIO) -> float:
    return image.size[0] * image.size[1] * PPM_BITS.get(image.mode, 8) / 8


_FLOORS: dict[str, Callable[[Any, BinaryIO], float | None]] = {
    "PNG": _bound_png,
    "JPEG": _bound_jpeg,
    "MPO": _bound_jpeg,
    "TIFF": _bound_tiff,
    "WEBP": _bound_webp,
    "GIF": _bound_gif,
    "BMP": _bound_bmp,
    "PPM": _bound_ppm,
}
