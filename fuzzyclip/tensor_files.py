"""Safetensors files whose JSON header says what they are."""

import json
import math
import struct
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from fuzzyclip.files import name_other_content, replace_file

if TYPE_CHECKING:  # stages that draw tables read headers, and need no PyTorch for it
    import torch
    from torch import Tensor

#: The one header field: several would be written in an order that changes from run to run.
HEADER = "fuzzyclip"
#: Bytes at most of the table at the begin of a safetensors file, as the library has it.
MAX_TABLE = 100_000_000
#: Safetensors' names of types, those that `write_rows` writes.
TYPE_NAMES = {
    "torch.float32": "F32",
    "torch.float16": "F16",
    "torch.bfloat16": "BF16",
    "torch.int8": "I8",
}


def write_tensors(path: Path, tensors: Mapping[str, "Tensor"], header: Mapping[str, Any]) -> None:
    """Safetensors with a JSON header; equal content gives equal bytes."""
    from safetensors.torch import save_file

    ready = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replace_file(path) as temporary:
        save_file(ready, temporary, metadata={HEADER: _to_json(header)})


def read_header(metadata: Mapping[str, str] | None) -> dict[str, Any]:
    """The JSON header of a safetensors file that `write_tensors` wrote; empty if it has none."""
    header: dict[str, Any] = json.loads((metadata or {}).get(HEADER, "{}"))
    return header


def describe_fault(path: Path) -> str:
    """What a file of tensors from elsewhere is instead, and the way to mend it.

    Args:
        path: a safetensors file or a PyTorch checkpoint, by its content.

    Returns:
        A sentence on a pointer, a page or a download that broke off; empty where none is seen, as
        for every whole file.
    """
    if found := name_other_content(path):
        return found
    with path.open("rb") as file:
        start = file.read(9)
    half = ""
    if start.startswith(b"PK\3\4") and not zipfile.is_zipfile(path):
        half = "the end of this zip file is missing"
    elif start[8:] == b"{":
        size, promised = path.stat().st_size, _measure_safetensors(path)
        if size < promised:
            half = f"its header promises {promised:,} bytes, and it has {size:,}"
    return f"half a download: {half}; fetch it again" if half else ""


def _measure_safetensors(path: Path) -> int:
    """Bytes that the begin of a safetensors file promises; 0 if that is none."""
    with path.open("rb") as file:
        length = struct.unpack("<Q", file.read(8))[0]
        if length > MAX_TABLE:
            return 0
        text = file.read(length)
    end = 8 + int(length)
    if len(text) < length:
        return end
    try:
        entries = json.loads(text).items()
        ends = (int(one["data_offsets"][1]) for name, one in entries if name != "__metadata__")
        return end + max(ends, default=0)
    except (ValueError, KeyError, TypeError, AttributeError):
        return 0


class RowWriter:
    """A file of tensors with one common first axis, written a few rows at a time.

    The library's own writer wants all tensors at once; this one holds none, so that a file may be
    larger than memory. The format is a length, a JSON table of types, shapes and places, and the
    tensors one after the other (https://github.com/huggingface/safetensors#format).
    """

    def __init__(
        self,
        file: BinaryIO,
        layout: Mapping[str, tuple["torch.dtype", Sequence[int]]],
        rows: int,
        header: Mapping[str, Any],
    ) -> None:
        """Write the table and reserve the space.

        Args:
            file: open for writing, at its begin.
            layout: type and shape of one row of each tensor, widest type first, so that every
                tensor begins at a multiple of its type's size.
            rows: of each tensor.
            header: as in `write_tensors`.
        """
        table: dict[str, Any] = {"__metadata__": {HEADER: _to_json(header)}}
        self._file, self._places, end = file, {}, 0
        for name, (dtype, shape) in layout.items():
            size = dtype.itemsize * math.prod(shape)
            begin, end = end, end + rows * size
            self._places[name] = (begin, size)
            table[name] = {
                "dtype": TYPE_NAMES[str(dtype)],
                "shape": [rows, *shape],
                "data_offsets": [begin, end],
            }
        text = _to_json(table).encode()
        text += b" " * (-len(text) % 8)
        file.write(struct.pack("<Q", len(text)) + text)
        self._start = 8 + len(text)
        file.truncate(self._start + end)

    def write(self, first: int, tensors: Mapping[str, "Tensor"]) -> None:
        """Rows from `first` on of every tensor."""
        import torch

        for name, tensor in tensors.items():
            begin, size = self._places[name]
            self._file.seek(self._start + begin + first * size)
            flat = tensor.contiguous().view(-1).view(torch.uint8)
            self._file.write(flat.numpy().data)


@contextmanager
def write_rows(
    path: Path,
    layout: Mapping[str, tuple["torch.dtype", Sequence[int]]],
    rows: int,
    header: Mapping[str, Any],
) -> Iterator[RowWriter]:
    """A `RowWriter` whose file takes its place when the block ends without an error."""
    with replace_file(path) as temporary, temporary.open("wb") as file:
        yield RowWriter(file, layout, rows, header)


def _to_json(data: Mapping[str, Any]) -> str:
    return json.dumps(data, sort_keys=True)
