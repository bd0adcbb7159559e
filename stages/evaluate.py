"""evaluate: every row of the tables on one dataset, from the stored features."""

import json
import logging
from collections.abc import Sequence
from typing import Any

import pandas as pd

from fuzzyclip.clip.backbone import Backbone
from fuzzyclip.evaluation.metrics import METRICS, average_categories
from fuzzyclip.evaluation.rows import TRAINED
from fuzzyclip.evaluation.summaries import write_summaries
from fuzzyclip.images.index_file import read_info
from fuzzyclip.settings import EfaTest
from fuzzyclip.utils.files import write_csv, write_json
from fuzzyclip.utils.tensor_files import read_tensors
from stages import paths
from stages.category import COLUMNS, Category, CategoryResult, evaluate_category
from stages.clip import CLIP_PARAMS, load_clip
from stages.gallery import Gallery
from stages.members import open_dataset
from stages.overlays import Overlays
from stages.params import choose_settings, load_params
from stages.run import run_stage
from stages.shots import Shots
from stages.texts import SharedTexts

PARAMS = (
    *CLIP_PARAMS,
    "seed",
    "text",
    "data.source",
    "efa.test",
    "evaluation",
    "pairs.${key}",
)

log = logging.getLogger(__name__)


def main(key: str) -> None:
    """Make metrics/datasets/<key>.json, metrics/categories/<key>.csv and results/<key>."""
    params = load_params(PARAMS, key=key)
    model = read_model(params.pairs[key], key)
    backbone = load_clip(params)
    check_backbone(model, backbone)
    info = read_info(paths.index_info(key))
    prompts = info["prompts"]
    test = choose_settings(EfaTest, params, "efa.test", params.pairs[key])
    sigma = test.sigma
    texts = SharedTexts(backbone, params, test, model, list(dict.fromkeys(prompts.values())))
    overlays = Overlays(params.evaluation.overlays)
    gallery = Gallery(params.evaluation.gallery, sigma)
    shots = Shots(key, params.evaluation.shots, params.seed, backbone)
    results = []
    for name, prompt in prompts.items():
        rows, features = open_dataset(key, name, backbone, info["mask_above"])
        category = Category(key, name, rows, features, backbone, params.machine.workers)
        scorers = texts.build_scorers(prompt, shots.remember(name))
        exact = params.evaluation.pixel_metrics == "exact"
        result = evaluate_category(category, scorers, overlays, exact=exact, sigma=sigma)
        gallery.add(category, scorers[TRAINED], result.listing[TRAINED])
        if result.summaries is not None:
            write_summaries(paths.summaries(key, name), result.summaries)
        results.append(result)
        log.info("%s/%s: %s", key, name, result.table[-1])
    write_results(key, results, overlays)
    gallery.write(paths.gallery(key))
    tested = {"pixel_metrics": params.evaluation.pixel_metrics}
    write_json(paths.tested(key), info | tested)


def read_model(auxiliary: str, dataset: str) -> dict[str, Any]:
    """The trained model of an auxiliary set: partition, layers, learned prompts.

    Raises:
        ValueError: its parts disagree, or it was trained on `dataset`.
    """
    partition = json.loads(paths.partition(auxiliary).read_text())
    model: dict[str, Any] = {"partition": partition}
    for kind, path in (("efa", paths.heads(auxiliary)), ("rpl", paths.prompts(auxiliary))):
        model[kind], header = read_tensors(path)
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


def write_results(key: str, results: Sequence[CategoryResult], overlays: Overlays) -> None:
    """All files of the stage; numbers with four decimals, so that they compare as text."""
    table = [line for result in results for line in result.table]
    write_csv(paths.category_metrics(key), pd.DataFrame(table).reindex(columns=[*COLUMNS]))
    own = {
        str(line["category"]): {metric: line[metric] for metric in METRICS if metric in line}
        for line in table
        if line["row"] == TRAINED
    }
    means = {metric: round(value, 4) for metric, value in average_categories(own).items()}
    write_json(paths.dataset_metrics(key), means)
    folder = paths.results(key)
    # Nine digits bring a float32 back exactly: rounded scores would tie where they did not.
    scores = pd.concat([result.listing for result in results])
    write_csv(folder / "scores.csv", scores, "%.9g")
    if bounds := [line for result in results for line in result.bounds]:
        write_csv(paths.bounds(key), pd.DataFrame(bounds), "%.6f")
    overlays.write(folder / "overlays.safetensors")


if __name__ == "__main__":
    run_stage("evaluate", main, keyed=True)
