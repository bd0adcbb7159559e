"""Gains over the best variant without training, against the comparison of whole experiments."""

import numpy as np
import pandas as pd
import pytest
from summary_cases import draw_maps, name_images

from fuzzyclip.evaluation.bootstrap import ImageResults, compare_experiments
from fuzzyclip.evaluation.category import CategoryResult
from fuzzyclip.evaluation.gains import RESAMPLES, Gains
from fuzzyclip.evaluation.metrics import (
    METRICS,
    PIXEL_METRICS,
    compute_image_metrics,
    compute_pixel_metrics,
)
from fuzzyclip.evaluation.summaries import summarise_pixels

SEED = 3
#: Variant to how much of the maps it sees: the last one is the best without training.
VARIANTS = {"own": 1.0, "first": 0.3, "second": 0.6}


def draw_category(seed, name, variants=VARIANTS, summarised=VARIANTS):
    """A category's result, and each variant's as the comparison of experiments takes it."""
    maps, masks = draw_maps(seed, images=8)
    images, labels = name_images(8), masks.any(axis=(1, 2)).astype(int)
    noise = np.random.default_rng(seed).uniform(size=maps.shape).astype(np.float32)
    listing = pd.DataFrame({"image_path": images, "label": labels})
    table, summaries, results = [], {}, {}
    for variant, share in variants.items():
        seen = share * maps + (1 - share) * noise
        scores = seen.max(axis=(1, 2)).astype(np.float64)
        values = compute_image_metrics(scores, labels) | compute_pixel_metrics(seen, masks)
        line = {metric: 100 * value for metric, value in values.items()}
        table.append({"variant": variant, "category": name} | line)
        listing[variant] = scores
        if variant in summarised:
            summaries[variant] = summarise_pixels(seen, masks, images)
        results[variant] = ImageResults(images, labels, scores, summaries.get(variant))
    return CategoryResult(table, listing, [], summaries), results


def gather(categories, others=("first", "second")):
    gains = Gains("own", others, SEED)
    for result, _ in categories.values():
        gains.add(result)
    return gains.describe()


def test_gains_are_the_tables_differences_with_the_intervals_of_a_comparison():
    categories = {f"c{seed}": draw_category(seed, f"c{seed}") for seed in range(3)}
    tables = [pd.DataFrame(result.table) for result, _ in categories.values()]
    means = pd.concat(tables).groupby("variant")[[*METRICS]].mean()
    compared = {
        other: compare_experiments(
            {name: results["own"] for name, (_, results) in categories.items()},
            {name: results[other] for name, (_, results) in categories.items()},
            RESAMPLES,
            SEED,
        )
        for other in ("first", "second")
    }
    gains = gather(categories)
    assert set(gains) == set(METRICS)
    assert gains["pixel_ap"]["over"] == "second"
    for metric, gain in gains.items():
        best = means.loc[["first", "second"], metric].idxmax()
        assert gain["over"] == best
        difference = means.loc["own", metric] - means.loc[best, metric]
        assert gain["difference"] == pytest.approx(difference, abs=1e-4)
        paired = compared[best][metric]
        assert gain["low"] == pytest.approx(100 * paired.low, abs=1e-4)
        assert gain["high"] == pytest.approx(100 * paired.high, abs=1e-4)
        assert gain["low"] < gain["high"]
    assert gather(categories) == gains


def test_without_summaries_of_the_others_pixel_metrics_have_no_interval():
    """As with streaming metrics."""
    categories = {"c": draw_category(1, "c", summarised=["own"])}
    for metric, gain in gather(categories).items():
        assert (gain["low"] is None) == (gain["high"] is None) == (metric in PIXEL_METRICS)


def test_without_masks_pixel_metrics_are_absent():
    result, _ = draw_category(1, "c", summarised=[])
    for line in result.table:
        for metric in PIXEL_METRICS:
            del line[metric]
    assert set(gather({"c": (result, None)})) == {"image_auroc", "image_ap", "image_f1_max"}


def test_nothing_is_gained_over_nothing():
    assert gather({"c": draw_category(1, "c")}, others=()) == {}
    assert gather({}) == {}


def test_means_over_different_categories_are_not_compared():
    """Undefined for one variant in one category; where all lack it, the others still count."""
    names = ["c0", "c1", "c2"]
    categories = {name: draw_category(seed, name) for seed, name in enumerate(names)}
    whole = gather(categories)
    for line in categories["c0"][0].table:
        if line["variant"] == "first":
            line["pixel_aupro"] = np.nan
        line["image_ap"] = np.nan
    gains = gather(categories)
    assert set(gains) == set(METRICS) - {"pixel_aupro"}
    rest = gather({name: categories[name] for name in names[1:]})
    assert gains["image_ap"]["difference"] == rest["image_ap"]["difference"]
    unchanged = set(METRICS) - {"pixel_aupro", "image_ap"}
    assert {metric: gains[metric] for metric in unchanged} == {
        metric: whole[metric] for metric in unchanged
    }
