"""One category of an evaluation: one pass over its tokens, all rows of the tables at once.

Nothing that is held grows with the number of images but scores, and with exact pixel metrics the
pixels of one row while they are sorted.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor

from fuzzyclip.clip.backbone import Backbone
from fuzzyclip.clip.pixels import load_pixels
from fuzzyclip.evaluation.map_file import MapFile
from fuzzyclip.evaluation.metrics import (
    METRICS,
    TIED_SHARE,
    compute_image_metrics,
    count_tied_ends,
)
from fuzzyclip.evaluation.pixel_meters import ExactMeter, PixelMeter, PixelResult, StreamingMeter
from fuzzyclip.evaluation.rows import TRAINED
from fuzzyclip.evaluation.summaries import PixelSummaries, summarise_pixels, summarise_stream
from fuzzyclip.evaluation.thresholds import choose_thresholds
from fuzzyclip.features.kinds import TOKENS, FeatureKind
from fuzzyclip.features.store import CategoryFeatures
from fuzzyclip.images.masks import load_masks
from fuzzyclip.method.scales import Scale
from fuzzyclip.method.scorer import NotFiniteError, Scorer, Scores, join_scores, score_batch
from fuzzyclip.utils.prefetch import prefetch, release_memory
from stages import paths
from stages.overlays import Overlays

#: Images whose maps are made at once. Not a parameter: it decides memory, and hardly the time.
BATCH = 8
#: Columns of a table by row and category, see `describe`.
COLUMNS = ("row", "category", "good", "bad", "tied", *METRICS, "prompt")

log = logging.getLogger(__name__)

Masks = NDArray[np.bool_]


class Batch(NamedTuple):
    """Consecutive images: place of the first, tokens (B, L, P, W), embeds (B, D), masks (B, S, S).

    Masks are None where the category has none.
    """

    first: int
    patch_tokens: Tensor
    image_embed: Tensor
    masks: Masks | None


@dataclass(frozen=True)
class Category:
    """A category of a dataset: its index rows, their features of a kind, and the frozen CLIP."""

    dataset: str
    name: str
    rows: pd.DataFrame
    features: CategoryFeatures
    backbone: Backbone
    workers: int = 1
    kind: FeatureKind = TOKENS

    @property
    def has_masks(self) -> bool:
        """Whether every anomalous image has a mask; without, pixel metrics are absent, never 0."""
        return not ((self.rows["label"] == 1) & (self.rows["mask_path"] == "")).any()

    def load_masks(self, first: int = 0, stop: int | None = None) -> Masks:
        """Masks of some images, (B, S, S)."""
        return load_masks(self.rows.iloc[first:stop], self.backbone.image_size)

    def iterate(self) -> Iterator[Batch]:
        """All images in order; the next batch is read, or encoded, while one is used."""
        return prefetch(self._read, range(0, len(self.rows), BATCH), ahead=1)

    def read_tokens(self, places: Sequence[int]) -> Tensor:
        """Patch tokens of some images, (B, L, P, W): the stored ones, or encoded again."""
        if self.features.has_tokens:
            return self.features.read_tokens(places, self.backbone.device)
        images = [Path(path) for path in self.rows["image_path"].iloc[list(places)]]
        pixels = load_pixels(images, self.backbone, self.workers)
        return self.kind.encode(self.backbone, pixels)[1]

    def score(self, scorer: Scorer, batch: Batch, sigma: float) -> Scores:
        """`score_batch`; a ValueError names the image to which there is no finite answer."""
        try:
            return score_batch(scorer, batch.patch_tokens, batch.image_embed, self.backbone, sigma)
        except NotFiniteError as error:
            image = self.rows["image_path"].iloc[batch.first + error.rows[0]]
            raise ValueError(f"{image}: {error}") from error

    def _read(self, first: int) -> Batch:
        stop = min(first + BATCH, len(self.rows))
        tokens = self.read_tokens(range(first, stop))
        masks = self.load_masks(first, stop) if self.has_masks else None
        return Batch(first, tokens, self.features.image_embed[first:stop], masks)


@dataclass(frozen=True)
class CategoryResult:
    """What is kept of a category.

    Attributes:
        table: a line for each row of the tables: metrics in percent.
        listing: a line for each image: its scores by every row, and its cluster weights.
        bounds: a line for each row and pixel metric that is an estimate.
        summaries: of the kept row's maps, for a bootstrap over images; None without masks.
    """

    table: list[dict[str, Any]]
    listing: pd.DataFrame
    bounds: list[dict[str, Any]]
    summaries: PixelSummaries | None


def evaluate_category(
    category: Category,
    scorers: Mapping[str, Scorer],
    overlays: Overlays | None = None,
    *,
    exact: bool,
    sigma: float,
    kept_row: str = TRAINED,
) -> CategoryResult:
    """Every row of the tables on one category.

    Args:
        category: what is evaluated.
        scorers: by row.
        overlays: takes what pictures are made of, if there are to be any.
        exact: whether pixel metrics are exact; else they stream, see `metrics.pixel_meters`.
        sigma: Gaussian smoothing of maps in pixels.
        kept_row: of which overlays and summaries are made.
    """
    with ExitStack() as stack:
        pixels = (
            PixelSide(stack, category, scorers, exact, kept_row) if category.has_masks else None
        )
        kept: dict[str, list[Scores]] = {name: [] for name in scorers}
        if overlays is not None:
            overlays.start(category.rows)
        for batch in category.iterate():
            for name, scorer in scorers.items():
                scores = category.score(scorer, batch, sigma)
                if pixels is not None and batch.masks is not None:
                    pixels.add(name, scores.maps, batch.masks)
                if name == kept_row and overlays is not None:
                    overlays.take(batch.first, scores.shown, batch.masks)
                # a copy: an empty view would keep the maps alive
                kept[name].append(replace(scores, maps=scores.maps[:0].copy()))
            release_memory()
        joined = {name: finish_scores(scorers[name], kept[name]) for name in scorers}
        found = {name: pixels.compute(name) if pixels else PixelResult() for name in scorers}
        summaries = pixels.summarise() if pixels else None
    table = [
        describe(name, category, scorers[name], joined[name], found[name].values)
        for name in scorers
    ]
    bounds = [
        {"row": name, "category": category.name, "metric": metric}
        | {"low": 100 * result.low[metric], "high": 100 * result.high[metric]}
        for name, result in found.items()
        for metric in result.low
        if not exact
    ]
    return CategoryResult(table, list_images(category.rows, joined), bounds, summaries)


def finish_scores(scorer: Scorer, batches: Sequence[Scores]) -> Scores:
    """Scores of all images, judged together where a method does so."""
    scores = join_scores(batches)
    if scorer.combine is None:
        return scores
    return replace(scores, image_scores=scorer.combine(scores.image_scores, scores.peaks))


class PixelSide:
    """Maps on their way to pixel metrics: a meter for each row, one row's maps on disk."""

    def __init__(
        self,
        stack: ExitStack,
        category: Category,
        scorers: Mapping[str, Scorer],
        exact: bool,
        kept_row: str,
    ) -> None:
        """Open what is needed; the stack closes it."""
        self.category, self.kept_row = category, kept_row
        paths.SCRATCH.mkdir(parents=True, exist_ok=True)

        def open_file(name: str) -> MapFile:
            path = paths.SCRATCH / f"maps-{category.dataset}-{category.name}-{name}"
            fine = exact and scorers[name].scale is Scale.LOG_ODDS
            kind = np.float64 if fine else np.float32
            return stack.enter_context(MapFile(path, category.backbone.image_size, kind))

        self.kept = open_file(kept_row)
        self.meters: dict[str, PixelMeter] = {
            name: ExactMeter(self.kept if name == kept_row else open_file(name), scorer.scale)
            if exact
            else StreamingMeter(scorer.scale)
            for name, scorer in scorers.items()
        }
        self.scale = scorers[kept_row].scale

    def add(self, name: str, maps: NDArray[np.floating], masks: Masks) -> None:
        """Maps (B, S, S) of a row."""
        meter = self.meters[name]
        meter.add(maps, masks)
        if name == self.kept_row and isinstance(meter, StreamingMeter):
            self.kept.append(maps.astype(np.float32))

    def compute(self, name: str) -> PixelResult:
        """Pixel metrics of a row."""
        return self.meters[name].compute()

    def summarise(self) -> PixelSummaries:
        """What a bootstrap needs of the kept maps, read back from the disk."""
        images, meter = self.category.rows["image_path"].tolist(), self.meters[self.kept_row]
        if not isinstance(meter, StreamingMeter):
            masks = self.category.load_masks()
            return summarise_pixels(self.kept.view_all(), masks, images, self.scale)
        singly = (self.category.load_masks(row, row + 1)[0] for row in range(len(images)))
        pairs = zip(self.kept, singly, strict=True)
        return summarise_stream(pairs, images, choose_thresholds(meter.histogram, self.scale))


def describe(
    name: str, category: Category, scorer: Scorer, scores: Scores, pixels: Mapping[str, float]
) -> dict[str, Any]:
    """One line of the category table: metrics in percent, absent where undefined.

    `good` and `bad` are numbers of images, `tied` that of scores which tie at an end of the scale.
    """
    labels = category.rows["label"].to_numpy()
    tied = count_tied_ends(scores.image_scores)
    if tied >= TIED_SHARE * len(labels):
        log.warning(
            "%s/%s, %s: %d of %d image scores tie at an end of their scale; their metrics rank "
            "what the method does not", category.dataset, category.name, name, tied, len(labels)
        )  # fmt: skip
    values = compute_image_metrics(scores.image_scores, labels) | dict(pixels)
    line: dict[str, Any] = {
        "row": name,
        "category": category.name,
        "good": int((labels == 0).sum()),
        "bad": int((labels == 1).sum()),
        "tied": tied,
    }
    line |= {metric: 100 * values[metric] for metric in METRICS if metric in values}
    return line | {"prompt": scorer.prompt}


def list_images(rows: pd.DataFrame, scores: Mapping[str, Scores]) -> pd.DataFrame:
    """Image scores of every row of the tables, and cluster weights."""
    listing = rows[["image_path", "category", "label", "defect"]].copy()
    for name, one in scores.items():
        listing[name] = one.image_scores
        if name == TRAINED and one.weights is not None:
            for cluster, column in enumerate(one.weights.T):
                listing[f"weight_{cluster}"] = column
    return listing
