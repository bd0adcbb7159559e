"""Pixel metrics of one category's maps as they come, a few at a time, without the maps in memory.

`ExactMeter` keeps the maps on disk and computes what `compute_pixel_metrics` does. `StreamingMeter`
keeps a histogram, whatever the number of images, and computes an estimate between certain bounds.

Shapes: B images, H x W pixels.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fuzzyclip.evaluation.bounded_curves import HIGH, LOW, MIDDLE, Curves, Span, bound_aupro_steps
from fuzzyclip.evaluation.metrics import (
    AUPRO_STEPS,
    FineMaps,
    Floats,
    as_float32,
    as_floats,
    compute_ranking_metrics,
    join_weights,
    place_cuts,
    rank_in_place,
    weigh_mask,
)
from fuzzyclip.evaluation.score_histogram import Cells, ScoreHistogram, find_keys, raise_score
from fuzzyclip.method import Scale

#: Bounds are widened by this much, for the rounding of sums over many pixels, here and in the exact
#: metric.
ROUNDING = 1e-9


@dataclass(frozen=True)
class PixelResult:
    """Pixel metrics as fractions in [0, 1]; one that the pixels do not define is in none of these.

    Attributes:
        values: of each metric, exact or an estimate.
        low: what the exact value is at least.
        high: what it is at most.
    """

    values: dict[str, float] = field(default_factory=dict)
    low: dict[str, float] = field(default_factory=dict)
    high: dict[str, float] = field(default_factory=dict)


class PixelMeter(Protocol):
    """Takes the maps of one category and gives its pixel metrics."""

    def add(self, maps: ArrayLike, masks: ArrayLike) -> None:
        """Take maps (B, H, W) and masks (B, H, W), true where anomalous.

        Raises:
            ValueError: shapes differ, the maps' type is finer than float64, or a score is not
                finite. Nothing is taken then.
        """

    def compute(self) -> PixelResult:
        """Metrics of all that was taken so far; more may follow."""


class MapFile:
    """Maps of one size on disk while a category is scored, in the order in which they came.

    The file is plain floats in the machine's byte order, and gone once this is closed.
    """

    def __init__(
        self, path: Path, size: int, kind: type[np.float32 | np.float64] = np.float32
    ) -> None:
        """An empty file for maps (S, S) of a size, in a folder that exists; replaces what is there.

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
        """Number of maps."""
        return self._count

    def __iter__(self) -> Iterator[FineMaps]:
        """One map (S, S) after the other."""
        return (self._read(place, 1)[0] for place in range(self._count))

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

    def _place(self, index: int) -> int:
        """Where a map begins, in bytes."""
        return index * self.size**2 * self.kind.itemsize

    def _read(self, first: int, count: int) -> FineMaps:
        """Maps (count, S, S) from a place on."""
        maps = np.empty((count, self.size, self.size), dtype=self.kind)
        self._file.seek(self._place(first))
        rest = maps.reshape(-1).view(np.uint8).data
        while rest:
            got = self._file.readinto(rest)
            if not got:
                raise OSError(f"{self.path} ends too early")
            rest = rest[got:]
        return maps


class ExactMeter:
    """Metrics bit for bit as `compute_pixel_metrics` on all maps at once.

    Memory: scores and weights of anomalous pixels; in `compute`, one copy of all maps besides.
    """

    def __init__(self, file: MapFile, scale: Scale = Scale.PLAIN) -> None:
        """A meter of scores on a scale, whose maps go to an empty file that the caller closes.

        Raises:
            ValueError: the file holds maps.
        """
        if len(file):
            raise ValueError(f"{file.path} holds {len(file)} maps already")
        self._file, self._scale = file, scale
        self._hits: list[FineMaps] = []
        self._weights: list[Floats] = []
        self._images, self._regions = 0, 0

    def add(self, maps: ArrayLike, masks: ArrayLike) -> None:
        """As `PixelMeter.add`; maps must be of the file's size."""
        scores, truth = check_batch(maps, masks)
        if not len(scores):
            return
        self._file.append(scores)
        self._images += len(scores)
        for score, mask in zip(scores, truth, strict=True):
            weights, regions = weigh_mask(mask)
            self._hits.append(score[mask])
            self._weights.append(weights)
            self._regions += regions

    def compute(self) -> PixelResult:
        """As `PixelMeter.compute`; bounds are the values themselves.

        Raises:
            ValueError: another than this meter wrote to the file, or it is closed.
        """
        if len(self._file) != self._images:
            raise ValueError(f"{self._file.path} holds {len(self._file)} maps, not {self._images}")
        if not self._images:
            return PixelResult()
        hits, weights = np.concatenate(self._hits), join_weights(self._weights, self._regions)
        ranking = rank_in_place(self._file.read_all().reshape(-1), hits, weights)
        values = compute_ranking_metrics(ranking, self._scale)
        return PixelResult(values, dict(values), dict(values))


class StreamingMeter:
    """Metrics between certain bounds, in memory that does not grow with the number of images.

    Scores are known by their bin of `ScoreHistogram`. The estimates of AUROC, F1-max and
    AUPRO-std are the exact metrics of maps whose scores moved within their bin to a common one, by
    less than 2**-14 of themselves; the order of scores of different bins stays. The bounds hold for
    every order within the bins: those of AUROC differ by the share of pairs of a positive and a
    negative that share a bin. A bin of equal scores is exact. Scores of float64 are known as
    float32, and equal ones of those may differ.

    Attributes:
        histogram: of all scores so far; thresholds of summaries can be chosen from it.
        scale: of the scores.
    """

    def __init__(self, scale: Scale = Scale.PLAIN) -> None:
        self.histogram, self.scale = ScoreHistogram(), scale

    def add(self, maps: ArrayLike, masks: ArrayLike) -> None:
        """As `PixelMeter.add`; the size may change. Neither order nor split changes the result."""
        scores, truth = check_batch(maps, masks)
        for score, mask in zip(scores, truth, strict=True):
            weights, regions = weigh_mask(mask)
            self.histogram.add(score.reshape(-1), score[mask], weights, regions)

    def compute(self) -> PixelResult:
        """As `PixelMeter.compute`.

        `pixel_aupro` has the bounds 0 and 1 or nearly so where most scores share a bin; there it is
        given although the exact metric may be undefined.
        """
        cells = self.histogram.list_cells()
        if not cells.positives.any() or not cells.negatives.any():
            return PixelResult()
        bounds = _bound_curves(cells, self.histogram.regions)
        stepped = _bound_steps(cells, self.histogram, self.scale)
        if stepped is not None:
            bounds["pixel_aupro"] = stepped
        return PixelResult(
            values={name: float(np.clip(value, 0, 1)) for name, (_, value, _) in bounds.items()},
            low={name: max(low - ROUNDING, 0.0) for name, (low, _, _) in bounds.items()},
            high={name: min(high + ROUNDING, 1.0) for name, (_, _, high) in bounds.items()},
        )


def check_batch(maps: ArrayLike, masks: ArrayLike) -> tuple[FineMaps, NDArray[np.bool_]]:
    """Maps and masks (B, H, W) as floats and bool; a ValueError as `PixelMeter.add` raises it."""
    scores, truth = as_floats(maps), np.asarray(masks, dtype=bool)
    if scores.ndim != 3 or scores.shape != truth.shape:
        raise ValueError(f"maps {scores.shape} and masks {truth.shape} are not (B, H, W) alike")
    return scores, truth


def _bound_curves(cells: Cells, regions: int) -> dict[str, tuple[float, float, float]]:
    """Lower bound, estimate and upper bound of the metrics that need no thresholds."""
    fall = slice(None, None, -1)  # curves run from high scores to low ones
    tp, fp, covered = (
        np.append(0.0, np.cumsum(amounts[fall], dtype=np.float64))[None]
        for amounts in (cells.positives, cells.negatives, cells.coverage)
    )
    curves, pro = Curves(tp, fp, exact=cells.single[fall]), covered / regions
    ways: dict[str, Callable[[float], Floats]] = {
        "pixel_auroc": curves.compute_auroc,
        "pixel_ap": curves.compute_average_precision,
        "pixel_f1_max": curves.compute_f1_max,
        "pixel_aupro_std": lambda place: curves.compute_aupro_std(pro, place),
    }
    bounds = {}
    for name, compute in ways.items():
        low, value, high = (float(compute(place)[0]) for place in (LOW, MIDDLE, HIGH))
        bounds[name] = (low, min(max(value, low), high), high)
    return bounds


def _bound_steps(
    cells: Cells, histogram: ScoreHistogram, scale: Scale
) -> tuple[float, float, float] | None:
    """Lower bound, estimate and upper bound of the AUPRO of the field's steps."""
    cuts = place_cuts(*histogram.ends, AUPRO_STEPS, scale)
    near = cuts.astype(np.float32)
    keys = find_keys(np.where(near <= cuts, raise_score(near), near))
    slack = int(histogram.rounded)
    surely = np.searchsorted(cells.lowest, keys + slack)
    maybe = np.searchsorted(cells.highest, keys - slack)

    def span(amounts: NDArray[np.int64] | Floats, total: int) -> Span:
        """Share of the amounts (C,) above each step."""
        above = np.append(np.cumsum(amounts[::-1])[::-1], 0) / total
        return Span(low=above[surely], high=above[maybe])

    negatives = span(cells.negatives, int(cells.negatives.sum()))
    return bound_aupro_steps(negatives, span(cells.coverage, histogram.regions))
