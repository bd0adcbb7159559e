"""Cells that no spreadsheet computes, and that come back as they were."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from properties import try_examples

from fuzzyclip.utils.cells import escape_cell, restore_cell

TEXTS = st.text(st.sampled_from("=+-@'\t\r\n;,\"a1. \uff1d\uff0b"), max_size=12)


@given(TEXTS)
@try_examples(500)
def test_a_text_comes_back(text):
    assert restore_cell(escape_cell(text)) == text


@given(TEXTS)
@try_examples(500)
def test_no_cell_begins_as_a_formula_whatever_separates_cells(text):
    escaped = escape_cell(text)
    try:
        float(escaped)
    except ValueError:
        for separator in "\0;\t\n\r":
            for part in escaped.split(separator):
                assert part[:1] not in ("=", "+", "-", "@", "\uff1d", "\uff0b") or not part


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("=cmd|' /C calc'!A0", "'=cmd|' /C calc'!A0"), ("+1+1", "'+1+1"), ("-x.png", "'-x.png"),
        ("@SUM(A1)", "'@SUM(A1)"), ("\t=1", "'\t'=1"), ("'=1", "''=1"), ("\uff1d1", "'\uff1d1"),
        ("a;=1.png", "a;'=1.png"),
        *((text, text) for text in ("-3.2", "+1e-5", "5%", "a-b", "", "'", "a=b", "/x/=1.png")),
    ],
)  # fmt: skip
def test_formulas_become_text_and_numbers_stay(text, escaped):
    assert escape_cell(text) == escaped


@given(st.lists(TEXTS, min_size=1, max_size=4))
def test_a_table_of_such_cells_comes_back(texts):
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_ALL).writerow(map(escape_cell, texts))
    (row,) = csv.reader(io.StringIO(stream.getvalue(), newline=""))
    assert [*map(restore_cell, row)] == texts
