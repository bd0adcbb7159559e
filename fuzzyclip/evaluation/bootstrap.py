"""Trust in a number: its spread over seeds, and a paired bootstrap of two experiments.

The bootstrap asks whether A beats B on these categories or only on these images. It draws the
test images of each category anew with replacement, the same for A and B, so that what makes an
image hard for both cancels. What training with another seed would change it can not see; that is
what the spread over seeds shows.

Shapes: N images of a category, R resamples.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fuzzyclip.evaluation.bounded_curves import Curves
from fuzzyclip.evaluation.metrics import METRICS, Floats
from fuzzyclip.evaluation.summaries import PixelSummaries, weigh_pixel_metrics

#: Differences are rounded here: equal metrics that were summed in another order are equal.
DECIMALS = 12

#: Metric to its values, (1 + R,): on the images as they are, then on each resample.
Resampled = dict[str, Floats]


@dataclass(frozen=True)
class ImageResults:
    """Scores and pixel summaries of one experiment for the N test images of one category.

    Attributes:
        images: N names, in order.
        labels: (N,), 1 anomalous, 0 normal.
        scores: (N,) image scores, higher is more anomalous.
        pixels: summaries of the same images; None without masks, and then pixel metrics are absent.

    Raises:
        ValueError: lengths differ, a score is not finite, a label is neither 0 nor 1, or the
            summaries are of other images.
    """

    images: Sequence[str]
    labels: NDArray[np.generic]
    scores: NDArray[np.floating]
    pixels: PixelSummaries | None = None

    def __post_init__(self) -> None:
        shape = (len(self.images),)
        if self.labels.shape != shape or self.scores.shape != shape:
            raise ValueError(
                f"{len(self.images)} images, labels {self.labels.shape} "
                f"and scores {self.scores.shape} do not match"
            )
        if not np.isfinite(self.scores).all():
            raise ValueError("scores hold values that are not finite")
        if not np.isin(self.labels, (0, 1)).all():
            raise ValueError("labels must be 0 or 1")
        if self.pixels is not None and list(self.pixels.images) != list(self.images):
            raise ValueError("the pixel summaries are of other images than the scores")


@dataclass(frozen=True)
class PairedDifference:
    """A minus B in one metric, averaged over categories; fractions, as the metrics.

    Attributes:
        difference: on the test images as they are.
        standard_error: standard deviation over resamples.
        low: lower end of the percentile interval.
        high: upper end of the percentile interval.
        p_value: two-sided; at least 2 / (resamples + 1).
        resamples: how many had this metric in every category.
        categories: how many have this metric in A and in B.
    """

    difference: float
    standard_error: float
    low: float
    high: float
    p_value: float
    resamples: int
    categories: int


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation (n - 1) over n runs; none for a single run."""

    mean: float
    deviation: float | None
    runs: int


def compare_experiments(
    a: Mapping[str, ImageResults],
    b: Mapping[str, ImageResults],
    resamples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> dict[str, PairedDifference]:
    """Paired bootstrap over images of the difference A - B.

    Each resample draws images within each category, takes every metric of A and of B on them,
    averages over categories without weights, and subtracts. A category counts for a metric when
    both experiments have it there; a metric that no category has is absent.

    Pixel metrics come from summaries: their `difference` is off by the summaries' error.

    Args:
        a: category to result.
        b: the same categories with the same images in the same order.
        resamples: R, at least 2.
        seed: equal seeds give equal results.
        confidence: of the interval, between 0 and 1.

    Raises:
        ValueError: categories, images, labels or masks differ, or there is nothing to compare.
    """
    if resamples < 2 or not 0 < confidence < 1:
        raise ValueError("needs two resamples or more, and a confidence between 0 and 1")
    if not a or set(a) != set(b):
        raise ValueError(f"A has the categories {sorted(a)}, B has {sorted(b)}")
    rng = np.random.default_rng(seed)
    pairs = []
    for name in sorted(a):  # the order in which they come must not change the draws
        check_same_images(name, a[name], b[name])
        drawn = resample([a[name], b[name]], resamples, rng)
        pairs.append((drawn[0], drawn[1]))
    return compare_resampled(pairs, confidence)


def resample(
    results: Sequence[ImageResults], resamples: int, rng: np.random.Generator
) -> list[Resampled]:
    """All metrics of several results for the same images of one category, under the same draws."""
    drawn = draw_weights(results[0].labels, resamples, rng)
    weights = np.concatenate([np.ones_like(drawn[:1]), drawn])  # first the images as they are
    return [weigh_metrics(result, weights) for result in results]


def compare_resampled(
    pairs: Sequence[tuple[Resampled, Resampled]], confidence: float = 0.95
) -> dict[str, PairedDifference]:
    """As `compare_experiments`, from A and B of each category as `resample` drew them together."""
    gathered: dict[str, list[Floats]] = {metric: [] for metric in METRICS}
    for values_a, values_b in pairs:
        for metric in values_a.keys() & values_b.keys():
            difference = values_a[metric] - values_b[metric]  # (1 + R,)
            if np.isfinite(difference[0]):
                gathered[metric].append(difference)
    results = {}
    for metric, differences in gathered.items():
        if differences and (result := _describe(np.stack(differences), confidence)):
            results[metric] = result
    return results


def check_same_images(name: str, a: ImageResults, b: ImageResults) -> None:
    """A pair is a pair only on the same images, labels and masks.

    Raises:
        ValueError: they differ; masks are held against each other where their sizes agree.
    """
    if list(a.images) != list(b.images):
        same = sorted(a.images) == sorted(b.images)
        raise ValueError(
            f"{name}: A and B were evaluated on "
            + ("the same images in another order" if same else "different images")
        )
    if (a.labels != b.labels).any():
        raise ValueError(f"{name}: A and B have different labels")
    if a.pixels is not None and b.pixels is not None:
        ours, theirs = a.pixels.pixels, b.pixels.pixels  # (N, 2) normal and anomalous
        if (ours.sum(axis=1) == theirs.sum(axis=1)).all() and (ours != theirs).any():
            raise ValueError(f"{name}: A and B have different masks")


def draw_weights(
    labels: NDArray[np.generic], resamples: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Times that each resample draws each image, (R, N), with as many of each label as there are.

    Drawn without regard to labels, a small category would lose a class now and then, and with it
    its metrics; and the number of normal and of anomalous test images is the benchmark's design,
    not chance. A label with a single image adds no spread.
    """
    weights = np.zeros((resamples, len(labels)), dtype=np.int64)
    for label in np.unique(labels):
        chosen = np.flatnonzero(labels == label)
        even = np.full(len(chosen), 1 / len(chosen))
        weights[:, chosen] = rng.multinomial(len(chosen), even, size=resamples)
    return weights


def weigh_metrics(result: ImageResults, weights: ArrayLike) -> dict[str, Floats]:
    """All metrics of one category under R weightings (R, N), each (R,); nan where undefined."""
    values = weigh_image_metrics(result.scores, result.labels, weights)
    if result.pixels is not None:
        values |= weigh_pixel_metrics(result.pixels, weights)
    return values


def weigh_image_metrics(
    scores: ArrayLike, labels: ArrayLike, weights: ArrayLike
) -> dict[str, Floats]:
    """AUROC, AP and F1-max under R weightings: exact, from one sort, ties included.

    Args:
        scores: (N,), finite.
        labels: (N,), true for positives.
        weights: (R, N), how often each image counts.

    Returns:
        (R,) fractions in [0, 1] for each of `IMAGE_METRICS`; nan where a class has no weight.
    """
    order = np.argsort(-np.asarray(scores), kind="stable")
    ordered, positive = np.asarray(scores)[order], np.asarray(labels, dtype=bool)[order]
    times = np.asarray(weights, dtype=np.float64)[:, order]  # (R, N), from high to low
    last = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)  # of each run of equals
    none = np.zeros((len(times), 1))
    tp = np.hstack([none, np.cumsum(times * positive, axis=1)[:, last]])  # (R, 1 + distinct)
    fp = np.hstack([none, np.cumsum(times * ~positive, axis=1)[:, last]])
    curves = Curves(tp, fp, np.ones(len(last), dtype=bool))  # no bin holds two distinct scores
    with np.errstate(divide="ignore", invalid="ignore"):  # a class without weight: nan
        return {
            "image_auroc": curves.compute_auroc(),
            "image_ap": curves.compute_average_precision(),
            "image_f1_max": curves.compute_f1_max(),
        }


def _describe(differences: Floats, confidence: float) -> PairedDifference | None:
    """Differences of each category (C, 1 + R), the first without resampling, in a few numbers.

    A resample that misses the metric somewhere would average other categories: it is left out.
    """
    means = np.round(differences.mean(axis=0), DECIMALS)  # (1 + R,)
    drawn = means[1:][np.isfinite(means[1:])]
    if len(drawn) < 2:
        return None
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    beyond = min((drawn <= 0).sum(), (drawn >= 0).sum())  # across zero from the bulk, or on it
    return PairedDifference(
        difference=float(means[0]),
        standard_error=float(drawn.std(ddof=1)),
        low=float(low),
        high=float(high),
        p_value=float(min(1.0, 2 * (beyond + 1) / (len(drawn) + 1))),
        resamples=len(drawn),
        categories=len(differences),
    )


def summarise_runs(runs: Sequence[Mapping[str, float]]) -> dict[str, Spread]:
    """Mean and spread of each metric over the runs that have it, say one for each seed.

    A metric that a run lacks, or has as nan, is not counted as zero; `Spread.runs` tells how many
    runs have it. One that no run has is absent.
    """
    spreads = {}
    for metric in dict.fromkeys(name for run in runs for name in run):
        values = [run[metric] for run in runs if metric in run and not np.isnan(run[metric])]
        if values:
            deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
            spreads[metric] = Spread(float(np.mean(values)), deviation, len(values))
    return spreads
