"""Maps that follow their masks half-heartedly, and their summaries."""

import numpy as np
import pytest
from scipy import ndimage

from fuzzyclip.evaluation import metrics
from fuzzyclip.evaluation.bounded_curves import HIGH, LOW, MIDDLE
from fuzzyclip.evaluation.pixel_meters import StreamingMeter
from fuzzyclip.evaluation.summaries import (
    choose_thresholds,
    summarise_pixels,
    summarise_stream,
    weigh_pixel_metrics,
)
from fuzzyclip.method import Scale

#: The four metrics whose thresholds are all scores; the fifth has the field's 200 steps.
CURVE_METRICS = [name for name in metrics.PIXEL_METRICS if name != "pixel_aupro"]


def name_images(count):
    return [f"{index:03d}.png" for index in range(count)]


def draw_maps(seed, images=6, side=48, blob=12, levels=None):
    """Smooth maps in (0, 1) that follow their masks half-heartedly; `levels` makes ties."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((images, side, side), dtype=bool)
    for mask in masks[: images - 2]:  # the last two stay normal
        for _ in range(rng.integers(1, 4)):
            y, x = rng.integers(0, side - blob, 2)
            height, width = rng.integers(1, blob + 1, 2)
            mask[y : y + height, x : x + width] = True
    noise = ndimage.gaussian_filter(rng.normal(size=masks.shape), (0, 2, 2)) * 7
    noise += rng.normal(size=(images, 1, 1)) * 0.5  # images differ, so that weights matter
    signal = ndimage.gaussian_filter(masks.astype(float), (0, 2, 2)) * rng.uniform(1, 6)
    maps = 1 / (1 + np.exp(2 - noise - signal))
    if levels:
        maps = np.round(maps * levels) / levels
    return maps.astype(np.float32), masks


def slow_pro(maps, masks, cut, strict):
    """Mean covered fraction over 8-connected regions, and the false positive rate, at one cut."""
    hot = maps > cut if strict else maps >= cut
    covered = []
    for mask, above in zip(masks, hot, strict=True):
        regions, count = ndimage.label(mask, structure=np.ones((3, 3)))
        covered += [above[regions == index].mean() for index in range(1, count + 1)]
    return np.mean(covered), hot[~masks].mean()


def slow_aupro_steps(maps, masks, low, high):
    """The loop over 200 thresholds that the field's repositories share, between given ends."""
    cuts = [low + step * (high - low) / 200 for step in range(200)]
    points = [slow_pro(maps.astype(float), masks, cut, strict=True) for cut in cuts]
    pros, fprs = np.array([point for point in points if point[1] < 0.3]).T
    return -np.trapezoid(pros, (fprs - fprs.min()) / (fprs.max() - fprs.min()))


def summarise(maps, masks, scale=Scale.PLAIN):
    return summarise_pixels(maps, masks, name_images(len(maps)), scale)


def summarise_as_it_comes(maps, masks, scale=Scale.PLAIN):
    """In memory that does not grow: once to choose thresholds, once to count."""
    meter = StreamingMeter(scale)
    meter.add(maps, masks)
    pairs = zip(maps.astype(np.float32), masks, strict=True)
    return summarise_stream(
        pairs, name_images(len(maps)), choose_thresholds(meter.histogram, scale)
    )


def estimate_pixel_metrics(summaries, weights=None, place=MIDDLE):
    """Pixel metrics under one weighting (N,), default 1 each; undefined ones are absent."""
    times = np.ones(len(summaries.images)) if weights is None else np.asarray(weights)
    values = weigh_pixel_metrics(summaries, times[None], place)
    return {name: float(value[0]) for name, value in values.items() if np.isfinite(value[0])}


def repeat(maps, masks, times):
    return metrics.compute_pixel_metrics(np.repeat(maps, times, 0), np.repeat(masks, times, 0))


def lie_between(summaries, exact, weights=None):
    """The exact metrics lie between the bounds; that of the steps is free of error."""
    low, middle, high = (
        estimate_pixel_metrics(summaries, weights, place) for place in (LOW, MIDDLE, HIGH)
    )
    assert low.keys() == middle.keys() == high.keys() == exact.keys()
    for name, value in exact.items():
        assert low[name] - 1e-6 <= value <= high[name] + 1e-6, name
        assert low[name] - 1e-6 <= middle[name] <= high[name] + 1e-6, name
    if "pixel_aupro" in exact:
        assert middle["pixel_aupro"] == pytest.approx(exact["pixel_aupro"], abs=1e-6)
        assert low["pixel_aupro"] == middle["pixel_aupro"] == high["pixel_aupro"]
    return low, middle, high
