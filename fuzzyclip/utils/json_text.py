"""JSON, read so that nothing of it is lost without a word, written so that a line stays one.

Of a key that an object has twice, Python's reader takes the last value and forgets the first: two
categories of one name, or a setting that somebody added above the old one.
"""

import json
import re
from collections import Counter
from typing import Any

#: Ranges of what JSON leaves as it is and other readers take for a line's end or a command: C1,
#: separators of lines and paragraphs, directions; and halves of pairs, which no file can hold.
CONTROLS = "\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
_ESCAPED = re.compile(f"[{CONTROLS}]")


class RepeatedKeyError(ValueError):
    """An object of JSON has a key twice."""


def parse_json(text: str | bytes, *, finite: bool = False) -> Any:
    """Plain data of JSON; each key of an object stands there once.

    Args:
        finite: refuse NaN and Infinity, which are no JSON, but which many programs write.

    Raises:
        RepeatedKeyError: a key is there twice; names it. Put `fuzzyclip.utils.faults.naming` around
            it for the file's name.
        ValueError: it is no JSON, or no UTF-8.
        RecursionError: it is nested too deeply.
    """
    return json.loads(
        text, object_pairs_hook=_refuse_repeated, parse_constant=_refuse if finite else None
    )


def format_json(data: Any, indent: int | None = None, encoding: str = "utf-8") -> str:
    """JSON with letters as they are, in one line for every reader where it has no indent.

    Args:
        encoding: of where it goes; what that has no code for is an escape of JSON's.

    Raises:
        ValueError: a number is not finite.
    """
    text = json.dumps(data, indent=indent, ensure_ascii=False, allow_nan=False)
    text = _ESCAPED.sub(lambda control: f"\\u{ord(control[0]):04x}", text)
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return json.dumps(data, indent=indent, allow_nan=False)
    return text


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number of JSON; make the file again")


def _refuse_repeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        repeated = next(key for key, count in counts.items() if count > 1)
        raise RepeatedKeyError(
            f"the key {repeated!r:.100} is there twice in one table; keep the one that is meant"
        )
    return table
