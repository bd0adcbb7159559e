"""What schemas share: ranges as their limits, and words for what they refuse."""

from typing import Any

from pydantic import Field, ValidationError

from fuzzyclip.utils.ranges import Range

#: One number a colour channel.
CHANNELS: Any = Field(min_length=3, max_length=3)


def limit(limits: Range) -> Any:
    """A range as a limit of a field."""
    return Field(ge=limits.least, le=limits.most)


def say_first_fault(error: ValidationError) -> str:
    """The first fault of a validation: its place, as far as there is one, and what is wrong."""
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"]))
    said = first["msg"].removeprefix("Value error, ")
    return f"{place}: {said}" if place else said
