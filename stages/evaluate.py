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

from fuzzyclip.backbone import Backbone, encode_images
from fuzzyclip.datasets import get_dataset
from fuzzyclip.datasets.index import read_index
from fuzzyclip.efa import Heads, choose_anchors
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
    build_trained,
    build_untrained,
    describe_test_prompt,
    score_category,
)
from fuzzyclip.tensor_files import read_header, write_tensors
from fuzzyclip.text import stack_names
from stages import paths
from stages.clip import CLIP_PARAMS, encode_names, load_clip
from stages.members import open_dataset
from stages.names import list_prompt_names
from stages.params import Params, load_params
from stages.run import run_stage

PARAMS = (*CLIP_PARAMS, "text", "efa.test", "evaluation", "datasets.${key}", "pairs.${key}")

log = logging.getLogger(__name__)


def main(key: str) -> None:
    """Make metrics/datasets/<key>.json, metrics/categories/<key>.csv and results/<key>."""
    params = load_params(PARAMS, key=key)
    model = read_model(params.pairs[key], key)
    backbone = load_clip(params)
    check_backbone(model, backbone)
    frame = read_index(paths.index(key))
    prompts = list_prompt_names(frame, dict(get_dataset(key).categories), params.datasets[key])
    texts = SharedTexts(backbone, params, model, list(prompts.values()))
    table, scores, overlays = [], [], Overlays(params.evaluation.overlays)
    for category, prompt in prompts.items():
        rows, features = open_dataset(key, category, backbone)
        masks = load_masks(rows, Path(), backbone.image_size)
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
                overlays.keep(rows, result)
                for cluster, weights in enumerate(np.transpose(result.weights)):
                    listing[f"weight_{cluster}"] = weights
        scores.append(listing)
        log.info("%s/%s: %s", key, category, table[-1])
    write_results(key, table, pd.concat(scores), overlays)


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


class SharedTexts:
    """Text features of a dataset's evaluation; those that categories share are encoded once."""

    def __init__(
        self, backbone: Backbone, params: Params, model: dict[str, Any], tested: list[str]
    ) -> None:
        """Encode what all categories share.

        Args:
            backbone: the frozen CLIP.
            params: the stage's.
            model: from `read_model`.
            tested: prompt names of the tested categories.
        """
        self.backbone, self.params, self.model = backbone, params, model
        self.rows = list(params.evaluation.rows)
        self.clusters = [cluster["names"] for cluster in model["partition"]["clusters"]]
        stacks = {
            "object": ["object"],
            "stacked": tested,
            "stacked_auxiliary": model["partition"]["names"],
        }
        self.shared = {
            name: (self._stack(names), self._encode(names))
            for name, names in stacks.items()
            if name in self.rows
        }
        self.heads = [self._load_heads(number) for number in range(len(self.clusters))]
        self.train_embeds, self.centres = self._encode_clusters()

    def build_scorers(self, category: str) -> dict[str, Scorer]:
        """A scorer for each row of the tables, for one category by its prompt name."""
        scorers = {}
        for name in self.rows:
            if name == "precise":
                scorers[name] = build_untrained(self.backbone, category, self._encode([category]))
            elif name in self.shared:
                scorers[name] = build_untrained(self.backbone, *self.shared[name])
            else:
                scorers[name] = self._build_trained(category)
        return scorers

    def _build_trained(self, category: str) -> Scorer:
        test = self.params.efa.test
        prefix, with_cluster, suffix = describe_test_prompt(test.prompt, category)
        embeds, said = [], []
        for cluster in self.clusters:
            names = cluster if with_cluster else [prefix]
            before, after = (prefix, suffix) if with_cluster else ("", "")
            embeds.append(self._encode(names, before, after))
            said.append(" ".join(part for part in (before, self._stack(names), after) if part))
        tests = torch.stack(embeds)  # (K, D, 2)
        return build_trained(
            self.backbone,
            " | ".join(said),
            self.heads,
            tests,
            choose_anchors(test.weights, tests, self.train_embeds, self.centres),
            test.temperature,
            self.model["rpl"]["text_embed"],
        )

    def _encode_clusters(self) -> tuple[Tensor, Tensor]:
        """Training prompts (K, D, 2) and cluster centres (K, D), where the weights need them."""
        kind = self.params.efa.test.weights
        train = centres = torch.empty(0)
        if kind == "train_cluster":
            train = torch.stack([self._encode(names) for names in self.clusters])
        if kind == "center":
            means = [
                torch.stack([self._encode([name])[:, 0] for name in names]).mean(dim=0)
                for names in self.clusters
            ]
            centres = torch.stack(means)
        return train, centres

    def _load_heads(self, number: int) -> Heads:
        backbone, prefix = self.backbone, f"cluster{number}."
        heads = Heads(len(backbone.blocks), backbone.vision_width, backbone.embed_dim)
        tensors = self.model["efa"].items()
        heads.load_state_dict(
            {name.removeprefix(prefix): t for name, t in tensors if name.startswith(prefix)}
        )
        return heads.to(backbone.device).eval()

    def _encode(self, names: list[str], prefix: str = "", suffix: str = "") -> Tensor:
        return encode_names(self.backbone, self.params, names, prefix, suffix)

    def _stack(self, names: list[str]) -> str:
        return stack_names(names, self.params.text.separator, self.params.text.underscore)


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
    masks: np.ndarray,
) -> dict[str, Any]:
    """One line of the category table: metrics in percent, absent where undefined."""
    values = compute_image_metrics(result.image_scores, rows["label"].to_numpy())
    values |= compute_pixel_metrics(result.maps, masks)
    line: dict[str, Any] = {
        "row": name,
        "category": category,
        "good": int((rows["label"] == 0).sum()),
        "bad": int((rows["label"] == 1).sum()),
    }
    line |= {metric: 100 * values[metric] for metric in METRICS if metric in values}
    return line | {"prompt": scorer.prompt}


class Overlays:
    """The anomaly maps that are kept for pictures: evenly spaced anomalous images."""

    def __init__(self, per_category: int) -> None:
        self.per_category = per_category
        self.images: list[dict[str, str]] = []
        self.maps: list[Tensor] = []

    def keep(self, rows: pd.DataFrame, result: Scores) -> None:
        """Choose among a category's anomalous images and keep their maps."""
        anomalous = np.flatnonzero(rows["label"].to_numpy() == 1)
        count = min(self.per_category, len(anomalous))
        places = np.linspace(0, len(anomalous) - 1, count + 2)[1:-1].round().astype(int)
        for row in anomalous[places]:
            picked = rows.iloc[row]
            self.images.append({key: str(picked[key]) for key in _OVERLAY_KEYS})
            self.maps.append(torch.from_numpy(result.maps[row]).half())

    def write(self, path: Path) -> None:
        """One file of maps (n, S, S), with the images they belong to in its header."""
        maps = torch.stack(self.maps) if self.maps else torch.empty(0)
        write_tensors(path, {"maps": maps}, {"images": self.images})


_OVERLAY_KEYS = ("image_path", "mask_path", "category", "defect")


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
    listed = scores.to_csv(index=False, float_format="%.6f", lineterminator="\n")
    write_text(folder / "scores.csv", listed)
    overlays.write(folder / "maps.safetensors")


if __name__ == "__main__":
    run_stage("evaluate", main, keyed=True)
