"""Features of the kinds that methods read: each image once, however many methods look at it.

Plain patch tokens of the run's CLIP are those of the features stage. Others are made by the first
method that needs them and kept under `baselines/features`, bound to what they were made of like
those: what does not fit is made anew.
"""

import logging
from functools import partial

import pandas as pd
import torch
from filelock import FileLock

from fuzzyclip.clip.backbone import Backbone
from fuzzyclip.features.encode import encode_shards
from fuzzyclip.features.kinds import TOKENS, FeatureKind
from fuzzyclip.features.shards import compute_identity
from fuzzyclip.features.store import (
    CategoryFeatures,
    check_space,
    finish_category,
    open_category,
    plan_category,
)
from fuzzyclip.images.index_file import read_test_rows
from stages import paths
from stages.features import keeps_tokens
from stages.members import Open, open_dataset
from stages.schema import Params

log = logging.getLogger(__name__)


def make_opener(kind: FeatureKind, backbone: Backbone, own: bool, params: Params) -> Open:
    """How a method opens the images of a category.

    Args:
        kind: what it reads.
        backbone: its CLIP.
        own: whether that is another CLIP than the run's.
        params: of the stage, `features` and `auxiliary` among them.
    """
    if kind == TOKENS and not own:
        return lambda dataset, category: open_dataset(dataset, category, backbone)
    if kind.stored:
        return partial(open_view, kind, backbone, params)
    return lambda dataset, category: open_nothing(
        backbone, read_test_rows(paths.index(dataset), paths.raw(dataset), category)
    )


def open_view(
    kind: FeatureKind,
    backbone: Backbone,
    params: Params,
    dataset: str,
    category: str,
) -> tuple[pd.DataFrame, CategoryFeatures]:
    """Index rows of a category and their features of a kind, which are made where missing."""
    rows = read_test_rows(paths.index(dataset), paths.raw(dataset), category)
    root = paths.view(kind.name, backbone.fingerprint, dataset)
    folder = root / category
    folder.mkdir(parents=True, exist_ok=True)
    shards = plan_category(
        folder,
        rows,
        backbone,
        dtype=params.features.dtype if keeps_tokens(params, dataset) else None,
        shard_size=params.features.shard_size,
        kind=kind,
    )
    # of two processes that want the same, one makes it
    with FileLock(root / f"{category}.lock"):
        if missing := [shard for shard in shards if not shard.is_written()]:
            said = check_space(missing, folder, backbone)
            log.info("%s/%s, %s: %s", dataset, category, kind.name, said)
            machine = params.machine
            encode_shards(
                missing,
                backbone,
                batch_size=machine.batch_size,
                workers=machine.workers,
                title=f"{kind.name} {dataset}/{category}",
            )
        finish_category(folder, rows, shards)
    identity = compute_identity(backbone, list(rows["sha256"]), kind)
    return rows, open_category(folder, identity)


def open_nothing(backbone: Backbone, rows: pd.DataFrame) -> tuple[pd.DataFrame, CategoryFeatures]:
    """For a kind that is not stored: no tokens, so that readers make them, and class features 0."""
    embeds = torch.zeros(len(rows), backbone.embed_dim)
    return rows, CategoryFeatures(embeds, (), has_tokens=False)
