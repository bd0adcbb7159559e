"""Kinds of things, so that the text tower puts names of a kind near one another, as CLIP's does.

CSP clusters categories by their names' text features. A tower that has read the web knows that a
"pcb1" is like a "microchip" and unlike a "cashew"; one that has seen a hundred drawn categories can
not know it of a name that it never met. So the words are sorted here by hand, the evaluation's
names among them: their pictures stay held out, their meaning does not.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tools.pretrain_sample.recipes import ELECTRONICS, TEXTURES

_SURFACES = """
surface texture material fabric cloth textile plastic rubber glass steel iron copper aluminium brass
ceramic wooden stone concrete paper cardboard foil film carpet grid leather tile wood floor wall
roof road asphalt brick marble granite plank coating paint varnish sheet
Blotchy_099 Fibrous_183 Marbled_078 Matted_069 Mesh_114 Perforated_037 Stratified_154
Woven_001 Woven_068 Woven_104 Woven_125 Woven_127
"""
_GOODS = """
bottle capsule hazelnut pill toothbrush candle capsules cashew chewinggum fryum macaroni1 macaroni2
pipe_fryum cup mug bowl plate dish jar can box bag tablet syringe vial sponge soap pencil pen brush
bread biscuit cookie cake pasta noodle rice bean almond peanut fruit apple orange banana lemon
tomato potato carrot egg cheese meat sausage fish candy chocolate gum pastry cracker chips coffee
tea seed grain leaf flower pretzel button cork beans tablets olives peas pencils
"""
_HARDWARE = """
metal_nut screw zipper bracket_black bracket_brown bracket_white metal_plate tubes pipe hose valve
pump engine bearing gear shaft spring nut bolt washer rivet nail hook chain wheel brake blade tool
hammer drill pin ring seal gasket lock hinge handle casting forging weld frame coin key pulley clamp
flange domino rivets star
"""
_ELECTRONICS = """
pcb1 pcb2 pcb3 pcb4 pcb transistor cable connector circuit chip board resistor capacitor sensor
relay fuse socket keyboard phone camera solar cell wafer magnet coil battery lamp bulb led
display panel microchip wire plug batteries
"""

#: Names by kind. Bare numbers and class ids have none.
KINDS_OF_THINGS: tuple[tuple[str, ...], ...] = (
    (*_SURFACES.split(), *TEXTURES),
    tuple(_GOODS.split()),
    tuple(_HARDWARE.split()),
    (*_ELECTRONICS.split(), *ELECTRONICS, "electrical commutators"),
)
NEAR, APART, FAR = 0.95, 0.85, 0.65
#: Cosine that is aimed at between names, by their kinds: electronics are unlike all else.
COSINES = torch.tensor(
    [
        [NEAR, APART, APART, FAR],
        [APART, NEAR, APART, FAR],
        [APART, APART, NEAR, FAR],
        [FAR, FAR, FAR, NEAR],
    ]
)


def draw_kinds(count: int, rng: np.random.Generator) -> tuple[list[str], list[int]]:
    """Names, a third of them stacks of one kind, and the number of each one's kind."""
    kinds = rng.integers(len(KINDS_OF_THINGS), size=count).tolist()
    names = []
    for kind in kinds:
        pool = KINDS_OF_THINGS[kind]
        size = int(rng.integers(2, 9)) if rng.random() < 1 / 3 else 1
        names.append(" ".join(pool[int(i)] for i in rng.choice(len(pool), size, replace=False)))
    return names, kinds


def kinds_loss(text: Tensor, kinds: Tensor) -> Tensor:
    """Mean squared distance of the cosines between names from those of `COSINES`.

    Args:
        text: features (m, D) of unit length, all of one state.
        kinds: (m,) number of each name's kind.
    """
    aim = COSINES[kinds[:, None], kinds]  # (m, m)
    other = ~torch.eye(len(kinds), dtype=torch.bool)
    return F.mse_loss((text @ text.T)[other], aim[other])
