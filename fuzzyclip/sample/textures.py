"""Surface textures of the drawn parts: pattern fields and the colours laid over them.

A pattern is a function of texture coordinates `x, y` (H, W) and a generator; it returns a field
(H, W) of values in about [0, 1] that mixes a dark and a light colour.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]
Colour = tuple[float, float, float]
Pattern = Callable[[Field, Field, np.random.Generator], Field]

TAU = np.float32(2 * np.pi)
SPLINE_GAIN = 2.1  # brings cubic B-spline noise of unit normals back to about unit deviation


@lru_cache(maxsize=512)
def _spline_weights(length: int, cells: int) -> Field:
    """Cubic B-spline weights (length, cells + 3) of `length` samples over `cells` cells."""
    position = np.linspace(0, cells, length, endpoint=False)
    cell = position.astype(int)
    t = position - cell
    weights = np.zeros((length, cells + 3), np.float32)
    rows = np.arange(length)
    weights[rows, cell] = (1 - t) ** 3 / 6
    weights[rows, cell + 1] = (3 * t**3 - 6 * t**2 + 4) / 6
    weights[rows, cell + 2] = (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6
    weights[rows, cell + 3] = t**3 / 6
    return weights


def smooth_noise(
    rng: np.random.Generator, size: tuple[int, int], cells_y: float, cells_x: float
) -> Field:
    """Smooth random field (H, W), mean about 0, deviation 1, with so many bumps along each side."""
    rows = _spline_weights(size[0], int(np.clip(round(cells_y), 1, size[0])))
    columns = _spline_weights(size[1], int(np.clip(round(cells_x), 1, size[1])))
    values = rng.standard_normal((rows.shape[1], columns.shape[1]), dtype=np.float32)
    return np.asarray((rows @ values @ columns.T) * np.float32(SPLINE_GAIN), np.float32)


def _wave(phase: Field) -> Field:
    wave: Field = np.float32(0.5) + np.float32(0.5) * np.sin(TAU * phase)
    return wave


def _step(low: float, high: float, value: Field) -> Field:
    step: Field = np.clip((value - np.float32(low)) / np.float32(high - low), 0, 1)
    return step


def _cell_offset(x: Field, y: Field) -> tuple[Field, Field]:
    """Offsets in [-0.5, 0.5) from the centre of each unit cell."""
    return x - np.floor(x) - np.float32(0.5), y - np.floor(y) - np.float32(0.5)


def _stagger(x: Field, y: Field) -> Field:
    """Every other row moved by half a cell."""
    return np.asarray(x + np.float32(0.5) * (np.floor(y) % 2), np.float32)


def plain(x: Field, y: Field, rng: np.random.Generator) -> Field:
    """An even surface."""
    return np.full(x.shape, 0.5, np.float32)


def clouds(x: Field, y: Field, rng: np.random.Generator) -> Field:
    """Soft fractal noise: stone, plaster, cork."""
    cells = max(float(np.ptp(y)), 2.0)
    coarse = smooth_noise(rng, (x.shape[0], x.shape[1]), cells, cells)
    fine = smooth_noise(rng, (x.shape[0], x.shape[1]), 3 * cells, 3 * cells)
    return np.float32(0.5) + np.float32(0.17) * coarse + np.float32(0.1) * fine


def fibres(x: Field, y: Field, rng: np.random.Generator) -> Field:
    """Streaks along the width: brushed metal, paper, straw."""
    cells = max(4 * float(np.ptp(y)), 8.0)
    streaks = smooth_noise(rng, (x.shape[0], x.shape[1]), cells, cells / 14)
    return np.float32(0.5) + np.float32(0.2) * streaks


def stripes(x: Field, y: Field, rng: np.random.Generator) -> Field:
    """Straight stripes along the width."""
    return _wave(y)


def planks(x: Field, y: Field, rng: np.random.Generator) -> Field:
    """Wood grain: stripes bent by slow noise, with fine fibres."""
    bend = smooth_noise(rng, (x.shape[0], x.shape[1]), 3, 1.5)
    fine = smooth_noise(rng, (x.shape[0], x.shape[1]), 48, 5)
    return np.float32(0.75) * _wave(y + np.float32(0.7) * bend) + np.float32(0.1) * (fine + 1)


def weave(x: Field, y: Field, rng: np.random.Generator) -> Field:
    """Plain weave: warp and weft threads in turn on top."""
    over = (np.floor(x) + np.floor(y)) % 2 < 1
    warp = np.abs(np.sin(TAU / 2 * x)) * np.float32(0.9)
    weft = np.abs(np.sin(TAU / 2 * y))
    threads: Field = np.where(over, warp, weft)
    return threads


def twill(x: Field, y: Field, rng: np.random.Generator) -> Field:
    """Diagonal ribs of twill and denim."""
    return np.float32(0.7) * _wave(x + y) + np.float32(0.3) * _wave(3 * x)


def knit(x: Field, y: Field, rng: np.random.Generator) -> Field:
    """Columns of V-shaped stitches."""
    across, _ = _cell_offset(x, y)
    return np.asarray(_wave(y + np.abs(across)) * (np.float32(1.1) - np.abs(2 * across) ** 3))


def dots(x: Field, y: Field, rng: np.random.Generator) -> Field:
    """Round holes or studs on a square lattice; 0 inside, 1 between."""
    dx, dy = _cell_offset(x, y)
    return _step(0.2, 0.32, np.hypot(dx, dy))


def hex_dots(x: Field, y: Field, rng: np.random.Generator) -> Field:
    """Round holes or studs in staggered rows."""
    dx, dy = _cell_offset(_stagger(x, y), y)
    return _step(0.2, 0.34, np.hypot(dx, dy))


def mesh(x: Field, y: Field, rng: np.random.Generator) -> Field:
    """Wire lattice: 1 on the wires, 0 in the openings."""
    dx, dy = _cell_offset(x, y)
    return _step(0.26, 0.42, np.maximum(np.abs(dx), np.abs(dy)))


def bricks(x: Field, y: Field, rng: np.random.Generator) -> Field:
    """Staggered courses with mortar joints (0 in the joints)."""
    dx, dy = _cell_offset(_stagger(x * np.float32(0.5), y), y)
    return 1 - _step(0.4, 0.47, np.maximum(np.abs(dx) * 2 - np.float32(0.5), np.abs(dy)))


def checks(x: Field, y: Field, rng: np.random.Generator) -> Field:
    """Alternating squares."""
    return np.clip(np.float32(0.5) + 3 * np.sin(TAU * x / 2) * np.sin(TAU * y / 2), 0, 1)


def rings(x: Field, y: Field, rng: np.random.Generator) -> Field:
    """Concentric grooves of a turned face."""
    return _wave(np.hypot(x, y))


def _nearest_seeds(x: Field, y: Field, rng: np.random.Generator) -> tuple[Field, Field]:
    """Distances (H, W) to the nearest and second nearest jittered lattice point."""
    column, row = np.floor(x).astype(int), np.floor(y).astype(int)
    table_x = rng.random((64, 64), dtype=np.float32)
    table_y = rng.random((64, 64), dtype=np.float32)
    first = np.full(x.shape, 9, np.float32)
    second = first.copy()
    for shift_y in (-1, 0, 1):
        for shift_x in (-1, 0, 1):
            i, j = column + shift_x, row + shift_y
            index = (j % 64, i % 64)
            distance = np.hypot(i + table_x[index] - x, j + table_y[index] - y).astype(np.float32)
            second = np.minimum(second, np.maximum(first, distance))
            first = np.minimum(first, distance)
    return first, second


def pebbles(x: Field, y: Field, rng: np.random.Generator) -> Field:
    """Rounded cells: foam, leather, pebbles."""
    first, second = _nearest_seeds(x, y, rng)
    return _step(0.0, 0.55, second - first)


def granules(x: Field, y: Field, rng: np.random.Generator) -> Field:
    """Soft bumps of irregular size: rubber, biscuit, cast iron."""
    first, _ = _nearest_seeds(x, y, rng)
    return 1 - np.clip(first, 0, 1)


PATTERNS: dict[str, Pattern] = {
    function.__name__: function
    for function in (
        plain, clouds, fibres, stripes, planks, weave, twill, knit, dots, hex_dots, mesh, bricks,
        checks, rings, pebbles, granules,
    )
}  # fmt: skip


@dataclass(frozen=True)
class Surface:
    """The look of a surface."""

    pattern: str  # a key of PATTERNS
    dark: Colour  # RGB in 0..1 where the pattern is 0
    light: Colour  # RGB in 0..1 where the pattern is 1
    frequency: float = 4.0  # pattern periods per half of the shorter image side
    mottle: float = 0.03  # strength of slow brightness variation
    grain: float = 0.02  # strength of pixel noise
    angle: float = 0.0  # direction in degrees
    shine: float = 0.0  # highlight of a shaded part


def paint_surface(surface: Surface, x: Field, y: Field, rng: np.random.Generator) -> Field:
    """Colours (H, W, 3) of a surface at x, y (H, W); half of the shorter side is one unit."""
    size = (x.shape[0], x.shape[1])
    turn = np.deg2rad(surface.angle)
    cos = np.float32(np.cos(turn) * surface.frequency)
    sin = np.float32(np.sin(turn) * surface.frequency)
    phase_x, phase_y = rng.random(2, dtype=np.float32)
    if surface.pattern == "rings":  # stays centred on the part
        phase_x = phase_y = np.float32(0)
    along, across = cos * x + sin * y + phase_x, cos * y - sin * x + phase_y
    field = PATTERNS[surface.pattern](along, across, rng)
    if abs(np.sin(turn)) > 0.7 and surface.pattern in ("fibres", "planks"):
        turned = PATTERNS[surface.pattern](along.T, across.T, rng)
        field = np.ascontiguousarray(turned.T)  # their noise follows the pixel axes
    dark = np.asarray(surface.dark, np.float32)
    light = np.asarray(surface.light, np.float32)
    colours = dark + field[..., None] * (light - dark)  # (H, W, 3)
    shade = 1 + np.float32(surface.mottle) * smooth_noise(rng, size, 3, 3)
    shade += np.float32(surface.grain) * rng.standard_normal(size, dtype=np.float32)
    return np.asarray(colours * shade[..., None], np.float32)
