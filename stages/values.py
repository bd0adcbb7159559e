"""The parts of params.yaml: keys that name files, and values that may be tables.

A value that differs by auxiliary set or by source of data is a table: a mapping with the key
`default`, whose other keys are names of auxiliary sets or of `data.source`. An entry may be such a
table once more: a source's, by auxiliary set.
"""

import re
from collections.abc import Iterable, Mapping
from functools import reduce
from itertools import chain, product
from operator import getitem
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ValidationError
from pydantic_core import PydanticCustomError

from fuzzyclip.utils.settings import require_fields

#: What datasets, auxiliary sets, backbones and methods may be called: a key becomes the name of
#: files, folders and stages, and a part of DVC's dotted names of parameters.
KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}")
#: Key that makes a table of a mapping: what holds where no other entry does.
DEFAULT = "default"
NO_DEFAULT = "a table by auxiliary set or source of data needs the key `default`"


def check_key(key: Any) -> str:
    """Refuse a key that is no plain name, and say how to write it."""
    if not isinstance(key, str):
        raise ValueError(f"{key} can not be a key: to YAML it is no text; in quotes it is, '{key}'")
    if not KEY.fullmatch(key):
        plain = re.sub(r"[^A-Za-z0-9_-]+", "_", key).strip("_-")[:64]
        raise ValueError(
            f"{key!r} can not be a key, since files and folders are named by it: use up to 64 "
            "letters from a to z, digits, _ and -, and not - first"
            + (f"; for example {plain}" if plain else "")
        )
    return key


def check_name(name: Any) -> str:
    """Refuse a name that YAML has read as something else, and say how to write it."""
    if not isinstance(name, str):
        kind = "nothing" if name is None else f"{name!r}"
        raise ValueError(
            f"a name, which YAML has read as {kind}: put it into quotes as it is to be written"
        )
    return name


#: A name as it stands: `NA`, and in quotes also 'null', '001', '1e5', 'yes'.
Name = Annotated[str, BeforeValidator(check_name)]

V = TypeVar("V")


def _check_cases(table: dict[str, V]) -> dict[str, V]:
    """Keys whose files are different ones also where a file system does not tell a from A."""
    seen: dict[str, str] = {}
    for key in table:
        if (other := seen.setdefault(key.lower(), key)) != key:
            raise ValueError(f"{other} and {key} differ by capitals alone; rename one of them")
    return table


#: A table by keys that name files.
Keyed = Annotated[dict[Annotated[str, BeforeValidator(check_key)], V], AfterValidator(_check_cases)]


def read_numbers(value: Any) -> Any:
    """Texts like 1e-3, which are numbers to DVC and in YAML 1.2, as numbers."""
    if isinstance(value, dict):
        return {key: read_numbers(inner) for key, inner in value.items()}
    if isinstance(value, str) and re.fullmatch(r"[-+]?\d+(\.\d+)?[eE][-+]?\d+", value):
        return float(value)
    return value


def is_table(value: Any) -> bool:
    """True if a value differs by auxiliary set or source of data."""
    return isinstance(value, Mapping) and DEFAULT in value


def choose_entry(table: Mapping[str, Any], auxiliary: str, source: str) -> tuple[str, ...]:
    """Keys of the entry that holds: the source's, else the auxiliary set's, else `default`.

    There are two where that entry is a table, such as a source's by auxiliary set.
    """
    order = (source, auxiliary, DEFAULT)
    key = next(key for key in order if key in table)
    if not is_table(table[key]):
        return (key,)
    return key, next(inner for inner in order if inner in table[key])


def resolve(block: Mapping[str, Any], auxiliary: str, source: str, key: str = "") -> dict[str, Any]:
    """A section's settings as they are for one auxiliary set and one source of data.

    Args:
        block: the section as params.yaml has it; a value that is no table is meant as it stands.
        auxiliary: name of the auxiliary set.
        source: `data.source`.
        key: of the section, for messages, such as "methods.coop".

    Raises:
        ValueError: a table stands in a table within another; names it.
    """
    settings = dict(block)
    for name, table in block.items():
        if is_table(table):
            entry = choose_entry(table, auxiliary, source)
            settings[name] = reduce(getitem, entry, table)
            if is_table(settings[name]):
                place = ".".join(filter(None, (key, name, *map(str, entry))))
                raise ValueError(f"{place}: tables stand in one another, and not two alone")
    return settings


def list_cases(block: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Pairs of an auxiliary set and a source that reach every entry of a section's tables."""
    tables = [value for value in block.values() if is_table(value)]
    inner = [entry for table in tables for entry in table.values() if is_table(entry)]
    return [*product(dict.fromkeys(chain([DEFAULT], *tables, *inner)), repeat=2)]


def check_tables(record: type[BaseModel]) -> AfterValidator:
    """A check of a section's block: each entry of each table gives settings of the type `record`.

    The section stays as it is written; `resolve` makes settings of it.
    """

    def check(block: dict[str, Any]) -> dict[str, Any]:
        require_fields(record, block)
        tables = {name: value for name, value in block.items() if isinstance(value, Mapping)}
        for name, table in tables.items():
            for place, value in [((name,), table), *(((name, key), table[key]) for key in table)]:
                if isinstance(value, Mapping) and DEFAULT not in value:
                    unsaid: Fault = ("value_error", place, value, f"Value error, {NO_DEFAULT}")
                    raise _build_error(record, [unsaid])
        faults: dict[tuple[Any, str], Fault] = {}
        for auxiliary, source in list_cases(block):
            try:
                record.model_validate(resolve(block, auxiliary, source))
            except ValidationError as error:
                for fault in error.errors():
                    place = _locate(tables, fault["loc"], auxiliary, source)
                    words = fault["msg"]
                    faults[place, words] = fault["type"], place, fault["input"], words
        if faults:
            raise _build_error(record, faults.values())
        return block

    return AfterValidator(check)


#: Type, place, input and words of a fault, as pydantic has them.
Fault = tuple[str, tuple[int | str, ...], Any, str]


def _build_error(record: type[BaseModel], faults: Iterable[Fault]) -> ValidationError:
    return ValidationError.from_exception_data(
        record.__name__,
        [
            {
                "type": PydanticCustomError(kind, "{words}", {"words": words}),
                "loc": place,
                "input": given,
            }
            for kind, place, given, words in faults
        ],
    )


def _locate(
    tables: Mapping[str, Any], place: tuple[int | str, ...], auxiliary: str, source: str
) -> tuple[int | str, ...]:
    """Place of a fault in the section as it is written, with the entry of a table."""
    if place and (table := tables.get(str(place[0]))):
        return (place[0], *choose_entry(table, auxiliary, source), *place[1:])
    return place
