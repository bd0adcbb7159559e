"""Defects as far as the class features tell them at all.

`python benchmarks/probe_sample.py`, after `make repro`. Compares, by image AUROC averaged over
categories and datasets, the variants of the result tables with a logistic regression on the same
class features: `transfer` is trained on the auxiliary set's images and labels, as RPL is; `others`
on all other categories of all datasets, which no zero-shot method may use.
"""

import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file
from sklearn.linear_model import LogisticRegression

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from fuzzyclip.evaluation.metrics import compute_image_metrics  # noqa: E402
from fuzzyclip.images.index_file import read_index  # noqa: E402
from fuzzyclip.utils.tables import read_table  # noqa: E402
from stages import paths  # noqa: E402
from stages.params import read_params  # noqa: E402


def read_features(dataset):
    """Category, label and unit class feature of each test image of a dataset."""
    frame = read_index(paths.index(dataset), paths.raw(dataset))
    frame = frame[frame["split"] == "test"]
    pieces = []
    for category, rows in frame.groupby("category", sort=True):
        shards = sorted((paths.features(dataset) / str(category)).glob("*.safetensors"))
        embeds = np.concatenate([load_file(shard)["image_embed"] for shard in shards])
        embeds /= np.linalg.norm(embeds, axis=1, keepdims=True)
        pieces.append((np.full(len(rows), category), rows["label"].to_numpy(), embeds))
    return tuple(np.concatenate(column) for column in zip(*pieces, strict=True))


def fit(pairs, strength):
    """Logistic regression on (label, feature) pairs."""
    labels, embeds = (np.concatenate(column) for column in zip(*pairs, strict=True))
    return LogisticRegression(C=strength, max_iter=3000).fit(embeds, labels)


def main():
    params = read_params()
    data = {dataset: read_features(dataset) for dataset in params.datasets}
    variants = read_table(paths.TABLES / "averages.csv").set_index("variant")["image_auroc"]
    for variant, value in variants.items():
        print(f"{variant:28s} {value:6.2f}")
    for strength in (1.0, 10.0, 100.0):
        aurocs = {"transfer": [], "others": []}
        for dataset, auxiliary in params.pairs.items():
            category, label, embed = data[dataset]
            members = [data[name][1:] for name in params.auxiliary[auxiliary]]
            transfer = fit(members, strength)
            scores = {"transfer": [], "others": []}
            for name in np.unique(category):
                own = category == name
                rest = [
                    (labels[~own], embeds[~own]) if other == dataset else (labels, embeds)
                    for other, (_, labels, embeds) in data.items()
                ]
                for kind, model in (("transfer", transfer), ("others", fit(rest, strength))):
                    values = compute_image_metrics(model.decision_function(embed[own]), label[own])
                    scores[kind].append(values["image_auroc"])
            for kind, values in scores.items():
                aurocs[kind].append(np.mean(values))
        for kind, values in aurocs.items():
            print(f"logistic {kind:9s} C={strength:5g} {100 * np.mean(values):6.2f}")


if __name__ == "__main__":
    main()
