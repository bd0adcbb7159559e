"""From image files to anomaly maps and scores, with a model that is ready.

Shapes: B images of a batch, S image size.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fuzzyclip.clip.backbone import Backbone
from fuzzyclip.clip.encoding import encode_images, preprocess
from fuzzyclip.datasets.images import decode_image
from fuzzyclip.prefetch import prefetch
from fuzzyclip.scoring import Scorer, score_batch


@dataclass(frozen=True)
class Detector:
    """A frozen CLIP and one way to score what it gives.

    Attributes:
        backbone: the frozen CLIP.
        scorer: see `fuzzyclip.scoring`.
        sigma: Gaussian smoothing of the maps in pixels.
    """

    backbone: Backbone
    scorer: Scorer
    sigma: float = 0.0

    def __call__(self, pixels: Tensor) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Maps (B, S, S) and scores (B,), higher is more anomalous, of pixels (B, 3, S, S)."""
        image_embed, patch_tokens = encode_images(self.backbone, pixels)
        scores = score_batch(self.scorer, patch_tokens, image_embed, self.backbone, self.sigma)
        return scores.maps, scores.image_scores


@dataclass(frozen=True)
class Detection:
    """What was found in one image.

    Attributes:
        path: of the image, as it was given.
        score: of the whole image; None where it can not be read.
        map: (S, S); None likewise.
        error: why the image can not be read; empty where it can.
    """

    path: str
    score: float | None
    map: NDArray[np.float32] | None
    error: str = ""


def read_file(path: str) -> bytes:
    """Content of a local file."""
    return Path(path).read_bytes()


def detect_files(
    paths: Sequence[str | Path],
    detector: Detector,
    *,
    batch_size: int,
    workers: int = 1,
    read: Callable[[str], bytes] = read_file,
) -> Iterator[Detection]:
    """Detections in the order of `paths`; the next batch is decoded while one is computed.

    An image that can not be read is told by its detection, and the others go on. A blank one takes
    its place in the batch, so that the others' numbers do not depend on it.

    Args:
        paths: image files.
        detector: the model.
        batch_size: images a pass. The same images in the same batches give the same bytes; other
            batches may change the last digits.
        workers: threads that read and decode.
        read: path to content, called in threads; raises OSError.
    """
    names = [str(path) for path in paths]
    size = detector.backbone.image_size

    def load(name: str) -> tuple[Tensor, str]:
        try:
            return preprocess(decode_image(read(name), name), detector.backbone), ""
        except OSError as error:
            return torch.zeros(3, size, size), str(error)

    loaded = prefetch(load, names, ahead=batch_size, workers=workers)
    for first in range(0, len(names), batch_size):
        batch = list(islice(loaded, batch_size))
        maps, scores = detector(torch.stack([pixels for pixels, _ in batch]))
        for row, (_, error) in enumerate(batch):
            name = names[first + row]
            if error:
                yield Detection(name, None, None, error)
            else:
                yield Detection(name, float(scores[row]), maps[row])
