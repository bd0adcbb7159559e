"""Recipes of the categories that the sample CLIP is pretrained on, apart from the evaluation's.

Their `variety` is high: colours, directions and scales change from picture to picture.
"""

from fuzzyclip.sample.parts import (
    CHIP,
    GOLD,
    SILVER,
    WHITE,
    Layer,
    Places,
    Primitive,
    Recipe,
    board,
    evenly,
    flat,
    grey,
    lattice,
    row_of,
)
from fuzzyclip.sample.textures import Colour, Surface

VARIETY = 2.0


def texture(surface: Surface) -> Recipe:
    """A texture category."""
    return Recipe(surface, turn=20, variety=VARIETY)


def part(
    ground: Surface, *layers: Layer, size: float = 0.85, turn: float = 60, base: int = 0
) -> Recipe:
    """A category of single parts."""
    return Recipe(ground, layers, size=size, turn=turn, base=base, variety=VARIETY)


def several(
    ground: Surface, *layers: Layer, size: float, places: Places, copy_turn: float = 60
) -> Recipe:
    """A category of pictures with several copies of a part."""
    return Recipe(ground, layers, size, places, 10, copy_turn, jitter=0.02, variety=VARIETY)


def solid(shape: tuple[Primitive, ...], colour: Colour, bevel: float, shine: float = 0.4) -> Layer:
    """A layer of one even colour."""
    return Layer(shape, evenly(colour, shine, mottle=0.06), bevel)


def rough(
    shape: tuple[Primitive, ...],
    pattern: str,
    dark: Colour,
    light: Colour,
    frequency: float,
    bevel: float,
) -> Layer:
    """A layer with a textured surface."""
    return Layer(shape, Surface(pattern, dark, light, frequency, 0.05, 0.04, shine=0.2), bevel)


TEXTURES = {
    "brick wall": texture(Surface("bricks", (0.45, 0.2, 0.14), (0.66, 0.34, 0.24), 4, 0.05, 0.06)),
    "marble slab": texture(Surface("clouds", (0.5, 0.48, 0.46), (0.92, 0.9, 0.88), 4, 0.04, 0.03)),
    "cork sheet": texture(
        Surface("granules", (0.5, 0.34, 0.2), (0.75, 0.56, 0.38), 20, 0.04, 0.06)
    ),
    "denim": texture(Surface("twill", (0.14, 0.2, 0.36), (0.35, 0.44, 0.62), 16, 0.04, 0.06)),
    "knitted fabric": texture(
        Surface("knit", (0.4, 0.12, 0.14), (0.75, 0.35, 0.35), 9, 0.04, 0.05)
    ),
    "granite": texture(Surface("clouds", grey(0.2), grey(0.8), 28, 0.03, 0.1)),
    "concrete": texture(Surface("clouds", grey(0.45), grey(0.62), 12, 0.06, 0.06)),
    "sandpaper": texture(Surface("plain", (0.55, 0.4, 0.26), (0.55, 0.4, 0.26), 1, 0.04, 0.16)),
    "paper": texture(Surface("fibres", (0.78, 0.76, 0.7), (0.9, 0.88, 0.82), 3, 0.03, 0.02)),
    "plaster": texture(Surface("granules", grey(0.7), grey(0.86), 9, 0.04, 0.03)),
    "plywood": texture(Surface("planks", (0.6, 0.45, 0.28), (0.76, 0.6, 0.42), 1.6, 0.04, 0.03)),
    "parquet": texture(Surface("bricks", (0.4, 0.26, 0.14), (0.6, 0.42, 0.25), 2.2, 0.07, 0.05)),
    "linoleum": texture(Surface("checks", (0.34, 0.42, 0.4), (0.7, 0.74, 0.66), 4, 0.03, 0.03)),
    "canvas": texture(Surface("weave", (0.6, 0.54, 0.42), (0.82, 0.77, 0.65), 22, 0.03, 0.06)),
    "rattan": texture(Surface("weave", (0.42, 0.26, 0.1), (0.78, 0.58, 0.34), 5, 0.05, 0.05, 20)),
    "corduroy": texture(Surface("stripes", (0.3, 0.2, 0.12), (0.52, 0.38, 0.26), 10, 0.04, 0.06)),
    "corrugated sheet": texture(Surface("stripes", grey(0.4), grey(0.75), 5, 0.04, 0.03)),
    "rubber mat": texture(Surface("dots", grey(0.28), grey(0.16), 7, 0.05, 0.05)),
    "chain fence": texture(Surface("mesh", (0.35, 0.42, 0.36), grey(0.72), 5, 0.04, 0.05, 45)),
    "sieve": texture(Surface("mesh", grey(0.18), (0.75, 0.68, 0.5), 14, 0.04, 0.05)),
    "speaker grille": texture(Surface("dots", grey(0.08), grey(0.4), 9, 0.04, 0.04)),
    "pegboard": texture(Surface("hex_dots", (0.2, 0.14, 0.1), (0.7, 0.55, 0.38), 4, 0.04, 0.04)),
    "foam": texture(Surface("pebbles", (0.55, 0.5, 0.3), (0.85, 0.8, 0.55), 9, 0.04, 0.04)),
    "gravel": texture(Surface("pebbles", grey(0.2), grey(0.65), 7, 0.1, 0.06)),
    "suede": texture(Surface("granules", (0.4, 0.26, 0.2), (0.52, 0.36, 0.28), 30, 0.06, 0.06)),
    "brushed steel": texture(Surface("fibres", grey(0.5), grey(0.78), 6, 0.04, 0.03)),
    "turned disc": texture(Surface("rings", grey(0.45), grey(0.68), 10, 0.05, 0.03)),
    "felt": texture(Surface("clouds", (0.2, 0.34, 0.26), (0.34, 0.5, 0.4), 30, 0.05, 0.08)),
    "silk": texture(Surface("twill", (0.6, 0.5, 0.62), (0.78, 0.7, 0.8), 24, 0.08, 0.02)),
    "glazed wall": texture(Surface("bricks", (0.5, 0.52, 0.55), (0.84, 0.88, 0.9), 3, 0.03, 0.02)),
}

DARK, MID, PALE = flat(0.15, 0.05), flat(0.45, 0.04), flat(0.85, 0.03)
STONE = Surface("clouds", grey(0.45), grey(0.65), 8, 0.04, 0.04)
CLOTH = Surface("weave", grey(0.5), grey(0.65), 14, 0.03, 0.04)
BENCH = Surface("fibres", (0.4, 0.32, 0.25), (0.55, 0.45, 0.36), 5, 0.04, 0.03)
STEEL, BRASS, RUBBER = grey(0.62), (0.78, 0.62, 0.3), grey(0.2)

PARTS = {
    "coin": part(
        CLOTH,
        solid((("ellipse", 0, 0, 1, 1),), BRASS, 0.08),
        rough((("ellipse", 0, 0, 0.8, 0.8),), "plain", BRASS, BRASS, 1, 0.04),
        solid((("cog", 0, 0, 0.42, 5, 0.3, 1),), (0.85, 0.7, 0.4), 0.06),
    ),
    "gear": part(
        DARK,
        solid((("cog", 0, 0, 0.88, 18, 0.1, 3), ("-ellipse", 0, 0, 0.28, 0.28)), STEEL, 0.07),
        solid((("ellipse", 0, 0, 0.52, 0.52), ("-ellipse", 0, 0, 0.28, 0.28)), grey(0.5), 0.08),
    ),
    "washer": part(
        BENCH, rough(
            (("ellipse", 0, 0, 1, 1), ("-ellipse", 0, 0, 0.45, 0.45)),
            "fibres", grey(0.55), grey(0.75), 4, 0.06,
        ),
    ),
    "button": part(
        CLOTH,
        solid(
            (
                ("ellipse", 0, 0, 1, 1),
                *(
                    ("-ellipse", x, y, 0.11, 0.11)
                    for x, y in ((-0.24, -0.24), (0.24, -0.24), (-0.24, 0.24), (0.24, 0.24))
                ),
            ),
            (0.55, 0.2, 0.3), 0.3,
        ),
    ),
    "biscuit": part(
        MID,
        rough((("cog", 0, 0, 0.92, 28, 0.03, 1),), "granules",
              (0.66, 0.45, 0.22), (0.84, 0.64, 0.38), 6, 0.14),
        rough((("ellipse", 0, 0, 0.6, 0.6), ("-ellipse", 0, 0, 0.48, 0.48)), "granules",
              (0.62, 0.4, 0.2), (0.76, 0.55, 0.3), 6, 0.06),
    ),
    "cracker": part(
        STONE,
        rough((("box", 0, 0, 0.85, 0.85, 0.1),), "dots",
              (0.6, 0.4, 0.2), (0.85, 0.68, 0.42), 3, 0.08),
    ),
    "ceramic plate": part(
        BENCH,
        solid((("ellipse", 0, 0, 1, 1),), grey(0.86), 0.3, 0.2),
        solid((("ellipse", 0, 0, 0.62, 0.62),), (0.88, 0.9, 0.94), 0.05, 0.1),
    ),
    "pill": part(
        DARK,
        solid((("ellipse", 0, 0, 0.9, 0.62),), (0.88, 0.85, 0.8), 0.3),
        solid((("box", 0, 0, 0.04, 0.5),), (0.7, 0.67, 0.62), 0.03),
    ),
    "spoon": part(
        CLOTH,
        solid((("ellipse", -0.58, 0, 0.4, 0.3), ("bar", -0.3, 0, 0.9, 0, 0.08)), STEEL, 0.1, 0.6),
    ),
    "key": part(
        STONE,
        solid(
            (
                ("ellipse", -0.6, 0, 0.36, 0.36), ("-ellipse", -0.68, 0, 0.14, 0.14),
                ("box", 0.3, 0, 0.62, 0.09), ("box", 0.6, 0.16, 0.06, 0.12),
                ("box", 0.82, 0.14, 0.06, 0.1),
            ),
            BRASS, 0.06,
        ),
    ),
    "screw head": part(
        DARK,
        solid((("ellipse", 0, 0, 0.95, 0.95),), STEEL, 0.3, 0.6),
        solid((("box", 0, 0, 0.6, 0.1), ("box", 0, 0, 0.1, 0.6)), grey(0.25), 0.05, 0.0),
    ),
    "bolt": part(
        BENCH,
        rough((("polygon", -0.6, 0, 0.36, 6), ("box", 0.25, 0, 0.7, 0.2)), "stripes",
              grey(0.45), grey(0.7), 8, 0.12),
        solid((("polygon", -0.6, 0, 0.34, 6),), STEEL, 0.08),
    ),
    "soap": part(
        MID, solid((("box", 0, 0, 0.95, 0.62, 0.3),), (0.75, 0.85, 0.72), 0.3, 0.2),
        solid((("box", 0, 0, 0.6, 0.3, 0.15),), (0.8, 0.9, 0.77), 0.08, 0.1),
    ),
    "gasket": part(
        PALE,
        solid(
            (
                ("box", 0, 0, 0.95, 0.7, 0.25), ("-box", 0, 0, 0.6, 0.38, 0.15),
                ("-ellipse", -0.78, 0, 0.07, 0.07), ("-ellipse", 0.78, 0, 0.07, 0.07),
            ),
            RUBBER, 0.06, 0.2,
        ),
    ),
    "seal ring": part(
        PALE, solid((("ellipse", 0, 0, 1, 1), ("-ellipse", 0, 0, 0.72, 0.72)), RUBBER, 0.14)
    ),
    "pretzel": part(
        BENCH,
        rough(
            (("bow", 0, 0.1, 0.7, 180, 0.16), ("bar", -0.5, -0.3, 0.4, 0.55, 0.14),
             ("bar", 0.5, -0.3, -0.4, 0.55, 0.14)),
            "granules", (0.45, 0.24, 0.1), (0.64, 0.38, 0.18), 8, 0.15,
        ),
    ),
    "banana": part(
        CLOTH, solid((("bow", -0.7, 0, 1.0, 46, 0.2),), (0.86, 0.74, 0.25), 0.2, 0.2)
    ),
    "egg": part(DARK, solid((("ellipse", 0, 0, 0.95, 0.74),), (0.85, 0.7, 0.56), 0.7, 0.2)),
    "lens": part(
        DARK, solid((("ellipse", 0, 0, 1, 1),), grey(0.25), 0.1),
        solid((("ellipse", 0, 0, 0.8, 0.8),), (0.3, 0.36, 0.5), 0.7, 0.7),
    ),
    "jar lid": part(
        PALE, solid((("cog", 0, 0, 0.95, 40, 0.02, 2),), (0.7, 0.15, 0.12), 0.08),
        solid((("ellipse", 0, 0, 0.76, 0.76),), (0.76, 0.2, 0.16), 0.06),
    ),
    "hinge": part(
        BENCH,
        rough(
            (
                ("box", 0, 0, 0.9, 0.6, 0.06),
                *(("-ellipse", x, y, 0.08, 0.08) for x in (-0.6, 0.6) for y in (-0.36, 0.36)),
            ),
            "fibres", grey(0.5), grey(0.7), 4, 0.05,
        ),
        solid((("box", 0, 0, 0.1, 0.62),), STEEL, 0.1, 0.6),
    ),
    "star": part(CLOTH, solid((("cog", 0, 0, 0.72, 5, 0.3, 1),), (0.8, 0.68, 0.3), 0.2)),
    "flange": part(
        DARK,
        rough(
            (
                ("ellipse", 0, 0, 1, 1), ("-ellipse", 0, 0, 0.3, 0.3),
                *(("-ellipse", x, y, 0.09, 0.09)
                  for x, y in ((0.72, 0), (-0.72, 0), (0, 0.72), (0, -0.72))),
            ),
            "rings", grey(0.5), grey(0.66), 8, 0.06,
        ),
    ),
    "clamp": part(
        STONE,
        solid((("bow", 0, 0, 0.66, 140, 0.16), ("ellipse", -0.45, 0.5, 0.24, 0.24)), STEEL, 0.12),
    ),
    "door handle": part(
        PALE,
        solid((("ellipse", -0.65, 0, 0.32, 0.32), ("bar", -0.6, 0, 0.8, 0, 0.13)),
              STEEL, 0.12, 0.7),
    ),
    "pulley": part(
        MID, solid((("ellipse", 0, 0, 1, 1), ("-ellipse", 0, 0, 0.14, 0.14)), grey(0.4), 0.12),
        solid((("ellipse", 0, 0, 0.74, 0.74), ("-ellipse", 0, 0, 0.5, 0.5)), STEEL, 0.08),
        solid((("ellipse", 0, 0, 0.32, 0.32), ("-ellipse", 0, 0, 0.14, 0.14)), BRASS, 0.08),
    ),
    "domino": part(
        BENCH, solid((("box", 0, 0, 0.95, 0.5, 0.08),), grey(0.88), 0.08),
        solid((("ellipse", -0.6, -0.22, 0.09, 0.09), ("ellipse", -0.6, 0.22, 0.09, 0.09),
               ("ellipse", 0.5, 0, 0.09, 0.09), ("box", 0, 0, 0.02, 0.42)), grey(0.15), 0.04),
    ),
}  # fmt: skip

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
