"""Shapes of the drawn parts: signed distances, shading and shadows; recipes as data.

A shape is a tuple of primitives, each a tuple of a name and numbers in part units (the part fills
about -1..1); a name with a leading "-" cuts the primitive out of what came before it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fuzzyclip.sample.textures import Colour, Field, Surface, paint_surface

Primitive = tuple[str | float, ...]
Distance = Callable[..., Field]


def ellipse(x: Field, y: Field, cx: float, cy: float, rx: float, ry: float) -> Field:
    """Ellipse around (cx, cy) with radii rx, ry."""
    radius: Field = np.hypot((x - cx) / rx, (y - cy) / ry) - np.float32(1)
    return radius * np.float32(min(rx, ry))


def box(x: Field, y: Field, cx: float, cy: float, hx: float, hy: float, r: float = 0.02) -> Field:
    """Box of half sides hx, hy with corners rounded by r."""
    dx, dy = np.abs(x - cx) - (hx - r), np.abs(y - cy) - (hy - r)
    outside = np.hypot(np.maximum(dx, 0), np.maximum(dy, 0))
    distance: Field = outside + np.minimum(np.maximum(dx, dy), 0) - np.float32(r)
    return distance


def bar(x: Field, y: Field, x0: float, y0: float, x1: float, y1: float, r: float) -> Field:
    """Round-ended bar of radius r from (x0, y0) to (x1, y1)."""
    px, py, dx, dy = x - x0, y - y0, x1 - x0, y1 - y0
    t = np.clip((px * dx + py * dy) / (dx * dx + dy * dy), 0, 1)
    distance: Field = np.hypot(px - t * dx, py - t * dy) - np.float32(r)
    return distance


def polygon(x: Field, y: Field, cx: float, cy: float, r: float, corners: float) -> Field:
    """Regular polygon with inner radius r."""
    sector = 2 * np.pi / corners
    angle = np.arctan2(y - cy, x - cx)
    angle = angle - sector * np.round(angle / sector)
    distance: Field = np.hypot(x - cx, y - cy) * np.cos(angle) - np.float32(r)
    return distance


def cog(
    x: Field, y: Field, cx: float, cy: float, r: float, teeth: float, depth: float, edge: float
) -> Field:
    """Disc with `teeth` waves of relative depth; a large `edge` makes them square."""
    wave = np.sin(teeth * np.arctan2(y - cy, x - cx))
    rim = np.float32(r) * (1 + depth * np.tanh(edge * wave))
    distance: Field = np.hypot(x - cx, y - cy) - rim
    return distance


def bow(x: Field, y: Field, cx: float, cy: float, r: float, half: float, width: float) -> Field:
    """Arc of radius r, half opening angle `half` (degrees, around +x), thickness 2 width."""
    px, py = x - cx, np.abs(y - cy)
    angle = np.deg2rad(half)
    inside = np.arctan2(py, px) < angle
    end = np.hypot(px - r * np.cos(angle), py - r * np.sin(angle))
    distance: Field = np.where(inside, np.abs(np.hypot(px, py) - r), end) - np.float32(width)
    return distance


PRIMITIVES: dict[str, Distance] = {
    function.__name__: function for function in (ellipse, box, bar, polygon, cog, bow)
}


def compute_distance(shape: tuple[Primitive, ...], x: Field, y: Field) -> Field:
    """Signed distance (H, W) to a shape, negative inside, in part units."""
    distance = np.full(x.shape, 9, np.float32)
    for name, *numbers in shape:
        primitive = PRIMITIVES[str(name).lstrip("-")](x, y, *numbers)
        if str(name).startswith("-"):
            distance = np.maximum(distance, -primitive)
        else:
            distance = np.minimum(distance, primitive)
    return np.asarray(distance, np.float32)


@dataclass(frozen=True)
class Layer:
    """One piece of a part: a shape with a surface, raised above what lies under it."""

    shape: tuple[Primitive, ...]
    surface: Surface
    bevel: float = 0.1  # width of the rounded edge in part units; 0 is flat


@dataclass(frozen=True)
class Light:
    """Direction and strength of the light."""

    x: float
    y: float
    strength: float


def shade_layer(
    distance: Field, bevel: float, pixel: float, shine: float, light: Light
) -> tuple[Field, Field]:
    """Brightness factor and highlight of a raised shape, each (H, W); lengths are in part units."""
    depth = np.clip(-distance / np.float32(bevel), 0, 1)
    height = np.sqrt(1 - (1 - depth) ** 2)  # a quarter circle from the edge to the top
    slope_y, slope_x = np.gradient(height)
    scale = np.float32(0.5 * bevel / pixel)
    facing = -(light.x * slope_x + light.y * slope_y) * scale
    brightness = 1 + np.float32(light.strength) * np.clip(facing, -1.2, 1.2)
    highlight = np.float32(shine) * np.clip(facing - np.float32(0.2), 0, 1) ** 2
    return np.asarray(brightness, np.float32), np.asarray(highlight, np.float32)


def lay_over(
    image: Field,
    layer: Layer,
    coordinates: tuple[Field, Field],
    pixel: float,
    light: Light,
    rng: np.random.Generator,
) -> Field:
    """Draw a layer over an image (H, W, 3) in place; its coverage (H, W), 0 to 1.

    `coordinates` are x and y of every pixel, each (H, W); they and `pixel` are in part units.
    """
    x, y = coordinates
    distance = compute_distance(layer.shape, x, y)
    cover: Field = np.clip(np.float32(0.5) - distance / np.float32(pixel), 0, 1)
    colours = paint_surface(layer.surface, x, y, rng)
    if layer.bevel > 0:
        brightness, highlight = shade_layer(
            distance, layer.bevel, pixel, layer.surface.shine, light
        )
        colours = colours * brightness[..., None] + highlight[..., None]
    image += cover[..., None] * (colours - image)
    return cover


def cast_shadow(
    image: Field, layer: Layer, coordinates: tuple[Field, Field], light: Light, softness: float
) -> None:
    """Darken the ground (H, W, 3) beside a layer in place, away from the light."""
    x, y = coordinates
    shift = np.float32(0.06)
    distance = compute_distance(layer.shape, x + shift * light.x, y + shift * light.y)
    shadow = np.clip(np.float32(0.5) - distance / np.float32(2 * softness), 0, 1)
    image *= 1 - np.float32(0.35) * shadow[..., None]


Places = tuple[tuple[float, float], ...]
CENTRE: Places = ((0.0, 0.0),)


@dataclass(frozen=True)
class Recipe:
    """The making of one category's pictures."""

    backdrop: Surface  # the ground, or the texture itself when there are no layers
    layers: tuple[Layer, ...] = ()  # bottom to top; the first one is the part's outline
    size: float = 0.85  # half extent of a copy in half image sides
    places: Places = CENTRE  # centres of the copies, from -1 to 1 over the image
    turn: float = 4.0  # largest rotation of the picture in degrees
    copy_turn: float = 0.0  # largest extra rotation of each copy in degrees
    jitter: float = 0.0  # deviation of each copy's place
    base: int = 0  # first layer of which a piece may be missing
    variety: float = 1.0  # 1: a production line; above: random colours, scales and directions


def grey(value: float) -> Colour:
    """A neutral colour."""
    return value, value, value


def flat(value: float, grain: float = 0.02) -> Surface:
    """An even grey ground."""
    return Surface("plain", grey(value), grey(value), grain=grain)


def evenly(colour: Colour, shine: float = 0.0, mottle: float = 0.04) -> Surface:
    """An even coloured surface."""
    return Surface("plain", colour, colour, mottle=mottle, shine=shine)


def lattice(rows: int, columns: int, reach: float = 0.72) -> Places:
    """Centres of rows x columns copies, from -reach to reach."""
    return tuple(
        (
            reach * (2 * column / max(columns - 1, 1) - 1) * (columns > 1),
            reach * (2 * row / max(rows - 1, 1) - 1) * (rows > 1),
        )
        for row in range(rows)
        for column in range(columns)
    )


def row_of(name: str, count: int, x: float, y: float, step: float, *numbers: float) -> tuple[
    Primitive, ...
]:  # fmt: skip
    """`count` equal primitives in a row that starts at (x, y)."""
    return tuple((name, x + number * step, y, *numbers) for number in range(count))


CHIP = evenly((0.13, 0.13, 0.14), shine=0.2)
GOLD = evenly((0.85, 0.7, 0.35), shine=0.4)
SILVER = evenly((0.72, 0.73, 0.75), shine=0.5)
WHITE = evenly((0.9, 0.9, 0.88), shine=0.1)


def board(colour: Colour, *pieces: Layer, outline: tuple[Primitive, ...]) -> tuple[Layer, ...]:
    """A circuit board with soldered pieces."""
    traces = tuple(min(value * 1.3 + 0.03, 1.0) for value in colour)
    surface = Surface("stripes", colour, (traces[0], traces[1], traces[2]), 9.0, grain=0.03)
    return (Layer(outline, surface, bevel=0.03), *pieces)


OPEN_BOARD: tuple[Primitive, ...] = (
    ("box", 0, 0, 1, 0.8, 0.05),
    ("-ellipse", -0.88, -0.68, 0.06, 0.06),
    ("-ellipse", 0.88, 0.68, 0.06, 0.06),
)
