"""Files that stages leave to one another: rows, features, auxiliary sets, trained parts."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from fuzzyclip.clip.backbone import Backbone
from fuzzyclip.features.auxiliary import AuxiliarySet
from fuzzyclip.features.kinds import TOKENS, FeatureKind
from fuzzyclip.features.shards import compute_identity
from fuzzyclip.features.store import CategoryFeatures, open_category
from fuzzyclip.images.index_file import read_index
from fuzzyclip.method.training import CurveRow
from fuzzyclip.utils.tables import write_csv
from stages import paths


def read_manifest(auxiliary: str) -> dict[str, Any]:
    """The auxiliary stage's manifest of a set."""
    manifest: dict[str, Any] = json.loads(paths.auxiliary(auxiliary).read_text())
    return manifest


def read_rows(dataset: str, split: str, category: str) -> pd.DataFrame:
    """Index rows of a category's images, with paths that can be opened."""
    rows = read_index(paths.index(dataset), paths.raw(dataset))
    chosen = rows[(rows["split"] == split) & (rows["category"] == category)]
    return chosen.reset_index(drop=True)


def open_features(
    dataset: str,
    category: str,
    backbone: Backbone,
    kind: FeatureKind = TOKENS,
    view: str = paths.TOKENS,
) -> tuple[pd.DataFrame, CategoryFeatures]:
    """Index rows and features of a category's test images.

    Of a kind that is not stored: no tokens, so that readers make them, and class features 0.
    """
    rows = read_rows(dataset, "test", category)
    if not kind.stored:
        embeds = torch.zeros(len(rows), backbone.embed_dim)
        return rows, CategoryFeatures(embeds, (), has_tokens=False)
    identity = compute_identity(backbone, list(rows["sha256"]), kind)
    return rows, open_category(paths.features(dataset, view) / category, identity)


def open_auxiliary(
    name: str, backbone: Backbone, kind: FeatureKind = TOKENS, view: str = paths.TOKENS
) -> AuxiliarySet:
    """All test images of an auxiliary set, in the manifest's order."""
    manifest = read_manifest(name)
    frames, features = [], {}
    for member in manifest["members"]:
        dataset = member["dataset"]
        for category in member["categories"]:
            key = f"{dataset}/{category['category']}"
            rows, features[key] = open_features(dataset, category["category"], backbone, kind, view)
            frames.append(rows.assign(member=key, name=category["prompt"], place=range(len(rows))))
    return AuxiliarySet(manifest["names"], pd.concat(frames, ignore_index=True), features)


def check_masks(name: str, auxiliary: AuxiliarySet, method: str) -> None:
    """Refuse an auxiliary set that has anomalous images without masks; names their categories."""
    if unmasked := auxiliary.find_unmasked():
        raise ValueError(
            f"auxiliary.{name}: {', '.join(unmasked)} has anomalous images without masks; {method} "
            "learns from masks, so it can be tested on but not trained on"
        )


def checkpoint_path(key: str, header: Mapping[str, Any], cluster: int = 0) -> Path:
    """A file that a killed training goes on from; its name changes with what changes the result."""
    manifest = paths.auxiliary(key).read_text()
    content = json.dumps([header, manifest, cluster, torch.__version__], sort_keys=True)
    digest = hashlib.sha256(content.encode()).hexdigest()
    return paths.SCRATCH / f"{header['kind']}-{key}-{cluster}-{digest[:16]}.pt"


def write_curve(path: Path, rows: Sequence[CurveRow]) -> None:
    """A training curve as CSV, one row a step, six digits."""
    write_csv(path, pd.DataFrame(rows), "%.6g")


def check_trained(path: Path, header: Mapping[str, Any], dataset: str, backbone: Backbone) -> None:
    """Refuse a file that was trained on the tested data, or for another CLIP, by its header.

    Raises:
        ValueError: names the file and what to do.
    """
    if dataset in header["datasets"]:
        raise ValueError(
            f"{path} was trained on {dataset}; evaluating it there would not be zero-shot. Choose "
            f"another auxiliary set in pairs.{dataset}"
        )
    if header["backbone"] != backbone.fingerprint:
        raise ValueError(f"{path} was trained with another backbone; train it again (dvc repro)")
