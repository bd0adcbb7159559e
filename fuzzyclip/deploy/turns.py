"""Who is next: one image at a time, in the order of asking, and no more requests than can wait."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class BusyError(RuntimeError):
    """More is asked for than can be answered in time; the same may be asked again later."""


class Turns:
    """Turns of requests that come from many threads.

    A request is let in first, or refused at once; for each of its images it then takes a turn.
    """

    def __init__(self, waiting: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Let in so many requests besides the one that is answered."""
        self.waiting, self.now = waiting, clock
        self._inside = 0
        self._queue: deque[object] = deque()
        self._change = threading.Condition()

    @contextmanager
    def enter(self) -> Iterator[None]:
        """Let a request in until the block ends.

        Raises:
            BusyError: as many wait already as may; says what to do.
        """
        with self._change:
            if self._inside > self.waiting:
                raise BusyError(
                    f"the server is busy: {self._inside - 1} requests wait already; send it again "
                    "in a few seconds (FUZZYCLIP_MAX_WAITING is their limit)"
                )
            self._inside += 1
        try:
            yield
        finally:
            with self._change:
                self._inside -= 1

    @contextmanager
    def take(self, until: float) -> Iterator[None]:
        """One turn, until the block ends; waits for those who asked before.

        Args:
            until: when waiting ends, by the clock.

        Raises:
            BusyError: it has not come by then.
        """
        ticket = object()
        with self._change:
            self._queue.append(ticket)
            try:
                first = self._change.wait_for(
                    lambda: self._queue[0] is ticket, timeout=max(0.0, until - self.now())
                )
                if not first or self.now() > until:
                    raise BusyError("its turn has not come in time; send it again, alone")
            except BaseException:
                self._queue.remove(ticket)
                self._change.notify_all()
                raise
        try:
            yield
        finally:
            with self._change:
                self._queue.popleft()
                self._change.notify_all()
