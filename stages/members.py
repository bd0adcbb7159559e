"""Reading what the stages before have stored: index rows, features, auxiliary sets."""

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import pandas as pd
import torch

from fuzzyclip.clip.backbone import Backbone
from fuzzyclip.features.auxiliary import AuxiliarySet
from fuzzyclip.features.kinds import FeatureKind
from fuzzyclip.features.shards import compute_identity
from fuzzyclip.features.store import CategoryFeatures, open_category
from fuzzyclip.images.index_file import read_index
from stages import paths

#: Dataset and category to index rows and features of the test images.
Open = Callable[[str, str], tuple[pd.DataFrame, CategoryFeatures]]


def read_manifest(name: str) -> dict[str, Any]:
    """What the auxiliary stage wrote of a set."""
    manifest: dict[str, Any] = json.loads(paths.auxiliary(name).read_text())
    return manifest


def read_rows(dataset: str, split: str, category: str) -> pd.DataFrame:
    """Index rows of a category's images, with paths that can be opened."""
    rows = read_index(paths.index(dataset), paths.raw(dataset))
    chosen = rows[(rows["split"] == split) & (rows["category"] == category)]
    return chosen.reset_index(drop=True)


def make_opener(kind: FeatureKind, backbone: Backbone, view: str = paths.TOKENS) -> Open:
    """How a method opens the test images of a category.

    Args:
        kind: what it reads.
        backbone: its CLIP.
        view: key of the features.
    """
    return partial(_open_stored if kind.stored else _open_unstored, kind, backbone, view)


def _open_stored(
    kind: FeatureKind, backbone: Backbone, view: str, dataset: str, category: str
) -> tuple[pd.DataFrame, CategoryFeatures]:
    rows = read_rows(dataset, "test", category)
    identity = compute_identity(backbone, list(rows["sha256"]), kind)
    return rows, open_category(paths.features(dataset, view) / category, identity)


def _open_unstored(
    kind: FeatureKind, backbone: Backbone, view: str, dataset: str, category: str
) -> tuple[pd.DataFrame, CategoryFeatures]:
    """Of a kind that is not stored: no tokens, so that readers make them, and class features 0."""
    del kind, view
    rows = read_rows(dataset, "test", category)
    embeds = torch.zeros(len(rows), backbone.embed_dim)
    return rows, CategoryFeatures(embeds, (), has_tokens=False)


def open_auxiliary(name: str, open_one: Open) -> AuxiliarySet:
    """All test images of an auxiliary set, in the manifest's order."""
    manifest = read_manifest(name)
    frames, features = [], {}
    for member in manifest["members"]:
        for category in member["categories"]:
            key = f"{member['dataset']}/{category['category']}"
            rows, features[key] = open_one(member["dataset"], category["category"])
            frames.append(rows.assign(member=key, name=category["prompt"], place=range(len(rows))))
    return AuxiliarySet(manifest["names"], pd.concat(frames, ignore_index=True), features)
