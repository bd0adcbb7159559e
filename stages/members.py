"""Reading an auxiliary set: its manifest, its test images and their features."""

import json
from collections.abc import Callable
from typing import Any

import pandas as pd

from fuzzyclip.clip.backbone import Backbone
from fuzzyclip.features.auxiliary import AuxiliarySet
from fuzzyclip.features.shards import compute_identity
from fuzzyclip.features.store import CategoryFeatures, open_category
from fuzzyclip.images.index_file import read_index
from stages import paths

#: Dataset, category and `mask_above` to index rows and features, as `open_dataset` gives them.
Open = Callable[[str, str, int], tuple[pd.DataFrame, CategoryFeatures]]


def read_manifest(name: str) -> dict[str, Any]:
    """The manifest that the auxiliary stage wrote."""
    manifest: dict[str, Any] = json.loads(paths.auxiliary(name).read_text())
    return manifest


def read_test_rows(dataset: str, category: str, mask_above: int) -> pd.DataFrame:
    """Index rows of a category's test images.

    Their paths are relative to the pipeline's folder; `mask_above` becomes a column.
    """
    frame = read_index(paths.index(dataset))
    rows = frame[(frame["split"] == "test") & (frame["category"] == category)].copy()
    root = paths.raw(dataset).as_posix()
    rows["image_path"] = [f"{root}/{path}" for path in rows["image_path"]]
    rows["mask_path"] = [f"{root}/{path}" if path else "" for path in rows["mask_path"]]
    return rows.assign(mask_above=mask_above).reset_index(drop=True)


def open_dataset(
    dataset: str, category: str, backbone: Backbone, mask_above: int
) -> tuple[pd.DataFrame, CategoryFeatures]:
    """Test rows of a category and their patch tokens."""
    rows = read_test_rows(dataset, category, mask_above)
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
            above = member["mask_above"]
            rows, stored = (
                open_dataset(*place, backbone, above)
                if open_one is None
                else open_one(*place, above)
            )
            key = "/".join(place)
            frames.append(rows.assign(member=key, name=category["prompt"], place=range(len(rows))))
            features[key] = stored
    return AuxiliarySet(manifest["names"], pd.concat(frames, ignore_index=True), features)
