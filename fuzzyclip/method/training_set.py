"""From an auxiliary set and its stored features to what methods are trained on, mosaics included.

A mosaic is four images of one category in one, the augmentation of MVTec-trained layers. Which row
becomes a mosaic of which four rows is planned from the seed before training, so the result does not
depend on how batches are read. A mosaic is encoded once, however many trainings use it: the plan
depends on the seed and the auxiliary set alone, so that trainings with another partition, prompt or
learning rate meet the same ones, and their tokens are kept on disk.

Shapes: S image size, L taken blocks, P patches, W vision width, n mosaics.
"""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fuzzyclip.clip.backbone import Backbone
from fuzzyclip.clip.encoding import preprocess
from fuzzyclip.features.auxiliary import AuxiliarySet
from fuzzyclip.features.kinds import TOKENS, FeatureKind
from fuzzyclip.features.shards import CODE, pack, unpack
from fuzzyclip.images.decode import load_image, load_mask, load_masks, resize_mask
from fuzzyclip.method.interface import Quad, TrainingSet
from fuzzyclip.utils.files import BrokenFileError
from fuzzyclip.utils.tensor_files import read_tensors, write_tensors

log = logging.getLogger(__name__)

#: (epoch from 1, row) -> the four rows whose images take that row's place.
MosaicPlan = Mapping[tuple[int, int], Quad]
#: Raise when the same images no longer give the same mosaic.
FORMAT = 1


def make_training_set(
    auxiliary: AuxiliarySet,
    backbone: Backbone,
    kind: FeatureKind = TOKENS,
    *,
    workers: int = 1,
    mosaics: Path | None = None,
    dtype: str = "float16",
) -> TrainingSet:
    """The images of an auxiliary set, read when they are asked for.

    Args:
        auxiliary: the set, with features of this kind.
        backbone: the frozen CLIP.
        kind: what the method reads.
        workers: threads that decode images.
        mosaics: folder in which tokens of mosaics are kept; None encodes them anew each time.
        dtype: type in which they are kept, the feature store's.
    """
    rows, size = auxiliary.rows, backbone.image_size
    kept = None if mosaics is None else KeptMosaics(mosaics, backbone, dtype, kind)

    def load_some_masks(chosen: Sequence[int]) -> Tensor:
        return torch.from_numpy(load_masks(rows.iloc[list(chosen)], size))

    def load_some_mosaics(quads: Sequence[Quad]) -> tuple[Tensor, Tensor]:
        return load_mosaics([rows.iloc[list(quad)] for quad in quads], backbone, kind, kept)

    return TrainingSet(
        image_embed=auxiliary.image_embed,
        load_tokens=lambda chosen: auxiliary.read_tokens(chosen, backbone, kind, workers),
        load_masks=load_some_masks,
        labels=torch.tensor(rows["label"].to_numpy()),
        names=rows["name"].tolist(),
        members=rows["member"].tolist(),
        load_mosaics=load_some_mosaics,
    )


def plan_mosaics(
    members: Sequence[str], epochs: int, probability: float, seed: int
) -> dict[tuple[int, int], Quad]:
    """Replace each row of each epoch by a mosaic with some probability, within its own member."""
    rng = np.random.default_rng(seed)
    rows_of: dict[str, list[int]] = {}
    for row, member in enumerate(members):
        rows_of.setdefault(member, []).append(row)
    plan = {}
    for epoch in range(1, epochs + 1):
        chosen = np.flatnonzero(rng.random(len(members)) < probability)
        for row in chosen.tolist():
            a, b, c, d = rng.choice(rows_of[members[row]], size=4).tolist()
            plan[epoch, row] = (a, b, c, d)
    return plan


def select_mosaics(plan: MosaicPlan, rows: Sequence[int]) -> dict[tuple[int, int], Quad]:
    """The part of a plan that concerns some rows, numbered anew as `TrainingSet.select` does.

    They must be all rows of some members, so that no mosaic is torn apart.
    """
    place = {row: number for number, row in enumerate(rows)}
    return {
        (epoch, place[row]): (place[a], place[b], place[c], place[d])
        for (epoch, row), (a, b, c, d) in plan.items()
        if row in place
    }


def load_mosaics(
    parts: Sequence[pd.DataFrame],
    backbone: Backbone,
    kind: FeatureKind,
    kept: "KeptMosaics | None",
) -> tuple[Tensor, Tensor]:
    """Tokens (n, L, P, W), on the device, and masks (n, S, S), bool, of mosaics.

    `parts` are index rows of the four images of each mosaic, with paths that can be opened.
    """
    tokens = [kept.read(four["sha256"].tolist()) if kept else None for four in parts]
    missing = [number for number, known in enumerate(tokens) if known is None]
    if missing:
        pixels = torch.stack([_build_pixels(parts[number], backbone) for number in missing])
        for number, encoded in zip(missing, kind.encode(backbone, pixels)[1], strict=True):
            digests = parts[number]["sha256"].tolist()
            tokens[number] = kept.write(digests, encoded) if kept else encoded
    masks = [build_mosaic_mask(_load_masks(four), backbone.image_size) for four in parts]
    ready = [known.to(backbone.device) for known in tokens if known is not None]
    return torch.stack(ready), torch.from_numpy(np.stack(masks))


def _build_pixels(four: pd.DataFrame, backbone: Backbone) -> Tensor:
    """A mosaic as model input, (3, S, S)."""
    images = [load_image(Path(path)) for path in four["image_path"]]
    return preprocess(build_mosaic(images, backbone.image_size), backbone)


def _load_masks(four: pd.DataFrame) -> list[NDArray[np.bool_]]:
    """Masks of four index rows at full size; a row without one has a small empty mask."""
    return [
        load_mask(Path(path), int(above)) if path else np.zeros((2, 2), dtype=bool)
        for path, above in zip(four["mask_path"], four["mask_above"], strict=True)
    ]


def build_mosaic(images: Sequence[Image.Image], size: int) -> Image.Image:
    """Four images, each squashed to a quarter, as one of (S, S): left to right, top to bottom."""
    canvas = Image.new("RGB", (size, size))
    for image, (left, top, width, height) in zip(images, split_in_four(size), strict=True):
        canvas.paste(image.resize((width, height), Image.Resampling.BICUBIC), (left, top))
    return canvas


def build_mosaic_mask(masks: Sequence[NDArray[np.bool_]], size: int) -> NDArray[np.bool_]:
    """The four masks in the places of their images, (S, S)."""
    canvas = np.zeros((size, size), dtype=bool)
    for mask, (left, top, width, height) in zip(masks, split_in_four(size), strict=True):
        side = max(width, height)
        canvas[top : top + height, left : left + width] = resize_mask(mask, side)[:height, :width]
    return canvas


def split_in_four(size: int) -> list[tuple[int, int, int, int]]:
    """Left, top, width and height of the quarters of an (S, S) square."""
    near, far = size // 2, size - size // 2
    return [
        (0, 0, near, near),
        (near, 0, far, near),
        (0, near, near, far),
        (near, near, far, far),
    ]


class KeptMosaics:
    """A folder of patch tokens (L, P, W), one file a mosaic; it may be deleted at any time."""

    def __init__(
        self, folder: Path, backbone: Backbone, dtype: str, kind: FeatureKind = TOKENS
    ) -> None:
        """Open a folder; it is made when it is first written to.

        What comes back is rounded to `dtype`, whether it was on disk or not.
        """
        self.folder, self.dtype = folder, dtype
        own = [] if kind == TOKENS else [kind.name, str(kind.version)]
        self._parts = [str(FORMAT), str(CODE), backbone.fingerprint, dtype, *own]

    def locate(self, digests: Sequence[str]) -> Path:
        """The file of a mosaic by its images' SHA-256, named by all that decides its content."""
        text = "/".join([*self._parts, *digests])
        return self.folder / f"{hashlib.sha256(text.encode()).hexdigest()}.safetensors"

    def read(self, digests: Sequence[str]) -> Tensor | None:
        """Tokens (L, P, W), float32, or None where there are none; a broken file counts as none."""
        try:
            return unpack(read_tensors(self.locate(digests))[0])
        except FileNotFoundError:
            return None
        except (BrokenFileError, OSError) as error:
            log.warning("%s; the mosaic is encoded again", error)
            return None

    def write(self, digests: Sequence[str], patch_tokens: Tensor) -> Tensor:
        """Keep tokens (L, P, W), and give them back as they will be read."""
        packed = pack(patch_tokens, self.dtype)
        write_tensors(self.locate(digests), packed, {"format": FORMAT})
        return unpack(packed)
