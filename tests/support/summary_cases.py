"""Maps that follow their masks half-heartedly, and their summaries."""

import numpy as np
from scipy import ndimage

from fuzzyclip.evaluation import metrics
from fuzzyclip.evaluation.summaries import summarise_pixels

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


def summarise(maps, masks):
    return summarise_pixels(maps, masks, name_images(len(maps)))


def repeat(maps, masks, times):
    return metrics.compute_pixel_metrics(np.repeat(maps, times, 0), np.repeat(masks, times, 0))
