"""evaluate: every row of the tables on one dataset, from the stored features."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors import safe_open
from torch import Tensor

from fuzzyclip.backbone import Backbone
from fuzzyclip.datasets.images import load_image
from fuzzyclip.datasets.index_file import read_info
from fuzzyclip.encoding import encode_images
from fuzzyclip.features import CategoryFeatures
from fuzzyclip.files import write_json, write_text
from fuzzyclip.masks import load_masks
from fuzzyclip.metrics import (
    METRICS,
    average_categories,
    compute_image_metrics,
    compute_pixel_metrics,
)
from fuzzyclip.pixels import load_pixels
from fuzzyclip.rows import TRAINED
from fuzzyclip.scoring import (
    Scorer,
    Scores,
    score_category,
)
from fuzzyclip.summaries import summarise_pixels, write_summaries
from fuzzyclip.tensor_files import read_header, write_tensors
from stages import paths
from stages.clip import CLIP_PARAMS, load_clip
from stages.members import open_dataset
from stages.names import list_prompt_names
from stages.params import load_params
from stages.run import run_stage
from stages.texts import SharedTexts

PARAMS = (
    *CLIP_PARAMS,
    "text",
    "efa.test",
    "evaluation",
    "datasets.${key}.mask_above",
    "datasets.${key}.names",
    "pairs.${key}",
)

log = logging.getLogger(__name__)


def main(key: str) -> None:
    """Make metrics/datasets/<key>.json, metrics/categories/<key>.csv and results/<key>."""
    params = load_params(PARAMS, key=key)
    model = read_model(params.pairs[key], key)
    backbone = load_clip(params)
    check_backbone(model, backbone)
    info, dataset = read_info(paths.index_info(key)), params.datasets[key]
    prompts = list_prompt_names(info, dataset)
    texts = SharedTexts(backbone, params, model, list(dict.fromkeys(prompts.values())))
    table, scores, overlays = [], [], Overlays(params.evaluation.overlays)
    for category, prompt in prompts.items():
        rows, features = open_dataset(key, category, backbone, dataset.mask_above)
        masks = load_masks(rows, Path(), backbone.image_size) if has_masks(rows) else None
        listing = rows[["image_path", "category", "label", "defect"]].copy()
        for name, scorer in texts.build_scorers(prompt).items():
            result = score_category(
                scorer,
                iterate_batches(rows, features, backbone, params.machine.batch_size),
                backbone,
                params.efa.test.sigma,
            )
            table.append(describe(name, category, scorer, rows, result, masks))
            listing[name] = result.image_scores
            if name == TRAINED:
                overlays.keep(rows, masks, result)
                write_category_summary(key, category, rows, result, masks)
                weights = result.weights
                assert weights is not None  # the trained scorer weighs its clusters
                for cluster, column in enumerate(weights.T):
                    listing[f"weight_{cluster}"] = column
        scores.append(listing)
        log.info("%s/%s: %s", key, category, table[-1])
    write_results(key, table, pd.concat(scores), overlays)
    write_json(paths.tested(key), info | {"prompts": prompts})


def read_model(auxiliary: str, dataset: str) -> dict[str, Any]:
    """The trained model of an auxiliary set: partition, layers, learned prompts.

    Raises:
        ValueError: its parts disagree, or it was trained on `dataset`.
    """
    partition = json.loads(paths.partition(auxiliary).read_text())
    model: dict[str, Any] = {"partition": partition}
    for kind, path in (("efa", paths.heads(auxiliary)), ("rpl", paths.prompts(auxiliary))):
        with safe_open(str(path), framework="pt") as file:
            model[kind] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            header = read_header(file.metadata())
        if dataset in header["datasets"]:
            raise ValueError(
                f"{path} was trained on {dataset}; evaluating it there would not be zero-shot. "
                f"Choose another auxiliary set in pairs.{dataset}"
            )
        model[f"{kind}_header"] = header
    if model["efa_header"]["clusters"] != partition["clusters"]:
        raise ValueError(f"{paths.heads(auxiliary)} has other clusters than CSP's; run efa again")
    return model


def check_backbone(model: dict[str, Any], backbone: Backbone) -> None:
    """Layers and prompts only fit the backbone they were trained with.

    Raises:
        ValueError: another backbone.
    """
    for kind in ("efa", "rpl"):
        if model[f"{kind}_header"]["backbone"] != backbone.fingerprint:
            raise ValueError(
                f"the {kind} model was trained with another backbone; run {kind} again"
            )


def has_masks(rows: pd.DataFrame) -> bool:
    """Whether every anomalous image has a mask; without, pixel metrics are absent, never zero."""
    return not ((rows["label"] == 1) & (rows["mask_path"] == "")).any()


def iterate_batches(
    rows: pd.DataFrame, features: CategoryFeatures, backbone: Backbone, batch_size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Patch tokens (B, L, P, W) and class features (B, D): stored, or encoded where not kept."""
    for start in range(0, len(rows), batch_size):
        stop = min(start + batch_size, len(rows))
        if features.has_tokens:
            tokens = features.read_tokens(range(start, stop))
        else:
            images = [Path(path) for path in rows["image_path"].iloc[start:stop]]
            tokens = encode_images(backbone, load_pixels(images, backbone))[1]
        yield tokens, features.image_embed[start:stop]


def describe(
    name: str,
    category: str,
    scorer: Scorer,
    rows: pd.DataFrame,
    result: Scores,
    masks: np.ndarray | None,
) -> dict[str, Any]:
    """One line of the category table: metrics in percent, absent where undefined."""
    values = compute_image_metrics(result.image_scores, rows["label"].to_numpy())
    if masks is not None:
        values |= compute_pixel_metrics(result.maps, masks)
    line: dict[str, Any] = {
        "row": name,
        "category": category,
        "good": int((rows["label"] == 0).sum()),
        "bad": int((rows["label"] == 1).sum()),
    }
    line |= {metric: 100 * values[metric] for metric in METRICS if metric in values}
    return line | {"prompt": scorer.prompt}


def write_category_summary(
    key: str, category: str, rows: pd.DataFrame, result: Scores, masks: np.ndarray | None
) -> None:
    """What a bootstrap over images needs of the maps; nothing where there are no masks."""
    if masks is not None:
        path = paths.results(key) / "summaries" / f"{category}.safetensors"
        write_summaries(path, summarise_pixels(result.maps, masks, rows["image_path"].tolist()))


class Overlays:
    """What pictures are made of: evenly spaced anomalous images with mask and map, at map size."""

    def __init__(self, per_category: int) -> None:
        self.per_category = per_category
        self.titles: list[str] = []
        self.tensors: dict[str, list[Tensor]] = {"images": [], "masks": [], "maps": []}

    def keep(self, rows: pd.DataFrame, masks: np.ndarray | None, result: Scores) -> None:
        """Choose among a category's anomalous images; without masks nothing is outlined."""
        note = ""
        if masks is None:
            masks, note = np.zeros(result.maps.shape, dtype=bool), " (no mask)"
        anomalous = np.flatnonzero(rows["label"].to_numpy() == 1)
        count = min(self.per_category, len(anomalous))
        places = np.linspace(0, len(anomalous) - 1, count + 2)[1:-1].round().astype(int)
        for row in anomalous[places]:
            picked = rows.iloc[row]
            image = load_image(Path(str(picked["image_path"]))).resize(masks.shape[:0:-1])
            self.titles.append(f"{picked['category']}\n{picked['defect']}{note}")
            self.tensors["images"].append(torch.from_numpy(np.array(image)))  # (S, S, 3)
            self.tensors["masks"].append(torch.from_numpy(masks[row]))
            self.tensors["maps"].append(torch.from_numpy(result.maps[row]).half())

    def write(self, path: Path) -> None:
        """One file with images (n, S, S, 3), masks and maps (n, S, S), titles in its header."""
        stacked = {
            name: torch.stack(kept) if kept else torch.empty(0)
            for name, kept in self.tensors.items()
        }
        write_tensors(path, stacked, {"titles": self.titles})


def write_results(
    key: str, table: list[dict[str, Any]], scores: pd.DataFrame, overlays: Overlays
) -> None:
    """All files of the stage; numbers with four decimals, so that they compare as text."""
    frame = pd.DataFrame(table)
    columns = ["row", "category", "good", "bad", *METRICS, "prompt"]
    frame = frame.reindex(columns=columns)
    text = frame.to_csv(index=False, float_format="%.4f", lineterminator="\n")
    write_text(paths.category_metrics(key), text)
    own = {
        str(line["category"]): {metric: line[metric] for metric in METRICS if metric in line}
        for line in table
        if line["row"] == TRAINED
    }
    means = {metric: round(value, 4) for metric, value in average_categories(own).items()}
    write_json(paths.dataset_metrics(key), means)
    folder = paths.results(key)
    folder.mkdir(parents=True, exist_ok=True)
    # Nine digits bring a float32 back exactly: rounded scores would tie where they did not.
    listed = scores.to_csv(index=False, float_format="%.9g", lineterminator="\n")
    write_text(folder / "scores.csv", listed)
    overlays.write(folder / "overlays.safetensors")


if __name__ == "__main__":
    run_stage("evaluate", main, keyed=True)
