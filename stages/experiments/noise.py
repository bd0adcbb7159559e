"""What other test images would have changed in the difference of two results.

For every difference of a comparison's page the 95 % interval of a paired bootstrap over images, as
`fuzzyclip.evaluation.bootstrap` draws it, where the image scores of both sides are at hand; pixel
metrics where the pixel summaries are, which are kept of FuzzyCLIP alone.
"""

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from fuzzyclip.evaluation.bootstrap import (
    PairedDifference,
    Resampled,
    check_same_images,
    compare_resampled,
    resample,
)
from fuzzyclip.method import OWN
from fuzzyclip.report.comparison import Intervals, Noise, is_change
from stages.experiments.compare import RESAMPLES, read_method_images
from stages.experiments.results import Results

#: Of the draws: equal results have equal pages.
SEED = 0


def measure_noise(first: Results, second: Results, table: pd.DataFrame) -> Noise:
    """Intervals of every category and mean in which a variant changed on a dataset.

    Args:
        first: where the image scores of the first side lie.
        second: those of the second side.
        table: both sides' results, from `fuzzyclip.report.comparison.join_results`.
    """
    intervals: Intervals = {}
    gaps: dict[str, list[str]] = {}
    changed = table[is_change(table)]
    for dataset, variant in dict.fromkeys(zip(changed["dataset"], changed["variant"], strict=True)):
        try:
            drawn = draw(first, second, dataset, variant)
        except (ValueError, OSError) as error:
            gaps.setdefault(str(error), []).append(dataset)
            continue
        for name, pair in drawn.items():
            _note(intervals, (dataset, variant, name), compare_resampled([pair]))
        _note(intervals, (dataset, variant, None), compare_resampled([*drawn.values()]))
    notes = [
        f"No interval on {', '.join(dict.fromkeys(datasets))}: {reason}."
        for reason, datasets in gaps.items()
    ]
    return Noise(intervals, notes)


def draw(
    first: Results, second: Results, dataset: str, variant: str
) -> dict[str, tuple[Resampled, Resampled]]:
    """Category to the metrics of the second and of the first side on the same draws of images.

    Raises:
        ValueError: results are not there, or of other images.
    """
    sides = []
    for results in (second, first):
        try:
            sides.append(read_method_images(results, OWN, dataset, variant))
        except KeyError as error:
            raise ValueError(f"the image scores of {results.name} have no {error}") from error
    ours, theirs = sides
    rng, pairs = np.random.default_rng(SEED), {}
    for name in ours:
        if name in theirs:
            check_same_images(name, ours[name], theirs[name])
            with threadpool_limits(1):  # many small products: threads would wait for one another
                pair = resample([ours[name], theirs[name]], RESAMPLES, rng)
            pairs[name] = (pair[0], pair[1])
    return pairs


def _note(
    intervals: Intervals,
    place: tuple[str, str, str | None],
    compared: dict[str, PairedDifference],
) -> None:
    for metric, paired in compared.items():
        intervals[*place, metric] = (100 * paired.low, 100 * paired.high)
