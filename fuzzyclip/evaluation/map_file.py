"""Anomaly maps on disk while a category is scored, so that memory need not hold them."""

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

Maps = NDArray[np.float32]
#: Maps as metrics take them: log-odds of sums are float64, see `fuzzyclip.method.efa.join_planes`.
FineMaps = NDArray[np.floating]


def as_floats(maps: ArrayLike) -> FineMaps:
    """Maps of any shape as float64 where they are that, else as `as_float32`; see there."""
    given = np.asarray(maps)
    if given.dtype != np.float64:
        return as_float32(given)
    if not np.isfinite(given).all():
        raise ValueError("maps hold values that are not finite")
    return given


def as_float32(maps: ArrayLike) -> Maps:
    """Maps of any shape in the type that is kept, without a change of any score.

    Raises:
        ValueError: the scores' type is finer than float32, or a score is not finite.
    """
    given = np.asarray(maps)
    if not np.can_cast(given.dtype, np.float32):
        raise ValueError(f"maps of {given.dtype} would be rounded: convert them to float32 first")
    if not np.isfinite(given).all():
        raise ValueError("maps hold values that are not finite")
    return given.astype(np.float32, copy=False)


class MapFile:
    """Maps of one size in the order in which they came; a context manager.

    The file is plain floats in the machine's byte order, and gone once this is closed.
    """

    def __init__(
        self, path: Path, size: int, kind: type[np.float32 | np.float64] = np.float32
    ) -> None:
        """An empty file; one that is there already is replaced.

        Args:
            path: of the file; its folder must exist.
            size: pixels of a map's side, S.
            kind: of the floats.

        Raises:
            ValueError: the size is not positive.
        """
        if size < 1:
            raise ValueError(f"maps of size {size}")
        self.path, self.size, self.kind = path, size, np.dtype(kind)
        self._count = 0
        # Without a buffer: what a full disk refuses must not come back on close.
        self._file = path.open("w+b", buffering=0)

    def append(self, maps: ArrayLike) -> None:
        """Add maps (B, S, S) at the end.

        Raises:
            ValueError: another shape, a type finer than the file's, a score that is not finite, or
                the file is closed. An error leaves the maps of before.
        """
        given = as_float32(maps) if self.kind == np.float32 else as_floats(maps)
        ready = np.ascontiguousarray(given, dtype=self.kind)
        if ready.ndim != 3 or ready.shape[1:] != (self.size, self.size):
            raise ValueError(f"maps {ready.shape} are not (B, {self.size}, {self.size})")
        self._file.seek(self._place(self._count))
        rest = ready.reshape(-1).view(np.uint8).data
        while rest:  # the system may take a part only
            rest = rest[self._file.write(rest) :]
        self._count += len(ready)

    def __len__(self) -> int:
        """How many maps."""
        return self._count

    def __getitem__(self, index: int) -> FineMaps:
        """Map (S, S) at a place, from the end where negative; an IndexError if there is none."""
        place = index + self._count if index < 0 else index
        if not 0 <= place < self._count:
            raise IndexError(f"map {index} of {self._count}")
        found: FineMaps = self._read(place, 1)[0]
        return found

    def __iter__(self) -> Iterator[FineMaps]:
        """One map (S, S) after the other."""
        return (self[index] for index in range(len(self)))

    def read_all(self) -> FineMaps:
        """A copy of all maps in memory, (N, S, S)."""
        return self._read(0, self._count)

    def view_all(self) -> FineMaps:
        """All maps (N, S, S) as a read-only view of the file, `np.memmap`; valid until closed."""
        if self._file.closed:
            raise ValueError(f"{self.path} is closed")
        shape = (self._count, self.size, self.size)
        if not self._count:  # nothing to map
            return np.empty(shape, dtype=self.kind)
        return np.memmap(self.path, dtype=self.kind, mode="r", shape=shape)

    def close(self) -> None:
        """Remove the file; doing so twice is harmless."""
        if not self._file.closed:
            self._file.close()
            self.path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _place(self, index: int) -> int:
        """Where a map begins, in bytes."""
        return index * self.size**2 * self.kind.itemsize

    def _read(self, first: int, count: int) -> FineMaps:
        """Maps (count, S, S) from one on."""
        maps = np.empty((count, self.size, self.size), dtype=self.kind)
        self._file.seek(self._place(first))
        rest = maps.reshape(-1).view(np.uint8).data
        while rest:
            got = self._file.readinto(rest)
            if not got:
                raise OSError(f"{self.path} ends too early")
            rest = rest[got:]
        return maps
