"""Patch tokens of mosaics on disk: a mosaic is encoded once, however many trainings use it.

The plan of mosaics depends on the seed and the auxiliary set alone, so that trainings with another
partition, prompt or learning rate meet the same ones. A file is named by all that decides its
content; the folder may be deleted at any time.

Shapes: L taken blocks, P patches, W vision width.
"""

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from fuzzyclip.clip.backbone import Backbone
from fuzzyclip.features.packing import pack, unpack
from fuzzyclip.features.shards import CODE
from fuzzyclip.utils.files import BrokenFileError, compute_sha256
from fuzzyclip.utils.tensor_files import read_tensors, write_tensors

log = logging.getLogger(__name__)

#: Raise when the same images no longer give the same mosaic.
FORMAT = 1


class MosaicCache:
    """A folder of patch tokens (L, P, W), one file a mosaic."""

    def __init__(self, folder: Path, backbone: Backbone, dtype: str) -> None:
        """Open a folder.

        Args:
            folder: made when it is first written to.
            backbone: the frozen CLIP that encodes.
            dtype: type in which tokens are kept, as in the feature store: what comes back is
                rounded the same, whether it was on disk or not.
        """
        self.folder, self.backbone, self.dtype = folder, backbone, dtype
        self._digests: dict[Path, str] = {}

    def locate(self, images: Sequence[Path]) -> Path:
        """The file of a mosaic of these images, in this order."""
        for image in images:
            if image not in self._digests:
                self._digests[image] = compute_sha256(image)
        parts = [str(FORMAT), str(CODE), self.backbone.fingerprint, self.dtype]
        parts += [self._digests[image] for image in images]
        return self.folder / f"{hashlib.sha256('/'.join(parts).encode()).hexdigest()}.safetensors"

    def read(self, path: Path) -> Tensor | None:
        """Tokens (L, P, W), float32, or None where there are none; a broken file counts as none."""
        try:
            return unpack(read_tensors(path)[0])
        except FileNotFoundError:
            return None
        except (BrokenFileError, OSError) as error:
            log.warning("%s; the mosaic is encoded again", error)
            return None

    def write(self, path: Path, patch_tokens: Tensor) -> Tensor:
        """Keep tokens (L, P, W), and give them back as they will be read."""
        kept = pack(patch_tokens, self.dtype)
        write_tensors(path, kept, {"format": FORMAT})
        return unpack(kept)
