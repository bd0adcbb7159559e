"""Words for what a schema refuses."""

from pydantic import ValidationError


def say_first_fault(error: ValidationError) -> str:
    """The first fault of a validation: its place, as far as there is one, and what is wrong."""
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"]))
    said = first["msg"].removeprefix("Value error, ")
    return f"{place}: {said}" if place else said
