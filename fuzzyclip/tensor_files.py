"""Safetensors files whose JSON header says what they are."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from fuzzyclip.files import replace_file

#: The one header field: several would be written in an order that changes from run to run.
HEADER = "fuzzyclip"


def write_tensors(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Safetensors with a JSON header; equal content gives equal bytes."""
    ready = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replace_file(path) as temporary:
        save_file(ready, temporary, metadata={HEADER: json.dumps(header, sort_keys=True)})


def read_header(metadata: Mapping[str, str] | None) -> dict[str, Any]:
    """The JSON header of a safetensors file that `write_tensors` wrote; empty if it has none."""
    header: dict[str, Any] = json.loads((metadata or {}).get(HEADER, "{}"))
    return header
