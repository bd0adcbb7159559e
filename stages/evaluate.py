"""evaluate: a method on a dataset, from the stored features; the same for every method.

`evaluate` tests FuzzyCLIP, a dataset at a time; `evaluate_baseline` one of the methods that it is
compared with, on every dataset of `pairs`.
"""

import json
import logging
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
from torch import Tensor

from fuzzyclip.baselines.registry import build_method
from fuzzyclip.clip.name_encoder import NameEncoder
from fuzzyclip.clip.towers import NoTextError
from fuzzyclip.clip.weights import RANDOM
from fuzzyclip.evaluation.category import (
    COLUMNS,
    Category,
    CategoryResult,
    choose_references,
    encode_references,
    evaluate_category,
)
from fuzzyclip.evaluation.examples import Gallery, Overlays
from fuzzyclip.evaluation.gains import Gains
from fuzzyclip.evaluation.metrics import METRICS, average_categories
from fuzzyclip.evaluation.summaries import write_summaries
from fuzzyclip.images.index_file import read_info
from fuzzyclip.method import OWN
from fuzzyclip.method.fuzzyclip import FuzzyClip, join_parts
from fuzzyclip.method.interface import (
    Learned,
    Method,
    MethodUnavailableError,
    Target,
    UnlabelledBatch,
    order_images,
)
from fuzzyclip.method.rpl import measure_lengths
from fuzzyclip.method.scorer import Scorer
from fuzzyclip.utils.files import write_json
from fuzzyclip.utils.settings import BackboneSettings, EfaTest, TextSettings
from fuzzyclip.utils.tables import write_csv
from fuzzyclip.utils.tensor_files import read_tensors
from stages import paths
from stages.clip import load_clip, make_encoder, prepare_clip
from stages.params import choose_settings, load_params
from stages.run import run_stage
from stages.schema import Params
from stages.stored import check_trained, open_features, read_rows

#: What stands beside a result of the data that it was measured on.
TESTED = ("title", "source", "protocol", "complete", "verified")
#: What the log says of a category: metric to how people write it there.
LOGGED = {"image_auroc": "image AUROC", "pixel_ap": "pixel AP", "pixel_aupro_std": "AUPRO"}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ready:
    """A method that has learned, and what it is tested with.

    Attributes:
        method: with its settings.
        learned: from the auxiliary set that the dataset meets.
        encode: names to text features.
        view: key of the features that it reads.
        facts: all choices that made it, for the file beside the result.
        untrained: its variants without training, which it is compared with.
        overlays: takes images with their maps for pictures, if any are asked for.
        gallery: takes the images that the page shows, if any are asked for.
    """

    method: Method
    learned: Learned
    encode: NameEncoder
    view: str
    facts: dict[str, Any]
    untrained: tuple[str, ...] = ()
    overlays: Overlays | None = None
    gallery: Gallery | None = None


def evaluate_own(key: str) -> None:
    """Make FuzzyCLIP's files of a dataset, and the means where DVC looks for metrics."""
    params = load_params("evaluate", key)
    ready = prepare_own(params, params.pairs[key], key)
    results = evaluate_dataset(ready, key, params)
    lines = [line for result in results for line in result.table]
    own = {
        str(line["category"]): {metric: line[metric] for metric in METRICS if metric in line}
        for line in lines
        if line["variant"] == ready.method.name
    }
    means = {metric: round(value, 4) for metric, value in average_categories(own).items()}
    write_json(paths.dataset_metrics(key), means)


def evaluate_baseline(key: str) -> None:
    """Make a baseline's files of every dataset; they say so where it needs models not here."""
    params = load_params("evaluate_baseline", key)
    for folder in (paths.METHOD_METRICS / key, paths.RESULTS / key):
        shutil.rmtree(folder, ignore_errors=True)
    ready: dict[str, Ready] = {}
    for dataset, auxiliary in params.pairs.items():
        if auxiliary not in ready:
            ready[auxiliary] = prepare_baseline(key, auxiliary, params)
        check_trained(
            paths.learned(key, auxiliary),
            ready[auxiliary].facts,
            dataset,
            ready[auxiliary].encode.backbone,
        )
        evaluate_dataset(ready[auxiliary], dataset, params)


def prepare_own(params: Params, auxiliary: str, dataset: str) -> Ready:
    """FuzzyCLIP with what CSP, EFA and RPL have learned from an auxiliary set.

    Raises:
        ValueError: its parts disagree, fit another CLIP, or were trained on `dataset`.
    """
    backbone = load_clip(params)
    partition = json.loads(paths.partition(auxiliary).read_text())
    parts, headers = {}, {}
    for kind, path in (("efa", paths.heads(auxiliary)), ("rpl", paths.prompts(auxiliary))):
        parts[kind], headers[kind] = read_tensors(path)
        check_trained(path, headers[kind], dataset, backbone)
    if headers["efa"]["clusters"] != partition["clusters"]:
        raise ValueError(f"{paths.heads(auxiliary)} has other clusters than CSP's; run efa again")
    temperature = headers["rpl"]["settings"]["temperature"]
    evaluation = params.evaluation
    test = choose_settings(EfaTest, params, "efa.test", auxiliary)
    method = FuzzyClip(test=test, variants=evaluation.variants, shots=evaluation.shots)
    settings = {kind: header["settings"] for kind, header in headers.items()}
    return Ready(
        method,
        join_parts(partition, parts["efa"], parts["rpl"], temperature),
        make_encoder(backbone, params.text),
        paths.TOKENS,
        describe(method, auxiliary, params.backbone, params.backbones[params.backbone], params.text)
        | {"clusters": len(partition["clusters"]), "seed": params.seed}
        | {"short_clusters": headers["efa"]["short_clusters"]}
        | {"lengths": measure_lengths(parts["rpl"])}
        | {"settings": settings | {"test": test.model_dump(mode="json")}},
        evaluation.variants,
        Overlays(evaluation.overlays) if evaluation.overlays else None,
        Gallery(evaluation.gallery, method.sigma) if evaluation.gallery else None,
    )


def prepare_baseline(name: str, auxiliary: str, params: Params) -> Ready:
    """A baseline as the file says that it was trained with."""
    tensors, header = read_tensors(paths.learned(name, auxiliary))
    method = build_method(name, header["settings"])
    clip = BackboneSettings.model_validate(header["clip_settings"])
    text = TextSettings.model_validate(header["text"])
    facts = describe(method, auxiliary, header["clip"], clip, text)
    return Ready(
        method,
        Learned(tensors, header["facts"]),
        make_encoder(prepare_clip(params, clip)(), text),
        header["features"],
        facts | {key: header[key] for key in ("settings", "seed", "datasets", "backbone")},
    )


def describe(
    method: Method, auxiliary: str, clip: str, settings: BackboneSettings, text: TextSettings
) -> dict[str, Any]:
    """All that made a result, but for the method's own settings."""
    batch = {"batch": True} if getattr(method, "uses_batch", False) else {}
    return batch | {
        "method": method.name,
        "title": method.title,
        "note": getattr(method, "note", ""),
        "random": getattr(method, "random_weights", False) or settings.weights == RANDOM,
        "auxiliary": auxiliary if method.trains else None,
        "kind": method.kind.name,
        "clip": clip,
        "model": settings.model,
        "image_size": settings.image_size,
        "text": text.model_dump(mode="json"),
    }


def evaluate_dataset(ready: Ready, dataset: str, params: Params) -> list[CategoryResult]:
    """Every variant of a method on a dataset, written; empty where it can not run here."""
    info, facts = read_info(paths.index_info(dataset)), dict(ready.facts)
    gains, results = Gains(ready.method.name, ready.untrained, params.seed), []
    try:
        for name in info["prompts"]:
            result = evaluate_one(ready, dataset, name, info, params)
            if ready.untrained:
                gains.add(result)
            results.append(replace(result, summaries={}))
            summary = summarise(ready.method.name, result.table)
            log.info("%s on %s/%s: %s", ready.method.title, dataset, name, summary)
    except MethodUnavailableError as error:
        log.warning("%s is left out: %s", ready.method.title, error)
        facts["left_out"], results = str(error), []
    # none where PyTorch made all features: then the facts are what they always were
    facts["runtimes"] = sorted({name for result in results for name in result.runtimes})
    tested = {key: info[key] for key in TESTED} | {"pixel_metrics": params.evaluation.pixel_metrics}
    if ready.untrained:
        facts["gains"] = gains.describe()
    write_results(ready.method.name, dataset, facts | {"tested": tested}, results)
    if ready.overlays is not None:
        ready.overlays.write(paths.overlays(ready.method.name, dataset))
    if ready.gallery is not None:
        ready.gallery.write(paths.gallery(ready.method.name, dataset))
    write_json(paths.tested(ready.method.name, dataset), info | tested)
    return results


def summarise(variant: str, table: Sequence[Mapping[str, Any]]) -> str:
    """A variant's line of a category's table in a few words; what is undefined is left out."""
    (line,) = (line for line in table if line["variant"] == variant)
    known = {title: line.get(metric, math.nan) for metric, title in LOGGED.items()}
    values = [f"{title} {value:.1f}" for title, value in known.items() if not math.isnan(value)]
    images = line["normal"] + line["anomalous"]
    return f"{', '.join(values) or 'no metric is defined'} ({images} images)"


def evaluate_one(
    ready: Ready, dataset: str, name: str, info: dict[str, Any], params: Params
) -> CategoryResult:
    """Every variant of a method on one category."""
    method = ready.method
    category, scorers = prepare_category(ready, dataset, name, info, params)
    result = evaluate_category(
        category,
        scorers,
        shown=method.name,
        scratch=paths.SCRATCH,
        compared=ready.untrained,
        exact=params.evaluation.pixel_metrics == "exact",
        sigma=method.sigma,
        watcher=ready.overlays,
    )
    if ready.gallery is not None:
        ready.gallery.add(category, scorers[method.name], result.listing[method.name])
    if method.name in result.summaries:
        path = paths.summaries(method.name, dataset, name)
        write_summaries(path, result.summaries[method.name])
    return result


def prepare_category(
    ready: Ready, dataset: str, name: str, info: dict[str, Any], params: Params
) -> tuple[Category, dict[str, Scorer]]:
    """A category with its features, and a scorer for each variant; `info` is the index's.

    Raises:
        MethodUnavailableError: the method needs models, or a text, that are not here.
    """
    method, backbone = ready.method, ready.encode.backbone
    if method.reads_text:
        try:
            backbone.require_text()
        except NoTextError as error:
            raise MethodUnavailableError(str(error)) from error
    rows, features = open_features(dataset, name, backbone, method.kind, ready.view)
    category = Category(
        dataset, name, rows, features, backbone, params.machine.workers, method.kind
    )

    def load_references(count: int) -> Tensor:
        try:
            chosen = choose_references(read_rows(dataset, "train", name), count, params.seed)
        except ValueError as error:
            key = "evaluation" if method.name == OWN else f"methods.{method.name}"
            raise ValueError(f"{key}.shots: {dataset}/{name} has {error}") from error
        return encode_references(chosen, backbone)

    order = order_images(list(rows["sha256"]), params.seed)

    def load_batch(places: Sequence[int]) -> Tensor:
        return category.read_tokens([order[place] for place in places])

    prompts = list(dict.fromkeys(info["prompts"].values()))
    batch = UnlabelledBatch(len(order), load_batch)
    target = Target(info["prompts"][name], prompts, load_references, batch)
    return category, method.build_variants(ready.encode, target, ready.learned)


def write_results(
    method: str, dataset: str, facts: dict[str, Any], results: Sequence[CategoryResult]
) -> None:
    """A method's tables, image scores and facts; numbers with four decimals compare as text."""
    table = [line for result in results for line in result.table]
    write_csv(paths.method_metrics(method, dataset), pd.DataFrame(table, columns=[*COLUMNS]))
    # an empty list is left out: DVC, which looks for points of plots here, stumbles over one
    known = {key: value for key, value in facts.items() if value != []}
    write_json(paths.method_facts(method, dataset), known)
    # Nine digits bring a float32 back exactly: rounded scores would tie where they did not.
    listings = [result.listing for result in results]
    scores = pd.concat(listings) if listings else pd.DataFrame()
    write_csv(paths.scores(method, dataset), scores, "%.9g")
    if bounds := [line for result in results for line in result.bounds]:
        write_csv(paths.bounds(method, dataset), pd.DataFrame(bounds), "%.6f")


if __name__ == "__main__":
    run_stage(evaluate=evaluate_own, evaluate_baseline=evaluate_baseline)
