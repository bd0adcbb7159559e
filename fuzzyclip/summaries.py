"""Per-image summaries of anomaly maps, from which pixel metrics of any weighting of images follow.

A bootstrap draws an image w times, which multiplies its counts of pixels above a threshold by w.
Counts per image and threshold, kept once, replace the maps: curves are `weights @ counts`.

The thresholds cut the scores into bins. The order within a bin is lost, but curves only rise, so
each metric has a certain lower and upper value, and the estimate lies between. A bin of equal
scores is exact; where positives are few, each gets such a bin, and then all metrics are.

Shapes: N images, H x W pixels, G thresholds, R weightings.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from safetensors import safe_open
from scipy import ndimage

from fuzzyclip.metrics import (
    AUPRO_STEPS,
    EIGHT_CONNECTED,
    FPR_LIMIT,
    PIXEL_METRICS,
    Floats,
    weigh_regions,
)
from fuzzyclip.tensor_files import read_header, write_tensors

#: Quantiles that become thresholds, of each of: positives by pixel, positives by region, negatives.
LEVELS = 400
#: Arrays of a file.
TENSORS = ("thresholds", "negatives_above", "positives_above", "coverage_above", "regions")
#: Weightings computed together, few enough for the processor's cache.
CHUNK = 64
#: Where in a bin the curve is taken to run: a certain lower bound, the estimate, an upper bound.
LOW, MIDDLE, HIGH = 0.0, 0.5, 1.0

Scores = NDArray[np.floating]


@dataclass(frozen=True)
class PixelSummaries:
    """Counts of one category, per image and threshold.

    Attributes:
        images: N names, in order.
        thresholds: (G,), of the maps' type. First the curve's, descending, from above the highest
            score to the lowest; then the field's `AUPRO_STEPS` equal steps, ascending.
        negatives_above: (N, G) int32, normal pixels with a score >= threshold.
        positives_above: (N, G) int32, anomalous pixels with a score >= threshold.
        coverage_above: (N, G) float32, covered fractions summed over the image's regions.
        regions: (N,) int32, number of 8-connected regions.
    """

    images: tuple[str, ...]
    thresholds: Scores
    negatives_above: NDArray[np.int32]
    positives_above: NDArray[np.int32]
    coverage_above: NDArray[np.float32]
    regions: NDArray[np.int32]

    @property
    def pixels(self) -> NDArray[np.int32]:
        """Normal and anomalous pixels of each image, (N, 2): all reach the lowest threshold."""
        lowest = len(self.thresholds) - AUPRO_STEPS - 1
        return np.stack([self.negatives_above[:, lowest], self.positives_above[:, lowest]], axis=1)


def summarise_pixels(maps: ArrayLike, masks: ArrayLike, images: Sequence[str]) -> PixelSummaries:
    """Summarise one category.

    Args:
        maps: (N, H, W) anomaly maps, higher is more anomalous.
        masks: (N, H, W), true where anomalous.
        images: N names, kept so that a comparison can refuse other images.

    Raises:
        ValueError: shapes differ, there is no pixel, or a score is not finite.
    """
    scores, truth = np.asarray(maps), np.asarray(masks, dtype=bool)
    if scores.dtype not in (np.float32, np.float64):
        scores = scores.astype(np.float64)
    if scores.ndim != 3 or scores.shape != truth.shape or len(images) != len(scores):
        raise ValueError(f"{len(images)} images, maps {scores.shape}, masks {truth.shape} differ")
    if not scores.size:
        raise ValueError("no pixels to summarise")
    if not np.isfinite(scores).all():
        raise ValueError("maps hold values that are not finite")
    weights = weigh_regions(truth)  # (p,)
    regions = np.array([ndimage.label(mask, EIGHT_CONNECTED)[1] for mask in truth], dtype=np.int32)
    thresholds = _choose_thresholds(scores, truth, weights)
    shape = (len(scores), len(thresholds))
    negatives, positives = np.empty(shape, dtype=np.int32), np.empty(shape, dtype=np.int32)
    coverage = np.empty(shape, dtype=np.float32)
    areas = np.split(weights * regions.sum(), np.cumsum(truth.sum(axis=(1, 2)))[:-1])
    for row, (score, mask, area) in enumerate(zip(scores, truth, areas, strict=True)):
        normal, order = np.sort(score[~mask]), np.argsort(score[mask])
        hits = score[mask][order]
        covered = np.append(np.cumsum(area[order][::-1])[::-1], 0.0)  # by this hit and all above
        first = np.searchsorted(hits, thresholds)  # lowest hit >= threshold
        negatives[row] = len(normal) - np.searchsorted(normal, thresholds)
        positives[row] = len(hits) - first
        coverage[row] = covered[first]
    return PixelSummaries(tuple(images), thresholds, negatives, positives, coverage, regions)


def _choose_thresholds(maps: Scores, masks: NDArray[np.bool_], weights: Floats) -> Scores:
    """Thresholds (G,) from maps and masks (N, H, W) and region weights (p,), as they are kept.

    A bin of unequal scores then holds less than 2 / LEVELS of the positives and of the regions'
    weight, so with equal weights the bounds of AUROC and of AUPRO-std lie closer than that.
    Negatives are cut finest near the top, where AP, F1 and AUPRO are decided.
    """
    even = np.arange(LEVELS) / LEVELS
    order = np.argsort(maps[masks])
    hits, mass = maps[masks][order], np.cumsum(weights[order])
    normal = np.sort(maps[~masks])
    picked = [
        _pick(hits, even * len(hits)),
        _pick(hits, np.searchsorted(mass, even, side="right")),
        _pick(normal, np.ceil(len(normal) * (1 - even**2)) - 1),
    ]
    ends = np.array([maps.min(), maps.max()])
    curve = np.unique(np.concatenate([*picked, ends, _raise(ends[1:])]))[::-1]
    low, high = map(float, ends)
    cuts = low + (high - low) / AUPRO_STEPS * np.arange(AUPRO_STEPS)
    steps = cuts.astype(maps.dtype)
    steps = np.where(steps <= cuts, _raise(steps), steps)  # > cut becomes >= the next number
    return np.concatenate([curve, steps])  # (G,)


def _pick(ordered: Scores, places: NDArray[np.generic]) -> Scores:
    """Scores at some places; one met twice fills a bin of its own, closed by the next number."""
    if not len(ordered):
        return ordered
    values, times = np.unique(ordered[places.astype(np.int64)], return_counts=True)
    return np.concatenate([values, _raise(values[times > 1])])


def _raise(values: Scores) -> Scores:
    """The next larger number of the same type."""
    return np.nextafter(values, values.dtype.type(np.inf))


@dataclass(frozen=True)
class Curves:
    """Counts at T descending thresholds, none above the first, all above the last.

    Attributes:
        tp: (R, T) weight of the positives above each threshold.
        fp: (R, T) weight of the negatives above each threshold.
        exact: (T - 1,) whether all scores between two thresholds are equal.
    """

    tp: Floats
    fp: Floats
    exact: NDArray[np.bool_]

    def compute_auroc(self, place: float = MIDDLE) -> Floats:
        """Area under the ROC curve, (R,)."""
        area = _measure_area(self.fp, self.tp, self.exact, place)
        return self._define(area / (self.tp[:, -1] * self.fp[:, -1]))

    def compute_average_precision(self, place: float = MIDDLE) -> Floats:
        """Average precision, (R,): positives times the precision in their bin."""
        tp, fp = self._enter_bins(place)
        precision = np.divide(tp, tp + fp, out=np.zeros_like(tp), where=tp + fp > 0)
        return self._define(np.einsum("rt,rt->r", np.diff(self.tp), precision) / self.tp[:, -1])

    def compute_f1_max(self, place: float = MIDDLE) -> Floats:
        """Largest F1, (R,): that of the best threshold, which is its lower bound as well."""
        total = self.tp[:, -1:]
        best = (2 * self.tp / (self.tp + self.fp + total)).max(axis=1)
        if place == HIGH:
            tp, fp = self._enter_bins(HIGH)
            best = np.maximum(best, (2 * tp / (tp + fp + total)).max(axis=1))
        return self._define(best)

    def compute_aupro_std(self, pro: Floats, place: float = MIDDLE) -> Floats:
        """Area under the per-region overlap `pro` (R, T) up to FPR_LIMIT, over it, (R,)."""
        limit = FPR_LIMIT * self.fp[:, -1:]  # as a number of negatives
        beyond = (self.fp <= limit).sum(axis=1).clip(max=self.fp.shape[1] - 1)
        rows = np.arange(len(pro))
        x0, x1 = self.fp[rows, beyond - 1], self.fp[rows, beyond]
        y0, y1 = pro[rows, beyond - 1], pro[rows, beyond]
        at_limit = y0 + (y1 - y0) * (limit[:, 0] - x0) / (x1 - x0)
        cut = pro.copy()
        cut[rows, beyond] = np.where(self.exact[beyond - 1] | (place == MIDDLE), at_limit, y1)
        area = _measure_area(np.minimum(self.fp, limit), cut, self.exact, place)
        return self._define(area / limit[:, 0])

    def _enter_bins(self, place: float) -> tuple[Floats, Floats]:
        """One point of each bin, (R, T - 1): its end where exact, else by `place`."""
        tp, fp = _place(self.tp, place), _place(self.fp, 1 - place)
        ends = np.flatnonzero(self.exact)
        tp[:, ends], fp[:, ends] = self.tp[:, ends + 1], self.fp[:, ends + 1]
        return tp, fp

    def _define(self, values: Floats) -> Floats:
        """Leave values only where both classes are present."""
        return np.where((self.tp[:, -1] > 0) & (self.fp[:, -1] > 0), values, np.nan)


def _place(counts: Floats, place: float) -> Floats:
    """Counts (R, T) to one value a bin, (R, T - 1), from its upper (0) to its lower threshold."""
    return (1 - place) * counts[:, :-1] + place * counts[:, 1:]


def _measure_area(x: Floats, y: Floats, exact: NDArray[np.bool_], place: float) -> Floats:
    """Area under rising curves (R, T): ties slant, bounds run along a bin's lower or upper edge."""
    middle = _place(y, MIDDLE)
    height = middle if place == MIDDLE else np.where(exact, middle, _place(y, place))
    return np.asarray(np.einsum("rt,rt->r", np.diff(x), height))


def weigh_pixel_metrics(
    summaries: PixelSummaries, weights: ArrayLike, place: float = MIDDLE
) -> dict[str, Floats]:
    """Pixel metrics of R weightings of a category's images.

    `pixel_aupro` is that of the field's 200 steps and free of error, but its steps stay those
    between the lowest and the highest score of all images, also where a weight is 0.

    Args:
        summaries: of the category.
        weights: (R, N), how often each image counts.
        place: MIDDLE for the estimate; LOW or HIGH for a bound that the exact metric keeps.

    Returns:
        For each of `PIXEL_METRICS`, (R,) fractions in [0, 1]; nan where a weighting has none.

    Raises:
        ValueError: a weight is negative or not finite, or their number is not that of the images.
    """
    times = np.asarray(weights, dtype=np.float64)
    if times.ndim != 2 or times.shape[1] != len(summaries.images):
        raise ValueError(f"weights {times.shape} do not fit {len(summaries.images)} images")
    if not (np.isfinite(times).all() and (times >= 0).all()):
        raise ValueError("weights must be finite and not negative")
    chunks = [times[start : start + CHUNK] for start in range(0, len(times), CHUNK)]
    pieces = [_weigh_chunk(summaries, chunk, place) for chunk in chunks]
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in PIXEL_METRICS}


def _weigh_chunk(summaries: PixelSummaries, weights: Floats, place: float) -> dict[str, Floats]:
    """Pixel metrics of a few weightings."""
    curve, steps = slice(-AUPRO_STEPS), slice(-AUPRO_STEPS, None)
    bad = summaries.regions > 0  # only these images have positives
    fp = weights @ summaries.negatives_above  # (R, G), whole numbers without rounding
    tp = weights[:, bad] @ summaries.positives_above[bad, curve]  # (R, T)
    covered = weights[:, bad] @ summaries.coverage_above[bad]  # (R, G)
    with np.errstate(divide="ignore", invalid="ignore"):  # no positives: nan
        pro = covered / (weights @ summaries.regions)[:, None]
        cuts = summaries.thresholds[curve]
        curves = Curves(tp, fp[:, curve], exact=_raise(cuts[1:]) == cuts[:-1])
        return {
            "pixel_auroc": curves.compute_auroc(place),
            "pixel_ap": curves.compute_average_precision(place),
            "pixel_f1_max": curves.compute_f1_max(place),
            "pixel_aupro": _compute_aupro_steps(fp[:, steps] / curves.fp[:, -1:], pro[:, steps]),
            "pixel_aupro_std": curves.compute_aupro_std(pro[:, curve], place),
        }


def _compute_aupro_steps(fpr: Floats, pro: Floats) -> Floats:
    """`fuzzyclip.metrics.compute_aupro_steps` of falling rates (R, AUPRO_STEPS), (R,)."""
    kept = fpr < FPR_LIMIT  # a tail of each row
    highest = np.where(kept, fpr, fpr[:, -1:]).max(axis=1)
    width = np.where(kept[:, :-1], -np.diff(fpr), 0.0)
    area = np.einsum("rt,rt->r", width, _place(pro, MIDDLE))
    return np.asarray(area / (highest - fpr[:, -1]))  # nan: fewer than two rates


def estimate_pixel_metrics(
    summaries: PixelSummaries, weights: ArrayLike | None = None, place: float = MIDDLE
) -> dict[str, float]:
    """Pixel metrics under one weighting (N,), default 1 each; undefined ones are absent."""
    times = np.ones(len(summaries.images)) if weights is None else np.asarray(weights)
    values = weigh_pixel_metrics(summaries, times[None], place)
    return {name: float(value[0]) for name, value in values.items() if np.isfinite(value[0])}


def write_summaries(path: Path, summaries: PixelSummaries) -> None:
    """Save to one safetensors file."""
    tensors = {name: torch.from_numpy(getattr(summaries, name)) for name in TENSORS}
    write_tensors(path, tensors, {"images": summaries.images})


def read_summaries(path: Path) -> PixelSummaries:
    """What `write_summaries` saved; a ValueError if the file holds something else."""
    with safe_open(str(path), framework="numpy") as file:
        if set(file.keys()) != set(TENSORS):
            raise ValueError(f"{path} holds no pixel summaries")
        images = read_header(file.metadata())["images"]
        return PixelSummaries(tuple(images), **{name: file.get_tensor(name) for name in TENSORS})
