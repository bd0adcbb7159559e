"""What a page shows of single images: the best, the worst and the borderline of each category.

They are known once all images of a category are scored, so their few maps are made a second time.

Shapes: n kept images, S map size, T side of a kept picture.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, adaptive_max_pool2d

from fuzzyclip.evaluation.choice import choose_examples, find_threshold
from fuzzyclip.images.decode import load_image
from fuzzyclip.images.masks import load_masks
from fuzzyclip.method.scorer import Scorer, score_batch
from fuzzyclip.utils.tensor_files import write_tensors
from stages.category import BATCH, Category

#: Longest side of a kept picture.
SIDE = 192


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
        """Choose among a category's images and keep their pictures.

        Args:
            category: all of whose images are scored.
            scorer: FuzzyCLIP's.
            image_scores: (N,), what it gave.
        """
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
        stacked = {
            name: torch.stack(kept) if kept else torch.empty(0)
            for name, kept in self.tensors.items()
        }
        write_tensors(path, stacked, {"items": self.items})
