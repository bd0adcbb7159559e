"""Reading an auxiliary set: its manifest, its test images and their features."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from fuzzyclip.clip.backbone import Backbone
from fuzzyclip.features.shards import compute_identity
from fuzzyclip.features.store import CategoryFeatures, open_category
from fuzzyclip.images.index_file import read_test_rows
from stages import paths

#: Dataset and category to index rows and features, as `open_dataset` gives them.
Open = Callable[[str, str], tuple[pd.DataFrame, CategoryFeatures]]


@dataclass(frozen=True)
class AuxiliarySet:
    """The test images of an auxiliary set, all members, in manifest order.

    Attributes:
        names: distinct prompt names of its categories; the order in which they are stacked.
        rows: index rows with paths relative to the pipeline's folder, and columns `member`
            (dataset and category), `name` (prompt name of the category) and `place` (row within
            the category's features).
        features: stored features by `member`, in the order of the rows.
    """

    names: list[str]
    rows: pd.DataFrame
    features: dict[str, CategoryFeatures]

    @property
    def image_embed(self) -> Tensor:
        """Class features of all rows, (N, D), not normalised."""
        return torch.cat([stored.image_embed for stored in self.features.values()])

    def find_unmasked(self) -> list[str]:
        """Members that have anomalous images without masks."""
        without = self.rows[(self.rows["label"] == 1) & (self.rows["mask_path"] == "")]
        return sorted(set(without["member"]))


def read_manifest(name: str) -> dict[str, Any]:
    """The manifest that the auxiliary stage wrote."""
    manifest: dict[str, Any] = json.loads(paths.auxiliary(name).read_text())
    return manifest


def open_dataset(
    dataset: str, category: str, backbone: Backbone
) -> tuple[pd.DataFrame, CategoryFeatures]:
    """Test rows of a category and their patch tokens."""
    rows = read_test_rows(paths.index(dataset), paths.raw(dataset), category)
    identity = compute_identity(backbone, list(rows["sha256"]))
    return rows, open_category(paths.features(dataset) / category, identity)


def open_auxiliary(name: str, backbone: Backbone, open_one: Open | None = None) -> AuxiliarySet:
    """All test images of an auxiliary set.

    Args:
        name: of the set.
        backbone: the frozen CLIP.
        open_one: opens a category in place of `open_dataset`.
    """
    manifest = read_manifest(name)
    frames, features = [], {}
    for member in manifest["members"]:
        for category in member["categories"]:
            place = member["dataset"], category["category"]
            rows, stored = open_dataset(*place, backbone) if open_one is None else open_one(*place)
            key = "/".join(place)
            frames.append(rows.assign(member=key, name=category["prompt"], place=range(len(rows))))
            features[key] = stored
    return AuxiliarySet(manifest["names"], pd.concat(frames, ignore_index=True), features)
