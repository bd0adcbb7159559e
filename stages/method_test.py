"""method_test: one method of the paper's tables, trained on one auxiliary set where it trains, on
every dataset that meets it there (`pairs`), by the same metrics as FuzzyCLIP.

What methods share, features and what they learned, is made by whichever needs it first and kept
under `baselines`, which DVC does not track: results are small and stand in git. Results lie there
too, by what they were made of, so that a stage that was killed, or of which one dataset changed,
computes what is missing.
"""

import hashlib
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pandas as pd

from fuzzyclip.images.index_file import read_info
from fuzzyclip.method.interface import Learned, MethodUnavailableError
from fuzzyclip.utils.files import (
    BrokenFileError,
    compute_sha256,
    find_changed,
    read_digests,
    write_csv,
    write_json,
)
from stages import paths
from stages.category import COLUMNS, Category, CategoryResult, evaluate_category
from stages.method_setup import SetUp, describe, learn, set_up
from stages.params import load_params
from stages.run import run_matrix_stage
from stages.schema import Params

PARAMS = (
    "pairs",
    "seed",
    "text",
    "features",
    "data.source",
    "evaluation.pixel_metrics",
    "methods.${method}",
)
#: Files of a result; the last one is written when the others are there, and has their digests.
TABLE, SCORES, FACTS, DIGESTS = "metrics.csv", "scores.csv", "facts.json", "sha256.json"

log = logging.getLogger(__name__)


def main(method: str, auxiliary: str) -> None:
    """Make metrics/methods/<method>/<auxiliary>, two files a dataset."""
    # The method's CLIP stands in the file of `method_code`. Which sets are auxiliary decides only
    # whether features are kept, never a result.
    known = ("backbone", "backbones", "auxiliary")
    params = load_params((*PARAMS, *known), method=method)
    work = {
        dataset: paths.method_work(method, dataset, identify(method, dataset, params))
        for dataset, learned_from in params.pairs.items()
        if learned_from == auxiliary
    }
    if missing := [dataset for dataset in work if not is_made(work[dataset])]:
        ready = set_up(method, auxiliary, params)
        for dataset in missing:
            test(method, dataset, work[dataset], ready, params)
    shutil.rmtree(paths.method_results(method, auxiliary), ignore_errors=True)
    paths.method_results(method, auxiliary).mkdir(parents=True)
    for dataset, folder in work.items():
        shutil.copyfile(folder / TABLE, paths.method_metrics(method, auxiliary, dataset))
        shutil.copyfile(folder / FACTS, paths.method_facts(method, auxiliary, dataset))


def is_made(folder: Path) -> bool:
    """Whether a result is there, whole; one that lacked models is not: they may be there now."""
    if not (folder / DIGESTS).is_file():
        return False
    try:
        known = read_digests(folder / DIGESTS)
        changed = find_changed(folder, known) if FACTS in known else [DIGESTS]
    except BrokenFileError:
        changed = [DIGESTS]
    if changed:
        log.warning("%s: %s broken; the result is made anew", folder, ", ".join(changed))
        return False
    return "left_out" not in json.loads((folder / FACTS).read_text())


def identify(method: str, dataset: str, params: Params) -> str:
    """Digest of all that a result is made of: code, CLIP, images, masks, auxiliary set, choices."""
    auxiliary = params.pairs[dataset]
    files = (
        paths.method_code(method),
        paths.index(dataset),
        paths.index_info(dataset),
        paths.auxiliary(auxiliary),
    )
    choices = {
        "auxiliary": auxiliary,
        "seed": params.seed,
        "text": params.text.model_dump(mode="json"),
        "features": params.features.model_dump(mode="json"),
        "source": params.data.source,
        "pixel_metrics": params.evaluation.pixel_metrics,
        "method": params.methods[method].model_dump(mode="json"),
    }
    said = json.dumps([[compute_sha256(path) for path in files], choices], sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()


def test(method: str, dataset: str, folder: Path, ready: SetUp, params: Params) -> None:
    """Make one dataset's result; one that needs models that are not here is empty and says so."""
    auxiliary = params.pairs[dataset]
    facts = describe(method, auxiliary, ready, params)
    try:
        results = evaluate(dataset, ready, params, learn(method, auxiliary, ready, params))
    except MethodUnavailableError as error:
        log.warning("%s is left out: %s", ready.method.title, error)
        facts["left_out"] = str(error)
        results = []
    write_results(folder, facts, results)


def evaluate(dataset: str, ready: SetUp, params: Params, learned: Learned) -> list[CategoryResult]:
    """The method on every category of a dataset."""
    method, info = ready.method, read_info(paths.index_info(dataset))
    results = []
    for name, prompt in info["prompts"].items():
        scorer = method.build(ready.encode, prompt, learned)
        rows, features = ready.open_one(dataset, name, info["mask_above"])
        category = Category(
            dataset, name, rows, features, ready.backbone, params.machine.workers, method.kind
        )
        exact = params.evaluation.pixel_metrics == "exact"
        result = evaluate_category(
            category, {method.name: scorer}, exact=exact, sigma=method.sigma, kept_row=method.name
        )
        results.append(result)
        log.info("%s/%s: %s", dataset, name, result.table[-1])
    return results


def write_results(folder: Path, facts: dict[str, Any], results: list[CategoryResult]) -> None:
    """A line a category, image scores, the choices behind them, and the digests of all that."""
    lines = [line for result in results for line in result.table]
    write_csv(folder / TABLE, pd.DataFrame(lines, columns=[*COLUMNS]))
    if results:
        scores = pd.concat([result.listing for result in results])
        write_csv(folder / SCORES, scores, "%.9g")
    write_json(folder / FACTS, facts)
    names = [TABLE, FACTS, *([SCORES] if results else [])]
    write_json(folder / DIGESTS, {name: compute_sha256(folder / name) for name in names})


if __name__ == "__main__":
    run_matrix_stage("method_test", main)
