"""The common ground of schemas: numbers with ranges, records, and words for what they refuse."""

from typing import Annotated, Any, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
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
    Range,
)


def limit(limits: Range) -> Any:
    """A range as a limit of a field."""
    return Field(ge=limits.least, le=limits.most)


def refuse_bool(value: Any) -> Any:
    """Anything but yes and no, which pydantic takes for 1 and 0.

    Raises:
        ValueError: it is one of the two.
    """
    if isinstance(value, bool):
        raise ValueError("a number is needed, not a yes/no value")
    return value


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
#: One number a colour channel.
CHANNELS: Any = Field(min_length=3, max_length=3)


def check_ascending(numbers: tuple[int, ...]) -> tuple[int, ...]:
    """Blocks come from the towers in their own order; rows are named by their number.

    Raises:
        ValueError: they are in another order, or one is there twice.
    """
    if list(numbers) != sorted(set(numbers)):
        raise ValueError("numbers must be ascending and distinct")
    return numbers


class Record(BaseModel):
    """Settings, or a part of a file: no unknown keys, no change after they are made."""

    model_config = ConfigDict(extra="forbid", frozen=True)


R = TypeVar("R", bound=BaseModel)


def _refuse_defaults(data: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    record = validate(data)
    if isinstance(data, dict):
        require_fields(type(record), data)
    return record


#: A record of which a file says every field: defaults are for code alone.
Whole = Annotated[R, WrapValidator(_refuse_defaults)]


def require_fields(record: type[BaseModel], data: dict[str, Any]) -> None:
    """Refuse plain data that leave fields of a record to their defaults.

    Raises:
        ValidationError: names each field that is missing.
    """
    missing = [name for name in record.model_fields if name not in data]
    if missing:
        raise ValidationError.from_exception_data(
            record.__name__,
            [{"type": "missing", "loc": (name,), "input": data} for name in missing],
        )


def say_first_fault(error: ValidationError) -> str:
    """The first fault of a validation: its place, as far as there is one, and what is wrong."""
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"]))
    fault = first["msg"].removeprefix("Value error, ")
    return f"{place}: {fault}" if place else fault
