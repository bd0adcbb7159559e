"""Recipes of the categories that the sample CLIP is pretrained on, apart from the evaluation's.

Their `variety` is high: colours, directions and scales change from picture to picture.
"""

from fuzzyclip.sample.parts import Layer, Primitive
from fuzzyclip.sample.recipes import (
    CHIP,
    GOLD,
    SILVER,
    WHITE,
    Recipe,
    board,
    evenly,
    grey,
    lattice,
    row_of,
)
from tools.pretrain_sample.parts import (
    BENCH,
    DARK,
    MID,
    PALE,
    PARTS,
    STEEL,
    STONE,
    part,
    rough,
    several,
    solid,
)
from tools.pretrain_sample.textures import TEXTURES

GROUPS = {
    "pasta": several(
        DARK, rough((("box", 0, 0, 0.95, 0.5, 0.1),), "stripes",
                    (0.8, 0.62, 0.3), (0.92, 0.78, 0.48), 4, 0.4),
        size=0.26, places=lattice(3, 3, 0.64), copy_turn=30,
    ),
    "beans": several(
        PALE, solid((("bow", -0.5, 0, 0.6, 60, 0.36),), (0.5, 0.18, 0.12), 0.36),
        size=0.24, places=lattice(4, 3, 0.74),
    ),
    "tablets": several(
        MID, solid((("ellipse", 0, 0, 1, 1),), grey(0.88), 0.25),
        solid((("box", 0, 0, 0.7, 0.07),), grey(0.72), 0.05, 0),
        size=0.26, places=lattice(3, 3, 0.64),
    ),
    "rivets": several(
        BENCH, solid((("ellipse", 0, 0, 1, 1),), STEEL, 0.7, 0.7),
        size=0.2, places=lattice(4, 4, 0.72),
    ),
    "batteries": several(
        PALE, solid((("box", 0, 0, 0.95, 0.28, 0.04), ("box", 0.98, 0, 0.05, 0.1)),
                    (0.2, 0.3, 0.24), 0.26),
        solid((("box", 0.6, 0, 0.34, 0.29, 0.03),), (0.8, 0.55, 0.25), 0.26),
        size=0.6, places=((0.0, -0.62), (0.0, -0.2), (0.0, 0.22), (0.0, 0.64)), copy_turn=4,
    ),
    "pencils": several(
        STONE, solid((("box", 0, 0, 1.1, 0.1, 0.02),), (0.85, 0.65, 0.15), 0.09),
        size=0.8, places=tuple((0.0, 0.3 * row - 0.75) for row in range(6)), copy_turn=4,
    ),
    "chocolate bar": several(
        PALE, solid((("box", 0, 0, 0.96, 0.96, 0.08),), (0.34, 0.2, 0.12), 0.2),
        solid((("box", 0, 0, 0.56, 0.56, 0.08),), (0.38, 0.23, 0.14), 0.12),
        size=0.3, places=lattice(3, 3, 0.64), copy_turn=4,
    ),
    "olives": several(
        MID, solid((("ellipse", 0, 0, 1, 0.75), ("-ellipse", 0, 0, 0.16, 0.16)),
                   (0.38, 0.44, 0.16), 0.6),
        size=0.28, places=lattice(3, 3, 0.66),
    ),
    "peas": several(
        DARK, solid((("ellipse", 0, 0, 1, 1),), (0.4, 0.62, 0.2), 0.9),
        size=0.18, places=lattice(5, 5, 0.78),
    ),
}  # fmt: skip

BOARD: tuple[Primitive, ...] = (("box", 0, 0, 1, 0.9, 0.04),)
ELECTRONICS = {
    "circuit relay": part(
        PALE,
        *board(
            (0.12, 0.3, 0.2),
            Layer((("box", -0.2, -0.2, 0.55, 0.4),), evenly((0.2, 0.3, 0.6)), 0.08),
            Layer(row_of("ellipse", 7, -0.75, 0.6, 0.25, 0.07, 0.07), SILVER, 0.04),
            Layer((("box", 0.7, -0.2, 0.14, 0.34),), WHITE, 0.05), outline=BOARD,
        ),
        turn=10, base=1,
    ),
    "memory module": part(
        MID,
        *board(
            (0.1, 0.26, 0.14), Layer(row_of("box", 4, -0.72, -0.1, 0.48, 0.18, 0.22), CHIP, 0.04),
            Layer(row_of("box", 16, -0.9, 0.42, 0.12, 0.04, 0.1), GOLD, 0.02),
            outline=(("box", 0, 0, 1, 0.56, 0.03),),
        ),
        turn=10, base=1,
    ),
    "motor driver": part(
        BENCH,
        *board(
            (0.1, 0.12, 0.16), Layer((("box", 0.3, 0.1, 0.36, 0.36),), SILVER, 0.06),
            Layer((("ellipse", -0.55, -0.4, 0.22, 0.22), ("ellipse", -0.55, 0.3, 0.22, 0.22)),
                  evenly((0.3, 0.34, 0.5), 0.5), 0.12),
            Layer(row_of("box", 6, -0.1, -0.62, 0.16, 0.06, 0.06), GOLD, 0.03), outline=BOARD,
        ),
        turn=10, base=1,
    ),
    "keypad": part(
        STONE,
        solid((("box", 0, 0, 0.8, 0.95, 0.1),), grey(0.3), 0.06),
        solid(
            tuple(("box", x, y, 0.17, 0.14, 0.05) for x in (-0.5, 0.0, 0.5)
                  for y in (-0.66, -0.22, 0.22, 0.66)),
            grey(0.75), 0.06,
        ),
        turn=10, base=1,
    ),
    "led strip": part(
        DARK,
        *board(
            (0.75, 0.75, 0.7), Layer(row_of("box", 5, -0.8, 0, 0.4, 0.13, 0.13), WHITE, 0.03),
            Layer(row_of("ellipse", 5, -0.8, 0, 0.4, 0.08, 0.08), evenly((0.9, 0.8, 0.3)), 0.03),
            outline=(("box", 0, 0, 1.1, 0.26, 0.02),),
        ),
        turn=15, base=1,
    ),
    "microchip": part(
        PALE,
        solid(
            (("box", 0, 0, 0.66, 0.66, 0.04), *row_of("box", 6, -0.5, 0, 0.2, 0.05, 0.9)),
            grey(0.66), 0.03,
        ),
        solid((("box", 0, 0, 0.68, 0.66, 0.04), ("-ellipse", -0.48, -0.46, 0.08, 0.08)),
              grey(0.16), 0.05, 0.2),
        turn=20,
    ),
    "socket": part(
        MID,
        solid((("box", 0, 0, 0.95, 0.95, 0.15),), grey(0.86), 0.08),
        solid((("ellipse", 0, 0, 0.66, 0.66),), grey(0.76), 0.08),
        solid((("ellipse", -0.3, 0, 0.1, 0.1), ("ellipse", 0.3, 0, 0.1, 0.1)), grey(0.12), 0.03),
        turn=10,
    ),
}  # fmt: skip

PRETRAINING: dict[str, Recipe] = {**TEXTURES, **PARTS, **GROUPS, **ELECTRONICS}
#: Categories by number.
CATEGORIES = tuple(PRETRAINING)

#: How often a category comes in the later pretraining: textures are learned first, boards and
#: scattered parts, whose normal pictures are the busiest, last.
HARD_SHARES: tuple[float, ...] = (
    *(0.3 for _ in TEXTURES),
    *(1.0 for _ in PARTS),
    *(2.0 for _ in GROUPS),
    *(3.0 for _ in ELECTRONICS),
)
