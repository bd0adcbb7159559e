"""Image files to a batch as the backbone wants it."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from fuzzyclip.backbone import Backbone
from fuzzyclip.datasets.images import load_image
from fuzzyclip.encoding import preprocess


def load_pixels(paths: Sequence[Path], backbone: Backbone, workers: int = 1) -> Tensor:
    """Images as a batch, (B, 3, S, S). Decoding and resizing release the interpreter's lock."""

    def load(path: Path) -> Tensor:
        return preprocess(load_image(path), backbone)

    if workers <= 1:
        return torch.stack([load(path) for path in paths])
    with ThreadPoolExecutor(workers) as pool:
        return torch.stack(list(pool.map(load, paths)))
