"""Reading an auxiliary set: its manifest, its test images and their features."""

import json
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from fuzzyclip.backbone import Backbone
from fuzzyclip.datasets.index import read_index
from fuzzyclip.features import CategoryFeatures, compute_identity, open_category
from stages import paths


@dataclass(frozen=True)
class AuxiliarySet:
    """The test images of an auxiliary set, all members, in manifest order.

    Attributes:
        names: prompt names of its categories; the order in which they are stacked.
        rows: index rows with paths relative to the pipeline's folder, and columns `dataset`,
            `name` (prompt name of the category) and `place` (row within the category's features).
        features: stored features by prompt name.
    """

    names: list[str]
    rows: pd.DataFrame
    features: dict[str, CategoryFeatures]

    @property
    def image_embed(self) -> Tensor:
        """Class features of all rows, (N, D), not normalised."""
        return torch.cat([self.features[name].image_embed for name in self.names])


def read_manifest(name: str) -> dict[str, Any]:
    """The manifest that the auxiliary stage wrote."""
    manifest: dict[str, Any] = json.loads(paths.auxiliary(name).read_text())
    return manifest


def open_dataset(
    dataset: str, category: str, backbone: Backbone
) -> tuple[pd.DataFrame, CategoryFeatures]:
    """Test rows of a category, paths relative to the pipeline's folder, and their features."""
    frame = read_index(paths.index(dataset))
    rows = frame[(frame["split"] == "test") & (frame["category"] == category)].copy()
    identity = compute_identity(backbone, list(rows["image_path"]))
    features = open_category(paths.features(dataset) / category, identity)
    root = paths.raw(dataset).as_posix()
    rows["image_path"] = [f"{root}/{path}" for path in rows["image_path"]]
    rows["mask_path"] = [f"{root}/{path}" if path else "" for path in rows["mask_path"]]
    return rows.reset_index(drop=True), features


def open_auxiliary(name: str, backbone: Backbone) -> AuxiliarySet:
    """All test images of an auxiliary set.

    Raises:
        ValueError: two categories share a prompt name.
    """
    manifest = read_manifest(name)
    if len(set(manifest["names"])) < len(manifest["names"]):
        raise ValueError(
            f"auxiliary set {name}: two categories share a prompt name; set names: raw for one of "
            "its datasets"
        )
    frames, features = [], {}
    for member in manifest["members"]:
        for category in member["categories"]:
            rows, stored = open_dataset(member["dataset"], category["category"], backbone)
            frames.append(
                rows.assign(
                    dataset=member["dataset"], name=category["prompt"], place=range(len(rows))
                )
            )
            features[category["prompt"]] = stored
    return AuxiliarySet(manifest["names"], pd.concat(frames, ignore_index=True), features)
