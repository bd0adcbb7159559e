"""Recipes of the evaluation's categories.

They are held out: the sample CLIP never sees these categories in pretraining.
"""

from fuzzyclip.sample.parts import (
    CHIP,
    GOLD,
    OPEN_BOARD,
    SILVER,
    WHITE,
    Layer,
    Recipe,
    board,
    evenly,
    flat,
    grey,
    lattice,
    row_of,
)
from fuzzyclip.sample.textures import Surface

MVTEC = {
    "bottle": Recipe(
        flat(0.93),
        (
            Layer((("ellipse", 0, 0, 1, 1),), evenly((0.2, 0.12, 0.08), shine=0.5), 0.18),
            Layer(
                (("ellipse", 0, 0, 0.78, 0.78), ("-ellipse", 0, 0, 0.52, 0.52)),
                evenly((0.42, 0.24, 0.12), shine=0.9),
                0.12,
            ),
            Layer((("ellipse", 0, 0, 0.5, 0.5),), evenly((0.08, 0.06, 0.05)), 0.0),
        ),
    ),
    "capsule": Recipe(
        flat(0.9),
        (
            Layer((("bar", -0.6, 0, 0.6, 0, 0.4),), evenly((0.8, 0.42, 0.12), 0.5), 0.38),
            Layer((("bar", -0.6, 0, -0.2, 0, 0.42),), evenly((0.16, 0.14, 0.14), 0.6), 0.38),
        ),
        size=0.8,
    ),
    "carpet": Recipe(Surface("weave", grey(0.3), grey(0.62), 15, 0.04, 0.1, 2)),
    "grid": Recipe(Surface("mesh", grey(0.14), grey(0.66), 7, 0.03, 0.04, 30), turn=2),
    "leather": Recipe(Surface("pebbles", (0.26, 0.14, 0.09), (0.45, 0.27, 0.18), 13, 0.04, 0.05)),
    "metal_nut": Recipe(
        flat(0.12, 0.06),
        (
            Layer(
                (("cog", 0, 0, 0.86, 4, 0.12, 2.5), ("-ellipse", 0, 0, 0.34, 0.34)),
                Surface("rings", grey(0.52), grey(0.68), 7, 0.05, 0.05, shine=0.5),
                0.12,
            ),
            Layer(
                (("ellipse", 0, 0, 0.56, 0.56), ("-ellipse", 0, 0, 0.34, 0.34)),
                Surface("plain", grey(0.66), grey(0.66), shine=0.4),
                0.1,
            ),
        ),
        turn=40,
    ),
    "tile": Recipe(Surface("clouds", grey(0.3), grey(0.85), 9, 0.03, 0.06)),
    "wood": Recipe(Surface("planks", (0.42, 0.26, 0.14), (0.7, 0.49, 0.31), 3.2, 0.04, 0.03, 90)),
}

VISA = {
    "candle": Recipe(
        flat(0.1, 0.05),
        (
            Layer((("ellipse", 0, 0, 1, 1),), evenly((0.86, 0.8, 0.62), 0.1), 0.25),
            Layer((("ellipse", 0, 0, 0.72, 0.72),), evenly((0.93, 0.87, 0.7)), 0.1),
            Layer((("bar", -0.07, 0, 0.07, 0.04, 0.06),), evenly(grey(0.35)), 0.05),
        ),
        size=0.4,
        places=lattice(2, 2, 0.48),
        copy_turn=180,
        jitter=0.012,
    ),
    "capsules": Recipe(
        Surface("clouds", grey(0.5), grey(0.62), 14, 0.03, 0.05),
        (Layer((("bar", -0.55, 0, 0.55, 0, 0.42),), evenly((0.25, 0.42, 0.2), 0.7), 0.4),),
        size=0.2,
        places=lattice(3, 4, 0.72),
        copy_turn=40,
        jitter=0.02,
    ),
    "cashew": Recipe(
        flat(0.2, 0.05),
        (
            Layer(
                (("bow", -0.45, 0, 0.72, 68, 0.34), ("ellipse", 0.2, 0, 0.4, 0.5)),
                Surface("granules", (0.72, 0.52, 0.3), (0.85, 0.68, 0.44), 5, 0.08, shine=0.1),
                0.34,
            ),
        ),
        turn=25,
    ),
    "fryum": Recipe(
        flat(0.22, 0.05),
        (
            Layer(
                (
                    ("cog", 0, 0, 0.9, 16, 0.05, 1),
                    ("-ellipse", 0.47, 0, 0.2, 0.2),
                    ("-ellipse", -0.24, 0.41, 0.2, 0.2),
                    ("-ellipse", -0.24, -0.41, 0.2, 0.2),
                ),
                Surface("granules", (0.74, 0.46, 0.2), (0.88, 0.62, 0.34), 7, 0.06, shine=0.1),
                0.13,
            ),
        ),
        turn=12,
    ),
    "pcb1": Recipe(
        flat(0.75),
        board(
            (0.08, 0.22, 0.42),
            Layer(
                (("ellipse", -0.48, -0.1, 0.3, 0.3), ("ellipse", 0.42, -0.1, 0.3, 0.3)), SILVER, 0.1
            ),
            Layer(
                (("ellipse", -0.48, -0.1, 0.22, 0.22), ("ellipse", 0.42, -0.1, 0.22, 0.22)), CHIP
            ),
            Layer((("box", 0, 0.48, 0.34, 0.12),), GOLD, 0.05),
            Layer(row_of("ellipse", 4, -0.3, 0.7, 0.2, 0.05, 0.05), SILVER, 0.03),
            outline=OPEN_BOARD,
        ),
        base=1,
    ),
    "pcb2": Recipe(
        flat(0.8),
        board(
            (0.1, 0.32, 0.18),
            Layer((("box", -0.35, -0.1, 0.32, 0.32),), CHIP, 0.04),
            Layer(row_of("box", 8, 0.25, -0.5, 0.09, 0.03, 0.12), SILVER, 0.02),
            Layer((("box", 0.5, 0.35, 0.28, 0.2),), WHITE, 0.06),
            Layer(row_of("box", 6, -0.6, 0.55, 0.1, 0.03, 0.05), GOLD, 0.02),
            outline=OPEN_BOARD,
        ),
        base=1,
    ),
    "pcb3": Recipe(
        flat(0.7),
        board(
            (0.42, 0.1, 0.09),
            Layer((("box", 0, 0, 0.26, 0.26),), CHIP, 0.04),
            Layer(row_of("ellipse", 10, -0.8, -0.62, 0.18, 0.055, 0.055), GOLD, 0.03),
            Layer(row_of("ellipse", 10, -0.8, 0.62, 0.18, 0.055, 0.055), GOLD, 0.03),
            Layer((("box", -0.65, 0, 0.16, 0.3), ("box", 0.65, 0, 0.16, 0.3)), SILVER, 0.08),
            outline=(("box", 0, 0, 1, 0.8, 0.05),),
        ),
        base=1,
    ),
    "pipe_fryum": Recipe(
        flat(0.18, 0.05),
        (
            Layer(
                (("box", 0, 0, 0.95, 0.48, 0.08),),
                Surface("stripes", (0.78, 0.5, 0.2), (0.9, 0.66, 0.34), 4, 0.05, shine=0.3),
                0.44,
            ),
        ),
        turn=12,
    ),
}

BTAD = {
    "01": Recipe(
        flat(0.08, 0.06),
        (
            Layer((("ellipse", 0, 0, 1, 1),), evenly((0.55, 0.56, 0.6), 0.4), 0.08),
            Layer((("ellipse", 0, 0, 0.8, 0.8),), Surface("rings", grey(0.6), grey(0.7), 9), 0.04),
            Layer((("polygon", 0, 0, 0.24, 6),), evenly((0.3, 0.3, 0.33)), 0.06),
        ),
        turn=30,
    ),
    "02": Recipe(Surface("fibres", (0.2, 0.17, 0.15), (0.5, 0.44, 0.4), 9, 0.03, 0.04)),
    "03": Recipe(
        flat(0.05, 0.1),
        (
            Layer(
                (("ellipse", 0, 0, 1, 1), ("-ellipse", 0, 0, 0.55, 0.55)),
                Surface("rings", (0.5, 0.46, 0.38), (0.62, 0.58, 0.5), 6, 0.04, 0.04, shine=0.5),
                0.12,
            ),
        ),
    ),
}

MPDD = {
    "bracket_black": Recipe(
        Surface("clouds", (0.52, 0.5, 0.46), (0.66, 0.63, 0.58), 8, 0.03, 0.04),
        (
            Layer(
                (
                    ("bar", -0.7, 0.55, 0.7, 0.55, 0.22),
                    ("bar", -0.7, 0.55, -0.7, -0.7, 0.22),
                    ("-ellipse", 0.7, 0.55, 0.1, 0.1),
                    ("-ellipse", -0.7, -0.7, 0.1, 0.1),
                ),
                Surface("granules", grey(0.15), grey(0.25), 24, 0.04, 0.04, shine=0.3),
                0.08,
            ),
        ),
        turn=18,
    ),
    "metal_plate": Recipe(
        flat(0.35, 0.05),
        (
            Layer(
                (
                    ("box", 0, 0, 0.95, 0.72, 0.12),
                    ("-ellipse", -0.72, -0.5, 0.09, 0.09),
                    ("-ellipse", 0.72, -0.5, 0.09, 0.09),
                    ("-ellipse", -0.72, 0.5, 0.09, 0.09),
                    ("-ellipse", 0.72, 0.5, 0.09, 0.09),
                ),
                Surface("fibres", grey(0.58), grey(0.84), 4, 0.04, 0.04, shine=0.2),
                0.05,
            ),
        ),
        turn=15,
    ),
    "tubes": Recipe(
        flat(0.15, 0.06),
        (
            Layer((("box", 0, 0, 0.95, 0.2, 0.03),), evenly((0.62, 0.6, 0.56), 0.6), 0.2),
            Layer((("box", 0.78, 0, 0.14, 0.21, 0.03),), evenly((0.36, 0.35, 0.34), 0.4), 0.2),
        ),
        size=0.88,
        places=((0.0, -0.66), (0.0, -0.22), (0.0, 0.22), (0.0, 0.66)),
        turn=6,
        jitter=0.012,
    ),
}

DAGM = {
    "Class1": Recipe(Surface("clouds", grey(0.25), grey(0.75), 22, 0.04, 0.08)),
    "Class4": Recipe(Surface("twill", grey(0.38), grey(0.6), 9, 0.04, 0.08, 20)),
    "Class7": Recipe(Surface("granules", grey(0.34), grey(0.66), 16, 0.04, 0.05)),
}

SDD = {
    "electrical commutators": Recipe(
        Surface("fibres", grey(0.42), grey(0.58), 5, 0.08, 0.05, 90),
        turn=2,
    ),
}

DTD = {
    "Blotchy_099": Recipe(Surface("clouds", (0.62, 0.55, 0.4), (0.4, 0.45, 0.38), 12, 0.03, 0.03)),
    "Mesh_114": Recipe(Surface("mesh", (0.7, 0.72, 0.74), (0.3, 0.36, 0.42), 9, 0.03, 0.04, 45)),
    "Perforated_037": Recipe(Surface("hex_dots", grey(0.12), grey(0.62), 6, 0.04, 0.04)),
    "Woven_001": Recipe(Surface("weave", (0.5, 0.36, 0.2), (0.82, 0.68, 0.46), 8, 0.03, 0.05, 45)),
}

EVALUATION: dict[str, Recipe] = {
    f"{dataset}/{category}": recipe
    for dataset, recipes in (
        ("mvtec", MVTEC),
        ("visa", VISA),
        ("btad", BTAD),
        ("mpdd", MPDD),
        ("dagm", DAGM),
        ("sdd", SDD),
        ("dtd", DTD),
    )
    for category, recipe in recipes.items()
}
