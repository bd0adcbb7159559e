"""Giving memory back to the system between pieces of work of one size."""

import ctypes
import sys


def release_memory() -> None:
    """Return what is freed but still held by the C library; does nothing where it has no such call.

    glibc keeps freed arrays of a few megabytes for later ones, and over a long loop the rests
    between them add up to hundreds of megabytes that hold nothing. Costs a few milliseconds.
    """
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "malloc_trim"):
        library.malloc_trim(0)
