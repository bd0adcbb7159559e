"""Per-image summaries of anomaly maps, from which pixel metrics of any weighting of images follow.

A bootstrap draws an image w times, which multiplies its counts of pixels above a threshold by w.
Counts per image and threshold, kept once, replace the maps: curves are `weights @ counts`.

The thresholds cut the scores into bins. The order within a bin is lost, but curves only rise, so
each metric has a certain lower and upper value, and the estimate lies between. A bin of equal
scores is exact; where positives are few, each gets such a bin, and then all metrics are.

Shapes: N images, H x W pixels, p of them anomalous in all; G thresholds, R weightings, C cells of a
histogram.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from fuzzyclip.evaluation.bounded_curves import MIDDLE, Curves, place_curve
from fuzzyclip.evaluation.metrics import (
    AUPRO_STEPS,
    EIGHT_CONNECTED,
    FPR_LIMIT,
    PIXEL_METRICS,
    Floats,
    as_float32,
    place_cuts,
    weigh_mask,
    weigh_regions,
)
from fuzzyclip.evaluation.score_histogram import (
    Cells,
    ScoreHistogram,
    Scores,
    find_scores,
    raise_score,
)
from fuzzyclip.method import Scale
from fuzzyclip.utils.tensor_files import read_arrays, write_tensors

#: Arrays of a file.
TENSORS = ("thresholds", "negatives_above", "positives_above", "coverage_above", "regions")
#: Weightings computed together, few enough for the processor's cache.
CHUNK = 64
#: Quantiles that become thresholds, of each of: positives by pixel, positives by region, negatives.
LEVELS = 400

#: Negatives, positives and coverage above each threshold, (G,) each, of one image.
Counts = tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]


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


def summarise_pixels(
    maps: ArrayLike, masks: ArrayLike, images: Sequence[str], scale: Scale = Scale.PLAIN
) -> PixelSummaries:
    """Summarise anomaly maps (N, H, W), masks (N, H, W) and names of one category.

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
    thresholds = choose_map_thresholds(scores, truth, weights, scale)
    areas = np.split(weights * regions.sum(), np.cumsum(truth.sum(axis=(1, 2)))[:-1])
    rows = [
        _count_image(score, mask, area, thresholds)
        for score, mask, area in zip(scores, truth, areas, strict=True)
    ]
    return _join_rows(images, thresholds, rows, regions)


def summarise_stream(
    pairs: Iterable[tuple[ArrayLike, ArrayLike]], images: Sequence[str], thresholds: Scores
) -> PixelSummaries:
    """Summarise one category an image at a time.

    Args:
        pairs: map (H, W) of float32 and mask (H, W) of each image.
        images: N names.
        thresholds: (G,), those of `choose_thresholds` for the same images.

    Raises:
        ValueError: shapes differ, there is no pixel or not one map for each name, a score is not
            finite, or the thresholds are those of other maps.
    """
    rows, regions = [], []
    for number, (score, mask) in enumerate(pairs):
        scores, truth = as_float32(score), np.asarray(mask, dtype=bool)
        if scores.ndim != 2 or scores.shape != truth.shape or not scores.size:
            raise ValueError(f"map {number} {scores.shape}, mask {truth.shape} differ or are empty")
        if not thresholds[-AUPRO_STEPS - 1] <= scores.min() <= scores.max() < thresholds[0]:
            raise ValueError(f"map {number} has scores beyond the thresholds")
        areas, count = weigh_mask(truth)
        rows.append(_count_image(scores, truth, areas, thresholds))
        regions.append(count)
    if not rows or len(rows) != len(images):
        raise ValueError(f"{len(images)} images, but {len(rows)} maps")
    return _join_rows(images, thresholds, rows, np.array(regions, dtype=np.int32))


def _count_image(
    scores: Scores, mask: NDArray[np.bool_], areas: Floats, thresholds: Scores
) -> Counts:
    """Negatives, positives and coverage of one image (H, W) at each threshold, (G,).

    `areas` has 1 / area of the region of each anomalous pixel.
    """
    normal, order = np.sort(scores[~mask]), np.argsort(scores[mask])
    hits = scores[mask][order]
    covered = np.append(np.cumsum(areas[order][::-1])[::-1], 0.0)  # by this hit and all above
    first = np.searchsorted(hits, thresholds)  # lowest hit >= threshold
    return (
        (len(normal) - np.searchsorted(normal, thresholds)).astype(np.int32),
        (len(hits) - first).astype(np.int32),
        covered[first].astype(np.float32),
    )


def _join_rows(
    images: Sequence[str], thresholds: Scores, rows: Sequence[Counts], regions: NDArray[np.int32]
) -> PixelSummaries:
    negatives, positives, coverage = zip(*rows, strict=True)
    return PixelSummaries(
        images=tuple(images),
        thresholds=thresholds,
        negatives_above=np.stack(negatives),
        positives_above=np.stack(positives),
        coverage_above=np.stack(coverage),
        regions=regions,
    )


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
    anomalous = summaries.regions > 0  # only these images have positives
    fp = weights @ summaries.negatives_above  # (R, G), whole numbers without rounding
    tp = weights[:, anomalous] @ summaries.positives_above[anomalous, curve]  # (R, T)
    covered = weights[:, anomalous] @ summaries.coverage_above[anomalous]  # (R, G)
    with np.errstate(divide="ignore", invalid="ignore"):  # no positives: nan
        pro = covered / (weights @ summaries.regions)[:, None]
        cuts = summaries.thresholds[curve]
        curves = Curves(tp, fp[:, curve], exact=raise_score(cuts[1:]) == cuts[:-1])
        return {
            "pixel_auroc": curves.compute_auroc(place),
            "pixel_ap": curves.compute_average_precision(place),
            "pixel_f1_max": curves.compute_f1_max(place),
            "pixel_aupro": _compute_aupro_steps(fp[:, steps] / curves.fp[:, -1:], pro[:, steps]),
            "pixel_aupro_std": curves.compute_aupro_std(pro[:, curve], place),
        }


def _compute_aupro_steps(fpr: Floats, pro: Floats) -> Floats:
    """`metrics.compute_aupro_steps` of falling rates (R, AUPRO_STEPS), (R,)."""
    kept = fpr < FPR_LIMIT  # a tail of each row
    highest = np.where(kept, fpr, fpr[:, -1:]).max(axis=1)
    width = np.where(kept[:, :-1], -np.diff(fpr), 0.0)
    area = np.einsum("rt,rt->r", width, place_curve(pro, MIDDLE))
    return np.asarray(area / (highest - fpr[:, -1]))  # nan: fewer than two rates


def write_summaries(path: Path, summaries: PixelSummaries) -> None:
    """Save to one safetensors file."""
    import torch  # what only reads summaries needs no PyTorch

    tensors = {name: torch.from_numpy(getattr(summaries, name)) for name in TENSORS}
    write_tensors(path, tensors, {"images": summaries.images})


def read_summaries(path: Path) -> PixelSummaries:
    """Summaries from `write_summaries`; a ValueError if the file holds something else."""
    arrays, header = read_arrays(path)
    if set(arrays) != set(TENSORS):
        raise ValueError(f"{path} holds no pixel summaries")
    return PixelSummaries(tuple(header["images"]), **arrays)


def choose_map_thresholds(
    maps: Scores, masks: NDArray[np.bool_], weights: Floats, scale: Scale = Scale.PLAIN
) -> Scores:
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
    curve = np.unique(np.concatenate([*picked, ends, raise_score(ends[1:])]))[::-1]
    return np.concatenate([curve, place_steps(ends, scale)])  # (G,)


def choose_thresholds(histogram: ScoreHistogram, scale: Scale = Scale.PLAIN) -> NDArray[np.float32]:
    """Thresholds (G,) as `choose_map_thresholds` has them, but between the cells of a histogram.

    A cell counts as one score: that of a quantile begins with a threshold, and that of several ends
    with one. The ends and the field's steps are those of the scores themselves. A bin between
    thresholds holds less than 2 / LEVELS of the positives, or else one cell.

    Raises:
        ValueError: the histogram is empty.
    """
    even = np.arange(LEVELS) / LEVELS
    ends = np.array(histogram.ends, dtype=np.float32)
    cells = histogram.list_cells()
    normal = cells.negatives.sum()
    picked = [
        _pick_cells(cells, cells.positives, even * cells.positives.sum()),
        _pick_cells(cells, cells.coverage, even * histogram.regions),
        _pick_cells(cells, cells.negatives, np.ceil(normal * (1 - even**2)) - 1),
    ]
    curve = np.unique(np.concatenate([*picked, ends, raise_score(ends[1:])]))[::-1]
    return np.concatenate([curve, place_steps(ends, scale)])  # (G,)


def place_steps(ends: Scores, scale: Scale = Scale.PLAIN) -> Scores:
    """The field's equal steps between the ends (2,) of the scores, as thresholds (AUPRO_STEPS,).

    Each is the smallest number of the scores' type above a step: a score exceeds the step where it
    reaches this.
    """
    cuts = place_cuts(float(ends[0]), float(ends[1]), AUPRO_STEPS, scale)
    steps = cuts.astype(ends.dtype)
    return np.where(steps <= cuts, raise_score(steps), steps)


def _pick(ordered: Scores, places: NDArray[np.generic]) -> Scores:
    """Scores at some places; one met twice fills a bin of its own, closed by the next number."""
    if not len(ordered):
        return ordered
    values, times = np.unique(ordered[places.astype(np.int64)], return_counts=True)
    return np.concatenate([values, raise_score(values[times > 1])])


def _pick_cells(
    cells: Cells, amounts: NDArray[np.int64] | Floats, places: Floats
) -> NDArray[np.float32]:
    """As `_pick`, of the cells where the running sum of amounts (C,) first exceeds the places."""
    if not amounts.any():
        return np.empty(0, dtype=np.float32)
    reached = np.searchsorted(np.cumsum(amounts), places, side="right")
    met, times = np.unique(reached, return_counts=True)
    ends = cells.highest[met[times > 1]] + 1
    return find_scores(np.concatenate([cells.lowest[met], ends]))
