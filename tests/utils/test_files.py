"""Files that are written whole: what is on the disk before the name is, and what is refused."""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from damage import DAMAGES, damage
from hypothesis import given
from hypothesis import strategies as st
from properties import try_examples

from fuzzyclip.utils.files import (
    BrokenFileError,
    describe_fault,
    measure_safetensors,
    read_summed,
    replace_file,
    show_line,
    show_lines,
    write_json,
    write_summed,
)
from fuzzyclip.utils.tables import write_csv


@given(st.binary(max_size=200), DAMAGES)
@try_examples(60)
def test_summed_bytes_come_back_or_the_file_is_named(tmp_path_factory, content, how):
    path = tmp_path_factory.mktemp("summed") / "a.pt"
    write_summed(path, content)
    assert bytes(read_summed(path)) == content
    if damage(path, how):
        with pytest.raises(BrokenFileError, match=r"a\.pt is broken") as caught:
            read_summed(path)
        assert caught.value.path == path


def test_what_can_not_be_read_is_broken_and_what_is_not_there_is_not(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_summed(tmp_path / "absent")
    with pytest.raises(BrokenFileError, match="can not be read"):
        read_summed(tmp_path)  # a folder; a bad sector is an OSError too


def test_the_bytes_are_on_the_disk_before_the_name_is(tmp_path, monkeypatch):
    events, fsync = [], os.fsync

    def note(descriptor):
        place = Path(f"/proc/self/fd/{descriptor}").readlink()
        events.append((place.suffix or place.name, (tmp_path / "a.txt").exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    with replace_file(tmp_path / "a.txt") as temporary:
        temporary.write_text("a")
    assert events == [(".tmp", False), (tmp_path.name, True)]


def test_numbers_that_are_not_finite_get_into_no_file(tmp_path):
    path = tmp_path / "a.json"
    for data, place in (
        ({"means": {"pixel_ap": float("nan")}}, "means.pixel_ap"),
        ([1.0, {"a": [0.0, np.float64("inf")]}], r"\[1\]\.a\[1\]"),
        (float("-inf"), "the content"),
    ):
        with pytest.raises(ValueError, match=rf"a\.json is not written: {place} is not"):
            write_json(path, data)
    with pytest.raises(ValueError, match=r"b\.csv is not written: ap is infinite in row 1"):
        write_csv(tmp_path / "b.csv", pd.DataFrame({"name": ["x", "y"], "ap": [1.0, np.inf]}))
    assert not list(tmp_path.iterdir())


def test_what_is_undefined_is_empty_in_a_table(tmp_path):
    write_csv(tmp_path / "a.csv", pd.DataFrame({"row": ["x"], "ap": [np.nan], "n": [3]}))
    assert (tmp_path / "a.csv").read_text() == "row,ap,n\nx,,3\n"
    write_json(tmp_path / "a.json", {"a": None, "b": [1, 2.5]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": None, "b": [1, 2.5]}


def test_a_zip_file_of_several_volumes_and_a_torn_table_are_no_whole_files(tmp_path):
    path = tmp_path / "weights.pt"
    path.write_bytes(b"PK\3\4" + bytes(100) + b"PK\6\7" + b"\1" * 16 + b"PK\5\6" + bytes(18))
    assert "half a download" in describe_fault(path)
    text = b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0]}}'
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    assert measure_safetensors(path) == 0


@pytest.mark.parametrize("control", ["\n", "\r", "\x1b", "\x9b", "\u2028", "\u202e", "\udcff"])
def test_a_line_shows_what_would_end_turn_or_command_it(control):
    shown = show_line(f"a{control}b ünd \u3000😀\\n")
    assert shown == f"a{ascii(control)[1:-1]}b ünd \u3000😀\\n"
    assert show_lines(f"one\n{shown}") == f"one\n{shown}"
