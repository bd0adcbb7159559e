"""Texts in tables that people open with a spreadsheet, which takes some of them for formulas.

A cell that begins with = + - @ is computed where it is opened, and may call other programs: the
name of a file can be one. An apostrophe before it makes it text. So does one behind a separator
that spreadsheets of some languages split cells at. Numbers stay as they are.
"""

import csv
import re
from collections.abc import Iterable
from typing import Literal

#: What makes a formula of a cell that begins with it, also in its wide form.
RISKY = "=+\\-@\t\r\uff1d\uff0b\uff0d\uff20"
#: Where a cell begins, or some spreadsheet sees one begin.
BEGIN = "(^|[;\t\r\n])"
NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?%?")
_ESCAPED = re.compile(f"{BEGIN}(?='*[{RISKY}])")
_RESTORED = re.compile(f"{BEGIN}'(?='*[{RISKY}])")


def choose_quoting(texts: Iterable[str]) -> Literal[0, 2]:
    """How Python's writer of CSV must quote, so that each text is one cell for every reader.

    A lone carriage return ends a line for those who read, and the writer alone does not quote it.
    """
    returns = any("\r" in text for text in texts)
    return csv.QUOTE_NONNUMERIC if returns else csv.QUOTE_MINIMAL


def escape_cell(text: str) -> str:
    """A text that no spreadsheet computes; `restore_cell` gives it back exactly."""
    return text if NUMBER.fullmatch(text) else _ESCAPED.sub(r"\1'", text)


def restore_cell(text: str) -> str:
    """What `escape_cell` was given."""
    return _RESTORED.sub(r"\1", text)
