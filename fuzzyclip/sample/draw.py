"""Draw one industrial part, with or without a defect, and its exact mask.

A recipe, as `evaluation_recipes.py` has those of the sample, is data: a backdrop, the layers of the
part and where its copies lie. A recipe without layers is a texture that fills the image. Part,
defect and camera each have their own random stream, so that the same generator state gives the same
part with every defect.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fuzzyclip.sample.defects import Canvas, add_defect
from fuzzyclip.sample.parts import Layer, Light, Recipe, cast_shadow, compute_distance, lay_over
from fuzzyclip.sample.textures import Field, Surface, paint_surface, smooth_noise

DEFAULT_SIZE = (144, 144)


@dataclass(frozen=True)
class Look:
    """Random appearance of one picture: pose, light and colours."""

    angle: float
    scale: float
    shift: tuple[float, float]
    light: Light
    gain: Field  # (3,) colour balance of the part
    mix: Field  # (3, 3) hue change


def _draw_look(recipe: Recipe, rng: np.random.Generator) -> Look:
    variety = recipe.variety
    turn = recipe.turn + 4 * variety
    direction = rng.uniform(-np.pi, 0) if variety > 1 else rng.uniform(-2.6, -2.1)
    light = Light(np.cos(direction), np.sin(direction), rng.uniform(0.5, 0.8))
    mix = np.eye(3) + (variety > 1) * rng.uniform(0, 0.4) * rng.normal(0, 0.5, (3, 3))
    mix = np.abs(mix) / np.abs(mix).sum(axis=1, keepdims=True)
    spread = 0.015 + 0.08 * (variety - 1)
    return Look(
        angle=rng.uniform(-turn, turn),
        scale=float(np.exp(rng.normal(0, 0.02 * variety**2))),
        shift=(rng.normal(0, 0.02 * variety), rng.normal(0, 0.02 * variety)),
        light=light,
        gain=np.exp(rng.normal(0, spread, 3)).astype(np.float32),
        mix=mix.astype(np.float32),
    )


def _image_coordinates(size: tuple[int, int]) -> tuple[Field, Field]:
    height, width = size
    half = min(size) / 2
    y = ((np.arange(height) + 0.5 - height / 2) / half).astype(np.float32)
    x = ((np.arange(width) + 0.5 - width / 2) / half).astype(np.float32)
    columns, rows = np.meshgrid(x, y)
    return columns, rows


def _part_coordinates(
    recipe: Recipe, look: Look, x: Field, y: Field, rng: np.random.Generator
) -> tuple[Field, Field]:
    """Coordinates (H, W) in the frame of the nearest copy of the part."""
    stretch_x, stretch_y = float(x.max()), float(y.max())
    count = len(recipe.places)
    spots = np.asarray(recipe.places) * (stretch_x, stretch_y)
    tilt = np.deg2rad(look.angle)
    rotation = np.array([[np.cos(tilt), np.sin(tilt)], [-np.sin(tilt), np.cos(tilt)]])
    spots = spots @ rotation + look.shift + rng.normal(0, recipe.jitter, (count, 2))
    turns = tilt + np.deg2rad(rng.uniform(-1, 1, count) * recipe.copy_turn)
    offsets_x = x - spots[:, 0, None, None].astype(np.float32)  # (copies, H, W)
    offsets_y = y - spots[:, 1, None, None].astype(np.float32)
    nearest = np.argmin(offsets_x**2 + offsets_y**2, axis=0)[None]  # (1, H, W)
    local_x = np.take_along_axis(offsets_x, nearest, axis=0)[0]
    local_y = np.take_along_axis(offsets_y, nearest, axis=0)[0]
    cos = np.cos(turns).astype(np.float32)[nearest[0]]
    sin = np.sin(turns).astype(np.float32)[nearest[0]]
    size = np.float32(recipe.size * look.scale)
    return (cos * local_x + sin * local_y) / size, (cos * local_y - sin * local_x) / size


def _recolour(image: Field, look: Look) -> None:
    image[:] = (image @ look.mix.T) * look.gain


def _vary(surface: Surface, variety: float, rng: np.random.Generator) -> Surface:
    """The surface with frequency, colours and direction changed as far as the variety allows."""
    if variety <= 1:
        return surface
    spread = 0.25 * (variety - 1)
    shift = rng.normal(0, 0.5 * spread) + rng.normal(0, 0.2 * spread, 3)
    dark, light = np.asarray(surface.dark) + shift, np.asarray(surface.light) + shift
    if rng.random() < 0.3:
        dark, light = light, dark
    return replace(
        surface,
        dark=(dark[0], dark[1], dark[2]),
        light=(light[0], light[1], light[2]),
        frequency=surface.frequency * float(np.exp(rng.normal(0, spread))),
        mottle=surface.mottle * rng.uniform(0.5, 1.8),
        grain=surface.grain * rng.uniform(0.4, 2.0),
        angle=surface.angle + rng.normal(0, 30 * spread),
    )


def _draw_texture(recipe: Recipe, rng: np.random.Generator, size: tuple[int, int]) -> Canvas:
    """A texture that fills the image; a bare substrate lies under it."""
    look = _draw_look(recipe, rng)
    x, y = _image_coordinates(size)
    turn = np.deg2rad(look.angle)
    cos, sin = np.float32(np.cos(turn) / look.scale), np.float32(np.sin(turn) / look.scale)
    turned_x, turned_y = cos * x + sin * y, cos * y - sin * x
    image = paint_surface(_vary(recipe.backdrop, recipe.variety, rng), turned_x, turned_y, rng)
    _recolour(image, look)
    bare = rng.uniform(0.12, 0.3) if image.mean() > 0.4 else rng.uniform(0.55, 0.75)
    noise = np.float32(0.04) * smooth_noise(rng, size, 20, 20)
    under = np.broadcast_to((bare + noise)[..., None], image.shape).astype(np.float32)
    inside = np.full(size, -1, np.float32)
    image, under = np.clip(image, 0, 1), np.clip(under, 0, 1)
    return Canvas(image, under, inside, np.maximum(np.abs(x), np.abs(y)) < 0.9, x, y)


def _draw_layers(recipe: Recipe, rng: np.random.Generator, size: tuple[int, int]) -> Canvas:
    """Copies of a part made of layers, on a backdrop."""
    look = _draw_look(recipe, rng)
    x, y = _image_coordinates(size)
    image = paint_surface(_vary(recipe.backdrop, recipe.variety, rng), x, y, rng)
    _recolour(image, look)
    coordinates = _part_coordinates(recipe, look, x, y, rng)
    size_of_part = recipe.size * look.scale
    pixel = 2 / min(size) / size_of_part
    layers = [
        Layer(layer.shape, _vary(layer.surface, recipe.variety, rng), layer.bevel)
        for layer in recipe.layers
    ]
    cast_shadow(image, layers[0], coordinates, look.light, 0.05)
    part, under = image.copy(), image
    loose = np.zeros(size, np.bool_)
    for number, layer in enumerate(layers):
        if number == recipe.base:  # pieces of the layers from here on may be missing
            under, loose = part.copy(), np.zeros(size, np.bool_)
        loose |= lay_over(part, layer, coordinates, pixel, look.light, rng) > 0.5
    bare = part[loose].mean(axis=0)  # the part is recoloured, its ground is not
    recoloured = (bare @ look.mix.T) * look.gain / np.maximum(bare, 0.05)
    distance = compute_distance(layers[0].shape, *coordinates) * np.float32(size_of_part)
    whole = np.clip(np.float32(0.5) - distance / np.float32(2 / min(size)), 0, 1)[..., None]
    tint = 1 + whole * (recoloured.astype(np.float32) - 1)
    part, under = np.clip(part * tint, 0, 1), np.clip(under * (tint if recipe.base else 1), 0, 1)
    return Canvas(part, under, distance, loose, x, y)


def draw_canvas(recipe: Recipe, rng: np.random.Generator, size: tuple[int, int]) -> Canvas:
    """A flawless part, ready for `damage_part`."""
    return (_draw_layers if recipe.layers else _draw_texture)(recipe, rng, size)


def damage_part(
    canvas: Canvas, defect: str | None, defect_rng: np.random.Generator, camera_seed: int
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Damage a part, or not, and photograph it: image (H, W, 3) and mask (H, W)."""
    image, mask = canvas.image, np.zeros(canvas.size, np.bool_)
    if defect is not None:
        image, mask = add_defect(canvas, defect, defect_rng)
    camera = np.random.default_rng(camera_seed)
    slope = camera.normal(0, 0.04, 2).astype(np.float32)
    exposure = np.float32(camera.uniform(0.9, 1.08)) + slope[0] * canvas.x + slope[1] * canvas.y
    noise = np.float32(0.008) * camera.standard_normal((*canvas.size, 1), dtype=np.float32)
    photo = np.clip(image * exposure[..., None] + noise, 0, 1)
    return (photo * 255 + 0.5).astype(np.uint8), mask


def draw_part(
    recipe: Recipe,
    rng: np.random.Generator,
    size: tuple[int, int] = DEFAULT_SIZE,
    defect: str | None = None,
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Draw a part and the exact mask of its defect.

    The same recipe, generator state and size (H, W) give the same part with each of `DEFECTS` and
    without: outside the mask the pictures are equal. The generator is advanced by the same amount
    whatever is drawn.

    Returns:
        The image (H, W, 3) uint8 and the mask (H, W) bool, all False if and only if `defect` is
        None.

    Raises:
        ValueError: the defect is unknown.
    """
    part_seed, defect_seed, camera_seed = (int(seed) for seed in rng.integers(0, 2**63, 3))
    canvas = draw_canvas(recipe, np.random.default_rng(part_seed), size)
    return damage_part(canvas, defect, np.random.default_rng(defect_seed), camera_seed)
