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
        """Metric to its gain, for those that every variant has, in points.

        Each has `over`, the best of the others; `difference`; and `low` and `high`, the ends of the
        95 % interval, null where there is none.
        """
        if not self.others or not self._lines:
            return {}
        frame = pd.DataFrame(self._lines).reindex(columns=["variant", *METRICS])
        means = frame.groupby("variant", sort=False).mean()
        gains = {}
        for metric in METRICS:
            if means[metric].isna().any():
                continue
            best = str(means[metric][self.others].idxmax())
            difference = means[metric][self.own] - means[metric][best]
            pairs = [(drawn[self.own], drawn[best]) for drawn in self._drawn]
            paired = compare_resampled(pairs).get(metric)
            gains[metric] = {
                "over": best,
                "difference": round(float(difference), 4),
                "low": None if paired is None else round(100 * paired.low, 4),
                "high": None if paired is None else round(100 * paired.high, 4),
            }
        return gains
