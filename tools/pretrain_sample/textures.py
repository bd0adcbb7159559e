"""Textures that the sample CLIP is pretrained on, in ever new colours and scales."""

from fuzzyclip.sample.recipes import Recipe, grey
from fuzzyclip.sample.textures import Surface

VARIETY = 2.0


def texture(surface: Surface) -> Recipe:
    """A texture category."""
    return Recipe(surface, turn=20, variety=VARIETY)


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
