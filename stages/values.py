"""What values in params.yaml may be."""

import re
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Tag,
)

from fuzzyclip.utils.ranges import (
    COUNT,
    COUNT_OR_ZERO,
    FACTOR,
    FEW,
    FEW_OR_ZERO,
    NUMBER,
    POSITIVE,
    SEED,
    SHARE,
    SIDE,
    SIGMA,
)
from fuzzyclip.utils.schemas import limit

#: What datasets, auxiliary sets, backbones and methods may be called: a key becomes the name of
#: files, folders and stages, and a part of DVC's dotted names of parameters.
KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}")


def check_key(key: str) -> str:
    """A key that is a plain name.

    Raises:
        ValueError: it is none.
    """
    if not KEY.fullmatch(key):
        raise ValueError(
            f"{key!r} can not be a key, since files and folders are named by it: use up to 64 "
            "letters from a to z, digits, _ and -, and not - first"
        )
    return key


def refuse_bool(value: Any) -> Any:
    """Anything but yes and no."""
    if isinstance(value, bool):
        raise ValueError("a number is needed, not a yes/no value")
    return value


def check_ascending(numbers: list[int]) -> list[int]:
    """Blocks come from the towers in their own order; rows are named by their number."""
    if numbers != sorted(set(numbers)):
        raise ValueError("numbers must be ascending and distinct")
    return numbers


NoBool = BeforeValidator(refuse_bool)
Number = Annotated[float, NoBool, limit(NUMBER)]
Positive = Annotated[float, NoBool, limit(POSITIVE)]
NonNegative = Annotated[float, NoBool, limit(FACTOR)]
Share = Annotated[float, NoBool, limit(SHARE)]
Sigma = Annotated[float, NoBool, limit(SIGMA)]
Side = Annotated[int, NoBool, limit(SIDE)]
Count = Annotated[int, NoBool, limit(COUNT)]
CountOrZero = Annotated[int, NoBool, limit(COUNT_OR_ZERO)]
Few = Annotated[int, NoBool, limit(FEW)]
FewOrZero = Annotated[int, NoBool, limit(FEW_OR_ZERO)]
Seed = Annotated[int, NoBool, limit(SEED)]


V = TypeVar("V")
#: Marks of the two forms below, left out of messages.
TAGS = ("one value", "by auxiliary set")


def _tell_form(value: Any) -> str:
    return TAGS[isinstance(value, dict)]


#: One value for all auxiliary sets, or one by the set's name with a `default`.
ByAuxiliary = Annotated[
    Annotated[V, Tag(TAGS[0])] | Annotated[dict[str, V], Tag(TAGS[1])], Discriminator(_tell_form)
]


def _check_cases(table: dict[str, V]) -> dict[str, V]:
    """Keys whose files are different ones also where a file system does not tell a from A."""
    seen: dict[str, str] = {}
    for key in table:
        if (other := seen.setdefault(key.lower(), key)) != key:
            raise ValueError(f"{other} and {key} differ by capitals alone; rename one of them")
    return table


#: A table by keys that name files.
Keyed = Annotated[dict[Annotated[str, AfterValidator(check_key)], V], AfterValidator(_check_cases)]


class Section(BaseModel):
    """A part of params.yaml: no unknown keys, no change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def read_numbers(value: Any) -> Any:
    """Texts like 1e-3, which are numbers to DVC and in YAML 1.2, as numbers."""
    if isinstance(value, dict):
        return {key: read_numbers(inner) for key, inner in value.items()}
    if isinstance(value, str) and re.fullmatch(r"[-+]?\d+(\.\d+)?[eE][-+]?\d+", value):
        return float(value)
    return value
