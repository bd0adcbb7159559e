"""Maps and masks of every hard kind, drawn from a seed, and how tests measure them."""

from contextlib import closing
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fuzzyclip.evaluation.pixel_meters import ExactMeter, MapFile, StreamingMeter
from fuzzyclip.method import Scale

Maps = NDArray[np.float32]
Masks = NDArray[np.bool_]


class Case(NamedTuple):
    """What a test names: a kind of scores, a kind of masks and a seed."""

    scores: str
    masks: str
    seed: int


SCORES = (
    "smooth", "tied", "binary", "constant", "tiny",
    "clumps", "negative", "zeros", "huge", "denormal",
)  # fmt: skip
MASKS = ("blobs", "one pixel", "speckles", "no region", "all")


def draw_case(case: Case, images: int = 3, side: int = 10) -> tuple[Maps, Masks]:
    """Maps and masks (images, side, side); the last image of blobs is normal."""
    rng = np.random.default_rng(case.seed)
    masks = _draw_masks(case.masks, rng, images, side)
    maps = _draw_scores(case.scores, rng, masks)
    return maps.astype(np.float32), masks


def _draw_masks(kind: str, rng: np.random.Generator, images: int, side: int) -> Masks:
    masks = np.zeros((images, side, side), dtype=bool)
    if kind == "blobs":
        for mask in masks[: max(images - 1, 1)]:
            y, x = rng.integers(0, side - 3, 2)
            mask[y : y + rng.integers(1, 5), x : x + rng.integers(1, 5)] = True
            mask[rng.integers(side), rng.integers(side)] = True
    elif kind == "one pixel":
        masks[0, rng.integers(side), rng.integers(side)] = True
    elif kind == "speckles":
        masks = rng.random(masks.shape) < 0.2
    elif kind == "all":
        masks[:] = True
    return masks


def _draw_scores(kind: str, rng: np.random.Generator, masks: Masks) -> NDArray[np.floating]:
    noise = rng.normal(size=masks.shape) + rng.uniform(0, 2) * masks
    unit = 1 / (1 + np.exp(-noise))
    if kind == "tied":
        return np.round(unit * 6) / 7
    if kind == "binary":
        return (unit > rng.random()).astype(float)
    if kind == "constant":
        return np.full(masks.shape, rng.normal())
    if kind == "tiny":  # all in one bin or two
        return 1 + np.round(unit * 700) * 2.0**-23 - rng.integers(2) * 2.0**-15
    if kind == "clumps":
        return _draw_clumps(rng, masks)
    if kind == "negative":
        return -np.exp(-3 * noise)
    if kind == "zeros":
        return rng.choice([-0.0, 0.0, 1.0, -1e-45, 1e-45], masks.shape)
    if kind == "huge":
        return np.sign(noise) * np.exp2(rng.uniform(-149, 127.99, masks.shape))
    if kind == "denormal":
        return noise * 2.0**-138
    return noise


def _draw_clumps(rng: np.random.Generator, masks: Masks) -> NDArray[np.floating]:
    """Scores crowd around steps of the field's AUPRO, that between 0 and 1, within a bin.

    The clumps' sizes are such that the false positive rate passes the limit inside of one.
    """
    steps = rng.integers(1, 200, 3) / 200
    share = rng.dirichlet([1, 1, 1])
    scores = rng.choice(steps, masks.shape, p=share) + rng.integers(-40, 41, masks.shape) * 2.0**-26
    scores += masks * rng.integers(0, 20) * 2.0**-26
    scores.flat[rng.choice(scores.size, 2, replace=False)] = 0, 1
    return np.clip(scores, 0, 1)


#: How log-odds lie: over the whole scale; next to those of 1/3 and 2/3, as sums of sure maps do; on
#: floats of their own; all of them within one float32, or a few.
ODDS = ("wide", "plateaus", "ends", "float32", "one", "few")


def draw_odds(kind: str, masks: str, seed: int) -> tuple[NDArray[np.float64], Masks]:
    """Log-odds of float64 and masks, (3, 10, 10)."""
    noise, truth = draw_case(Case("smooth", masks, seed))
    rng, fine = np.random.default_rng(seed), noise.astype(np.float64)
    whole = np.log(rng.choice([0.5, 2.0], noise.shape))  # of 1/3 and 2/3
    if kind == "plateaus":
        return whole + fine * np.exp(rng.uniform(-28, -17, noise.shape)), truth
    if kind == "ends":
        return 30 * np.sign(fine) + fine, truth
    if kind == "float32":
        return np.float32(10 * noise).astype(np.float64), truth
    if kind == "one":
        single = float(np.float32(rng.choice([rng.normal(), 0.5, 1.0, -2.0])))
        return single * (1 + 2.0**-28 * fine / np.abs(fine).max()), truth
    if kind == "few":
        single = np.float32(rng.normal()) + rng.integers(3, size=noise.shape) * 2.0**-24
        return single * (1 + 2.0**-28 * fine), truth
    return rng.choice([3.0, 12.0]) * fine, truth


def feed(meter, maps, masks, cuts):
    """Add all maps, split at some places."""
    for first, end in pairwise([0, *sorted(cuts), len(maps)]):
        meter.add(maps[first:end], masks[first:end])
    return meter.compute()


def measure_stream(maps, masks, scale=Scale.PLAIN):
    return feed(StreamingMeter(scale), maps, masks, [])


def measure_exactly(maps, masks, cuts=(), scale=Scale.PLAIN):
    """The result of an exact meter, which computing again does not change."""
    kind = np.float64 if maps.dtype == np.float64 else np.float32
    with (
        TemporaryDirectory() as folder,
        closing(MapFile(Path(folder) / "x.maps", maps.shape[-1], kind)) as file,
    ):
        meter = ExactMeter(file, scale)
        result = feed(meter, maps, masks, cuts)
        assert meter.compute() == result
        return result


def hold(result, exact):
    """The exact metrics lie between the bounds, and so do the estimates."""
    assert result.values.keys() == result.low.keys() == result.high.keys()
    assert exact.keys() <= result.values.keys()
    assert result.values.keys() - exact.keys() <= {"pixel_aupro"}
    for name in exact:
        low, high = result.low[name], result.high[name]
        value = min(exact[name], 1.0)  # sums of the stepped AUPRO round up to 1 + 2e-16
        assert 0 <= low <= value <= high <= 1, name
        assert low <= result.values[name] <= high, name
