"""Whatever Pillow saves whole passes the floors, in every format, mode and way to pack."""

import io

import numpy as np
import pytest
from hypothesis import given, reject
from hypothesis import strategies as st
from PIL import Image
from properties import try_examples

from fuzzyclip.images import floors
from fuzzyclip.images.floors import check_floor

#: Formats with the modes and the options that Pillow saves them with.
PNG = st.fixed_dictionaries(
    {}, optional={"compress_level": st.integers(0, 9), "optimize": st.booleans()}
)
JPEG = st.fixed_dictionaries(
    {"quality": st.sampled_from([1, 30, 75, 95, 100])},
    optional={
        "optimize": st.booleans(),
        "progressive": st.booleans(),
        "subsampling": st.integers(0, 2),
        "restart_marker_blocks": st.integers(1, 5),
    },
)
WEBP = st.fixed_dictionaries(
    {"quality": st.sampled_from([0, 50, 100]), "method": st.integers(0, 6)},
    optional={"lossless": st.booleans(), "exact": st.booleans()},
)
PLAIN = ("raw", "packbits", "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "lzma", "zstd")
BILEVEL = ("group3", "group4", "tiff_ccitt")
NOTHING = st.just({})
KINDS = {
    "PNG": (("1", "L", "LA", "P", "RGB", "RGBA", "I;16"), PNG),
    "JPEG": (("L", "RGB", "CMYK"), JPEG),
    "WEBP": (("L", "RGB", "RGBA"), WEBP),
    "GIF": (("1", "L", "P", "RGB"), st.fixed_dictionaries({"interlace": st.integers(0, 1)})),
    "BMP": (("1", "L", "P", "RGB", "RGBA"), NOTHING),
    "PPM": (("1", "L", "RGB", "I;16", "F"), NOTHING),
}
SIDES = st.integers(1, 700)


@st.composite
def saved_files(draw):
    """A blank, noisy or half blank picture, saved in any way."""
    kind = draw(st.sampled_from([*KINDS, "TIFF"]))
    if kind == "TIFF":
        mode = draw(st.sampled_from(["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "F"]))
        ways = [*PLAIN, *(BILEVEL if mode == "1" else ()), *(("jpeg",) if mode == "RGB" else ())]
        options = {"compression": draw(st.sampled_from(ways))}
    else:
        modes, ways = KINDS[kind]
        mode, options = draw(st.sampled_from(modes)), draw(ways)
    size = draw(SIDES), draw(SIDES)
    image = Image.new(mode, size, draw(st.sampled_from([0, 1])))
    filled = draw(st.sampled_from([0, 0, 1, 2]))
    if filled and mode not in ("I;16", "F"):
        side = max(1, size[1] // filled)
        noise = np.random.default_rng(0).integers(0, 256, (side, size[0], 3), dtype=np.uint8)
        image.paste(Image.fromarray(noise).convert(mode), (0, 0))
    stream = io.BytesIO()
    try:
        image.save(stream, kind, **options)
    except OSError:  # a buffer of Pillow's that some options of JPEG are too large for
        reject()
    return kind, options, stream.getvalue()


@given(saved_files())
@try_examples(1000)
def test_what_was_saved_whole_passes(saved):
    kind, _, content = saved
    with pytest.MonkeyPatch.context() as patch, Image.open(io.BytesIO(content)) as image:
        patch.setattr(floors, "FREE", 0)  # as if small pictures were large ones
        stream = io.BytesIO(content)
        check_floor(image, stream)
        assert image.format == kind
        assert stream.tell() == 0
