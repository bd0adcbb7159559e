"""The tensors of a TorchScript archive, taken without running or compiling the code in it.

OpenAI's weights are such archives. `torch.load` with `weights_only=True` refuses them, and
`torch.jit.load`, which PyTorch is about to drop, compiles their code: safe for files of a known
checksum alone. Neither is needed for tensors: the archive is a zip file whose `data.pkl` says where
in it each one lies. The unpickler here knows tensors and nothing else, whoever made the archive.
"""

import io
import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

#: Modules at most, one that is in several counted in each; a large CLIP has some hundreds.
MOST = 100_000
#: Names of storages in an archive, and the types of their numbers.
STORAGES = {
    "BFloat16Storage": torch.bfloat16,
    "BoolStorage": torch.bool,
    "ByteStorage": torch.uint8,
    "CharStorage": torch.int8,
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "ShortStorage": torch.int16,
}


def is_torchscript(path: Path) -> bool:
    """True for a TorchScript archive: the zip file of a module with its constants."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(_is_record(name, "constants.pkl") for name in archive.namelist())


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """Parameters and buffers under the names that the module's `state_dict` has.

    Raises:
        pickle.UnpicklingError: the archive holds objects other than modules and tensors.
        zipfile.BadZipFile: a record is damaged.
    """
    with zipfile.ZipFile(path) as archive:
        (index,) = (name for name in archive.namelist() if _is_record(name, "data.pkl"))
        reader = _TensorReader(archive, index)
        return dict(_collect(reader.load(), reader.module))


def _is_record(name: str, record: str) -> bool:
    """Records lie in one folder, which has the name that the archive was saved under."""
    return name.split("/")[1:] == [record]


def _collect(module: object, kind: type) -> Iterator[tuple[str, Tensor]]:
    """Tensors of a module and of those inside it, under their names."""
    left, seen = [("", module)], 0
    while left:
        prefix, inside = left.pop()
        seen += 1
        if seen > MOST:
            raise pickle.UnpicklingError("modules inside of one another without end")
        for name, value in vars(inside).items():
            if isinstance(value, Tensor):
                yield prefix + name, value
            elif isinstance(value, kind):
                left.append((f"{prefix}{name}.", value))


class _TensorReader(pickle.Unpickler):
    """Reads an archive's objects: modules as bare holders of attributes, and tensors."""

    def __init__(self, archive: zipfile.ZipFile, index: str) -> None:
        super().__init__(io.BytesIO(archive.read(index)))
        self.module = type("Module", (), {})  # its own: a hostile archive could change a shared one
        self._archive = archive
        self._folder = index.removesuffix("data.pkl") + "data/"
        self._storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Stand-in for a name in the archive; nothing is imported."""
        if module.split(".")[0] == "__torch__":
            return self.module
        match module, name:
            case "torch", _ if name in STORAGES:
                return STORAGES[name]
            case "torch._utils", "_rebuild_tensor_v2":
                return self._rebuild
            case "torch.jit._pickle", _:  # lists of numbers
                return self._skip
            case "collections", "OrderedDict":  # a tensor's hooks: empty
                return OrderedDict
        raise pickle.UnpicklingError(f"{module}.{name} is neither module nor tensor")

    def persistent_load(self, pid: Any) -> Tensor:
        """The numbers of a storage, flat. Its device is where it was saved; here it is the CPU."""
        _, dtype, key, _, numel = pid
        if key not in self._storages:
            record = self._folder + key
            if self._archive.getinfo(record).file_size != numel * dtype.itemsize:
                raise pickle.UnpicklingError(f"{record} is not of the size that is said of it")
            content = bytearray(self._archive.read(record))
            self._storages[key] = (
                torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)
            )
        return self._storages[key]

    def _rebuild(
        self, storage: Tensor, offset: int, size: Sequence[int], stride: Sequence[int], *_: object
    ) -> Tensor:
        if math.prod(size) > storage.numel():  # one number many times: endless, once it is copied
            raise pickle.UnpicklingError("a tensor has more numbers than are stored of it")
        return torch.as_strided(storage, size, stride, offset)  # compares with the storage's size

    def _skip(self, *_: object) -> None:
        return None
