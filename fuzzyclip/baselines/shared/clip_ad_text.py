"""CLIP-AD's text: of each side's prompts the mean of the densest group.

Where the prompts of a side mean different things, the mean of all lies between them; DBSCAN finds
the group that most agree with (Chen et al., arXiv 2311.00453, "representative vector selection").

Shapes: n prompts, D embedding width.
"""

from dataclasses import dataclass

import torch
from sklearn.cluster import DBSCAN
from torch import Tensor

from fuzzyclip.clip.encoding import normalise
from fuzzyclip.clip.name_encoder import NameEncoder
from fuzzyclip.utils.ranges import COUNT, POSITIVE

FLAWS = ("flaw", "defect", "damage", "scratch", "crack", "contamination")
#: The states of both sides, 9 and 10, and 22 templates.
NORMAL_STATES = (
    *("flawless {}", "perfect {}", "unblemished {}"),
    *(f"{{}} without {flaw}" for flaw in FLAWS),
)
ABNORMAL_STATES = (
    *("damaged {}", "imperfect {}", "blemished {}", "broken {}"),
    *(f"{{}} with {flaw}" for flaw in FLAWS),
)
LOOKS = ("cropped ", "close-up ", "bright ", "dark ", "jpeg corrupted ", "blurry ", "")
ENDS = ("large {}.", "small {}.", "{} for visual inspection.", "{} for anomaly detection.")
TEMPLATES = tuple(
    f"a {look}photo of {article} {end}"
    for look, end in (*((look, "{}.") for look in LOOKS), *(("", end) for end in ENDS))
    for article in ("the", "a")
)


@dataclass(frozen=True)
class Density:
    """What DBSCAN calls a dense place among unit text features.

    Attributes:
        eps: distance within which two features are neighbours; none are further apart than 2.
        min_samples: neighbours that make a place dense, itself included.
    """

    eps: float = 0.5
    min_samples: int = 15

    def __post_init__(self) -> None:
        POSITIVE.check("density", eps=self.eps)
        COUNT.check("density", min_samples=self.min_samples)


#: The published code's choices: for MVTec AD and all others but VisA, and for VisA, which joins all
#: prompts.
DENSITIES = {"usual": Density(), "wide": Density(1.5, 25)}


def read_density(value: str | tuple[float, int]) -> Density:
    """A density from plain settings: a key of `DENSITIES`, or eps and min_samples.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(value, str):
        if value in DENSITIES:
            return DENSITIES[value]
    elif isinstance(value, tuple) and tuple(map(type, value)) in ((float, int), (int, int)):
        return Density(*value)
    raise ValueError(
        f"a density is {' or '.join(DENSITIES)}, or a list of eps and min_samples such as "
        f"[0.5, 15], not {value!r}"
    )


def encode_representatives(encode: NameEncoder, name: str, density: Density) -> Tensor:
    """SDP's text of a category, (D, 2), unit columns: normal, abnormal.

    Raises:
        PromptTooLongError: the name makes a prompt longer than the text tower's context.
    """
    columns = []
    for states in (NORMAL_STATES, ABNORMAL_STATES):
        filled = [state.format(encode.stack([name])) for state in states]
        prompts = [template.format(state) for state in filled for template in TEMPLATES]
        columns.append(find_representative(encode.encode(prompts), density))
    return torch.stack(columns, dim=1).to(encode.backbone.device)


def find_representative(embeds: Tensor, density: Density) -> Tensor:
    """Mean of the largest group that DBSCAN finds among features (n, D), as a unit vector (D,).

    Where no place is dense enough there is no group, and it is the mean of all; the published code
    fails there. Of groups of one size it is the one found first.
    """
    unit = normalise(embeds.float())  # (n, D)
    groups = DBSCAN(eps=density.eps, min_samples=density.min_samples).fit(unit.cpu().numpy())
    labels = torch.from_numpy(groups.labels_).to(unit.device)  # (n,), -1 is no group
    found = labels[labels >= 0]
    if len(found):
        unit = unit[labels == found.bincount().argmax()]
    return normalise(unit.mean(dim=0))
