"""A header that promises more pixels than its file can hold; what was saved whole opens."""

import io
import struct
import zlib
from unittest.mock import patch

import pytest
from PIL import Image
from promises import promise_ended_jpeg, promise_jpeg, save

from fuzzyclip.images import floors
from fuzzyclip.images.decode import decode_image, load_mask


def promise_png(side):
    content = save("PNG")
    content[16:24] = struct.pack(">2L", side, side)
    content[29:33] = struct.pack(">L", zlib.crc32(content[12:29]))
    return content


def promise_webp(side):
    content = save("WEBP")
    start = content.index(b"\x9d\x01\x2a") + 3
    content[start : start + 4] = struct.pack("<2H", side, side)
    return content


def promise_lossless_webp(side):
    content = save("WEBP", lossless=True)
    start = content.index(b"VP8L") + 9
    (flags,) = struct.unpack("<L", content[start : start + 4])
    sides = (side - 1) | (side - 1) << 14
    content[start : start + 4] = struct.pack("<L", flags >> 28 << 28 | sides)
    return content


def promise_gif(side):
    content = save("GIF", "L")
    content[6:10] = struct.pack("<2H", side, side)
    return content


def promise_bmp(side):
    content = save("BMP")
    content[18:26] = struct.pack("<2l", side, side)
    return content


def promise_ppm(side):
    return save("PPM").replace(b"16 16", b"%d %d" % (side, side), 1)


def promise_tiff(side, compression="raw"):
    content = save("TIFF", compression=compression)
    for tag in (256, 257):
        starts = [content.find(struct.pack("<HHL", tag, kind, 1)) for kind in (3, 4)]
        content[max(starts) + 8 : max(starts) + 12] = struct.pack("<L", side)
    return content


@pytest.mark.parametrize(
    "promise",
    [
        promise_png, promise_jpeg, lambda side: promise_jpeg(side, progressive=True),
        promise_ended_jpeg, promise_webp, promise_gif, promise_bmp, promise_ppm, promise_tiff,
        lambda side: promise_tiff(side, "packbits"), lambda side: promise_tiff(side, "tiff_lzw"),
        lambda side: promise_tiff(side, "tiff_adobe_deflate"), promise_lossless_webp,
        lambda side: save("TIFF", "1", side, compression="group4"),
    ],
)  # fmt: skip
def test_seven_thousand_squared_in_a_small_file_is_refused_before_it_has_pixels(
    tmp_path, promise, monkeypatch
):
    content = bytes(promise(7000))
    assert len(content) < 11_000
    with Image.open(io.BytesIO(content)) as image:
        assert image.size == (7000, 7000)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", None)  # any other error, if it were called
    words = r"x: not a readable image \(7000 x 7000 pixels .* (fetch it again|if you mean it)\)"
    with pytest.raises(OSError, match=words):
        decode_image(content, "x")
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(OSError, match="7000 x 7000 pixels"):
        load_mask(tmp_path / "x")


@pytest.mark.parametrize(
    ("kind", "mode", "options"),
    [
        ("PNG", "1", {"optimize": True}), ("PNG", "RGB", {}), ("JPEG", "L", {"optimize": True}),
        ("JPEG", "RGB", {"progressive": True, "optimize": True}), ("GIF", "L", {}),
        ("WEBP", "RGB", {"quality": 0, "method": 0}), ("WEBP", "RGB", {"lossless": True}),
        ("TIFF", "1", {"compression": "group4"}), ("TIFF", "1", {"compression": "zstd"}),
        ("TIFF", "RGB", {"compression": "tiff_lzw"}), ("TIFF", "1", {"compression": "lzma"}),
    ],
)  # fmt: skip
def test_a_large_blank_picture_opens(kind, mode, options):
    assert decode_image(bytes(save(kind, mode, 1200, **options)), "x").size == (1200, 1200)


def test_a_webp_of_many_empty_parts_is_not_looked_through_to_its_end():
    content, side = promise_webp(7000), (7000 - 1).to_bytes(3, "little")
    parts = b"VP8X" + struct.pack("<LL", 10, 0) + side + side + b"none\0\0\0\0" * 100_000
    content[12:12] = parts
    content[4:8] = struct.pack("<L", len(content) - 8)
    with (
        patch.object(floors, "_read_at", side_effect=floors._read_at) as reads,
        Image.open(io.BytesIO(content)) as image,
    ):
        floors.check_floor(image, io.BytesIO(content))
    assert reads.call_count <= 64
