"""Predictions: score, decision and map of one image.

Shapes: H rows, W columns of the image as it was given; S side of the model's own maps.
"""

import io
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.special import expit
from torch.nn import functional as F

from fuzzyclip.model.card import Threshold
from fuzzyclip.utils.files import replace_file

if TYPE_CHECKING:
    from fuzzyclip.report.heatmaps import Scale

#: Names of the labels 0 and 1.
DECISIONS = ("normal", "anomalous")
#: Formats of an overlay by its file's suffix, and how each is written: JPEG with all of its colour,
#: for thin outlines; PNG lightly compressed, whose last tenth would cost four times the time.
FORMATS: dict[str, dict[str, Any]] = {
    ".jpg": {"format": "JPEG", "quality": 90, "subsampling": 0},
    ".jpeg": {"format": "JPEG", "quality": 90, "subsampling": 0},
    ".png": {"format": "PNG", "compress_level": 1},
}


@dataclass(frozen=True, repr=False)
class Prediction:
    """Score, decision and map of one image.

    Attributes:
        name: of the image, as far as it has one.
        category: what it was taken for.
        prompt: what the text tower read, one a cluster, without states and templates.
        anomaly_map: (H, W), in [0, 1], higher is more anomalous: the mean over the taken blocks of
            a pixel's probability to be anomalous; or what `values` says.
        image_score: log-odds that the image is anomalous, 0 where that is as likely as not.
        threshold, pixel_threshold: of image scores and of the map, and how they were chosen.
        sha256: of the image's file; empty where the image came as pixels.
        picture: the image as it was opened, RGB, where it was to be kept.
        values: what the map's values are, in words, where they are no such probability.
    """

    name: str
    category: str
    prompt: str
    anomaly_map: NDArray[np.float32]
    image_score: float
    threshold: Threshold
    pixel_threshold: Threshold
    sha256: str = ""
    picture: Image.Image | None = None
    values: str = ""

    def __repr__(self) -> str:
        """One line, without the pictures."""
        height, width = self.anomaly_map.shape
        return (
            f"<Prediction {self.name!r} as {self.category!r}: {self.decision}, score "
            f"{self.image_score:+.2f} (threshold {self.threshold.value:+.2f}), {width} x {height}>"
        )

    def _repr_png_(self) -> bytes | None:
        """The overlay, where a notebook shows the prediction; nothing without the picture."""
        if self.picture is None:
            return None
        with io.BytesIO() as file:
            self.overlay().save(file, **FORMATS[".png"])
            return file.getvalue()

    def overlay(self, scale: "Scale" = "fixed") -> Image.Image:
        """The picture under its heat, what reaches the pixel threshold outlined, a colour bar.

        Args:
            scale: see `fuzzyclip.report.heatmaps.draw_overlay`.

        Raises:
            ValueError: the picture was not kept.
        """
        from fuzzyclip.report.heatmaps import draw_overlay

        if self.picture is None:
            raise ValueError(f"{self.name}: no picture to draw on: detect with keep_pictures=True")
        pixels = np.asarray(self.picture)  # (H, W, 3)
        cut, values = self.pixel_threshold.value, self.values
        drawn = draw_overlay(pixels, self.anomaly_map, threshold=cut, scale=scale, values=values)
        return drawn.picture

    def save(self, path: str | Path, scale: "Scale" = "fixed") -> None:
        """Write the overlay as PNG or JPEG, by the suffix; its folder is made.

        Raises:
            ValueError: another suffix, or the picture was not kept.
        """
        place = Path(path)
        if place.suffix.lower() not in FORMATS:
            raise ValueError(f"{place}: an overlay's name ends in {', '.join(FORMATS)}")
        drawn = self.overlay(scale)
        with replace_file(place) as temporary:
            drawn.save(temporary, **FORMATS[place.suffix.lower()])

    @property
    def probability(self) -> float:
        """The image score for people, in [0, 1]; scores that differ may have the same."""
        return float(expit(self.image_score))

    @property
    def label(self) -> int:
        """1 for anomalous: the score reaches the threshold."""
        return int(self.image_score >= self.threshold.value)

    @property
    def decision(self) -> str:
        """`normal` or `anomalous`."""
        return DECISIONS[self.label]

    @cached_property
    def mask(self) -> NDArray[np.bool_]:
        """(H, W), where the map reaches the pixel threshold."""
        reached: NDArray[np.bool_] = self.anomaly_map >= self.pixel_threshold.value
        return reached

    def to_row(self) -> dict[str, Any]:
        """All but the pictures, flat, for a table or a line of JSON."""
        return {
            "image": self.name,
            "category": self.category,
            "image_score": self.image_score,
            "probability": self.probability,
            "label": self.label,
            "decision": self.decision,
            "threshold": self.threshold.value,
            "threshold_method": self.threshold.method,
            "map_max": float(self.anomaly_map.max()),
            "defect_share": float(self.mask.mean()),
            "width": self.anomaly_map.shape[1],
            "height": self.anomaly_map.shape[0],
            "error": "",
        }


@dataclass(frozen=True)
class Unreadable:
    """An image of which nothing can be said, and why, in words."""

    name: str
    error: str

    def to_row(self) -> dict[str, Any]:
        """As `Prediction.to_row`, with what is known."""
        return {"image": self.name, "error": self.error}


def resize_map(anomaly_map: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """A map (S, S) at an image's own size, its width and height; averaged where it shrinks.

    No value leaves those of the given map, so that a probability stays in [0, 1].
    """
    width, height = size
    if anomaly_map.shape == (height, width):
        return anomaly_map
    plane = torch.from_numpy(np.ascontiguousarray(anomaly_map))[None, None]  # (1, 1, S, S)
    whole = F.interpolate(
        plane, size=(height, width), mode="bilinear", align_corners=False, antialias=True
    )
    resized: NDArray[np.float32] = whole[0, 0].numpy()  # (H, W)
    # weights add up to 1 but for rounding, which would lift a map of ones above 1
    return np.clip(resized, anomaly_map.min(), anomaly_map.max(), out=resized)
