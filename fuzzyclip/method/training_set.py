"""From an auxiliary set and its stored features to what methods are trained on."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from fuzzyclip.clip.backbone import Backbone
from fuzzyclip.features.auxiliary import AuxiliarySet
from fuzzyclip.features.kinds import TOKENS, FeatureKind
from fuzzyclip.images.masks import load_masks
from fuzzyclip.method.interface import Quad, TrainingSet
from fuzzyclip.method.mosaic import KeptMosaics, load_mosaics


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
