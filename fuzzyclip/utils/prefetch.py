"""Long loops: the next pieces of work done in threads, memory given back in between."""

import ctypes
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


def prefetch(
    work: Callable[[A], B], items: Iterable[A], *, ahead: int, workers: int = 1
) -> Iterator[B]:
    """Results of `work` in the order of `items`, at most `ahead` of them begun before their turn.

    Decoding, reading and copying leave the interpreter's lock, so that threads do. An error comes
    out where its result would have; what was begun is awaited, the rest is never begun.

    Args:
        work: called in threads; must not depend on what it did before.
        items: what to work on; read no further than `ahead`.
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


def release_memory() -> None:
    """Return what is freed but still held by the C library; does nothing where it has no such call.

    glibc keeps freed arrays of a few megabytes for later ones, and over a long loop the rests
    between them add up to hundreds of megabytes that hold nothing. Costs a few milliseconds.
    """
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "malloc_trim"):
        library.malloc_trim(0)
