"""Safetensors files whose JSON header says what they are and holds check sums of what is in them.

Every reader here compares the sums of what it reads: a bit that the disk has lost is an error that
names the file, never another number. A sum is a CRC-32, seven gigabytes a second where SHA-256 does
two: what it guards against is chance, not malice. It covers type and shape too.
"""

import json
import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from fuzzyclip.utils.files import BrokenFileError, UnsummedFileError, compute_crc, replace_file
from fuzzyclip.utils.json_text import parse_json
from fuzzyclip.utils.scratch import give_usual_mode

if TYPE_CHECKING:  # stages that draw tables read headers, and need no PyTorch for it
    import torch
    from torch import Tensor

#: The one header field: several would be written in an order that changes from run to run.
HEADER = "fuzzyclip"
#: Safetensors' names of types, those that `write_rows` writes.
TYPE_NAMES = {
    "torch.float32": "F32",
    "torch.float16": "F16",
    "torch.bfloat16": "BF16",
    "torch.int8": "I8",
}

#: Check sums by tensor: one of the whole, or one a row.
Sums = Mapping[str, str | list[str]]


def write_tensors(path: Path, tensors: Mapping[str, "Tensor"], header: Mapping[str, Any]) -> None:
    """Safetensors with a JSON header; equal content gives equal bytes.

    Raises:
        ValueError: a tensor has values that are not finite.
    """
    from safetensors.torch import save_file

    ready = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    for name, tensor in ready.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ValueError(f"{path} is not written: {name} has values that are not finite")
    sums = {name: _sum(tensor) for name, tensor in ready.items()}
    with replace_file(path) as temporary:
        save_file(ready, temporary, metadata={HEADER: _seal(header, sums)})
        give_usual_mode(temporary)


def read_tensors(path: Path) -> tuple[dict[str, "Tensor"], dict[str, Any]]:
    """All tensors and the header of a file of `write_tensors` or `write_rows`.

    Raises:
        BrokenFileError: the file does not hold what was written.
        UnsummedFileError: it has no check sums.
        FileNotFoundError: it is not there.
    """
    return _read_all(path, "pt")


def read_arrays(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """`read_tensors` without PyTorch."""
    return _read_all(path, "numpy")


def read_header(path: Path) -> dict[str, Any]:
    """The header alone; errors as of `read_tensors`."""
    with _open(path, "numpy") as opened:
        return opened.header


def check_tensors(path: Path) -> dict[str, Any]:
    """Read a file to its end and keep nothing but the header; errors as of `read_tensors`."""
    with _open(path, "pt") as opened:
        for name in opened.sums:
            opened.read(name)
        return opened.header


def read_rows(path: Path, names: Sequence[str], first: int, count: int) -> dict[str, "Tensor"]:
    """Some rows of those named tensors that a file of `write_rows` has; errors as above."""
    with _open(path, "pt") as opened:
        return {name: opened.read(name, first, count) for name in names if name in opened.sums}


def _read_all(path: Path, framework: Literal["pt", "numpy"]) -> tuple[dict[str, Any], Any]:
    with _open(path, framework) as opened:
        return {name: opened.read(name) for name in opened.sums}, opened.header


class _Opened(NamedTuple):
    """A file whose header is whole."""

    path: Path
    file: Any
    header: dict[str, Any]
    sums: Sums

    def read(self, name: str, first: int = 0, count: int | None = None) -> Any:
        """A tensor, or some rows of it, compared with the sums."""
        sums = self.sums[name]
        if isinstance(sums, str):
            tensor = self.file.get_tensor(name)
            whole = _sum(tensor) == sums
        else:
            stop = len(sums) if count is None else first + count
            tensor = self.file.get_slice(name)[first:stop]
            whole = [_sum(row) for row in tensor] == sums[first:stop]
        if not whole:
            raise BrokenFileError(self.path, f"{name} does not fit its check sum")
        return tensor


@contextmanager
def _open(path: Path, framework: Literal["pt", "numpy"]) -> Iterator[_Opened]:
    try:
        with safe_open(str(path), framework=framework) as file:
            header, sums = _unseal(path, (file.metadata() or {}).get(HEADER, ""))
            if set(file.keys()) != set(sums):
                raise BrokenFileError(path, "its tensors are not those that were written")
            for name, rows in sums.items():
                shape = file.get_slice(name).get_shape()
                if isinstance(rows, list) and [len(rows)] != shape[:1]:
                    raise BrokenFileError(path, f"{name} has another number of rows than sums")
            yield _Opened(path, file, header, sums)
    except SafetensorError as error:
        raise BrokenFileError(path, f"not readable as safetensors ({error})") from error


def _sum(tensor: Any) -> str:
    """Check sum of a tensor of PyTorch, or of the same as an array."""
    kind = str(tensor.dtype).removeprefix("torch.")
    return compute_crc(f"{kind} {list(tensor.shape)}".encode(), _view_bytes(tensor).data)


def _view_bytes(tensor: Any) -> NDArray[np.uint8]:
    """The bytes of a tensor or array, (n,)."""
    if isinstance(tensor, np.ndarray | np.generic):
        return np.ascontiguousarray(tensor).reshape(-1).view(np.uint8)
    import torch

    flat: NDArray[np.uint8] = tensor.contiguous().view(-1).view(torch.uint8).numpy()
    return flat


def _seal(header: Mapping[str, Any], sums: Sums) -> str:
    """Header and sums as they stand in the file: JSON after its own check sum."""
    text = _to_json({"header": header, "sums": sums})
    return f"{compute_crc(text.encode())} {text}"


def _unseal(path: Path, sealed: str) -> tuple[dict[str, Any], Sums]:
    """The content that `_seal` sealed."""
    crc, _, text = sealed.partition(" ")
    if crc != compute_crc(text.encode()):
        if _is_json(sealed):  # the header of an earlier version
            raise UnsummedFileError(path)
        raise BrokenFileError(path, "its header does not fit its check sum")
    try:
        content = parse_json(text)
        header, sums = content["header"], content["sums"]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise BrokenFileError(path, f"no header is in it ({error})") from error
    tables = isinstance(header, dict) and isinstance(sums, dict)
    if not tables or not all(map(_is_sum, sums.values())):
        raise BrokenFileError(path, "its header has no check sums of tensors")
    return header, sums


def _is_sum(value: Any) -> bool:
    """True of a check sum, and of a list of them."""
    rows = value if isinstance(value, list) else [value]
    return all(isinstance(each, str) for each in rows)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


class RowWriter:
    """A file of tensors with one common first axis, written a few rows at a time.

    The library's own writer wants all tensors at once; this one holds none, so that a file may be
    larger than memory. The format is a length, a JSON table of types, shapes and places, and the
    tensors one after the other (https://github.com/huggingface/safetensors#format). The table comes
    last, with a check sum of each row of each tensor: rows are read alone, too.
    """

    def __init__(
        self,
        file: BinaryIO,
        layout: Mapping[str, tuple["torch.dtype", Sequence[int]]],
        rows: int,
        header: Mapping[str, Any],
    ) -> None:
        """Reserve the space.

        Args:
            file: open for writing, at its begin.
            layout: type and shape of one row of each tensor, widest type first, so that every
                tensor begins at a multiple of its type's size.
            rows: of each tensor.
            header: as in `write_tensors`.
        """
        self._file, self._header = file, header
        self._sums: dict[str, list[str]] = {name: [""] * rows for name in layout}
        self._table: dict[str, Any] = {}
        self._places: dict[str, tuple[int, int]] = {}
        end = 0
        for name, (dtype, shape) in layout.items():
            size = dtype.itemsize * math.prod(shape)
            begin, end = end, end + rows * size
            self._places[name] = (begin, size)
            self._table[name] = {
                "dtype": TYPE_NAMES[str(dtype)],
                "shape": [rows, *shape],
                "data_offsets": [begin, end],
            }
        self._start = len(self._describe({name: ["0" * 8] * rows for name in layout}))
        file.truncate(self._start + end)

    def write(self, first: int, tensors: Mapping[str, "Tensor"]) -> None:
        """Rows from `first` on of every tensor."""
        for name, tensor in tensors.items():
            begin, size = self._places[name]
            self._file.seek(self._start + begin + first * size)
            self._file.write(_view_bytes(tensor).data)
            self._sums[name][first : first + len(tensor)] = map(_sum, tensor)

    def finish(self) -> None:
        """Write the table.

        Raises:
            ValueError: a row was never written.
        """
        if missing := [name for name, sums in self._sums.items() if "" in sums]:
            raise ValueError(f"rows of {', '.join(missing)} were not written")
        self._file.seek(0)
        self._file.write(self._describe(self._sums))

    def _describe(self, sums: Sums) -> bytes:
        """The table with its length, as long with any sums."""
        text = _to_json({"__metadata__": {HEADER: _seal(self._header, sums)}} | self._table)
        padded = text.encode() + b" " * (-len(text) % 8)
        return struct.pack("<Q", len(padded)) + padded


@contextmanager
def write_rows(
    path: Path,
    layout: Mapping[str, tuple["torch.dtype", Sequence[int]]],
    rows: int,
    header: Mapping[str, Any],
) -> Iterator[RowWriter]:
    """A `RowWriter` whose file takes its place when the block ends without an error."""
    with replace_file(path) as temporary, temporary.open("wb") as file:
        writer = RowWriter(file, layout, rows, header)
        yield writer
        writer.finish()


def _to_json(data: Mapping[str, Any]) -> str:
    return json.dumps(data, sort_keys=True, allow_nan=False)
