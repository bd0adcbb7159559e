"""Anomaly maps as files: heat laid over the image, the map itself as a 16-bit PNG, a mask.

An anomaly map here is the mean over blocks of anomalous probabilities, in [0, 1]. Every picture of
page, report and overlays has one scale, `FIXED`: the colour is the probability itself, so that a
normal image looks as it is, and two pictures can be compared. Of the scales tried it keeps normal
images darkest beside their defects (docs/own-data.md, section 4, has the numbers).

A scale of the image's own, as is often seen, paints something red in every image, however normal;
it is drawn on demand, and then says so in the picture and in the file's name.

Shapes: H rows, W columns of the image; h rows, w columns of the picture made of it.
"""

import io
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import matplotlib as mpl
import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageColor, ImageDraw, ImageFont
from scipy import ndimage

from fuzzyclip.evaluation.metrics import EIGHT_CONNECTED, Maps, as_float32
from fuzzyclip.utils.files import replace_file

Picture = NDArray[np.uint8]
Scale = Literal["fixed", "image"]

#: The colours of every anomaly map that is drawn, one scale for all pictures of all runs: from
#: normal to anomalous, readable in gray and without red-green vision.
HEAT = "inferno"
CONTOUR = "#00e5ff"
#: What a map's values are, beneath the bar.
VALUES = "mean anomalous probability"
#: Places of a colour bar's ticks.
TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)
#: Shades of heat.
SHADES = 256
#: How much of the image the highest heat hides.
STRONGEST = 0.8
#: Pixels of the longest side below which a picture is enlarged, so that its colour bar can be read.
SMALLEST_PICTURE = 480
#: Longest side of an overlay if nothing else is asked.
LONGEST = 2048
#: What stands for 1 in a 16-bit PNG.
STEPS = 65535
#: The end of a file's name by scale.
SUFFIXES: dict[Scale, str] = {"fixed": "", "image": "_scaled_to_image"}


@dataclass(frozen=True)
class Overlay:
    """A picture, and the end of its file's name that tells its scale."""

    picture: Image.Image
    suffix: str


@dataclass(frozen=True)
class DisplayScale:
    """The meaning of heat: the probabilities of the coldest and the hottest, linear between."""

    low: float
    high: float

    def place(self, values: NDArray[np.floating]) -> NDArray[np.floating]:
        """Heat in [0, 1] of values of any shape; what lies outside of the scale has its ends."""
        if self.high <= self.low:  # a constant map: nothing stands out
            return np.zeros_like(values)
        heat = (values - np.float32(self.low)) / np.float32(self.high - self.low)
        return np.asarray(np.clip(heat, 0, 1))

    def list_ticks(self) -> list[tuple[float, str]]:
        """Places in [0, 1] along a colour bar, and their labels."""
        if self.high <= self.low:
            return [(0.0, f"{self.low:.3g}")]
        return [(place, f"{self.low + place * (self.high - self.low):.3g}") for place in TICKS]


#: The scale of every picture that does not say otherwise.
FIXED = DisplayScale(0.0, 1.0)


def draw_overlay(
    image: Picture,
    anomaly_map: ArrayLike,
    *,
    threshold: float | None = None,
    scale: Scale = "fixed",
    longest: int = LONGEST,
    values: str = "",
) -> Overlay:
    """The image under its heat, with a colour bar.

    Heat hides the more of the image the hotter it is: at 0 the bare image is seen. Where a large
    image is shrunk, heat is the highest of the pixels that became one: a small find does not fade.

    Args:
        image: (H, W, 3) RGB.
        anomaly_map: (H, W), in [0, 1].
        threshold: outlines the pixels that reach it.
        scale: "fixed" is `FIXED`, the same for every picture; "image" goes from this map's lowest
            to its highest value, and compares with no other picture.
        longest: pixels of the longer side, beyond which the image is shrunk.
        values: what the map's values are, in words; empty for `VALUES`.

    Raises:
        ValueError: image and map differ in size, the map is no map, or an argument is unknown.
    """
    heat = check_map(anomaly_map)
    if image.dtype != np.uint8 or image.shape != (*heat.shape, 3):
        raise ValueError(
            f"image {image.dtype} {image.shape} must be uint8 (H, W, 3) with the size of its map, "
            f"{heat.shape}"
        )
    if scale not in SUFFIXES:
        raise ValueError(f"scale must be one of {', '.join(SUFFIXES)}, not {scale!r}")
    if longest < 1:
        raise ValueError(f"pictures of {longest} pixels: give at least 1")
    span = FIXED
    if scale == "image":
        span = DisplayScale(float(heat.min()), float(heat.max()))
    base, heat = _fit(image, heat, longest)
    painted = _paint(base, span.place(heat))
    if threshold is not None:
        _outline(painted, heat >= threshold)
    return Overlay(_add_bar(painted, span, scale, threshold, values), SUFFIXES[scale])


def check_map(anomaly_map: ArrayLike) -> Maps:
    """A map (H, W) as float32.

    Raises:
        ValueError: not two axes, empty, finer than float32, not finite or outside of [0, 1].
    """
    given = as_float32(anomaly_map)
    if given.ndim != 2 or not given.size:
        raise ValueError(f"an anomaly map is (H, W), not {given.shape}")
    low, high = float(given.min()), float(given.max())
    if low < 0 or high > 1:
        raise ValueError(
            f"the map's values lie in [{low:g}, {high:g}], not in [0, 1]: divide a sum of blocks "
            "by their number"
        )
    return given


def _fit(image: Picture, heat: Maps, longest: int) -> tuple[Picture, Maps]:
    """Image and map at the picture's size, (h, w, 3) and (h, w)."""
    larger = max(heat.shape)
    if larger > longest:
        height, width = (max(1, round(side * longest / larger)) for side in heat.shape)
        small = Image.fromarray(image).resize((width, height), Image.Resampling.BOX)
        for axis, side in enumerate((height, width)):
            starts = np.arange(side) * heat.shape[axis] // side
            heat = np.maximum.reduceat(heat, starts, axis=axis)
        return np.asarray(small), heat
    times = -(-min(SMALLEST_PICTURE, longest) // larger)
    return image.repeat(times, 0).repeat(times, 1), heat.repeat(times, 0).repeat(times, 1)


@cache
def _list_shades() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Colour (SHADES, 3) in 0 to 255, and how much it hides (SHADES, 1), from cold to hot."""
    heat = np.linspace(0, 1, SHADES, dtype=np.float32)
    colours = np.asarray(mpl.colormaps[HEAT](heat), dtype=np.float32)[:, :3] * 255
    return colours, STRONGEST * heat[:, None]


def _paint(base: Picture, heat: NDArray[np.floating]) -> Picture:
    """Heat (h, w) in [0, 1] over an image (h, w, 3)."""
    colours, hides = _list_shades()
    shade = np.clip(heat * (SHADES - 1) + 0.5, 0, SHADES - 1).astype(np.uint8)
    shown = 1 - hides[shade]  # (h, w, 1)
    mixed = base * shown + (colours * hides)[shade]
    return np.asarray(mixed + np.float32(0.5), dtype=np.uint8)


def _outline(painted: Picture, mask: NDArray[np.bool_]) -> None:
    """Draw a line around a mask (h, w), in place.

    Outside of it, so that one pixel is seen; inside where the mask reaches the picture's edge.
    """
    thickness = max(2, round(max(mask.shape) / 600))
    grown = ndimage.binary_dilation(mask, EIGHT_CONNECTED, iterations=thickness)
    frame = np.ones(mask.shape, dtype=bool)
    frame[thickness:-thickness, thickness:-thickness] = False
    painted[np.where(mask, frame, grown)] = ImageColor.getrgb(CONTOUR)


def _add_bar(
    painted: Picture, span: DisplayScale, scale: Scale, threshold: float | None, values: str
) -> Image.Image:
    """The picture (h, w, 3) with a colour bar below, over mid gray as heat is over an image."""
    height, width = painted.shape[:2]
    size = round(min(max(max(height, width) / 60, 13), 26))
    font = ImageFont.load_default(size)
    name = "fixed scale" if scale == "fixed" else "scaled to this image alone"
    lines = [f"{values or VALUES}, {name}"]
    if threshold is not None:
        lines.append(f"outlined: {threshold:.3g} and more")
    margin = 3 * size
    wide = max(width, 30 * size, *(round(font.getlength(line)) + 2 * size for line in lines))
    bottom = height + round((3.6 + 1.4 * len(lines)) * size)
    canvas = Image.new("RGB", (wide, bottom), "white")
    canvas.paste(Image.fromarray(painted), ((wide - width) // 2, 0))
    draw = ImageDraw.Draw(canvas)
    length, top = min(wide - 2 * margin, 60 * size), height + round(0.8 * size)
    left = (wide - length) // 2
    heat = np.tile(np.linspace(0, 1, length, dtype=np.float32), (size, 1))
    bar = _paint(np.full((size, length, 3), 128, dtype=np.uint8), heat)
    canvas.paste(Image.fromarray(bar), (left, top))
    under = top + size
    for place, text in span.list_ticks():
        x = left + round(place * (length - 1))
        draw.line((x, under, x, under + size // 3), fill="black", width=max(1, size // 12))
        draw.text((x, under + size // 2), text, fill="black", font=font, anchor="ma")
    for number, line in enumerate(lines):
        y = under + round((1.9 + 1.4 * number) * size)
        draw.text((wide // 2, y), line, fill="black", font=font, anchor="ma")
    return canvas


def encode_map_png(anomaly_map: ArrayLike) -> bytes:
    """A map (H, W) in [0, 1] as a 16-bit gray PNG, 0 to 65535; rounded to the nearest step.

    Raises:
        ValueError: `check_map` refuses the map.
    """
    given = check_map(anomaly_map)
    steps = np.empty(given.shape, dtype=np.uint16)
    for row, line in zip(given, steps, strict=True):
        line[:] = np.rint(row.astype(np.float64) * STEPS)  # float32 would round twice
    return _encode_png(Image.fromarray(steps))


def write_map_png(path: Path, anomaly_map: ArrayLike) -> None:
    """`encode_map_png` into a file."""
    content = encode_map_png(anomaly_map)
    with replace_file(path) as temporary:
        temporary.write_bytes(content)


def encode_mask_png(mask: NDArray[np.bool_]) -> bytes:
    """A mask (H, W), true where anomalous, as an 8-bit gray PNG: 255 there, 0 elsewhere.

    Raises:
        ValueError: not boolean, not two axes, or empty.
    """
    if mask.dtype != np.bool_ or mask.ndim != 2 or not mask.size:
        raise ValueError(f"a mask is boolean (H, W), not {mask.dtype} {mask.shape}")
    return _encode_png(Image.fromarray(mask.astype(np.uint8) * 255))


def _encode_png(image: Image.Image) -> bytes:
    with io.BytesIO() as file:
        image.save(file, "PNG", compress_level=3)
        return file.getvalue()
