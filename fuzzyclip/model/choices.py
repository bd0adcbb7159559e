"""Which category is meant, and which thresholds hold, by what a model is calibrated for.

Thresholds hold for the way in which images were looked at when they were chosen; another way is
refused in words.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager

from fuzzyclip.method.scorer import NormalMemory
from fuzzyclip.model.card import NATURAL, NATURAL_PIXEL, Calibration, Threshold, Tiling
from fuzzyclip.model.score_kinds import ScoreKind
from fuzzyclip.model.storing import digest_memory

#: Stands for the category where none is given, as in the paper's Table 4.
ANY_CATEGORY = "object"
#: Categories that an error repeats.
MOST_SHOWN = 8


class UncalibratedError(ValueError):
    """No threshold of the model's own holds for what is asked."""


@contextmanager
def offer_threshold() -> Iterator[None]:
    """For callers that take a threshold: the advice to give one ends an `UncalibratedError`.

    Raises:
        ValueError: in its place, so that the advice is given once.
    """
    try:
        yield
    except UncalibratedError as error:
        raise ValueError(f"{error}, or give a threshold") from error


def pick_category(
    category: str | None,
    calibrated: Mapping[str, Calibration],
    remembered: Collection[str],
    required: bool,
) -> str:
    """The category that is meant, see `FuzzyCLIP.choose_category`.

    Raises:
        UncalibratedError: it is not calibrated; names what is.
        ValueError: there are several and none is named; names them.
    """
    if category is None:
        if len(calibrated) == 1:
            return next(iter(calibrated))
        if calibrated and required:
            raise ValueError(
                f"category: say which, this model is calibrated for {_list_names(calibrated)}"
            )
        return ANY_CATEGORY
    known = dict.fromkeys([*calibrated, *remembered])
    alike = [name for name in known if _simplify(name) == _simplify(category)]
    chosen = alike[0] if len(alike) == 1 and category not in known else category
    if required and calibrated and chosen not in calibrated:
        raise UncalibratedError(
            f"category {category!r} is not calibrated, but {_list_names(calibrated)}: name one "
            "of these or calibrate it (fuzzyclip calibrate)"
        )
    return chosen


def pick_thresholds(
    category: str,
    own: Calibration | None,
    *,
    tiling: Tiling | None,
    score: ScoreKind,
    memory: NormalMemory | None,
    given: float | None,
) -> tuple[Threshold, Threshold]:
    """Thresholds of image scores, where `given` replaces the calibrated one, and of pixels.

    Beside a given one, that of pixels is the calibrated one where it was chosen on maps of this way
    of looking, whatever the kind of score, else the natural one.

    Args:
        category: for messages.
        own: its calibration.
        tiling, score, memory: how its images are looked at.

    Raises:
        UncalibratedError: it was calibrated under another way of looking; says both.
        ValueError: its good parts were looked at in another way, whatever the threshold.
    """
    shown = digest_memory(memory) if memory else None
    if own and shown and own.memory == shown and own.tiling != tiling:
        raise ValueError(
            f"the good parts of {category!r} were looked at by {_describe_tiling(own.tiling)}, not "
            f"by {_describe_tiling(tiling)}: look that way, or give good parts again (--reference)"
        )
    if given is not None:
        alike = own and (own.tiling, own.memory) == (tiling, shown)
        return Threshold(value=given, method="given"), own.pixel if own and alike else NATURAL_PIXEL
    if own is None:
        return NATURAL, NATURAL_PIXEL
    if own.tiling != tiling:  # scores of another way of looking have another distribution
        raise UncalibratedError(
            f"{category!r} was calibrated on {_describe_tiling(own.tiling)}, not on "
            f"{_describe_tiling(tiling)}: calibrate again that way"
        )
    if own.score != score:
        raise UncalibratedError(
            f"{category!r} was calibrated for the score {own.score!r}, not for {score!r}: "
            "calibrate again with that one"
        )
    if own.memory != shown:
        raise UncalibratedError(
            f"{category!r} was calibrated with other reference images: calibrate again with these"
        )
    return own.image, own.pixel


def _simplify(category: str) -> str:
    """A name as two people would agree on it; the text tower reads no upper case either."""
    return " ".join(category.casefold().split())


def _list_names(names: Iterable[str]) -> str:
    """Names in quotes, not more than a line has room for."""
    quoted = [repr(name) for name in names]
    more = f" and {len(quoted) - MOST_SHOWN} more" if len(quoted) > MOST_SHOWN else ""
    return ", ".join(quoted[:MOST_SHOWN]) + more


def _describe_tiling(tiling: Tiling | None) -> str:
    if tiling is None:
        return "the whole image"
    return f"tiles of {tiling.side} px, overlap {tiling.overlap}"
