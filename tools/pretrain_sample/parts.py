"""Single parts that the sample CLIP is pretrained on, and the pieces that all its parts share."""

from fuzzyclip.sample.parts import Layer, Primitive
from fuzzyclip.sample.recipes import Places, Recipe, evenly, flat, grey
from fuzzyclip.sample.textures import Colour, Surface
from tools.pretrain_sample.textures import VARIETY


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
