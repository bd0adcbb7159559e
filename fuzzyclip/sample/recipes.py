"""Recipes as data, which `draw.py` draws, and the pieces that they share."""

from dataclasses import dataclass

from fuzzyclip.sample.parts import Layer, Primitive
from fuzzyclip.sample.textures import Colour, Surface

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
