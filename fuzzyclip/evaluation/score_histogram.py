"""Counts of scores, to 2**-14 of themselves, in memory that does not grow with the images.

The bit pattern of a float32, its magnitude inverted where the sign is set, is an integer in the
order of the scores; neighbouring floats have neighbouring integers, their keys. A bin is all keys
with the same upper bits: 512 floats of one sign and one octave, 2**14 bins an octave, the same for
both signs, so that no bin reaches from a finite score to infinity. Two scores of one bin therefore
differ by less than 2**-14 of the smaller one's magnitude, or, below 2**-126 where floats lie
evenly, by less than 2**-140.

Shapes: n pixels, p of them anomalous; C cells, which are the bins that hold a score.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fuzzyclip.evaluation.metrics import Floats

#: Lower bits of a key that a bin leaves open.
OPEN_BITS = 9
#: Bins of a page, one octave of one sign.
PAGE_BITS = 14
PAGE_BINS = 1 << PAGE_BITS
#: Pages of all finite scores fit between -FIRST_PAGE and FIRST_PAGE.
FIRST_PAGE = 256
#: Coverage is kept in these parts of a region: few enough bits for sums without rounding, up to
#: 2**13 regions in one bin, so that the order of images does not matter.
COVERAGE_PART = 2.0**-40
#: Bits of a float32 without its sign.
MAGNITUDE = np.int32(0x7FFFFFFF)

Keys = NDArray[np.int32]
Scores = NDArray[np.floating]
Places = NDArray[np.intp]


def find_keys(scores: ArrayLike) -> Keys:
    """Integers in the order of float32 scores (any shape), equal where these are equal."""
    # adding 0.0 turns -0.0 into 0.0, which is equal and must have the same key
    bits = (np.asarray(scores, dtype=np.float32, order="C") + np.float32(0)).view(np.int32)
    return np.where(bits < 0, ~(bits & MAGNITUDE), bits)


def find_scores(keys: NDArray[np.integer]) -> NDArray[np.float32]:
    """Scores of keys; the inverse of `find_keys`."""
    whole = keys.astype(np.int32)
    return np.where(whole < 0, ~whole | ~MAGNITUDE, whole).view(np.float32)  # -1 becomes -0.0


def raise_score(values: Scores) -> Scores:
    """The next larger number of the same type; infinity follows the largest."""
    with np.errstate(over="ignore"):
        return np.nextafter(values, values.dtype.type(np.inf))


@dataclass(frozen=True)
class Cells:
    """Bins that hold scores, from low to high.

    Attributes:
        lowest: (C,) int64, key that no score of the cell is below.
        highest: (C,) int64, key that no score is above; equal to `lowest` where all scores of a
            cell are known to be equal.
        negatives: (C,) int64, normal pixels.
        positives: (C,) int64, anomalous pixels.
        coverage: (C,), covered fractions summed over regions.
    """

    lowest: NDArray[np.int64]
    highest: NDArray[np.int64]
    negatives: NDArray[np.int64]
    positives: NDArray[np.int64]
    coverage: Floats

    @property
    def single(self) -> NDArray[np.bool_]:
        """Where all scores of a cell are equal, (C,)."""
        return np.asarray(self.lowest == self.highest)


class ScoreHistogram:
    """Counts of normal and anomalous pixels by score; grows by a page for each new octave only.

    Attributes:
        regions: anomalous regions so far.
        pages: octaves met so far, at most 510, of 432 KiB each.
    """

    def __init__(self) -> None:
        self.regions = 0
        self._slots = np.full(2 * FIRST_PAGE, -1, dtype=np.intp)  # where each page is kept
        self._totals = np.zeros((0, PAGE_BINS), dtype=np.int64)
        self._positives = np.zeros((0, PAGE_BINS), dtype=np.int64)
        self._coverage = np.zeros((0, PAGE_BINS))
        self._rests = np.zeros((0, PAGE_BINS), dtype=np.int16)  # a score's open bits; -1: none yet
        self._mixed = np.zeros((0, PAGE_BINS), dtype=bool)  # whether another score came
        self._lowest, self._highest = np.iinfo(np.int32).max, np.iinfo(np.int32).min
        self._ends = np.inf, -np.inf
        self.rounded = False  # whether scores of a finer type than float32 came

    @property
    def pages(self) -> int:
        return len(self._totals)

    @property
    def ends(self) -> tuple[float, float]:
        """Lowest and highest score, exact; a ValueError if there is none."""
        if not self.pages:
            raise ValueError("no scores yet")
        return self._ends

    def add(
        self,
        scores: NDArray[np.floating],
        hits: NDArray[np.floating],
        weights: Floats,
        regions: int,
    ) -> None:
        """Count the pixels of one image.

        Args:
            scores: finite, (n,), of all pixels. Those of a finer type are rounded to float32, and
                bins of rounded ones count as unequal.
            hits: (p,), those of anomalous pixels among them.
            weights: (p,), 1 / area of each hit's region.
            regions: of the image.
        """
        if not len(scores):
            return
        keys = find_keys(scores)
        places = self._locate(keys)
        self._totals += np.bincount(places, minlength=self._totals.size).reshape(-1, PAGE_BINS)
        self._compare(places, keys)
        if scores.dtype != np.float32:
            moved = find_scores(keys) != scores
            self._mixed.reshape(-1)[places[moved]] = True
            self.rounded |= bool(moved.any())
        self._ends = (
            min(self._ends[0], float(scores.min())),
            max(self._ends[1], float(scores.max())),
        )
        self._lowest = min(self._lowest, int(keys.min()))
        self._highest = max(self._highest, int(keys.max()))
        if len(hits):
            self._add_hits(find_keys(hits), weights, regions)

    def _add_hits(self, keys: Keys, weights: Floats, regions: int) -> None:
        """Count the anomalous pixels of one image and the regions that they cover.

        What is rounded is the coverage up to each bin, not that of a bin: errors do not add up.
        """
        order = np.argsort(keys)
        places = self._locate(keys[order])
        last = np.append(np.flatnonzero(np.diff(places)), len(places) - 1)  # of each run of equals
        covered = np.round(np.cumsum(weights[order])[last] / COVERAGE_PART) * COVERAGE_PART
        covered[-1] = regions
        self._positives.reshape(-1)[places[last]] += np.diff(last, prepend=-1)
        self._coverage.reshape(-1)[places[last]] += np.diff(covered, prepend=0.0)
        self.regions += regions

    def _locate(self, keys: Keys) -> Places:
        """Places in the flattened pages, (n,); pages not met before are added."""
        pages = (keys >> (OPEN_BITS + PAGE_BITS)) + FIRST_PAGE
        slots = self._slots[pages]
        if (slots < 0).any():
            met = np.flatnonzero(np.bincount(pages, minlength=len(self._slots)))
            self._add_pages(met[self._slots[met] < 0])
            slots = self._slots[pages]
        places: Places = (slots << PAGE_BITS) + ((keys >> OPEN_BITS) & (PAGE_BINS - 1))
        return places

    def _add_pages(self, pages: NDArray[np.intp]) -> None:
        self._slots[pages] = self.pages + np.arange(len(pages))
        more = ((0, len(pages)), (0, 0))
        self._totals = np.pad(self._totals, more)
        self._positives = np.pad(self._positives, more)
        self._coverage = np.pad(self._coverage, more)
        self._rests = np.pad(self._rests, more, constant_values=-1)
        self._mixed = np.pad(self._mixed, more)

    def _compare(self, places: Places, keys: Keys) -> None:
        """Note which bins hold unequal scores."""
        rests, given = self._rests.reshape(-1), (keys & ((1 << OPEN_BITS) - 1)).astype(np.int16)
        fresh = rests[places] < 0
        rests[places[fresh]] = given[fresh]
        self._mixed.reshape(-1)[places[rests[places] != given]] = True

    def list_cells(self) -> Cells:
        """The bins that hold scores, in order."""
        pages = np.flatnonzero(self._slots >= 0)
        rows, columns = np.nonzero(self._totals[self._slots[pages]])
        at = (self._slots[pages[rows]], columns)
        bins = ((pages[rows] - FIRST_PAGE) << PAGE_BITS) + columns
        start, end = bins << OPEN_BITS, ((bins + 1) << OPEN_BITS) - 1
        end -= end == -1  # that is -0.0, which counts as 0.0
        single, known = ~self._mixed[at], start + self._rests[at]
        positives = self._positives[at]
        return Cells(
            lowest=np.where(single, known, np.maximum(start, self._lowest - self.rounded)),
            highest=np.where(single, known, np.minimum(end, self._highest + self.rounded)),
            negatives=self._totals[at] - positives,
            positives=positives,
            coverage=self._coverage[at],
        )
