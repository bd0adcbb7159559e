"""Thresholds of image scores and of map pixels, each with what it gives and how sure that is.

`calibrate` chooses those of a category from labelled images, or from normal ones alone.

An image, or a pixel, is taken for anomalous where its score reaches the threshold (score >= value).
Scores are float32, as the detector gives them: log-odds of images, probabilities of pixels. A
threshold is a float32 too, so that a comparison says the same in either precision.

A threshold holds for images like those it was chosen from, looked at in the same way: another
tiling, kind of score, reference images or category need another one.

Shapes: n images, H x W pixels.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, inf
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from fuzzyclip.evaluation.metrics import Floats, as_float32, rank
from fuzzyclip.evaluation.score_histogram import Cells, ScoreHistogram, find_scores, raise_score
from fuzzyclip.images.decode import load_mask
from fuzzyclip.images.names import list_stems
from fuzzyclip.model.card import Calibration, Threshold, Tiling
from fuzzyclip.model.inference import Opener
from fuzzyclip.model.loaded import FuzzyCLIP
from fuzzyclip.model.prediction import Prediction, Unreadable
from fuzzyclip.model.score_kinds import ScoreKind
from fuzzyclip.model.separation import Separation, measure_separation, to_percent
from fuzzyclip.model.storing import digest_memory
from fuzzyclip.utils.files import show_name

#: How sure intervals are.
CONFIDENCE = 0.95
#: F1 over pixels below which outlines and masks have next to nothing in common.
USEFUL_F1 = 0.1
#: A rate of 1 / 3 means a third, whatever its float is.
ROUNDING = 1e-12

Scores = NDArray[np.float32]


@dataclass(frozen=True)
class Calibrated:
    """Thresholds, what could not be read on the way to them, and the scores that they divide."""

    calibration: Calibration
    unreadable: list[Unreadable]
    separation: Separation


def calibrate(
    detector: FuzzyCLIP,
    category: str,
    normal: Sequence[Path],
    anomalous: Sequence[Path] = (),
    masks: Sequence[Path] = (),
    *,
    false_alarm_rate: float = 0.05,
    tiling: Tiling | None = None,
    score: ScoreKind | None = None,
    batch_size: int = 8,
    workers: int = 1,
    opener: Opener | None = None,
) -> Calibrated:
    """Choose the thresholds of a category.

    With anomalous images the image threshold is that of the largest F1, else the quantile of the
    normal ones. With masks the pixel threshold is that of the largest F1 over pixels, else one that
    `false_alarm_rate` of normal images reach with any pixel. Memory does not grow with the images.

    Args:
        detector: its reference images, if it has some, take part.
        category: as it stands in the prompts.
        normal: images without any defect, none of them a reference image.
        anomalous: images with defects.
        masks: ground truth of the anomalous ones, in the same order; empty for none.
        false_alarm_rate: wanted, where a quantile decides.
        tiling: how images are looked at, here and later.
        score: what decides an image, here and later; None as `FuzzyCLIP.choose_score` has it.
        batch_size, workers, opener: as `FuzzyCLIP.detect` takes them.

    Raises:
        ValueError: masks are not as many as anomalous images or of another size, an image is given
            as normal and as anomalous, too few images could be read, there is no such score, or the
            false alarm rate is not between 0 and 1.
    """
    _check_rate(false_alarm_rate)  # before all images are looked at
    places = {os.path.realpath(path): path for path in normal}
    for path in anomalous:
        if (other := places.get(os.path.realpath(path))) is not None:
            raise ValueError(_describe_twins(other, path))
    if masks and len(masks) != len(anomalous):
        raise ValueError(
            f"{len(masks)} masks for {len(anomalous)} anomalous images: give one each, or none"
        )
    truths: dict[str, Path] = (
        dict(zip(map(show_name, anomalous), masks, strict=True)) if masks else {}
    )
    kind = detector.choose_score(category, score)
    scores: list[tuple[float, int]] = []
    highest: list[float] = []  # of each normal image's map
    unreadable: list[Unreadable] = []
    contents: dict[str, str] = {}  # of normal images, by digest
    pixels = PixelCalibrator()
    # any threshold will do: it is what is looked for
    predictions = detector.detect(
        [*normal, *anomalous], category, batch_size=batch_size, workers=workers,
        tiling=tiling, threshold=0.0, opener=opener, score=kind,
    )  # fmt: skip
    for number, prediction in enumerate(predictions):
        if isinstance(prediction, Unreadable):
            unreadable.append(prediction)
            continue
        label = int(number >= len(normal))
        if not label:
            contents[prediction.sha256] = prediction.name
        elif prediction.sha256 in contents:
            raise ValueError(_describe_twins(contents[prediction.sha256], prediction.name))
        scores.append((prediction.image_score, label))
        if not label:
            highest.append(float(prediction.anomaly_map.max()))
        if truths:
            truth = truths.get(prediction.name) if label else None
            pixels.add(prediction.anomaly_map, _load_truth(prediction, truth))
    if not highest:
        raise ValueError("no normal image could be read; a threshold needs some")
    values, labels = zip(*scores, strict=True)
    image = (
        choose_by_f1(values, labels) if anomalous else choose_by_quantile(values, false_alarm_rate)
    )
    separation = measure_separation(values, labels)
    if separation.auroc is not None and separation.doubt:
        worth = f"AUROC {to_percent(separation.auroc)}, {separation.doubt}"
        image = image.model_copy(update={"note": f"{worth}; {image.note}"})
    pixel = pixels.choose() if truths else choose_by_quantile(highest, false_alarm_rate, most=1)
    memory = detector.memories.get(category)
    digest = digest_memory(memory) if memory else None
    calibration = Calibration(image=image, pixel=pixel, tiling=tiling, memory=digest, score=kind)
    return Calibrated(calibration, unreadable, separation)


def _describe_twins(normal: str | Path, anomalous: str | Path) -> str:
    where = f"{normal} as normal" if str(normal) == str(anomalous) else f"{normal}, a normal one,"
    return f"{anomalous}: given as anomalous and {where}: an image shows a defect or it does not"


def _load_truth(prediction: Prediction, path: Path | None) -> np.ndarray:
    """The mask (H, W) of an image, which must have its size; all normal without a path."""
    shape = prediction.anomaly_map.shape
    if path is None:
        return np.zeros(shape, dtype=bool)
    mask = load_mask(path)
    if mask.shape != shape:
        raise ValueError(
            f"{path}: a mask of {mask.shape[1]} x {mask.shape[0]} pixels, but the image "
            f"{prediction.name} has {shape[1]} x {shape[0]}"
        )
    return mask


def match_masks(images: Sequence[Path], masks: Sequence[Path]) -> list[Path]:
    """The mask of each image: the file of the same name, or with `_mask`, `_gt`, `_label` after it.

    Raises:
        ValueError: an image has none or several; names it.
    """
    by_name: dict[str, list[Path]] = {}
    for mask in masks:
        for stem in list_stems(mask.stem):
            by_name.setdefault(stem, []).append(mask)
    matched = []
    for image in images:
        candidates = by_name.get(image.stem, [])
        same_folder = [path for path in candidates if path.parent.name == image.parent.name]
        chosen = candidates if len(candidates) == 1 else same_folder
        if len(chosen) != 1:
            raise ValueError(
                f"{image}: {len(candidates)} masks are called {image.stem} or {image.stem}_mask; "
                "there must be one (in a folder of the image's folder name, where several are)"
            )
        matched.append(chosen[0])
    return matched


def choose_by_f1(scores: ArrayLike, labels: ArrayLike) -> Threshold:
    """The threshold of image scores with the largest F1, the highest one among several.

    It lies in the middle between the lowest score that reaches it and the next one below, or is
    that lowest one if there is none below. Intervals are exact ones of a binomial share (Clopper &
    Pearson, 1934); they do not know that the threshold was chosen on the same images, so that new
    ones do worse on average.

    Args:
        scores: (n,), finite.
        labels: (n,), 0 normal, 1 anomalous.

    Raises:
        ValueError: shapes differ, a score is not finite, a label is another one, or one of the two
            is missing.
    """
    given, truth = _check_scores(scores), np.asarray(labels)
    if truth.shape != given.shape:
        raise ValueError(f"{len(given)} scores and labels {truth.shape} do not belong together")
    if not np.isin(truth, (0, 1)).all():
        raise ValueError("labels are 0 (normal) and 1 (anomalous)")
    ranking = rank(given, truth)
    if ranking is None:
        raise ValueError(
            f"F1 needs normal and anomalous images: of {len(given)} images, {int(truth.sum())} are "
            "anomalous; with normal images alone, choose by the false alarm rate"
        )
    best = int(_compute_f1(ranking.tp, ranking.fp, ranking.positives).argmax())
    lowest = float(ranking.thresholds[best])  # that reaches the threshold
    below = float(ranking.scores[ranking.scores < lowest].max(initial=-np.inf))
    tp, fp = int(ranking.tp[best]), int(ranking.fp[best])
    return _describe_f1(_split(below, lowest), tp, fp, ranking.positives, ranking.negatives)


def choose_by_quantile(scores: ArrayLike, false_alarm_rate: float, most: float = inf) -> Threshold:
    """The lowest threshold that is expected to alarm on no more than a share of normal images.

    The threshold lies just above the (n + 1 - k)-th lowest of n scores. Whatever distribution they
    have, the false alarm rate of new images then follows Beta(k, n + 1 - k), with mean k / (n + 1)
    (David & Nagaraja, Order Statistics, chapter 2); where scores are equal, it is at most that. k
    is the largest with k / (n + 1) <= `false_alarm_rate`.

    A rate below 1 / (n + 1) can not be had from n images: the threshold is then just above the
    highest score, the expected rate is 1 / (n + 1), and the note says how many images would do.

    Args:
        scores: (n,), finite, of normal images that stand for those to come; not those that the
            model was trained on or remembers.
        false_alarm_rate: share of normal images, between 0 and 1.
        most: what a score can be at most.

    Raises:
        ValueError: no scores, one is not finite or above `most`, or the rate is not between 0 and
            1.
    """
    given = np.sort(_check_scores(scores))
    if given[-1] > most:
        raise ValueError(f"a score of {given[-1]:g}, but {most:g} is the most there is")
    _check_rate(false_alarm_rate)
    total = len(given)
    allowed = floor((total + 1) * false_alarm_rate * (1 + ROUNDING))
    alarms = max(allowed, 1)
    rest = total + 1 - alarms
    highest = given[rest - 1]
    notes = []
    if not allowed:
        enough = ceil(1 / false_alarm_rate * (1 - ROUNDING)) - 1
        notes.append(
            f"a false alarm rate of {false_alarm_rate:g} can not be had from {total} normal "
            f"image{'s' * (total != 1)}, {enough} would do; this is the highest score"
        )
    if np.count_nonzero(given == highest) > 1:
        notes.append("several images have this very score: the rate may be lower")
    if highest == most:
        notes.append("a normal image has the highest score: nothing reaches this threshold")
    spread = stats.beta(alarms, rest).interval(CONFIDENCE)
    return Threshold(
        value=float(raise_score(highest)),
        method="quantile",
        normal=total,
        false_alarm_rate=alarms / (total + 1),
        false_alarm_interval=(float(spread[0]), float(spread[1])),
        asked_rate=float(false_alarm_rate),
        note="; ".join(notes),
    )


class PixelCalibrator:
    """The threshold of map pixels with the largest F1, from maps and masks as they come.

    Pixels are counted in the bins of `ScoreHistogram`, 2**-14 of a score wide: memory does not grow
    with the images, and the order of images does not matter. What a threshold gives is exact;
    thresholds inside of a bin are not looked at.
    """

    def __init__(self) -> None:
        self._histogram = ScoreHistogram()
        self._images = [0, 0]  # normal, anomalous

    def add(self, anomaly_map: ArrayLike, mask: ArrayLike) -> None:
        """Take one image.

        Args:
            anomaly_map: (H, W), in [0, 1].
            mask: (H, W), true where anomalous; nowhere in a normal image.

        Raises:
            ValueError: sizes differ, a type finer than float32, or a value is not in [0, 1].
                Nothing is taken then.
        """
        given, truth = as_float32(anomaly_map), np.asarray(mask, dtype=bool)
        if given.ndim != 2 or given.shape != truth.shape:
            raise ValueError(f"map {given.shape} and mask {truth.shape} are not (H, W) alike")
        hits = given[truth]
        none = np.zeros(len(hits))  # regions do not count here
        if not ((given >= 0) & (given <= 1)).all():
            raise ValueError("map values must be numbers in [0, 1]")
        self._histogram.add(_check_scores(given.reshape(-1)), hits, none, 0)
        self._images[bool(len(hits))] += 1

    def choose(self) -> Threshold:
        """The threshold from all images so far, the highest one among several.

        Raises:
            ValueError: no pixel is anomalous, or none is normal.
        """
        cells = self._histogram.list_cells()
        positives, negatives = int(cells.positives.sum()), int(cells.negatives.sum())
        if not positives or not negatives:
            raise ValueError(
                f"F1 needs normal and anomalous pixels, there are {negatives} and {positives}; "
                "without masks, choose by the false alarm rate"
            )
        tp, fp = (
            np.cumsum(amounts[::-1], dtype=np.float64)[::-1]
            for amounts in (cells.positives, cells.negatives)
        )
        scores = _compute_f1(tp, fp, positives)
        best = int(np.flatnonzero(scores == scores.max())[-1])
        value = _split(*_find_ends(cells, best))
        counted = _describe_f1(value, int(tp[best]), int(fp[best]), positives, negatives)
        normal, anomalous = self._images
        apart: dict[str, object] = {"normal": normal, "anomalous": anomalous, "counted": "pixels"}
        without = {"false_alarm_interval": None, "miss_interval": None}
        share = positives / (positives + negatives)
        everywhere = 2 * share / (1 + share)  # F1 of marking all pixels
        reached = counted.f1 or 0.0
        if reached < max(USEFUL_F1, 1.2 * everywhere):
            apart["note"] = (
                f"of little worth: what it outlines agrees with the masks to an F1 of "
                f"{to_percent(reached)}, marking every pixel to {to_percent(everywhere)}; "
                f"{counted.note}"
            )
        return counted.model_copy(update=apart | without)


def _find_ends(cells: Cells, place: int) -> tuple[float, float]:
    """Highest score below a cell, 0 if there is none, and lowest score in it."""
    low = float(find_scores(cells.highest[place - 1 : place])[0]) if place else 0.0
    return low, float(find_scores(cells.lowest[place : place + 1])[0])


def _check_scores(scores: ArrayLike) -> Scores:
    """Scores (n,) as float32, at least one, all finite."""
    given = np.asarray(scores, dtype=np.float32)
    if given.ndim != 1 or not given.size:
        raise ValueError(f"scores {given.shape} must be a list of at least one")
    if not np.isfinite(given).all():
        raise ValueError("scores must be finite numbers")
    return given


def _check_rate(false_alarm_rate: float) -> None:
    if not 0 < false_alarm_rate < 1:
        raise ValueError(f"false alarm rate {false_alarm_rate}: give a share between 0 and 1")


def _compute_f1(tp: Floats, fp: Floats, positives: int) -> Floats:
    """F1 where tp anomalous and fp normal ones reach a threshold."""
    return 2 * tp / (tp + fp + positives)


def _split(below: float, reached: float) -> float:
    """A float32 in the middle of two, but above the lower one, where no float lies between."""
    middle = np.float32((below + reached) / 2)
    return float(middle) if middle > below else reached


def _describe_f1(value: float, tp: int, fp: int, positives: int, negatives: int) -> Threshold:
    """A threshold that tp of the anomalous and fp of the normal ones reach, and what it gives."""
    missed = positives - tp
    return Threshold(
        value=value,
        method="f1_max",
        normal=negatives,
        anomalous=positives,
        false_alarm_rate=fp / negatives,
        false_alarm_interval=_bound_share(fp, negatives),
        miss_rate=missed / positives,
        miss_interval=_bound_share(missed, positives),
        precision=tp / (tp + fp),
        recall=tp / positives,
        f1=2 * tp / (tp + fp + positives),
        note="chosen on the images it was counted on: new ones do worse on average",
    )


def _bound_share(hits: int, total: int) -> tuple[float, float]:
    """Exact interval of a binomial share (Clopper & Pearson, 1934)."""
    share = stats.binomtest(hits, total).proportion_ci(CONFIDENCE, method="exact")
    return float(share.low), float(share.high)
