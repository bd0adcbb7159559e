"""Room for pixels: threads that decode large images at once wait for each other.

An image takes up to 14 bytes a pixel while it is decoded and turned to RGB, so that workers side by
side would need as many times the largest image. Here all threads of a process share one room: small
images fill it together, and one that is larger than all of it is decoded alone.
"""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

#: Pixels that are decoded at once. Four images of 16 megapixels, or a larger one by itself.
PIXELS_AT_ONCE = 2**26


class Room:
    """So many pixels at once, first come, first served."""

    def __init__(self, pixels: int = PIXELS_AT_ONCE) -> None:
        self.pixels = pixels
        self._taken = 0
        self._waiting: deque[object] = deque()
        self._change = threading.Condition()

    @contextmanager
    def take(self, pixels: int) -> Iterator[None]:
        """Hold room for an image until the block ends; waits for it.

        A thread that holds some already must not take more: two that did would wait forever.
        """
        wanted, ticket = min(pixels, self.pixels), object()
        with self._change:
            self._waiting.append(ticket)
            try:
                self._change.wait_for(
                    lambda: self._waiting[0] is ticket and self._taken + wanted <= self.pixels
                )
                self._taken += wanted
            finally:
                self._waiting.remove(ticket)
                self._change.notify_all()
        try:
            yield
        finally:
            with self._change:
                self._taken -= wanted
                self._change.notify_all()


#: That of this process.
ROOM = Room()
