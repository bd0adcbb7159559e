"""The gallery of a page: kept images of every category as cards, with maps on the one colour scale.

Shapes: T side of a picture.
"""

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import matplotlib as mpl
import numpy as np
from contourpy import contour_generator
from numpy.typing import NDArray
from PIL import Image

from fuzzyclip.report.heatmaps import FAINTEST, HEAT
from fuzzyclip.report.tables import format_score

#: Colours of a map: steps that the eye does not see, and half the bytes of 256.
COLOURS = 128
#: Of a photograph, as WebP.
QUALITY = 80


@dataclass(frozen=True)
class GalleryImage:
    """A kept image.

    Attributes:
        path: of its file.
        category: its category.
        label: 1 anomalous.
        defect: name of the defect.
        score: FuzzyCLIP's image score.
        threshold: the category's, of the largest F1; None where a class is missing.
        kinds: of `fuzzyclip.evaluation.KINDS`.
        has_mask: whether the ground truth is known.
        image: (T, T, 3).
        mask: (T, T).
        anomaly_map: (T, T).
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


@dataclass(frozen=True)
class GalleryCard:
    """A kept image as the page shows it."""

    dataset: str
    title: str
    category: str
    file: str
    path: str
    label: str
    defect: str
    kinds: Sequence[str]
    score: str
    threshold: str
    verdict: str
    truth: str
    side: int
    photo: str
    heat: str
    outline: str
    alt: str


def build_cards(dataset: str, title: str, examples: Iterable[GalleryImage]) -> list[GalleryCard]:
    """Cards of a dataset, by category, the worst first."""
    order = ("worst", "borderline", "best")
    cards = [_make_card(dataset, title, example) for example in examples]
    return sorted(
        cards, key=lambda card: (card.category, min(order.index(kind) for kind in card.kinds))
    )


def judge(example: GalleryImage) -> str:
    """Verdict of the category's threshold on an image, in words."""
    if example.threshold is None:
        return "no threshold"
    called = example.score >= example.threshold
    if example.label == 1:
        return "found" if called else "missed"
    return "false alarm" if called else "passed"


def _make_card(dataset: str, title: str, example: GalleryImage) -> GalleryCard:
    file, label = PurePosixPath(example.path).name, "anomalous" if example.label == 1 else "normal"
    verdict = judge(example)
    truth = "outlined" if example.mask.any() else "nothing to outline"
    return GalleryCard(
        dataset=dataset,
        title=title,
        category=example.category,
        file=file,
        path=example.path,
        label=label,
        defect=example.defect if example.label == 1 else "",
        kinds=example.kinds,
        score=format_score(example.score),
        threshold="none" if example.threshold is None else format_score(example.threshold),
        verdict=verdict,
        truth=truth if example.has_mask or example.label == 0 else "no mask",
        side=len(example.image),
        photo=encode_photo(example.image),
        heat=encode_map(example.anomaly_map),
        outline=trace_outline(example.mask),
        alt=f"{title}, {example.category}, {label} image {file}",
    )


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
    """Number of each pixel's colour, (T, T), on `fuzzyclip.report.figures.draw_heatmaps`' scale.

    It is logarithmic and ends at 1, the most a map can be, for every image of every run.
    """
    share = np.log(np.maximum(anomaly_map.astype(np.float64), FAINTEST) / FAINTEST)
    share /= -np.log(FAINTEST)
    return np.asarray(np.round(share.clip(0, 1) * (COLOURS - 1)), dtype=np.uint8)


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
    """The colour bar that belongs to every map: it ends at 1, the most a map can be."""
    shares, colours = np.linspace(0, 1, stops), list_colours()
    places = np.round(shares * (COLOURS - 1)).astype(int)
    ends = round(-np.log10(FAINTEST))
    ticks = [(1 - power / ends, f"{10.0**-power:.{power}f}") for power in range(ends, -1, -1)]
    return ColourBar(
        [
            (round(float(share), 4), "#" + bytes(colours[place].tolist()).hex())
            for share, place in zip(shares, places, strict=True)
        ],
        ticks,
    )
