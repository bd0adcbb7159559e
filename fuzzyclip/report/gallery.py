"""Kept images with their anomaly maps: strips as PNG for report and papers, cards of a page.

All maps are on the one scale of `fuzzyclip.report.heatmaps`, but those of several methods.

Shapes: T side of a picture.
"""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import matplotlib as mpl
import numpy as np
from contourpy import contour_generator
from matplotlib.axes import Axes
from matplotlib.colorbar import Colorbar
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import NDArray
from PIL import Image

from fuzzyclip.report.heatmaps import CONTOUR, FIXED, HEAT
from fuzzyclip.report.tables import format_score
from fuzzyclip.utils.files import replace_file

DPI = 110
#: Inches: of one picture and the space before it, of the space, of a picture's title, of a band of
#: image, ground truth and map, of the figure's title, and of the colour bar.
CELL, GAP, TITLE = 1.35, 0.06, 0.36
BAND, HEAD, BAR = 3 * CELL + TITLE, 0.4, 0.95
#: Examples of a band.
COLUMNS = 10
#: Inches of a letter of a figure's title, at least so wide as the longest is.
LETTER = 0.085
#: Inches of a row's label beside the maps of several methods.
LABEL = 1.1
#: Shares of an image's pixels from the darkest to the brightest colour of maps of several methods.
SHARES = (1.0, 0.3, 0.1, 0.03, 0.01)
FEWEST = SHARES[-1]
#: Colours of a map: steps that the eye does not see, and half the bytes of 256.
COLOURS = 128
#: Of a photograph, as WebP.
QUALITY = 80


@dataclass(frozen=True)
class Example:
    """One image (T, T, 3) with its ground truth and its anomaly map, both (T, T)."""

    title: str
    image: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    anomaly_map: NDArray[np.floating]


def save_figure(figure: Figure, path: Path) -> None:
    """PNG without dates, so that equal pictures are equal files."""
    with replace_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI, metadata={"Software": None})


def draw_heatmaps(examples: Sequence[Example], title: str, truth_last: bool = False) -> Figure:
    """Image, ground truth and map under one another, `COLUMNS` examples a band.

    With `truth_last` the ground truth is under the map, as in the paper's strips, not above it.
    """
    bands = [examples[i : i + COLUMNS] for i in range(0, len(examples), COLUMNS)]
    wide = CELL * min(COLUMNS, len(examples)) + BAR
    width = max(wide, LETTER * max(map(len, title.splitlines()), default=0))
    start, height = (width - wide) / 2, BAND * len(bands) + HEAD
    figure = Figure(figsize=(width, height))
    figure.suptitle(title, fontsize=10, y=1 - 0.12 / height, va="top")
    shown = None
    for band, chosen in enumerate(bands):
        for column, example in enumerate(chosen):
            tops = [HEAD + BAND * band + TITLE + CELL * row for row in range(3)]
            left, side = start + CELL * column + GAP, CELL - GAP
            panels = [place_axes(figure, left, top, side, side) for top in tops]
            order = (0, 2, 1) if truth_last else (0, 1, 2)
            shown = draw_example([panels[i] for i in order], example)
    if shown is not None:
        mark_ticks(_add_bar(figure, shown, start + wide - BAR, "mean anomalous probability"))
    return figure


def mark_ticks(bar: Colorbar) -> None:
    """Give a colour bar the ticks of the scale that all maps have."""
    places, labels = zip(*FIXED.list_ticks(), strict=True)
    bar.set_ticks(places, labels=labels)


def _add_bar(figure: Figure, shown: AxesImage, left: float, label: str) -> Colorbar:
    """A colour bar at inches from the left."""
    height = figure.get_figheight()
    long = 0.6 * (height - HEAD)
    axes = place_axes(figure, left + 0.15, HEAD + (height - HEAD - long) / 2, 0.12, long)
    bar = figure.colorbar(shown, cax=axes)
    bar.set_label(label, fontsize=8)
    bar.ax.tick_params(labelsize=7)
    return bar


def draw_example(panels: Sequence[Axes], example: Example) -> AxesImage:
    """Image, ground truth and map in one panel each."""
    for panel in panels:
        panel.set_axis_off()
    panels[0].imshow(example.image)
    panels[0].set_title(example.title, fontsize=6.5)
    panels[1].imshow(example.mask, cmap="gray", vmin=0, vmax=1)
    heat = FIXED.place(example.anomaly_map)
    shown: AxesImage = panels[2].imshow(heat, cmap=HEAT, vmin=0, vmax=1)
    _outline(panels[2], example.mask, len(heat))
    return shown


@dataclass(frozen=True)
class Photo:
    """One image (T, T, 3) with its ground truth (T, T), and a title."""

    title: str
    image: NDArray[np.uint8]
    mask: NDArray[np.bool_]


def draw_side_by_side(
    photos: Sequence[Photo],
    columns: Mapping[str, Sequence[NDArray[np.floating] | None]],
    title: str,
) -> Figure:
    """A row an image: the image, its ground truth, and a map of each method.

    Scales of methods differ, and metrics ask for the order of pixels alone. So a pixel's colour
    says how many pixels of its image the map has at least as high, which no change of scale moves:
    the fewer, the brighter, down to `FEWEST`. It compares places in an image, not images.

    Args:
        photos: the images.
        columns: by a method's title, a map (S, S) of each image, of a side of its own, higher is
            more anomalous; None leaves its place empty.
        title: of the figure.
    """
    names = ("image", "ground truth", *columns)
    height, width = CELL * len(photos) + HEAD + TITLE, LABEL + CELL * len(names) + BAR
    figure = Figure(figsize=(width, height))
    figure.suptitle(title, fontsize=10, y=1 - 0.12 / height, va="top")
    norm, shown = LogNorm(FEWEST, 1), None
    for row, photo in enumerate(photos):
        tops = HEAD + TITLE + CELL * row
        panels = [
            place_axes(figure, LABEL + CELL * column, tops, CELL - GAP, CELL - GAP)
            for column in range(len(names))
        ]
        for panel, name in zip(panels, names, strict=True):
            panel.set(xticks=[], yticks=[], title=name if row == 0 else "")
            panel.title.set_fontsize(8)
        panels[0].imshow(photo.image)
        panels[0].set_ylabel(photo.title, fontsize=7, rotation=0, ha="right", va="center")
        panels[1].imshow(photo.mask, cmap="gray", vmin=0, vmax=1)
        for panel, maps in zip(panels[2:], columns.values(), strict=True):
            if (anomaly_map := maps[row]) is not None:
                shown = panel.imshow(share_above(anomaly_map), cmap=f"{HEAT}_r", norm=norm)
                _outline(panel, photo.mask, len(anomaly_map))
    if shown is not None:
        bar = _add_bar(figure, shown, width - BAR, "pixels of the image at least as high")
        bar.set_ticks(SHARES, labels=[f"{100 * share:g} %" for share in SHARES])
        bar.ax.minorticks_off()
        bar.ax.invert_yaxis()
    return figure


def _outline(panel: Axes, mask: NDArray[np.bool_], side: int) -> None:
    """The outline of a mask (T, T) on a picture of another side."""
    if mask.any():
        places = (np.arange(len(mask)) + 0.5) * side / len(mask) - 0.5
        panel.contour(places, places, mask, levels=[0.5], colors=CONTOUR, linewidths=0.7)


def place_axes(figure: Figure, left: float, top: float, wide: float, high: float) -> Axes:
    """Axes at inches from the left and the top. A layout engine takes longer than drawing."""
    width, height = figure.get_size_inches()
    return figure.add_axes((left / width, 1 - (top + high) / height, wide / width, high / height))


def share_above(anomaly_map: NDArray[np.floating]) -> NDArray[np.float64]:
    """Share of a map's pixels that are at least as high as each, (S, S) in (0, 1]."""
    falling = -anomaly_map
    counts = np.searchsorted(np.sort(falling, axis=None), falling, side="right")
    return np.asarray(counts / anomaly_map.size)


@dataclass(frozen=True)
class GalleryImage:
    """A kept image (T, T, 3), its mask and its map, both (T, T).

    Attributes:
        score: FuzzyCLIP's image score.
        threshold: the category's, of the largest F1; None where a class is missing.
        kinds: of `fuzzyclip.evaluation.KINDS`.
        has_mask: whether the ground truth is known.
    """

    path: str
    category: str
    label: int
    defect: str
    score: float
    threshold: float | None
    kinds: Sequence[str]
    has_mask: bool
    image: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    anomaly_map: NDArray[np.floating]


def build_cards(
    dataset: str, title: str, examples: Iterable[GalleryImage]
) -> list[Mapping[str, Any]]:
    """Cards of a dataset as the page's template reads them, by category, the worst first."""
    order = ("worst", "borderline", "best")
    cards = [_make_card(dataset, title, example) for example in examples]
    return sorted(
        cards,
        key=lambda card: (card["category"], min(order.index(kind) for kind in card["kinds"])),
    )


def judge(example: GalleryImage) -> str:
    """Verdict of the category's threshold on an image, in words."""
    if example.threshold is None:
        return "no threshold"
    called = example.score >= example.threshold
    if example.label == 1:
        return "found" if called else "missed"
    return "false alarm" if called else "passed"


def _make_card(dataset: str, title: str, example: GalleryImage) -> Mapping[str, Any]:
    file, label = PurePosixPath(example.path).name, "anomalous" if example.label == 1 else "normal"
    truth = "outlined" if example.mask.any() else "nothing to outline"
    return {
        "dataset": dataset,
        "title": title,
        "category": example.category,
        "file": file,
        "path": example.path,
        "label": label,
        "defect": example.defect if example.label == 1 else "",
        "kinds": example.kinds,
        "score": format_score(example.score),
        "threshold": "none" if example.threshold is None else format_score(example.threshold),
        "verdict": judge(example),
        "truth": truth if example.has_mask or example.label == 0 else "no mask",
        "side": len(example.image),
        "photo": encode_photo(example.image),
        "heat": encode_map(example.anomaly_map),
        "outline": trace_outline(example.mask),
        "alt": f"{title}, {example.category}, {label} image {file}",
    }


@dataclass(frozen=True)
class ColourBar:
    """The scale of all maps: (share, colour) along it, and (share, number) of its ticks."""

    stops: list[tuple[float, str]]
    ticks: list[tuple[float, str]]


def list_colours() -> NDArray[np.uint8]:
    """The scale's colours from normal to anomalous, (COLOURS, 3)."""
    shares = np.linspace(0, 1, COLOURS)
    return np.asarray(np.round(mpl.colormaps[HEAT](shares)[:, :3] * 255), dtype=np.uint8)


def grade_map(anomaly_map: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Number of each pixel's colour, (T, T)."""
    return np.asarray(np.round(FIXED.place(anomaly_map) * (COLOURS - 1)), dtype=np.uint8)


def encode_map(anomaly_map: NDArray[np.floating]) -> str:
    """A map (T, T) as a data address; without loss, so that colours can be read off the bar."""
    picture = Image.fromarray(grade_map(anomaly_map), mode="P")
    picture.putpalette(list_colours().tobytes())
    return _encode(picture, "PNG", optimize=True)


def encode_photo(image: NDArray[np.uint8]) -> str:
    """An image (T, T, 3) as a data address."""
    return _encode(Image.fromarray(image), "WEBP", quality=QUALITY, method=6)


def _encode(picture: Image.Image, kind: str, **options: bool | int) -> str:
    file = io.BytesIO()
    picture.save(file, format=kind, **options)
    text = base64.b64encode(file.getvalue()).decode("ascii")
    return f"data:image/{kind.lower()};base64,{text}"


def trace_outline(mask: NDArray[np.bool_]) -> str:
    """SVG's path around what a mask (T, T) covers, in pixels; empty where it covers nothing."""
    padded = np.pad(mask.astype(np.float64), 1)  # so that regions at the border close
    lines = contour_generator(z=padded).lines(0.5)
    pieces = []
    for line in lines:
        points = np.asarray(line)[:-1] - 0.5  # (n, 2): of the closed line, without the pad
        back, ahead = points - np.roll(points, 1, axis=0), np.roll(points, -1, axis=0) - points
        corner = np.abs(back[:, 0] * ahead[:, 1] - back[:, 1] * ahead[:, 0]) > 1e-9
        pieces.append("M" + "L".join(f"{x:g} {y:g}" for x, y in points[corner]) + "Z")
    return "".join(pieces)


def describe_scale(stops: int = 17) -> ColourBar:
    """The colour bar that belongs to every map."""
    shares, colours = np.linspace(0, 1, stops), list_colours()
    places = np.round(shares * (COLOURS - 1)).astype(int)
    return ColourBar(
        [
            (round(float(share), 4), "#" + bytes(colours[place].tolist()).hex())
            for share, place in zip(shares, places, strict=True)
        ],
        FIXED.list_ticks(),
    )
