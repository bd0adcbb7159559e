"""One category of an evaluation: one pass over its tokens, all variants of a method at once.

Nothing that is held grows with the number of images but scores, and with exact pixel metrics the
pixels of one variant while they are sorted.
"""

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from fuzzyclip.clip.backbone import Backbone
from fuzzyclip.clip.encoding import encode_images, iterate_pixels
from fuzzyclip.evaluation.metrics import (
    METRICS,
    TIED_SHARE,
    compute_image_metrics,
    count_tied_ends,
)
from fuzzyclip.evaluation.pixel_meters import (
    ExactMeter,
    MapFile,
    PixelMeter,
    PixelResult,
    StreamingMeter,
)
from fuzzyclip.evaluation.summaries import (
    PixelSummaries,
    choose_thresholds,
    summarise_pixels,
    summarise_stream,
)
from fuzzyclip.features.kinds import TOKENS, FeatureKind
from fuzzyclip.features.store import CategoryFeatures, read_or_encode
from fuzzyclip.images.decode import load_masks
from fuzzyclip.method import Scale
from fuzzyclip.method.scorer import NotFiniteError, Scorer, Scores, join_scores, score_batch
from fuzzyclip.utils.prefetch import prefetch, release_memory

#: Images whose maps are made at once. Not a parameter: it decides memory, and hardly the time.
BATCH = 8
#: Normal training images encoded at once.
REFERENCE_BATCH = 4
#: Columns of a table by variant and category, see `describe`.
COLUMNS = ("variant", "category", "normal", "anomalous", "tied", *METRICS, "prompt")

log = logging.getLogger(__name__)

Masks = NDArray[np.bool_]


class Watcher(Protocol):
    """Sees a category's maps as they come by, `Overlays` for one."""

    def start(self, rows: pd.DataFrame) -> None:
        """Begin with the index rows of a category."""

    def take(self, first: int, maps: NDArray[np.float32], masks: Masks | None) -> None:
        """See maps (B, S, S) in [0, 1] from the place of the first on, and their masks."""


class ImageBatch(NamedTuple):
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
        """True where every anomalous image has a mask; else pixel metrics are absent, never 0."""
        return not ((self.rows["label"] == 1) & (self.rows["mask_path"] == "")).any()

    def load_masks(self, first: int = 0, stop: int | None = None) -> Masks:
        """Masks of some images, (B, S, S)."""
        return load_masks(self.rows.iloc[first:stop], self.backbone.image_size)

    def iterate(self) -> Iterator[ImageBatch]:
        """All images in order; the next batch is read, or encoded, while one is used."""
        return prefetch(self._read, range(0, len(self.rows), BATCH), ahead=1)

    def read_tokens(self, places: Sequence[int]) -> Tensor:
        """Patch tokens of some images, (B, L, P, W): the stored ones, or encoded again."""
        images = [Path(path) for path in self.rows["image_path"].iloc[list(places)]]
        stored = [(self.features, place) for place in places]
        return read_or_encode(images, stored, self.backbone, self.kind, self.workers)

    def score(self, scorer: Scorer, batch: ImageBatch, sigma: float) -> Scores:
        """`score_batch`; a ValueError names the image to which there is no finite answer."""
        try:
            return score_batch(scorer, batch.patch_tokens, batch.image_embed, self.backbone, sigma)
        except NotFiniteError as error:
            image = self.rows["image_path"].iloc[batch.first + error.rows[0]]
            raise ValueError(f"{image}: {error}") from error

    def _read(self, first: int) -> ImageBatch:
        stop = min(first + BATCH, len(self.rows))
        tokens = self.read_tokens(range(first, stop))
        masks = self.load_masks(first, stop) if self.has_masks else None
        return ImageBatch(first, tokens, self.features.image_embed[first:stop], masks)


@dataclass(frozen=True)
class CategoryResult:
    """Results of a category that are kept.

    Attributes:
        table: a line for each variant: metrics in percent, see `COLUMNS`.
        listing: a line for each image: its scores by every variant, and its cluster weights.
        bounds: a line for each variant and pixel metric that is an estimate.
        summaries: of the shown and the compared variants' maps, for a bootstrap over images; of the
            shown one's alone with streaming metrics, of none without masks.
        runtimes: engines that made its stored features beside PyTorch.
    """

    table: list[dict[str, Any]]
    listing: pd.DataFrame
    bounds: list[dict[str, Any]]
    summaries: Mapping[str, PixelSummaries]
    runtimes: tuple[str, ...] = ()


def evaluate_category(
    category: Category,
    scorers: Mapping[str, Scorer],
    *,
    shown: str,
    scratch: Path,
    compared: Collection[str] = (),
    exact: bool = True,
    sigma: float = 0.0,
    watcher: Watcher | None = None,
) -> CategoryResult:
    """Metrics of every variant of a method on one category.

    Args:
        category: what is evaluated.
        scorers: by variant.
        shown: the variant which is watched, and whose summaries and cluster weights are kept.
        scratch: folder for maps while they wait to be sorted; made where it is not there.
        compared: further variants whose summaries are kept, where pixel metrics are exact.
        exact: whether pixel metrics are exact; else they stream, see `pixel_meters`.
        sigma: Gaussian smoothing of maps in pixels.
        watcher: sees the shown variant's maps.

    Raises:
        ValueError: an image has no finite score or map; names it.
    """
    kept: dict[str, list[Scores]] = {variant: [] for variant in scorers}
    with ExitStack() as stack:
        pixels = None
        if category.has_masks:
            pixels = PixelSide(stack, category, scorers, shown, scratch, exact)
        if watcher is not None:
            watcher.start(category.rows)
        for batch in category.iterate():
            for variant, scorer in scorers.items():
                scores = category.score(scorer, batch, sigma)
                if pixels is not None and batch.masks is not None:
                    pixels.add(variant, scores.maps, batch.masks)
                if variant == shown and watcher is not None:
                    watcher.take(batch.first, scores.shown, batch.masks)
                # a copy: an empty view would keep the maps alive
                kept[variant].append(replace(scores, maps=scores.maps[:0].copy()))
            release_memory()
        scored = {variant: finish_scores(scorers[variant], kept[variant]) for variant in scorers}
        measured = {
            variant: pixels.compute(variant) if pixels else PixelResult() for variant in scorers
        }
        summaries = pixels.summarise([shown, *compared]) if pixels else {}
    return CategoryResult(
        table=[
            describe(variant, category, scorer.prompt, scored[variant], measured[variant].values)
            for variant, scorer in scorers.items()
        ],
        listing=list_images(category.rows, scored, shown),
        bounds=[] if exact else list_bounds(category.name, measured),
        summaries=summaries,
        runtimes=category.features.runtimes,
    )


def finish_scores(scorer: Scorer, batches: Sequence[Scores]) -> Scores:
    """Scores of all images, judged together where a method does so."""
    scores = join_scores(batches)
    if scorer.combine is None:
        return scores
    return replace(scores, image_scores=scorer.combine(scores.image_scores, scores.peaks))


class PixelSide:
    """Maps on their way to pixel metrics: a meter for each variant, and maps on disk.

    On disk are those of every variant where metrics are exact, else of the shown one.
    """

    def __init__(
        self,
        stack: ExitStack,
        category: Category,
        scorers: Mapping[str, Scorer],
        shown: str,
        scratch: Path,
        exact: bool,
    ) -> None:
        """Open what is needed; the stack closes it."""
        self.category, self.shown = category, shown
        self.scales = {variant: scorer.scale for variant, scorer in scorers.items()}
        scratch.mkdir(parents=True, exist_ok=True)

        def open_file(variant: str) -> MapFile:
            path = scratch / f"maps-{category.dataset}-{category.name}-{variant}"
            fine = exact and scorers[variant].scale is Scale.LOG_ODDS
            kind = np.float64 if fine else np.float32
            return stack.enter_context(closing(MapFile(path, category.backbone.image_size, kind)))

        self.files = {variant: open_file(variant) for variant in (scorers if exact else [shown])}
        self.meters: dict[str, PixelMeter] = {
            variant: ExactMeter(self.files[variant], scale) if exact else StreamingMeter(scale)
            for variant, scale in self.scales.items()
        }

    def add(self, variant: str, maps: NDArray[np.floating], masks: Masks) -> None:
        """Take maps (B, S, S) of a variant."""
        meter = self.meters[variant]
        meter.add(maps, masks)
        if variant == self.shown and isinstance(meter, StreamingMeter):
            self.files[variant].append(maps.astype(np.float32))

    def compute(self, variant: str) -> PixelResult:
        """Pixel metrics of a variant."""
        return self.meters[variant].compute()

    def summarise(self, variants: Sequence[str]) -> dict[str, PixelSummaries]:
        """Summaries of kept maps for a bootstrap, read back from the disk.

        With streaming metrics only the shown variant's maps are there.
        """
        images, meter = self.category.rows["image_path"].tolist(), self.meters[self.shown]
        if isinstance(meter, StreamingMeter):
            masks_singly = (self.category.load_masks(row, row + 1)[0] for row in range(len(images)))
            pairs = zip(self.files[self.shown], masks_singly, strict=True)
            thresholds = choose_thresholds(meter.histogram, self.scales[self.shown])
            return {self.shown: summarise_stream(pairs, images, thresholds)}
        masks = self.category.load_masks()
        return {
            variant: summarise_pixels(
                self.files[variant].view_all(), masks, images, self.scales[variant]
            )
            for variant in variants
        }


def describe(
    variant: str, category: Category, prompt: str, scores: Scores, pixels: Mapping[str, float]
) -> dict[str, Any]:
    """One line of the category table: metrics in percent, absent where undefined.

    `normal` and `anomalous` are numbers of images, `tied` that of scores which tie at an end of the
    scale.
    """
    labels = category.rows["label"].to_numpy()
    tied = count_tied_ends(scores.image_scores)
    if tied >= TIED_SHARE * len(labels):
        log.warning(
            "%s/%s, %s: %d of %d image scores tie at an end of their scale; their metrics rank "
            "what the method does not", category.dataset, category.name, variant, tied, len(labels)
        )  # fmt: skip
    values = compute_image_metrics(scores.image_scores, labels) | dict(pixels)
    line: dict[str, Any] = {
        "variant": variant,
        "category": category.name,
        "normal": int((labels == 0).sum()),
        "anomalous": int((labels == 1).sum()),
        "tied": tied,
    }
    line |= {metric: 100 * values[metric] for metric in METRICS if metric in values}
    return line | {"prompt": prompt}


def list_bounds(category: str, measured: Mapping[str, PixelResult]) -> list[dict[str, Any]]:
    """Certain bounds of each variant's estimated pixel metrics, percent."""
    return [
        {"variant": variant, "category": category, "metric": metric}
        | {"low": 100 * result.low[metric], "high": 100 * result.high[metric]}
        for variant, result in measured.items()
        for metric in result.low
    ]


def list_images(rows: pd.DataFrame, scores: Mapping[str, Scores], shown: str) -> pd.DataFrame:
    """Image scores of every variant, and the shown one's cluster weights."""
    listing = rows[["image_path", "category", "label", "defect"]].copy()
    for variant, of_variant in scores.items():
        listing[variant] = of_variant.image_scores
        if variant == shown and of_variant.weights is not None:
            for cluster, column in enumerate(of_variant.weights.T):
                listing[f"weight_{cluster}"] = column
    return listing


def choose_references(rows: pd.DataFrame, count: int, seed: int) -> pd.DataFrame:
    """So many of a category's normal training images; fewer are always the first of more.

    Raises:
        ValueError: there are fewer.
    """
    normal = rows[rows["label"] == 0].sort_values("image_path")
    if len(normal) < count:
        raise ValueError(f"{len(normal)} normal training images, {count} are asked for")
    return normal.iloc[np.random.default_rng(seed).permutation(len(normal))[:count]]


def encode_references(rows: pd.DataFrame, backbone: Backbone) -> Tensor:
    """Patch tokens (n, L, P, W) of images by their index rows, 1 or more."""
    starts = range(0, len(rows), REFERENCE_BATCH)
    batches = [rows.iloc[first : first + REFERENCE_BATCH] for first in starts]
    pixels = iterate_pixels(
        [[Path(path) for path in batch["image_path"]] for batch in batches],
        backbone,
        digests=[batch["sha256"].tolist() for batch in batches],
    )
    return torch.cat([encode_images(backbone, batch)[1] for batch in pixels])
