"""Opening images and masks: the same pixels as ever, and every hostile file refused by its name."""

import io
import os
import resource
import struct
import threading
import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps
from properties import try_examples

from fuzzyclip.images.decode import (
    FORMATS,
    MAX_PIXELS,
    MIN_SIDE,
    check_inspectable,
    decode_image,
    examine_image,
    load_image,
    load_mask,
    open_image_file,
    read_image_file,
)

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)
DEEP = RNG.integers(0, 2**16, (20, 30), dtype=np.uint16)
LOADERS = [load_image, load_mask, examine_image]
#: For tests that read what Pillow finds odd.
odd_files = pytest.mark.filterwarnings("ignore")
no_warning = pytest.mark.filterwarnings("error")


def save(image: Image.Image | NDArray[Any], kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture.save(stream, kind, **options)
    return stream.getvalue()


def read(content: bytes, **options: Any) -> Image.Image:
    return decode_image(content, "x", **options)


def same(one: Image.Image, other: Image.Image) -> bool:
    """Whether two pictures have the same mode, size and pixels; metadata do not count."""
    return (one.mode, one.size, one.tobytes()) == (other.mode, other.size, other.tobytes())


def read_gray(content: bytes, **options: Any) -> NDArray[np.uint8]:
    pixels = np.asarray(read(content, **options))
    assert (pixels == pixels[..., :1]).all()
    return pixels[..., 0]


def make_png(width: int, height: int, bits: int, colour: int, rows: Iterable[bytes]) -> bytes:
    """A PNG that Pillow would not write, compressed row by row: small, whatever its size."""
    packer = zlib.compressobj(9)
    data = b"".join(packer.compress(b"\0" + row) for row in rows) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    )


def make_tiff(values: NDArray[Any], bits: int, photometric: int = 1) -> bytes:
    """A gray TIFF of one strip: 16 bits, or 12 packed into one and a half bytes."""
    height, width = values.shape
    data = values.astype("<u2").tobytes()
    if bits == 12:
        first, second = values[:, ::2], values[:, 1::2]
        packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], axis=-1)
        data = packed.astype(np.uint8).tobytes()
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1}
    tags |= {278: height, 279: len(data)}
    entries = b"".join(struct.pack("<HHII", key, 4, 1, value) for key, value in tags.items())
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    return struct.pack("<2sHI", b"II", 42, 8 + len(data)) + data + directory


def orient(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return exif


# --- the pixels of ordinary images


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "RGBA", "LA"])
@pytest.mark.parametrize("kind", FORMATS)
def test_pixels_of_ordinary_images_are_pillows_own(mode: str, kind: str) -> None:
    lacking = {"JPEG": {"P", "RGBA", "LA"}, "BMP": {"LA"}, "PPM": {"P", "LA"}}
    stored = "RGB" if mode in lacking.get(kind, ()) else mode
    content = save(Image.fromarray(COLOUR).convert(mode).convert(stored), kind)
    with Image.open(io.BytesIO(content)) as image:
        assert same(read(content), image.convert("RGB"))


@try_examples(60)
@given(data=st.data())
def test_pixels_survive_lossless_files_of_any_size(data: st.DataObject) -> None:
    width, height = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40))
    kind = data.draw(st.sampled_from(["PNG", "BMP", "TIFF", "PPM"]))
    mode = data.draw(st.sampled_from(["RGB", "L", "1"]))
    pixels = np.random.default_rng(data.draw(st.integers(0, 99))).integers(
        0, 256, (height, width, 3), dtype=np.uint8
    )
    image = Image.fromarray(pixels).convert(mode)
    assert same(read(save(image, kind)), image.convert("RGB"))


def test_a_file_and_its_bytes_and_a_checked_file_are_the_same(tmp_path: Path) -> None:
    for kind in ("PNG", "JPEG", "TIFF"):
        (path := tmp_path / "x").write_bytes(save(COLOUR, kind))
        digest = examine_image(path).sha256
        image = load_image(path)
        assert same(image, read(path.read_bytes()))
        assert same(image, load_image(path, digest))
    with pytest.raises(OSError, match=r"x: not the file that was indexed"):
        load_image(path, "0" * 64)


# --- orientation


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_and_masks_are_turned_upright(orientation: int, kind: str, tmp_path: Path) -> None:
    (path := tmp_path / "x").write_bytes(save(COLOUR, kind, exif=orient(orientation)))
    with Image.open(path) as stored:
        upright = ImageOps.exif_transpose(stored)
    image = load_image(path)
    assert same(image, upright.convert("RGB"))
    assert same(ImageOps.exif_transpose(image), image)  # nobody turns it a second time
    size = (20, 30) if orientation > 4 else (30, 20)
    assert image.size == size
    assert examine_image(path)[:2] == size
    assert np.array_equal(load_mask(path, 99), (np.asarray(upright) > 99).any(axis=-1))


def test_orientation_turns_deep_and_transparent_images_too() -> None:
    for pixels in (DEEP, np.dstack([COLOUR, COLOUR[..., 0]])):
        plain, turned = read(save(pixels)), read(save(pixels, exif=orient(6)))
        assert same(turned, plain.transpose(Image.Transpose.ROTATE_270))


@odd_files
@pytest.mark.parametrize("exif", [b"Exif\0\0broken", b"Exif\0\0MM\0*\0\0\0\x08\0\x05\x01", b""])
def test_damaged_metadata_leave_the_picture_as_it_is(exif: bytes) -> None:
    plain = read(save(COLOUR, "JPEG"))
    for metadata in (exif, orient(77)):
        assert same(read(save(COLOUR, "JPEG", exif=metadata)), plain)


# --- more than 8 bits


def test_sixteen_bits_are_scaled_over_their_whole_range() -> None:
    expected = np.floor(DEEP / 257 + 0.5)
    assert len(np.unique(expected)) > 200  # clipping at 255 would leave one
    big_endian = save(Image.frombytes("I;16B", (30, 20), DEEP.astype(">u2").tobytes()), "TIFF")
    for content in (*(save(DEEP, kind) for kind in ("PNG", "TIFF", "PPM")), big_endian):
        assert np.array_equal(read_gray(content), expected)
    assert np.array_equal(read_gray(make_tiff(DEEP, 16, photometric=0)), 255 - expected)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
@example(white=1)
@example(white=65535)
@given(white=st.integers(1, 65535))
def test_white_is_white_and_what_is_brighter_too(kind: str, white: int) -> None:
    values = np.append(DEEP, [[0] * 29 + [white]], axis=0).astype(np.uint16)
    gray = read_gray(save(values, kind), white=white)
    assert np.abs(gray - np.minimum(values, white) * 255.0 / white).max() <= 0.5 + 1e-9
    assert (gray[values >= white] == 255).all()


def test_white_leaves_images_of_eight_bits_alone() -> None:
    for pixels in (COLOUR, COLOUR[..., 0]):
        assert same(read(save(pixels), white=4095), read(save(pixels)))
    with pytest.raises(ValueError, match="white must be at least 1, not 0"):
        read(save(COLOUR), white=0)


def test_twelve_bits_of_a_tiff_are_known_to_be_twelve() -> None:
    values = DEEP[:, ::2][:, :14] >> 4
    assert np.array_equal(read_gray(make_tiff(values, 12)), np.rint(values / 4095 * 255))


def test_a_transparent_value_of_sixteen_bits_is_white() -> None:
    values = np.array([[7, 8, 65535]], np.uint16)
    assert read_gray(save(values, transparency=7)).tolist() == [[255, 0, 255]]


def test_colour_of_sixteen_bits_is_its_upper_eight() -> None:
    values = RNG.integers(0, 2**16, (5, 6, 3), dtype=np.uint16)
    content = make_png(6, 5, 16, 2, [row.astype(">u2").tobytes() for row in values])
    assert np.array_equal(np.asarray(read(content)), values >> 8)
    with pytest.raises(OSError, match=r"x: .*16-bit colour.* no `white`"):
        read(content, white=4095)


def test_floating_point_numbers_are_shares_of_white() -> None:
    shares = RNG.random((6, 7), dtype=np.float32)
    content = save(shares, "TIFF")
    assert np.array_equal(read_gray(content), np.rint(shares.astype(float) * 255))
    bright = save(shares * 500, "TIFF")
    with pytest.raises(OSError, match=r"x: .*values up to .*white is not known.*`white`"):
        read(bright)
    assert np.array_equal(
        read_gray(bright, white=500), np.rint((shares * 500).astype(float) / 500 * 255)
    )


def test_integers_of_32_bits_need_a_white_and_the_index_says_so(tmp_path: Path) -> None:
    values = DEEP.astype(np.int32) * 3
    (path := tmp_path / "x.tif").write_bytes(content := save(values, "TIFF"))
    with pytest.raises(OSError, match=r"x\.tif: .*white is not known.*`white`"):
        examine_image(path)
    expected = np.rint(np.minimum(values, 100000) / 100000 * 255)
    assert np.array_equal(read_gray(content, white=100000), expected)


@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("white", [None, 10])
def test_values_that_are_no_brightness_are_refused(value: float, white: int | None) -> None:
    pixels = np.full((4, 4), 0.5, np.float32)
    pixels[1, 2] = value
    with pytest.raises(OSError, match=r"^x: not a readable image \("):
        read(save(pixels, "TIFF"), white=white)
    if np.isfinite(value):
        with pytest.raises(OSError, match="below 0"):
            read(save(pixels.astype(np.int32), "TIFF"), white=10)


def test_masks_of_any_depth_keep_their_values(tmp_path: Path) -> None:
    ids = np.array([[0, 1, 2], [300, 65535, 0]])
    for dtype in (np.uint16, np.int32, np.float32):
        (path := tmp_path / "m").write_bytes(save(ids.astype(dtype), "TIFF"))
        assert np.array_equal(load_mask(path), ids > 0)
        assert np.array_equal(load_mask(path, 2), ids > 2)


# --- transparency and colour spaces


def test_what_is_transparent_lies_on_white() -> None:
    alpha = RNG.integers(0, 256, (20, 30), dtype=np.uint8)
    for colour in (COLOUR, COLOUR[..., :1]):
        shown = np.asarray(read(save(np.dstack([colour, alpha]).squeeze())))
        share = alpha[..., None] / 255
        assert np.abs(shown - (colour * share + 255 * (1 - share))).max() <= 1
    clear = np.dstack([COLOUR, np.zeros_like(alpha)])
    assert (np.asarray(read(save(clear))) == 255).all()


@no_warning
@pytest.mark.parametrize("mode", ["P", "L", "RGB", "1"])
def test_a_transparent_colour_is_white_and_the_others_are_as_they_were(mode: str) -> None:
    image = Image.fromarray(COLOUR).convert(mode)
    key: Any = image.getpixel((3, 4))
    shown = np.asarray(read(save(image, transparency=key)))
    values = np.asarray(image).reshape(20, 30, -1)
    hidden = (values == np.reshape(values[4, 3], -1)).all(axis=-1)
    expected = np.where(hidden[..., None], 255, np.asarray(image.convert("RGB")))
    assert hidden.any()
    assert np.array_equal(shown, expected)


def test_a_palette_with_alpha_is_laid_on_white() -> None:
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8), mode="P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    content = save(image, transparency=bytes([255, 0, 255]))
    assert np.asarray(read(content)).tolist() == [[[10, 20, 30], [255, 255, 255], [70, 80, 90]]]
    opaque = save(image, transparency=bytes([255, 255, 255]))
    assert same(read(opaque), image.convert("RGB"))


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_is_converted_plainly(kind: str) -> None:
    content = save(Image.fromarray(COLOUR).convert("CMYK"), kind)
    with Image.open(io.BytesIO(content)) as image:
        assert image.mode == "CMYK"
        assert same(read(content), image.convert("RGB"))


def test_a_mask_in_cmyk_is_refused(tmp_path: Path) -> None:
    (path := tmp_path / "m.tif").write_bytes(save(Image.new("CMYK", (4, 4)), "TIFF"))
    with pytest.raises(OSError, match=r"m\.tif: .*a mask in CMYK: save it in gray"):
        load_mask(path)


# --- several pictures


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
@pytest.mark.parametrize("load", LOADERS)
def test_several_frames_are_refused_with_their_number(
    kind: str, load: Callable[[Path], object], tmp_path: Path
) -> None:
    frames = [Image.fromarray(np.roll(COLOUR, shift, axis=0)) for shift in range(3)]
    (path := tmp_path / "x.png").write_bytes(
        save(frames[0], kind, save_all=True, append_images=frames[1:])
    )
    with pytest.raises(OSError, match=r"x\.png: .*\(3 frames; save the one"):
        load(path)


def test_a_phones_preview_is_passed_over() -> None:
    first, preview = Image.fromarray(COLOUR), Image.fromarray(COLOUR[::2, ::2])
    content = save(first, "MPO", save_all=True, append_images=[preview])
    with Image.open(io.BytesIO(content)) as image:
        assert (image.format, getattr(image, "n_frames", 1)) == ("MPO", 2)
    assert same(read(content), read(save(first, "JPEG")))


# --- what is no image


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"\x89", "none of PNG, JPEG"),
        (b"not an image", "none of PNG, JPEG"),
        (b"<!DOCTYPE html><html>404</html>", "none of PNG, JPEG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "none of PNG, JPEG"),
        (save(COLOUR)[:200], ""),
        (save(COLOUR, "JPEG")[:700], ""),
        (save(COLOUR, "TIFF")[:500], ""),
        (bytes(5000), "none of PNG, JPEG"),
    ],
    ids=["empty", "byte", "text", "html", "eps", "png", "jpeg", "tiff", "zeros"],
)
@pytest.mark.parametrize("load", LOADERS)
def test_what_is_no_image_is_refused_by_name(
    content: bytes, reason: str, load: Callable[[Path], object], tmp_path: Path
) -> None:
    (path := tmp_path / "broken.jpg").write_bytes(content)
    with pytest.raises(OSError, match="not a readable image") as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: not a readable image (")
    assert reason in str(caught.value)
    assert "BytesIO" not in str(caught.value)


def attempt(content: bytes, max_pixels: int = 10**6) -> Image.Image | None:
    """The image, None if it is refused as it should be."""
    try:
        return read(content, max_pixels=max_pixels)
    except OSError as caught:
        error = str(caught)
    assert error.startswith("x: not a readable image (")
    return None


@odd_files
@try_examples(300)
@given(
    start=st.sampled_from([b"", *(save(COLOUR, kind)[:30] for kind in FORMATS)]),
    rest=st.binary(max_size=300),
)
def test_random_bytes_give_nothing_but_an_oserror(start: bytes, rest: bytes) -> None:
    image = attempt(start + rest)
    assert image is None or image.mode == "RGB"  # a short header can be a picture


@odd_files
@try_examples(300)
@given(data=st.data(), kind=st.sampled_from(FORMATS))
def test_a_truncated_file_gives_an_oserror_or_has_lost_no_pixel(
    data: st.DataObject, kind: str
) -> None:
    content = save(COLOUR, kind)
    cut = content[: data.draw(st.integers(0, len(content) - 1))]
    image = attempt(cut)
    if image is not None:
        assert same(image, read(content))
        assert len(content) - len(cut) <= 20  # checksums and end marks, which hold no pixel


@odd_files
@try_examples(200)
@given(data=st.data(), kind=st.sampled_from(FORMATS))
def test_flipped_bytes_give_an_image_or_an_oserror(data: st.DataObject, kind: str) -> None:
    content = bytearray(save(COLOUR, kind))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    image = attempt(bytes(content))
    assert image is None or image.mode == "RGB"


# --- what is no file


@pytest.mark.parametrize("load", [*LOADERS, open_image_file, read_image_file])
def test_what_is_no_regular_file_nor_a_link_to_one_is_refused_at_once(
    load: Callable[[Path], object], tmp_path: Path
) -> None:
    (folder := tmp_path / "folder.png").mkdir()
    os.mkfifo(pipe := tmp_path / "pipe.png")
    with pytest.raises(IsADirectoryError, match=r"folder\.png: a folder, not an image file"):
        load(folder)
    with pytest.raises(OSError, match=r"pipe\.png: a pipe, socket or device"):
        load(pipe)
    with pytest.raises(OSError, match=r"/dev/zero: a pipe, socket or device"):
        load(Path("/dev/zero"))
    (tmp_path / "dangling.png").symlink_to("nowhere")
    for missing in ("absent.png", "dangling.png"):
        with pytest.raises(FileNotFoundError, match=missing):
            load(tmp_path / missing)
    (loop := tmp_path / "loop.png").symlink_to(loop)
    with pytest.raises(OSError, match=r"loop\.png"):
        load(loop)
    (tmp_path / "real").write_bytes(save(COLOUR))
    (link := tmp_path / "link.png").symlink_to("real")
    load(link)


@pytest.mark.parametrize("call", ["stat", "open"])
def test_a_file_without_permission_is_named(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path := tmp_path / "locked.png").write_bytes(save(COLOUR))
    refuse = Mock(side_effect=PermissionError(13, "Permission denied"))
    monkeypatch.setattr(Path, call, refuse)  # root may read everything
    with pytest.raises(PermissionError, match=r"locked\.png: no permission to read it"):
        load_image(path)


# --- size


@no_warning
def test_a_bomb_is_refused_before_it_unfolds() -> None:
    bomb = make_png(30_000, 30_000, 1, 0, [bytes(30_000 // 8)] * 30_000)
    assert len(bomb) < 200_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KB
    with pytest.raises(OSError, match=r"x: .*30000 x 30000 pixels.*178,956,970.*--max-pixels"):
        read(bomb)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


def test_the_limit_counts_pixels_exactly(tmp_path: Path) -> None:
    (path := tmp_path / "x.png").write_bytes(save(COLOUR))
    for load in (load_image, examine_image, load_mask):
        load(path, max_pixels=600)
        with pytest.raises(OSError, match=r"x\.png: .*30 x 20 pixels, the limit is 599"):
            load(path, max_pixels=599)


@no_warning
def test_large_images_are_read_without_a_word_below_our_own_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As if Pillow's own limit were low: it neither warns nor refuses, and stays as it was."""
    assert 2 * (Image.MAX_IMAGE_PIXELS or 0) == MAX_PIXELS  # where Pillow refuses
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    content = save(COLOUR)
    with pytest.raises(Image.DecompressionBombError):
        Image.open(io.BytesIO(content))
    assert np.array_equal(np.asarray(read(content)), COLOUR)
    assert Image.MAX_IMAGE_PIXELS == 100


def test_threads_have_limits_of_their_own() -> None:
    content, start = save(COLOUR), threading.Barrier(8)

    def count_read(limit: int) -> int:
        start.wait()
        return sum(attempt(content, limit) is not None for _ in range(50))

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(count_read, [599, 600] * 4)) == [0, 50] * 4


def test_tiny_images_are_read_but_not_inspected() -> None:
    for width, height in ((1, 1), (1, 500), (MIN_SIDE, MIN_SIDE - 1)):
        image = read(save(Image.new("L", (width, height), 7)))
        assert image.size == (width, height)
        with pytest.raises(OSError, match=f"^x: {width} x {height} pixels, at least 8 a side"):
            check_inspectable(image, "x")
    check_inspectable(Image.new("RGB", (MIN_SIDE, MIN_SIDE)), "x")
