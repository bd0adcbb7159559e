"""JSON that people or other programs wrote, read so that nothing of it is lost without a word.

Of a key that an object has twice, Python's reader takes the last value and forgets the first: two
categories of one name, or a setting that somebody added above the old one.
"""

import json
from typing import Any


class RepeatedKeyError(ValueError):
    """An object of JSON has a key twice."""


def parse_json(text: str | bytes) -> Any:
    """Plain data of JSON; each key of an object stands there once.

    Raises:
        RepeatedKeyError: a key is there twice; names it. Put `fuzzyclip.utils.faults.naming` around
            it for the file's name.
        ValueError: it is no JSON, or no UTF-8.
        RecursionError: it is nested too deeply.
    """
    return json.loads(text, object_pairs_hook=_refuse_repeated)


def _refuse_repeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        keys = [key for key, _ in pairs]
        repeated = next(key for number, key in enumerate(keys) if key in keys[:number])
        raise RepeatedKeyError(
            f"the key {repeated!r:.100} is there twice in one table; keep the one that is meant"
        )
    return table
