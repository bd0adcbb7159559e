"""Overlays keep one scale and the image; maps and masks survive their files."""

import io

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image, ImageColor
from properties import try_examples

from fuzzyclip.report.heatmaps import (
    CONTOUR,
    FIXED,
    HEAT,
    SHADES,
    STEPS,
    STRONGEST,
    draw_overlay,
    encode_map_png,
    encode_mask_png,
    write_map_png,
)

GRAY = np.full((600, 700, 3), 90, dtype=np.uint8)


def draw_part(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def show(image, heat, **options):
    """The overlay as an array; its bar lies below the image."""
    return np.asarray(draw_overlay(image, heat.astype(np.float32), **options).picture)


def test_a_normal_image_looks_as_it_is():
    image = draw_part(600, 700)
    for faint in (0, 0.1 / SHADES, 0.4 / SHADES):  # less than half a shade
        shown = show(image, np.full((600, 700), faint))
        assert shown.shape[1] == 700
        assert (shown[:600] == image).all()


@pytest.mark.parametrize("value", [0.01, 0.1, 0.25, 0.5, 1.0])
def test_on_the_fixed_scale_a_value_has_one_colour_whatever_else_is_there(value):
    calm, wild = np.full((600, 700), value), np.full((600, 700), value)
    wild[:300] = np.linspace(0, 1, 700)
    ours, theirs = show(GRAY, calm), show(GRAY, wild)
    assert (ours[599, 350] == theirs[599, 350]).all()
    colour = np.array(mpl.colormaps[HEAT](value)[:3]) * 255
    expected = 90 + STRONGEST * value * (colour - 90)
    assert np.abs(ours[599, 350] - expected).max() < 2.5  # a shade of 256
    assert (ours[600:] == theirs[600:]).all()  # the bar


def test_the_fixed_scale_is_the_probability_itself():
    values = np.linspace(0, 1, 101, dtype=np.float32)
    assert (FIXED.place(values) == values).all()
    assert FIXED.place(np.array([-0.5, 1.5])).tolist() == [0, 1]
    assert FIXED.list_ticks() == [(0, "0"), (0.25, "0.25"), (0.5, "0.5"), (0.75, "0.75"), (1, "1")]


def test_hotter_hides_more_but_never_all():
    image = draw_part(600, 700)
    heats = (0, 0.03, 0.2, 1)
    spread = [np.ptp(show(image, np.full((600, 700), heat))[:600, :, 0]) for heat in heats]
    assert spread == sorted(spread, reverse=True)
    assert len(set(spread)) == 4
    assert spread[-1] > 40


def test_a_scale_of_the_image_alone_names_itself_and_shows_what_stands_out():
    faint = np.linspace(1e-6, 4e-6, 420_000).reshape(600, 700)
    fixed = draw_overlay(GRAY, faint.astype(np.float32))
    own = draw_overlay(GRAY, faint.astype(np.float32), scale="image")
    assert (fixed.suffix, own.suffix) == ("", "_scaled_to_image")
    pixels, others = np.asarray(own.picture), np.asarray(fixed.picture)
    assert (others[:600] == 90).all()
    hottest = 90 + STRONGEST * (np.array(mpl.colormaps[HEAT](1.0)[:3]) * 255 - 90)
    assert np.abs(pixels[599, 699] - hottest).max() < 1
    assert (pixels[0, 0] == 90).all()
    assert (pixels[600:] != others[600:]).any()  # the bar says so
    again = show(GRAY, faint * 2, scale="image")
    assert (again[:600] == pixels[:600]).all()
    assert (again[600:] != pixels[600:]).any()  # its numbers
    constant = show(GRAY, np.full((600, 700), 0.7), scale="image")
    assert (constant[:600] == 90).all()


def test_the_outline_runs_around_what_reaches_the_threshold():
    heat = np.zeros((600, 700))
    heat[100:200, 300:500] = 0.25
    heat[400, 100] = 0.26
    cyan = np.array(ImageColor.getrgb(CONTOUR))
    for threshold, large in ((0.25, True), (0.26, False)):
        outline = (show(GRAY, heat, threshold=threshold)[:600] == cyan).all(2)
        around = np.zeros((600, 700), dtype=bool)
        around[398:403, 98:103] = True  # two pixels wide
        if large:
            around[98:202, 298:502] = True
        assert (outline == (around & (heat < threshold))).all()
    assert not (show(GRAY, heat)[:600] == cyan).all(2).any()
    frame = np.ones((600, 700), dtype=bool)
    frame[2:-2, 2:-2] = False
    assert ((show(GRAY, heat, threshold=0)[:600] == cyan).all(2) == frame).all()


def test_large_images_shrink_and_small_finds_stay():
    image, heat = np.full((300, 5000, 3), 90, np.uint8), np.zeros((300, 5000))
    heat[137, 3456] = 0.5
    shown = show(image, heat, longest=1000)
    assert shown.shape[1] == 1000
    hot = np.argwhere((shown[:60] != 90).any(2))
    assert hot.tolist() == [[137 * 60 // 300, 3456 // 5]]
    flat = show(GRAY, np.full((600, 700), 0.5))[0, 0]
    assert (shown[tuple(hot[0])] == flat).all()
    assert draw_overlay(image, heat.astype(np.float32)).picture.width == 2048


@try_examples(40)
@given(
    st.integers(1, 90), st.integers(1, 90), st.integers(1, 120), st.sampled_from(["fixed", "image"])
)
def test_images_of_any_shape_get_a_picture_with_a_bar(height, width, longest, scale):
    heat = np.random.default_rng(height).random((height, width))
    shown = show(draw_part(height, width), heat, longest=longest, scale=scale, threshold=0.5)
    assert shown.shape[1] >= 300
    assert (shown[-1] == 255).all()


@pytest.mark.parametrize(
    ("image", "heat", "options", "reason"),
    [
        (GRAY, np.zeros((700, 600)), {}, "size of its map"),
        (GRAY[..., 0], np.zeros((600, 700)), {}, "size of its map"),
        (GRAY / 255, np.zeros((600, 700)), {}, "uint8"),
        (GRAY, np.full((600, 700), np.nan), {}, "not finite"),
        (GRAY, np.full((600, 700), 3.0), {}, "divide a sum"),
        (GRAY, np.zeros((600, 700)), {"scale": "own"}, "fixed, image"),
        (GRAY, np.zeros((600, 700)), {"longest": 0}, "at least 1"),
    ],
)
def test_what_can_not_be_drawn_is_refused(image, heat, options, reason):
    with pytest.raises(ValueError, match=reason):
        show(image, heat, **options)


unit_maps = arrays.arrays(
    np.float32,
    arrays.array_shapes(min_dims=2, max_dims=2, max_side=9),
    elements=st.floats(0, 1, width=32),
)


@try_examples(150)
@given(unit_maps)
def test_maps_are_kept_to_half_a_step(tmp_path_factory, heat):
    path = tmp_path_factory.mktemp("maps") / "x.png"
    write_map_png(path, heat)
    with Image.open(path) as image:
        assert image.mode == "I;16"
        steps = np.asarray(image)
    assert steps.shape == heat.shape
    assert np.abs(steps / STEPS - heat).max() <= 0.5 / STEPS + 2**-25  # float32 near 1
    assert encode_map_png((steps / STEPS).astype(np.float32)) == path.read_bytes()


def test_every_step_is_kept():
    steps = np.arange(STEPS + 1, dtype=np.uint16).reshape(256, 256)
    with Image.open(io.BytesIO(encode_map_png((steps / STEPS).astype(np.float32)))) as image:
        assert (np.asarray(image) == steps).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -1e-6, 1.0001])
def test_maps_that_no_png_can_hold_are_refused(value, tmp_path):
    heat = np.zeros((3, 4), dtype=np.float32)
    heat[1, 2] = value
    with pytest.raises(ValueError, match=r"not finite|\[0, 1\]"):
        write_map_png(tmp_path / "x.png", heat)
    for shape in ((0, 4), (4,), (1, 2, 2)):
        with pytest.raises(ValueError, match=r"an anomaly map is \(H, W\)"):
            encode_map_png(np.zeros(shape, dtype=np.float32))
    assert not list(tmp_path.iterdir())


def test_masks_are_black_and_white():
    mask = np.random.default_rng(0).random((5, 7)) < 0.4
    with Image.open(io.BytesIO(encode_mask_png(mask))) as image:
        assert image.mode == "L"
        assert (np.asarray(image) == 255 * mask).all()
    for wrong in (mask.astype(np.uint8), mask[0], mask[:0]):
        with pytest.raises(ValueError, match="a mask is boolean"):
            encode_mask_png(wrong)
