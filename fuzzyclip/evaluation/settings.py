"""Settings of an evaluation."""

from typing import Annotated, Literal

from pydantic import AfterValidator

from fuzzyclip.utils.schemas import Count, CountOrZero, Record, check_ascending

Row = Literal["precise", "object", "stacked", "stacked_auxiliary", "fuzzyclip"]


def _check_rows(rows: tuple[Row, ...]) -> tuple[Row, ...]:
    """The others are compared with it."""
    if "fuzzyclip" not in rows:
        raise ValueError("must contain fuzzyclip")
    return rows


class EvaluationSettings(Record):
    """What is evaluated, and how.

    Attributes:
        rows: of the tables: ways without training, and FuzzyCLIP.
        shots: numbers of good training images that FuzzyCLIP remembers, a further row each,
            ascending; not zero-shot, and not of the paper.
        pixel_metrics: `exact`: all pixels of a category are sorted, in memory; `streaming`:
            constant memory, and each metric comes with certain bounds.
        overlays: anomalous images a category whose maps are kept for pictures.
        gallery: images a category, label and kind (best, worst, borderline) that the page shows.
    """

    rows: Annotated[tuple[Row, ...], AfterValidator(_check_rows)] = (
        "precise",
        "object",
        "stacked",
        "stacked_auxiliary",
        "fuzzyclip",
    )
    shots: Annotated[tuple[Count, ...], AfterValidator(check_ascending)] = ()
    pixel_metrics: Literal["exact", "streaming"] = "exact"
    overlays: CountOrZero = 2
    gallery: CountOrZero = 1
