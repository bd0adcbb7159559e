"""Single images to be shown: overlays of some, and a gallery of the best and the worst.

Overlays are taken as a category's maps come by. A gallery's images are known once all images of a
category are scored, so their few maps are made a second time.

Shapes: N images of a category, n kept ones, S map size, T side of a kept picture.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, adaptive_max_pool2d

from fuzzyclip.evaluation import KINDS, NORMAL
from fuzzyclip.evaluation.category import BATCH, Category
from fuzzyclip.evaluation.metrics import find_threshold
from fuzzyclip.images.decode import load_image, load_masks
from fuzzyclip.method.scorer import Scorer, score_batch
from fuzzyclip.utils.tensor_files import write_tensors

#: Longest side of a kept picture.
SIDE = 192


class Overlays:
    """A normal image and evenly spaced anomalous ones, taken as a category's maps come by."""

    def __init__(self, per_category: int) -> None:
        self.per_category = per_category
        self.titles: list[str] = []
        self.tensors: dict[str, list[Tensor]] = {"images": [], "masks": [], "maps": []}
        self._rows = pd.DataFrame()
        self._chosen: set[int] = set()

    def start(self, rows: pd.DataFrame) -> None:
        """Choose among the images of the next category, without a look at their scores."""
        labels = rows["label"].to_numpy()
        self._rows, self._chosen = rows, set()
        for label, wanted in ((0, 1), (1, self.per_category)):
            own = np.flatnonzero(labels == label)
            count = min(wanted, len(own))
            places = np.linspace(0, len(own) - 1, count + 2)[1:-1].round().astype(int)
            self._chosen |= set(own[places].tolist())

    def take(self, first: int, maps: NDArray[np.float32], masks: NDArray[np.bool_] | None) -> None:
        """Keep what was chosen of a batch of maps (B, S, S), in [0, 1], from a place on.

        Without masks nothing is outlined, and the title says so.
        """
        note = " (no mask)" if masks is None else ""
        known = np.zeros(maps.shape, dtype=bool) if masks is None else masks
        for number, (anomaly_map, mask) in enumerate(zip(maps, known, strict=True), first):
            if number not in self._chosen:
                continue
            picked = self._rows.iloc[number]
            image = load_image(Path(str(picked["image_path"]))).resize(mask.shape[::-1])
            shown = f"{picked['defect']}{note}" if picked["label"] == 1 else NORMAL
            self.titles.append(f"{picked['category']}\n{shown}")
            self.tensors["images"].append(torch.from_numpy(np.array(image)))  # (S, S, 3)
            self.tensors["masks"].append(torch.from_numpy(mask))
            self.tensors["maps"].append(torch.from_numpy(anomaly_map).half())

    def write(self, path: Path) -> None:
        """One file with images (n, S, S, 3), masks and maps (n, S, S), titles in its header."""
        write_tensors(path, _stack(self.tensors), {"titles": self.titles})


class Gallery:
    """Images chosen by FuzzyCLIP's score, with mask and map, category after category."""

    def __init__(self, count: int, sigma: float) -> None:
        """Begin without images.

        Args:
            count: images of each category, kind and label, at most.
            sigma: Gaussian smoothing of maps in pixels.
        """
        self.count, self.sigma = count, sigma
        self.items: list[dict[str, Any]] = []
        self.tensors: dict[str, list[Tensor]] = {"images": [], "masks": [], "maps": []}

    def add(self, category: Category, scorer: Scorer, image_scores: ArrayLike) -> None:
        """Choose among a category's images by their scores (N,), and keep their pictures."""
        scores, labels = np.asarray(image_scores), category.rows["label"].to_numpy()
        threshold = find_threshold(scores, labels)
        chosen = choose_examples(scores, labels, self.count)
        places = [*chosen]
        for first in range(0, len(places), BATCH):
            self._keep(category, scorer, places[first : first + BATCH])
        for place, kinds in chosen.items():
            row = category.rows.iloc[place]
            self.items.append(
                {
                    "path": str(row["image_path"]),
                    "category": category.name,
                    "label": int(row["label"]),
                    "defect": str(row["defect"]),
                    "score": float(scores[place]),
                    "threshold": threshold,
                    "kinds": list(kinds),
                    "has_mask": category.has_masks,
                }
            )

    def _keep(self, category: Category, scorer: Scorer, places: Sequence[int]) -> None:
        """Pictures of a few images; a pixel of a smaller mask is set where any of it is."""
        rows, backbone = category.rows.iloc[list(places)], category.backbone
        tokens = category.read_tokens(places)
        embeds = category.features.image_embed[list(places)]
        maps = torch.from_numpy(score_batch(scorer, tokens, embeds, backbone, self.sigma).shown)
        if category.has_masks:
            masks = torch.from_numpy(load_masks(rows, backbone.image_size))
        else:
            masks = torch.zeros(maps.shape, dtype=torch.bool)
        side = min(SIDE, backbone.image_size)
        self.tensors["maps"] += adaptive_avg_pool2d(maps, side).half()  # (B, T, T)
        self.tensors["masks"] += adaptive_max_pool2d(masks.float(), side) > 0
        for path in rows["image_path"]:
            image = load_image(Path(str(path))).resize((side, side))
            self.tensors["images"].append(torch.from_numpy(np.array(image)))  # (T, T, 3)

    def write(self, path: Path) -> None:
        """One file with images (n, T, T, 3), masks and maps (n, T, T), the rest in its header."""
        write_tensors(path, _stack(self.tensors), {"items": self.items})


def _stack(tensors: Mapping[str, list[Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack(kept) if kept else torch.empty(0) for name, kept in tensors.items()}


def choose_examples(scores: ArrayLike, labels: ArrayLike, count: int) -> dict[int, tuple[str, ...]]:
    """Images to show of a category, with the kinds that each is shown as.

    The threshold is chosen on the tested images themselves, as the field's F1-max is: it sorts
    pictures, and says nothing of how a threshold fixed in advance would do. Worst are mistakes at
    `find_threshold` alone, the furthest on the wrong side first: a category without mistakes has
    none. Best are the furthest on the right side. Borderline are the nearest to the threshold on
    either side. Without a threshold no image is a known mistake: worst is then the normal image
    with the highest score, or the anomalous one with the lowest, and none is borderline.

    Args:
        scores: (N,), higher is more anomalous.
        labels: (N,), 1 anomalous.
        count: of each kind and label, at most.

    Returns:
        Kinds of each image by its place, ascending.
    """
    values, truth = np.asarray(scores, dtype=np.float64), np.asarray(labels) == 1
    threshold = find_threshold(values, truth)
    wrong = np.zeros(len(values), dtype=bool)
    if threshold is not None:
        wrong = (values >= threshold) != truth
    chosen: dict[int, list[str]] = {}
    for label in (False, True):
        rows = np.flatnonzero(truth == label)
        clear = rows[np.argsort(-values[rows] if label else values[rows], kind="stable")]
        unclear = rows[np.argsort(values[rows] if label else -values[rows], kind="stable")]
        candidates = {
            "best": clear[~wrong[clear]],
            "worst": unclear if threshold is None else unclear[wrong[unclear]],
            "borderline": rows[:0]
            if threshold is None
            else rows[np.argsort(np.abs(values[rows] - threshold), kind="stable")],
        }
        for kind in KINDS:
            for row in candidates[kind][:count]:
                chosen.setdefault(int(row), []).append(kind)
    return {row: tuple(chosen[row]) for row in sorted(chosen)}
