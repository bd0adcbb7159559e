"""Tensors on disk: what comes back is what was written, or the file is named."""

import json

import pytest
import torch
from damage import DAMAGES, damage
from hypothesis import example, given
from hypothesis import strategies as st
from properties import try_examples
from safetensors.torch import load_file, save_file

from fuzzyclip.utils.files import BrokenFileError, UnsummedFileError
from fuzzyclip.utils.tensor_files import (
    HEADER,
    check_tensors,
    read_arrays,
    read_header,
    read_rows,
    read_tensors,
    write_rows,
    write_tensors,
)

TENSORS = {
    "half": torch.arange(6.0).view(2, 3).half(),
    "mask": torch.tensor([True, False, True]),
    "empty": torch.empty(0),
    "one": torch.tensor(2.5),
    "bytes": torch.arange(5, dtype=torch.uint8),
}
HEADER_DATA = {"kind": "ü", "of": [1, 2]}
ROWS = {"one": torch.randn(4, 3), "two": torch.randn(4, 2, 5).bfloat16()}
LAYOUT = {"one": (torch.float32, (3,)), "two": (torch.bfloat16, (2, 5))}


def write_some_rows(path):
    with write_rows(path, LAYOUT, 4, HEADER_DATA) as writer:
        writer.write(2, {name: tensor[2:] for name, tensor in ROWS.items()})
        writer.write(0, {name: tensor[:2] for name, tensor in ROWS.items()})


def same(tensors, expected):
    return set(tensors) == set(expected) and all(
        tensors[name].dtype == tensor.dtype and torch.equal(tensors[name], tensor)
        for name, tensor in expected.items()
    )


def test_everything_comes_back_with_and_without_pytorch(tmp_path):
    path = tmp_path / "a.safetensors"
    write_tensors(path, TENSORS, HEADER_DATA)
    tensors, header = read_tensors(path)
    assert same(tensors, TENSORS)
    arrays, again = read_arrays(path)
    assert same({name: torch.from_numpy(array) for name, array in arrays.items()}, TENSORS)
    assert header == again == read_header(path) == check_tensors(path) == HEADER_DATA
    assert same(load_file(path), TENSORS)  # the library's own reader needs none of ours


def test_rows_come_back_alone_and_together(tmp_path):
    path = tmp_path / "a.safetensors"
    write_some_rows(path)
    assert same(read_tensors(path)[0], ROWS)
    assert same(load_file(path), ROWS)
    for first, count in ((0, 4), (1, 2), (3, 1)):
        rows = read_rows(path, ("two", "absent"), first, count)
        assert same(rows, {"two": ROWS["two"][first : first + count]})
    write_some_rows(tmp_path / "b.safetensors")
    assert path.read_bytes() == (tmp_path / "b.safetensors").read_bytes()


@given(st.integers(1, 9), st.integers(1, 4))
@try_examples(30)
def test_rows_written_in_any_portions_are_there_at_the_end(tmp_path_factory, rows, step):
    path = tmp_path_factory.mktemp("rows") / "a.safetensors"
    tensors = {"one": torch.randn(rows, 3), "two": torch.randn(rows, 2, 5).bfloat16()}
    with write_rows(path, LAYOUT, rows, HEADER_DATA) as writer:
        for first in reversed(range(0, rows, step)):
            part = slice(first, first + step)
            writer.write(first, {name: tensor[part] for name, tensor in tensors.items()})
        assert not path.exists()
    assert same(load_file(path), tensors)
    assert check_tensors(path) == HEADER_DATA


@pytest.mark.parametrize("write", [lambda path: write_tensors(path, TENSORS, HEADER_DATA),
                                   write_some_rows], ids=["whole", "rows"])  # fmt: skip
@example(("flip", 0.0, 1))
@example(("cut", 0.0, 1))
@given(DAMAGES)
@try_examples(160)
def test_damage_anywhere_changes_nothing_or_is_named(tmp_path_factory, write, how):
    path = tmp_path_factory.mktemp("damaged") / "a.safetensors"
    write(path)
    tensors, header = read_tensors(path)
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    damage(path, how)
    for read in (read_tensors, lambda path: (tensors, check_tensors(path))):
        try:
            again, header_again = read(path)
        except BrokenFileError as error:
            assert error.path == path  # noqa: PT017
        else:  # the spaces at the end of the header
            assert same(again, tensors)
            assert header_again == header


@given(DAMAGES)
@try_examples(60)
def test_damage_of_other_rows_is_not_the_readers_business(tmp_path_factory, how):
    path = tmp_path_factory.mktemp("damaged") / "a.safetensors"
    write_some_rows(path)
    damage(path, how)
    for row in range(4):
        try:
            read = read_rows(path, ("one", "two"), row, 1)
        except BrokenFileError:
            continue
        assert same(read, {name: tensor[row : row + 1] for name, tensor in ROWS.items()})


def test_a_row_of_another_place_is_not_taken(tmp_path):
    path = tmp_path / "a.safetensors"
    write_some_rows(path)
    whole = bytearray(path.read_bytes())
    rows = ROWS["one"].numpy().tobytes()
    at = whole.index(rows)
    whole[at : at + 12], whole[at + 12 : at + 24] = rows[12:24], rows[:12]
    path.write_bytes(whole)
    with pytest.raises(BrokenFileError, match="one does not fit its check sum"):
        read_rows(path, ("one",), 0, 1)
    assert torch.equal(read_rows(path, ("one",), 2, 2)["one"], ROWS["one"][2:])


def test_files_of_earlier_versions_are_told_apart_from_broken_ones(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({"a": torch.ones(2)}, path, metadata={HEADER: json.dumps({"format": 1})})
    with pytest.raises(UnsummedFileError, match="without check sums"):
        read_tensors(path)
    save_file({"a": torch.ones(2)}, path)
    with pytest.raises(BrokenFileError, match="header") as caught:
        read_tensors(path)
    assert not isinstance(caught.value, UnsummedFileError)
    with pytest.raises(FileNotFoundError):
        read_tensors(tmp_path / "absent")


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_numbers_that_are_not_finite_are_refused_by_name(tmp_path, number, dtype):
    tensors = TENSORS | {"layer": torch.tensor([1.0, number], dtype=dtype)}
    with pytest.raises(ValueError, match=r"a\.safetensors is not written: layer has values"):
        write_tensors(tmp_path / "a.safetensors", tensors, {})
    assert not list(tmp_path.iterdir())


def test_a_file_with_a_row_missing_is_not_there(tmp_path):
    with pytest.raises(ValueError, match="rows of two were not written"):  # noqa: SIM117
        with write_rows(tmp_path / "a.safetensors", LAYOUT, 4, {}) as writer:
            writer.write(0, {"one": ROWS["one"], "two": ROWS["two"][:3]})
    assert not list(tmp_path.iterdir())
