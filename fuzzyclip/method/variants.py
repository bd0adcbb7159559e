"""Variants of FuzzyCLIP: what its tables compare on the same features, a line each."""

import re
from collections.abc import Sequence

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


def name_epoch(epoch: int) -> str:
    """The variant with EFA's layers as they were after an epoch."""
    return f"{OWN}_epoch_{epoch}"


def read_epoch(variant: str) -> int | None:
    """The epoch of a variant that `name_epoch` named."""
    known = re.fullmatch(rf"{OWN}_epoch_(\d+)", variant)
    return int(known[1]) if known else None


def name_shots(shots: int) -> str:
    """The variant with a memory of some normal images of the tested category; not zero-shot."""
    return f"{OWN}_{shots}shot"


def get_title(variant: str) -> str:
    """What a variant is called in tables; those without a title go by their name."""
    if known := re.fullmatch(rf"{OWN}_(\d+)shot", variant):
        return f"FuzzyCLIP + {known[1]} good image{'s' if int(known[1]) > 1 else ''}"
    return VARIANTS.get(variant, variant)


def list_titles(variants: Sequence[str], shots: Sequence[int] = ()) -> dict[str, str]:
    """Variants of a run's tables with their titles, in order.

    Args:
        variants: keys of `VARIANTS`.
        shots: numbers of normal images, each with a variant of its own.
    """
    shown = [*(name for name in VARIANTS if name in variants), *map(name_shots, shots)]
    return {name: get_title(name) for name in shown}
