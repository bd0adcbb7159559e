"""What pictures are made of: some anomalous images of each category, with mask and map.

Shapes: n kept images, S map size.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from fuzzyclip.images.decode import load_image
from fuzzyclip.utils.tensor_files import write_tensors


class Overlays:
    """Evenly spaced anomalous images, taken as a category's maps come by."""

    def __init__(self, per_category: int) -> None:
        self.per_category = per_category
        self.titles: list[str] = []
        self.tensors: dict[str, list[Tensor]] = {"images": [], "masks": [], "maps": []}
        self._rows = pd.DataFrame()
        self._chosen: set[int] = set()

    def start(self, rows: pd.DataFrame) -> None:
        """Choose among the anomalous images of the next category."""
        anomalous = np.flatnonzero(rows["label"].to_numpy() == 1)
        count = min(self.per_category, len(anomalous))
        places = np.linspace(0, len(anomalous) - 1, count + 2)[1:-1].round().astype(int)
        self._rows, self._chosen = rows, set(anomalous[places].tolist())

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
            self.titles.append(f"{picked['category']}\n{picked['defect']}{note}")
            self.tensors["images"].append(torch.from_numpy(np.array(image)))  # (S, S, 3)
            self.tensors["masks"].append(torch.from_numpy(mask))
            self.tensors["maps"].append(torch.from_numpy(anomaly_map).half())

    def write(self, path: Path) -> None:
        """One file with images (n, S, S, 3), masks and maps (n, S, S), titles in its header."""
        stacked = {
            name: torch.stack(kept) if kept else torch.empty(0)
            for name, kept in self.tensors.items()
        }
        write_tensors(path, stacked, {"titles": self.titles})
