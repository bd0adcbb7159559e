"""FuzzyCLIP: CSP, EFA and RPL, and what every method of the tables is.

What readers of results need without PyTorch is here: the scale of maps, and FuzzyCLIP's variants,
which are compared on the same features, a line of the tables each.
"""

import re
from collections.abc import Sequence
from enum import Enum


class Scale(Enum):
    """The meaning of a map's values, where a metric asks for more than their order.

    PLAIN: values as the method defines them. LOG_ODDS: log(p / (1 - p)) of a probability p. From a
    margin of 17 on a probability is 1 as a float32, and pixels that a map tells apart become one;
    log-odds are precise at both ends.
    """

    PLAIN = "plain"
    LOG_ODDS = "log-odds"


#: FuzzyCLIP itself, and the name of the method.
OWN = "fuzzyclip"
#: Variant to title, in the order of a table. All but the last are without any training.
VARIANTS = {
    "precise": "precise prompt",
    "object": 'prompt "object"',
    "stacked": "stacked prompt, tested names",
    "stacked_auxiliary": "stacked prompt, auxiliary names",
    OWN: "FuzzyCLIP (CSP, EFA, RPL)",
}


def name_shots(shots: int) -> str:
    """The variant with a memory of some normal images of the tested category; not zero-shot."""
    return f"{OWN}_{shots}shot"


def name_moment(epochs: float) -> str:
    """The variant with EFA's layers as they were after so many epochs: `fuzzyclip_epoch_0.25`."""
    return f"{OWN}_epoch_{epochs:g}"


def read_moment(variant: str) -> float | None:
    """Epochs after which the layers of a variant were kept; None of any other variant."""
    known = re.fullmatch(rf"{OWN}_epoch_(\d+(?:\.\d+)?)", variant)
    return float(known[1]) if known else None


def get_title(variant: str) -> str:
    """The name of a variant in tables; its own where it has no title."""
    if known := re.fullmatch(rf"{OWN}_(\d+)shot", variant):
        return f"FuzzyCLIP + {known[1]} normal image{'s' if int(known[1]) > 1 else ''}"
    return VARIANTS.get(variant, variant)


def list_titles(variants: Sequence[str], shots: Sequence[int] = ()) -> dict[str, str]:
    """Variants of a run's tables with their titles, in order.

    Args:
        variants: keys of `VARIANTS`.
        shots: numbers of normal images, each with a variant of its own.
    """
    shown = [*(name for name in VARIANTS if name in variants), *map(name_shots, shots)]
    return {name: get_title(name) for name in shown}
