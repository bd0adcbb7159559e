"""Good images of the tested categories, for the rows that are not zero-shot."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from fuzzyclip.clip.backbone import Backbone
from fuzzyclip.clip.encoding import encode_images
from fuzzyclip.clip.pixels import iterate_pixels
from fuzzyclip.images.index_file import read_index
from fuzzyclip.method.normal_memory import NormalMemory, remember
from stages import paths

#: Images encoded at once.
BATCH = 4


class Shots:
    """Memories of the first 1, 2, ... of a dataset's good training images, by category."""

    def __init__(self, dataset: str, counts: Sequence[int], seed: int, backbone: Backbone) -> None:
        """Read the index; nothing is encoded yet.

        Args:
            dataset: whose training images are looked at.
            counts: numbers of images, each of which gets a memory.
            seed: of the choice; fewer images are always the first of more.
            backbone: the frozen CLIP.
        """
        self.dataset, self.counts, self.seed, self.backbone = dataset, counts, seed, backbone
        index = read_index(paths.index(dataset), paths.raw(dataset))
        self.rows = index[(index["split"] == "train") & (index["label"] == 0)]

    def remember(self, category: str) -> dict[int, NormalMemory]:
        """A memory for each number of images.

        Raises:
            ValueError: the category has fewer good training images.
        """
        if not self.counts:
            return {}
        rows = self.rows[self.rows["category"] == category].sort_values("image_path")
        most = max(self.counts)
        if len(rows) < most:
            raise ValueError(
                f"evaluation.shots: {self.dataset}/{category} has {len(rows)} good training "
                f"images, {most} are asked for"
            )
        order = np.random.default_rng(self.seed).permutation(len(rows))[:most]
        chosen = rows.iloc[order]
        images = [Path(path) for path in chosen["image_path"]]
        batches = [list(range(most))[first : first + BATCH] for first in range(0, most, BATCH)]
        pixels = iterate_pixels(
            [[images[place] for place in batch] for batch in batches],
            self.backbone,
            digests=[[chosen["sha256"].iloc[place] for place in batch] for batch in batches],
        )
        tokens = torch.cat([encode_images(self.backbone, batch)[1] for batch in pixels])
        grid, size = self.backbone.grid, self.backbone.image_size
        return {count: remember(tokens[:count], grid, size) for count in self.counts}
