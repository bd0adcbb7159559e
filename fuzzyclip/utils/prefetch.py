"""Long loops: work done ahead in threads, copies that wait for nothing, memory given back.

On CUDA a copy runs beside the computation only from or to page-locked memory, and on a stream of
its own; on the CPU nothing is copied.
"""

import ctypes
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:  # whoever sends a tensor has PyTorch; whoever prefetches need not
    import torch
    from torch import Tensor

A = TypeVar("A")
B = TypeVar("B")


def prefetch(
    work: Callable[[A], B], items: Iterable[A], *, ahead: int, workers: int = 1
) -> Generator[B, None, None]:
    """Results of `work` in the order of `items`, at most `ahead` of them begun before their turn.

    Decoding, reading and copying leave the interpreter's lock, so that threads do. An error comes
    out where its result would have; what was begun is awaited, the rest is never begun.

    Args:
        work: called in threads; must not depend on what it did before.
        items: read no further than `ahead`.
        ahead: bound of the memory: finished results that wait, and those in work.
        workers: threads.
    """
    source = iter(items)
    with ThreadPoolExecutor(workers) as pool:
        begun: deque[Future[B]] = deque(pool.submit(work, item) for item in islice(source, ahead))
        try:
            while begun:
                result = begun.popleft().result()
                begun.extend(pool.submit(work, item) for item in islice(source, 1))
                yield result
        finally:
            for future in begun:
                future.cancel()


def send(tensor: "Tensor", device: "torch.device") -> "Tensor":
    """A host tensor on the device, through page-locked memory where that makes the copy free."""
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


class Fetcher:
    """Brings tensors of one device to the host while the device goes on computing."""

    def __init__(self, device: "torch.device") -> None:
        import torch

        create: Any = torch.cuda.Stream
        self._stream = create(device) if device.type == "cuda" else None

    def fetch(self, tensor: "Tensor") -> "Callable[[], Tensor]":
        """Start a copy; the result waits for its end and gives the tensor on the host."""
        if self._stream is None:
            host = tensor.cpu()
            return lambda: host
        import torch

        target = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        self._stream.wait_stream(torch.cuda.current_stream(tensor.device))
        with torch.cuda.stream(self._stream):
            target.copy_(tensor, non_blocking=True)
            tensor.record_stream(self._stream)  # its memory is not given away before the copy ends
            done = self._stream.record_event()

        def wait() -> "Tensor":
            done.synchronize()
            return target

        return wait


def release_memory() -> None:
    """Return what is freed but still held by the C library; does nothing where it has no such call.

    glibc keeps freed arrays of a few megabytes for later ones, and over a long loop the rests
    between them add up to hundreds of megabytes that hold nothing. Costs a few milliseconds.
    """
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "malloc_trim"):
        library.malloc_trim(0)
