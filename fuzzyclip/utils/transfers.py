"""Copies between host and device that wait for nothing; on the CPU nothing is copied.

On CUDA a copy only runs beside the computation from or to page-locked memory, and on a stream of
its own.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """A host tensor on the device, through page-locked memory where that makes the copy free."""
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


class Fetcher:
    """Brings tensors of one device to the host while the device goes on computing."""

    def __init__(self, device: torch.device) -> None:
        create: Any = torch.cuda.Stream
        self._stream = create(device) if device.type == "cuda" else None

    def fetch(self, tensor: Tensor) -> Callable[[], Tensor]:
        """Start a copy; the result waits for its end and gives the tensor on the host."""
        if self._stream is None:
            host = tensor.cpu()
            return lambda: host
        target = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        self._stream.wait_stream(torch.cuda.current_stream(tensor.device))
        with torch.cuda.stream(self._stream):
            target.copy_(tensor, non_blocking=True)
            tensor.record_stream(self._stream)  # its memory is not given away before the copy ends
            done = self._stream.record_event()

        def wait() -> Tensor:
            done.synchronize()
            return target

        return wait
