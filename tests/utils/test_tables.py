"""Tables: names come back as they were written, numbers as numbers; else they are refused."""

import csv
import io
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from odd_names import STRANGE
from pandas.errors import EmptyDataError
from properties import try_examples

from fuzzyclip.utils.cells import restore_cell
from fuzzyclip.utils.tables import format_csv, read_table, read_text_table, write_csv

NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6)


@given(names=st.lists(NAMES | st.sampled_from(STRANGE), min_size=1, max_size=5))
@example(names=[*STRANGE])
@try_examples(200)
def test_names_come_back_as_they_were_written(names, tmp_path_factory):
    path = tmp_path_factory.mktemp("tables") / "a.csv"
    numbers = [0.5 if place % 2 else math.nan for place in range(len(names))]
    write_csv(path, pd.DataFrame({"category": names, "label": range(len(names)), "ap": numbers}))
    frame = read_table(path)
    assert frame["category"].tolist() == names
    assert frame["label"].tolist() == [*range(len(names))]
    np.testing.assert_array_equal(frame["ap"], numbers)
    assert read_text_table(path, ours=True)["category"].tolist() == names
    with path.open(newline="", encoding="utf-8") as file:  # any other reader of CSV sees the same
        shown = [line["category"] for line in csv.DictReader(file)]
    assert shown == read_text_table(path)["category"].tolist()
    assert [restore_cell(cell) for cell in shown] == names
    assert not [cell for cell in shown if cell[:1] in tuple("=@") or cell[:2] in ("+c", "-c")]


def test_line_ends_and_a_byte_order_mark_change_nothing(tmp_path):
    text = format_csv(pd.DataFrame({"category": ["NA", "ü"], "ap": [0.25, math.nan]}))
    (tmp_path / "a.csv").write_bytes("\ufeff".encode() + text.replace("\n", "\r\n").encode())
    pd.testing.assert_frame_equal(read_table(tmp_path / "a.csv"), read_table(text))
    assert read_table(tmp_path / "a.csv").columns.tolist() == ["category", "ap"]
    assert read_text_table(tmp_path / "a.csv")["ap"].tolist() == ["0.25", ""]


@pytest.mark.parametrize("cell", ["NA", "True", "x", "1,5", "None"])
def test_what_is_no_number_among_numbers_is_named(cell, tmp_path):
    buffer = io.StringIO()
    csv.writer(buffer).writerows([["category", "ap"], ["nut", "0.5"], ["bolt", cell]])
    (tmp_path / "a.csv").write_text(buffer.getvalue())
    with pytest.raises(ValueError, match=rf"a\.csv: the column ap holds '{cell}', which is no num"):
        read_table(tmp_path / "a.csv")
    if cell == "True":
        with pytest.raises(ValueError, match="the column ap holds 'True'"):
            read_table("category,ap\nnut,True\n")


@pytest.mark.parametrize(
    "content", [b"category,ap\nnut,0.5,1,2\n", b"category\n\xff\xfe\n", b'a\n"b']
)
def test_what_is_no_table_is_named(content, tmp_path):
    (tmp_path / "a.csv").write_bytes(content)
    for read in (read_table, read_text_table):
        with pytest.raises(ValueError, match=r"a\.csv: "):
            read(tmp_path / "a.csv")


def test_a_table_without_lines_has_its_columns_and_an_empty_file_none(tmp_path):
    frame = read_table("variant,category,ap\n")
    assert frame.empty
    assert frame.columns.tolist() == ["variant", "category", "ap"]
    assert frame["ap"].dtype == "float64"
    (tmp_path / "a.csv").touch()
    with pytest.raises(EmptyDataError):
        read_table(tmp_path / "a.csv")
