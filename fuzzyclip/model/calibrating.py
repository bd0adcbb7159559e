"""From labelled images, or from good ones alone, to the thresholds of a category.

Shapes: H rows, W columns of an image.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fuzzyclip.images.decode import load_mask
from fuzzyclip.model.calibration import PixelCalibrator, choose_by_f1, choose_by_quantile
from fuzzyclip.model.card import Calibration, Tiling
from fuzzyclip.model.detector import FuzzyCLIP
from fuzzyclip.model.memories import digest_memory
from fuzzyclip.model.opening import Opener
from fuzzyclip.model.prediction import Prediction, Unreadable


@dataclass(frozen=True)
class Calibrated:
    """Thresholds, and what could not be read on the way to them."""

    calibration: Calibration
    unreadable: list[Unreadable]


def calibrate(
    detector: FuzzyCLIP,
    category: str,
    good: Sequence[Path],
    bad: Sequence[Path] = (),
    masks: Sequence[Path] = (),
    *,
    false_alarm_rate: float = 0.05,
    tiling: Tiling | None = None,
    batch_size: int = 8,
    workers: int = 1,
    opener: Opener | None = None,
) -> Calibrated:
    """Choose the thresholds of a category.

    With bad images the image threshold is that of the largest F1, else the quantile of the good
    ones. With masks the pixel threshold is that of the largest F1 over pixels, else one that
    `false_alarm_rate` of good images reach with any pixel. Memory does not grow with the images.

    Args:
        detector: the model; its reference images, if it has some, take part.
        category: as it stands in the prompts.
        good: images without any defect, none of them a reference image.
        bad: images with defects.
        masks: ground truth of the bad ones, in the same order; empty for none.
        false_alarm_rate: wanted, where a quantile decides.
        tiling: how images are looked at, here and later.
        batch_size: see `FuzzyCLIP.detect`, as the arguments below.
        workers: likewise.
        opener: likewise.

    Raises:
        ValueError: masks are not as many as bad images or of another size, or too few images could
            be read.
    """
    if masks and len(masks) != len(bad):
        raise ValueError(f"{len(masks)} masks for {len(bad)} bad images: give one each, or none")
    truths: dict[str, Path] = dict(zip(map(str, bad), masks, strict=True)) if masks else {}
    scores: list[tuple[float, int]] = []
    highest: list[float] = []  # of each good image's map
    unreadable: list[Unreadable] = []
    pixels = PixelCalibrator()
    # any threshold will do: it is what is looked for
    found = detector.detect(
        [*good, *bad], category, batch_size=batch_size, workers=workers,
        tiling=tiling, threshold=0.0, opener=opener,
    )  # fmt: skip
    for number, one in enumerate(found):
        if isinstance(one, Unreadable):
            unreadable.append(one)
            continue
        label = int(number >= len(good))
        scores.append((one.image_score, label))
        if not label:
            highest.append(float(one.anomaly_map.max()))
        if truths:
            pixels.add(one.anomaly_map, _load_truth(one, truths.get(one.name) if label else None))
    if not highest:
        raise ValueError("no good image could be read; a threshold needs some")
    values, labels = zip(*scores, strict=True)
    image = choose_by_f1(values, labels) if bad else choose_by_quantile(values, false_alarm_rate)
    pixel = pixels.choose() if truths else choose_by_quantile(highest, false_alarm_rate, most=1)
    memory = detector.memories.get(category)
    digest = digest_memory(memory) if memory else None
    calibration = Calibration(image=image, pixel=pixel, tiling=tiling, memory=digest)
    return Calibrated(calibration, unreadable)


def _load_truth(found: Prediction, path: Path | None) -> np.ndarray:
    """The mask (H, W) of an image; all normal without a path.

    Raises:
        ValueError: it has another size than the image.
    """
    shape = found.anomaly_map.shape
    if path is None:
        return np.zeros(shape, dtype=bool)
    mask = load_mask(path)
    if mask.shape != shape:
        raise ValueError(
            f"{path}: a mask of {mask.shape[1]} x {mask.shape[0]} pixels, but the image "
            f"{found.name} has {shape[1]} x {shape[0]}"
        )
    return mask


def match_masks(images: Sequence[Path], masks: Sequence[Path]) -> list[Path]:
    """The mask of each image: the file of the same name, or with `_mask` after it.

    Raises:
        ValueError: an image has none or several; names it.
    """
    by_name: dict[str, list[Path]] = {}
    for mask in masks:
        by_name.setdefault(mask.stem.removesuffix("_mask"), []).append(mask)
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
