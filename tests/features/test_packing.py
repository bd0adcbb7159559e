"""Types of stored tokens, and files that are written row by row."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from properties import try_examples
from safetensors.torch import load_file

from fuzzyclip.features.shards import (
    DTYPES,
    LEVELS,
    PATCH_TOKENS,
    SCALES,
    count_bytes,
    pack,
    unpack,
)
from fuzzyclip.utils.tensor_files import read_header, write_rows


@given(
    st.lists(st.floats(-(2.0**99), 2.0**99, width=32), min_size=4, max_size=4),
    st.sampled_from(["float32", "bfloat16", "int8"]),
)
def test_what_is_packed_comes_back_within_its_type(values, dtype):
    tokens = torch.tensor([values])
    back = unpack(pack(tokens, dtype))
    assert back.dtype == torch.float32
    largest = tokens.abs().max()
    bound = {"float32": 0, "bfloat16": 2**-8, "int8": 0.501 / LEVELS}[dtype] * largest
    # int8's scale cannot be smaller than the least normal number
    assert ((back - tokens).abs() <= bound + torch.finfo(torch.float32).tiny * LEVELS).all()


def test_int8_by_hand():
    tokens = torch.tensor([[-254.0, 127.0, 1.0, 0.9], [0.0, 0.0, 0.0, 0.0]])
    packed = pack(tokens, "int8")
    assert packed[PATCH_TOKENS].tolist() == [
        [-127, 64, 0, 0],
        [0, 0, 0, 0],
    ]  # 63.5 goes to the even
    assert packed[SCALES][0] == 2.0
    assert unpack(packed)[0].tolist() == [-254.0, 128.0, 0.0, 0.0]
    assert unpack(packed)[1].tolist() == [0.0] * 4


def test_float16_that_overflows_is_refused():
    with pytest.raises(ValueError, match="to bfloat16"):
        pack(torch.tensor([[70000.0]]), "float16")


@pytest.mark.parametrize("dtype", DTYPES)
def test_bytes_are_those_of_the_tensors(dtype):
    packed = pack(torch.randn(3, 5, 16), dtype)
    assert count_bytes(15, 16, dtype) == sum(tensor.nbytes for tensor in packed.values())


@given(st.integers(1, 9), st.integers(1, 4), st.sampled_from(list(DTYPES)))
@try_examples(30)
def test_rows_written_in_any_portions_read_back_by_the_library(tmp_path_factory, rows, step, dtype):
    path = tmp_path_factory.mktemp("rows") / "shard.safetensors"
    one = torch.randn(rows, 3)
    two = torch.randn(rows, 2, 5).to(DTYPES[dtype])
    layout = {"one": (torch.float32, (3,)), "two": (DTYPES[dtype], (2, 5))}
    with write_rows(path, layout, rows, {"b": 1, "a": "ü"}) as writer:
        assert not path.exists()
        for first in reversed(range(0, rows, step)):
            stop = first + step
            writer.write(first, {"one": one[first:stop], "two": two[first:stop]})
    back = load_file(path)
    assert torch.equal(back["one"], one)
    assert torch.equal(back["two"], two)
    assert read_header(path) == {"a": "ü", "b": 1}


def test_a_file_that_fails_half_way_is_not_there(tmp_path):
    layout = {"one": (torch.float32, (3,))}
    with pytest.raises(KeyboardInterrupt):  # noqa: SIM117, PT012
        with write_rows(tmp_path / "shard.safetensors", layout, 2, {}) as writer:
            writer.write(0, {"one": torch.ones(1, 3)})
            raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())
