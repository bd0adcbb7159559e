"""method_test: one method of the paper's tables on one dataset, by the same metrics as FuzzyCLIP.

What methods share, features and what they learned, is made by whichever needs it first and kept
under `baselines`, which DVC does not track: results are small and stand in git.
"""

import logging
from typing import Any

import pandas as pd

from fuzzyclip.datasets.index_file import read_info
from fuzzyclip.files import write_csv, write_json
from fuzzyclip.methods.interface import MethodUnavailableError
from fuzzyclip.metrics.exact import METRICS
from stages import paths
from stages.category import Category, CategoryResult, evaluate_category
from stages.method_setup import SetUp, describe, learn, set_up
from stages.names import list_prompt_names
from stages.params import load_params
from stages.run import run_matrix_stage
from stages.schema import Params

PARAMS = (
    "seed",
    "text",
    "features",
    "data.source",
    "evaluation.pixel_metrics",
    "methods.${method}",
    "datasets.${dataset}.mask_above",
    "datasets.${dataset}.names",
    "pairs.${dataset}",
)

log = logging.getLogger(__name__)


def main(method: str, dataset: str) -> None:
    """Make metrics/methods/<method>/<dataset>.csv and .json."""
    # The method's CLIP stands in the file of `method_code`. Which sets are auxiliary decides only
    # whether features are kept, never a result.
    known = ("backbone", "backbones", "auxiliary")
    params = load_params((*PARAMS, *known), method=method, dataset=dataset)
    auxiliary = params.pairs[dataset]
    ready = set_up(method, auxiliary, params)
    facts = describe(method, auxiliary, ready, params)
    try:
        results = evaluate(dataset, ready, params, learn(method, auxiliary, ready, params))
    except MethodUnavailableError as error:
        log.warning("%s is left out: %s", ready.method.title, error)
        facts["left_out"] = str(error)
        results = []
    write_results(method, dataset, facts, results)


def evaluate(
    dataset: str, ready: SetUp, params: Params, tensors: dict[str, Any]
) -> list[CategoryResult]:
    """The method on every category of a dataset."""
    method, settings = ready.method, params.datasets[dataset]
    results = []
    for name, prompt in list_prompt_names(read_info(paths.index_info(dataset)), settings).items():
        scorer = method.build(ready.encode, prompt, tensors)
        rows, features = ready.open_one(dataset, name, settings.mask_above)
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


def write_results(
    method: str, dataset: str, facts: dict[str, Any], results: list[CategoryResult]
) -> None:
    """A line a category, the choices behind it, and image scores."""
    columns = ["row", "category", "good", "bad", *METRICS, "prompt"]
    lines = [line for result in results for line in result.table]
    frame = pd.DataFrame(lines, columns=columns)
    write_csv(paths.method_metrics(method, dataset), frame)
    write_json(paths.method_facts(method, dataset), facts)
    if results:
        scores = pd.concat([result.listing for result in results])
        write_csv(paths.method_scores(method, dataset), scores, "%.9g")


if __name__ == "__main__":
    run_matrix_stage("method_test", main)
