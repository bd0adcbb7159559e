"""The rows of every result table: what is compared on the same features."""

from collections.abc import Sequence

#: Row to title, in the order of a table. All but the last are without any training.
ROWS = {
    "precise": "precise prompt",
    "object": 'prompt "object"',
    "stacked": "stacked prompt, tested names",
    "stacked_auxiliary": "stacked prompt, auxiliary names",
    "fuzzyclip": "FuzzyCLIP (CSP, EFA, RPL)",
}
TRAINED = "fuzzyclip"


def name_shots(shots: int) -> str:
    """The row of FuzzyCLIP with a memory of some good images; not zero-shot."""
    return f"{TRAINED}_{shots}shot"


def list_rows(shown: Sequence[str], shots: Sequence[int] = ()) -> dict[str, str]:
    """Rows of a run's tables with their titles, in order.

    Args:
        shown: keys of `ROWS`.
        shots: numbers of good images, each with a row of its own.
    """
    rows = {name: title for name, title in ROWS.items() if name in shown}
    return rows | {
        name_shots(count): f"FuzzyCLIP + {count} good image{'s' if count > 1 else ''}"
        for count in shots
    }
