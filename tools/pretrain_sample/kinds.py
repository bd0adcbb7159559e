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

from tools.pretrain_sample.recipes import CATEGORIES, ELECTRONICS, TEXTURES

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
    (*_GOODS.split(), "ceramic plate", "lens", "jar lid", "chocolate bar"),
    (*_HARDWARE.split(), "spoon", "screw head", "seal ring", "door handle"),
    (*_ELECTRONICS.split(), *ELECTRONICS, "electrical commutators"),
)
#: The kind of each category of the pretraining.
KIND_OF_CATEGORY = torch.tensor(
    [
        next(number for number, names in enumerate(KINDS_OF_THINGS) if category in names)
        for category in CATEGORIES
    ]
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


def draw_kinds(count: int, rng: np.random.Generator) -> tuple[list[str], Tensor]:
    """Names, and how much of each kind is in them, (count, 4), rows sum to 1.

    A third are single names, a third stacks of one kind, and a third have another name before such
    a stack, as the method's test prompts do.
    """
    names, shares = [], np.zeros((count, len(KINDS_OF_THINGS)), np.float32)
    for row in shares:
        form, kind, other = rng.integers(3), *rng.integers(len(KINDS_OF_THINGS), size=2)
        size = 1 if form == 0 else int(rng.integers(2, 9))
        chosen = _choose(kind, size, rng)
        row[kind] += size
        if form == 2:
            chosen = [*_choose(other, 1, rng), *chosen]
            row[other] += 1
        row /= row.sum()
        names.append(" ".join(chosen))
    return names, torch.from_numpy(shares)


def _choose(kind: int, count: int, rng: np.random.Generator) -> list[str]:
    pool = KINDS_OF_THINGS[kind]
    return [pool[int(i)] for i in rng.choice(len(pool), count, replace=False)]


def kinds_loss(text: Tensor, shares: Tensor) -> Tensor:
    """Mean squared distance of the cosines between names from those of `COSINES`.

    A stack of two kinds is aimed at the place between them.

    Args:
        text: features (m, D) of unit length, all of one state.
        shares: (m, 4) of each kind in each name.
    """
    products = shares @ COSINES @ shares.T  # (m, m)
    lengths = (products.diagonal() / NEAR).sqrt()
    aim = products / (lengths[:, None] * lengths)
    other = ~torch.eye(len(shares), dtype=torch.bool)
    return F.mse_loss((text @ text.T)[other], aim[other])


def belonging_loss(
    image: Tensor, text: Tensor, scale: Tensor, kinds: Tensor, shares: Tensor
) -> Tensor:
    """Loss of images that lie no nearer to names of their kind than to others.

    EFA weighs clusters by an image's cosines with two stacks, each with the tested name before it.

    Args:
        image: features (B, D).
        text: features (B, m, D) of the names in each image's state.
        scale: factor of the cosines.
        kinds: (B,) number of each image's kind.
        shares: (m, 4) of each kind in each name.
    """
    aims = COSINES[kinds] @ shares.T  # (B, m)
    above = aims - aims.mean(dim=1, keepdim=True)
    weights = 2 * above / above.abs().sum(dim=1, keepdim=True).clamp_min(1e-6)
    margins = (weights * torch.einsum("bd,bmd->bm", image, text)).sum(dim=1)  # (B,)
    return F.softplus(-scale * margins).mean()
