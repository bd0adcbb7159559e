"""Defects of the drawn parts, with their exact masks.

Each defect painter returns how strongly it covers every pixel, alpha (H, W) in 0..1, and the
colours (H, W, 3) it paints there. Sizes are in part units: half of the shorter image side is one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from fuzzyclip.sample.textures import Field, smooth_noise

MASK_ALPHA = 0.25  # fainter traces of a defect are not painted at all
MIN_CHANGE = 0.09  # mean colour change (0..1) below which a defect is drawn again
MIN_AREA = 7e-4  # of the image, below which it is drawn again
ATTEMPTS = 8


@dataclass(frozen=True)
class Canvas:
    """A drawn part, ready to be damaged."""

    image: Field  # (H, W, 3) in 0..1
    under: Field  # (H, W, 3): what shows where a piece is missing
    distance: Field  # (H, W): signed distance to the part, negative inside; part units
    loose: NDArray[np.bool_]  # (H, W): where a piece may be missing
    x: Field  # (H, W): image coordinates along the width
    y: Field  # (H, W): image coordinates along the height

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.distance.shape[0], self.distance.shape[1]

    @property
    def pixel(self) -> float:
        """Size of a pixel in part units."""
        return 2 / min(self.size)


Painted = tuple[Field, Field]
Painter = Callable[[Canvas, np.random.Generator], Painted]


def _pick_place(
    canvas: Canvas, rng: np.random.Generator, where: NDArray[np.bool_]
) -> tuple[float, float]:
    """Coordinates of a random pixel of `where` off the border, or of the innermost pixel."""
    margin = (np.abs(canvas.x) < canvas.x.max() - 0.15) & (np.abs(canvas.y) < canvas.y.max() - 0.15)
    choices = np.flatnonzero(where & margin)
    pixel = rng.choice(choices) if len(choices) else np.argmin(canvas.distance)
    return float(canvas.x.flat[pixel]), float(canvas.y.flat[pixel])


def _inner(canvas: Canvas, margin: float) -> NDArray[np.bool_]:
    return np.asarray(canvas.distance < -margin)


def _soft(canvas: Canvas, distance: Field) -> Field:
    """Anti-aliased coverage of a signed distance."""
    cover: Field = np.clip(np.float32(0.5) - distance / np.float32(canvas.pixel), 0, 1)
    return cover


def _path_distance(canvas: Canvas, points: NDArray[np.float64], taper: float) -> Field:
    """Distance (H, W) to a polyline (n, 2); it grows along the path, so that the line thins."""
    distance = np.full(canvas.size, 9, np.float32)
    for number, ((x0, y0), (x1, y1)) in enumerate(pairwise(points)):
        px, py = canvas.x - np.float32(x0), canvas.y - np.float32(y0)
        dx, dy = np.float32(x1 - x0), np.float32(y1 - y0)
        t = np.clip((px * dx + py * dy) / (dx * dx + dy * dy + np.float32(1e-9)), 0, 1)
        segment = np.hypot(px - t * dx, py - t * dy) + np.float32(taper * number / len(points))
        distance = np.minimum(distance, segment)
    return distance


def _walk(
    rng: np.random.Generator, start: tuple[float, float], length: float, steps: int, bend: float
) -> NDArray[np.float64]:
    """Random path (steps + 1, 2) from `start` whose direction changes by about `bend` radians."""
    turns = rng.normal(0, bend, steps)
    heading = rng.uniform(0, 2 * np.pi) + np.cumsum(turns)
    moves = np.stack([np.cos(heading), np.sin(heading)], axis=1) * length / steps
    return np.concatenate([[start], np.asarray(start) + np.cumsum(moves, axis=0)])


def _contrast(canvas: Canvas, rng: np.random.Generator, place: tuple[float, float]) -> np.float32:
    """Brightness factor that stands out at a place: darker on bright ground, mostly."""
    column = int(np.argmin(np.abs(canvas.x[0] - place[0])))
    row = int(np.argmin(np.abs(canvas.y[:, 0] - place[1])))
    bright = float(canvas.image[row, column].mean())
    if rng.random() < (0.85 if bright > 0.55 else 0.3):
        return np.float32(1 - rng.uniform(0.35, 0.75))
    return np.float32(min(1 + rng.uniform(0.35, 0.8), 1.15 / max(bright, 0.05)))


def _wobbly_disc(
    canvas: Canvas,
    rng: np.random.Generator,
    place: tuple[float, float],
    radius: float,
    rough: float,
) -> Field:
    """Signed distance (H, W) of an irregular, slightly elongated disc."""
    turn, squeeze = rng.uniform(0, np.pi), rng.uniform(0.65, 1)
    dx, dy = canvas.x - np.float32(place[0]), canvas.y - np.float32(place[1])
    along = np.float32(np.cos(turn)) * dx + np.float32(np.sin(turn)) * dy
    across = (np.float32(np.cos(turn)) * dy - np.float32(np.sin(turn)) * dx) / np.float32(squeeze)
    cells = 2 / radius
    edge = np.float32(rough * radius) * smooth_noise(rng, canvas.size, cells, cells)
    return np.asarray(np.hypot(along, across) - np.float32(radius) + edge, np.float32)


def scratch(canvas: Canvas, rng: np.random.Generator) -> Painted:
    """A nearly straight thin line, lighter or darker than its ground, with a shaded side."""
    place = _pick_place(canvas, rng, _inner(canvas, 0.08))
    points = _walk(rng, place, rng.uniform(0.3, 1.0), 5, 0.12)
    width = rng.uniform(0.014, 0.032)
    distance = _path_distance(canvas, points, width * 0.4)
    factor = _contrast(canvas, rng, place)
    colours = canvas.image * factor + np.float32(0.12 if factor > 1 else 0)
    return _soft(canvas, distance - np.float32(width)), colours


def crack(canvas: Canvas, rng: np.random.Generator) -> Painted:
    """A jagged dark line with a branch."""
    place = _pick_place(canvas, rng, _inner(canvas, 0.08))
    points = _walk(rng, place, rng.uniform(0.45, 1.1), int(rng.integers(6, 10)), 0.5)
    width = rng.uniform(0.016, 0.034)
    distance = _path_distance(canvas, points, width * 0.7)
    fork = (float(points[3, 0]), float(points[3, 1]))
    branch = _walk(rng, fork, rng.uniform(0.15, 0.4), 3, 0.5)
    distance = np.minimum(distance, _path_distance(canvas, branch, width) + width * 0.2)
    colours = canvas.image * np.float32(1 - rng.uniform(0.5, 0.9))
    return _soft(canvas, np.asarray(distance - width, np.float32)), colours


def hole(canvas: Canvas, rng: np.random.Generator) -> Painted:
    """A dark pit with a light rim on one side."""
    radius = rng.uniform(0.055, 0.17)
    place = _pick_place(canvas, rng, _inner(canvas, 0.5 * radius))
    distance = _wobbly_disc(canvas, rng, place, radius, 0.12)
    pit = _soft(canvas, distance + np.float32(0.025))
    side = (canvas.x - place[0] + canvas.y - place[1]) / np.float32(1.4 * radius)
    rim = canvas.image * (1 + np.float32(rng.uniform(0.2, 0.5)) * side)[..., None]
    dark = np.float32(rng.uniform(0.1, 0.35)) * canvas.image + np.float32(0.02)
    colours = rim + pit[..., None] * (dark - rim)
    return _soft(canvas, distance), colours


def stain(canvas: Canvas, rng: np.random.Generator) -> Painted:
    """A soft blotch of another tint."""
    place = _pick_place(canvas, rng, _inner(canvas, 0.1))
    radius = rng.uniform(0.12, 0.34)
    distance = _wobbly_disc(canvas, rng, place, radius, 0.22)
    strength = rng.uniform(0.55, 0.95)
    alpha = np.clip(np.float32(0.5) - distance / np.float32(0.3 * radius), 0, 1)
    tint = 1 - strength * rng.uniform(0.1, 0.9, 3).astype(np.float32)
    colours = canvas.image * tint
    bright = float((canvas.image.mean(axis=2) * alpha).sum() / (alpha.sum() + 1e-6))
    if bright < 0.35 or rng.random() < 0.2:
        pale = rng.uniform(0.4, 0.9, 3).astype(np.float32)
        colours = canvas.image + np.float32(strength * 0.7) * (pale - canvas.image)
    return alpha, np.asarray(colours, np.float32)


def missing(canvas: Canvas, rng: np.random.Generator) -> Painted:
    """A piece broken out: what lies under the part shows."""
    place = _pick_place(canvas, rng, canvas.loose)
    radius = rng.uniform(0.14, 0.34)
    distance = _wobbly_disc(canvas, rng, place, radius, 0.1)
    changed = np.abs(canvas.under - canvas.image).max(axis=2) > 0.04
    shade = np.float32(0.8) + np.float32(0.2) * np.clip(-distance / np.float32(radius), 0, 1)
    return _soft(canvas, distance) * changed, canvas.under * shade[..., None]


def specks(canvas: Canvas, rng: np.random.Generator) -> Painted:
    """A cluster of small spots."""
    place = _pick_place(canvas, rng, _inner(canvas, 0.1))
    count, spread = int(rng.integers(5, 18)), rng.uniform(0.12, 0.3)
    spots = np.asarray(place) + rng.normal(0, spread, (count, 2))
    radii = rng.uniform(0.016, 0.045, count)
    distance = np.full(canvas.size, 9, np.float32)
    for (spot_x, spot_y), radius in zip(spots, radii, strict=True):
        dx, dy = canvas.x - np.float32(spot_x), canvas.y - np.float32(spot_y)
        distance = np.minimum(distance, np.hypot(dx, dy) - np.float32(radius))
    tint = _contrast(canvas, rng, place) * rng.uniform(0.75, 1.1, 3).astype(np.float32)
    return _soft(canvas, distance), np.asarray(canvas.image * tint, np.float32)


PAINTERS: dict[str, Painter] = {
    function.__name__: function for function in (scratch, crack, hole, stain, missing, specks)
}
DEFECTS: tuple[str, ...] = tuple(PAINTERS)


def add_defect(
    canvas: Canvas, defect: str, rng: np.random.Generator
) -> tuple[Field, NDArray[np.bool_]]:
    """Damage a part; a defect that came out too small or too faint is drawn again.

    Returns:
        The damaged picture (H, W, 3) in 0..1 and the exact mask (H, W), never empty; outside the
        mask the picture is `canvas.image`.

    Raises:
        ValueError: the defect is none of `DEFECTS`.
    """
    if defect not in PAINTERS:
        raise ValueError(f"unknown defect {defect!r}: choose one of {', '.join(DEFECTS)}")
    best = canvas.image, np.zeros(canvas.size, np.bool_)
    best_score = -1.0
    for _ in range(ATTEMPTS):
        alpha, colours = PAINTERS[defect](canvas, rng)
        mask = alpha > MASK_ALPHA
        if defect != "missing":  # a missing piece is bounded by what it uncovers
            mask &= _inner(canvas, 0)
        alpha = np.where(mask, alpha, 0)[..., None]
        image = canvas.image + alpha * (np.clip(colours, 0, 1) - canvas.image)
        change = np.abs(image - canvas.image).max(axis=2)
        contrast = float(change[mask].mean()) / MIN_CHANGE if mask.any() else 0.0
        score = min(contrast, float(mask.mean()) / MIN_AREA)
        if score > best_score:
            best, best_score = (np.asarray(image, np.float32), mask), score
        if score >= 1:
            break
    if not best[1].any():  # nothing fits, not even once: mark the innermost pixels
        mask = canvas.distance <= canvas.distance.min()
        return np.where(mask[..., None], 1 - canvas.image, canvas.image), mask
    return best
