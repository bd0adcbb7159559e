"""What a trained variant gains over the best one without training, on one dataset.

Differences are those of the means in the tables. Their intervals come from a paired bootstrap over
images, `fuzzyclip.evaluation.bootstrap`, drawn a category at a time so that nothing is kept of an
image.

Shapes: R resamples.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from fuzzyclip.evaluation.bootstrap import ImageResults, Resampled, compare_resampled, resample
from fuzzyclip.evaluation.category import CategoryResult
from fuzzyclip.evaluation.metrics import METRICS

#: R. Half of what `fuzzyclip tables compare` draws: each evaluation pays for it.
RESAMPLES = 1000
KEYS = ("category", "variant")


class Gains:
    """Takes the categories of a dataset one after the other; gives gains at the end."""

    def __init__(self, own: str, others: Sequence[str], seed: int) -> None:
        """Gains of the variant `own` over the best of `others`; equal seeds draw alike."""
        self.own, self.others = own, list(others)
        self._rng = np.random.default_rng(seed)
        self._lines: list[Mapping[str, Any]] = []
        self._drawn: list[dict[str, Resampled]] = []

    def add(self, result: CategoryResult) -> None:
        """Take a category. Without summaries of a variant its pixel metrics get no interval."""
        variants, listing = [self.own, *self.others], result.listing
        results = [
            ImageResults(
                images=listing["image_path"].tolist(),
                labels=listing["label"].to_numpy(),
                scores=listing[variant].to_numpy(np.float64),
                pixels=result.summaries.get(variant),
            )
            for variant in variants
        ]
        with threadpool_limits(1):  # many small products: threads would wait for one another
            drawn = resample(results, RESAMPLES, self._rng)
        self._drawn.append(dict(zip(variants, drawn, strict=True)))
        self._lines += [line for line in result.table if line["variant"] in variants]

    def describe(self) -> dict[str, dict[str, Any]]:
        """Metric to its gain in points, where all variants have it in the same categories.

        Means over different categories are not compared: the 200-threshold AUPRO is undefined on
        some maps without training. Each has `over`, the best of the others; `difference`; and
        `low` and `high`, the ends of the 95 % interval, null where there is none.
        """
        if not self.others or not self._lines:
            return {}
        compared = {
            other: compare_resampled([(drawn[self.own], drawn[other]) for drawn in self._drawn])
            for other in self.others
        }
        frame, gains = pd.DataFrame(self._lines).reindex(columns=[*KEYS, *METRICS]), {}
        for metric in METRICS:
            values = frame.pivot_table(metric, *KEYS, dropna=False, sort=False).dropna(how="all")
            if values.empty or values.isna().any(axis=None):
                continue
            means = values.mean()
            best = str(means[self.others].idxmax())
            paired = compared[best].get(metric)
            gains[metric] = {
                "over": best,
                "difference": round(float(means[self.own] - means[best]), 4),
                "low": None if paired is None else round(100 * paired.low, 4),
                "high": None if paired is None else round(100 * paired.high, 4),
            }
        return gains
