"""download: a dataset's archives, verified and extracted; the sample's lie drawn already."""

import json
import logging
from typing import Any

from fuzzyclip.datasets import REGISTRY, get_dataset
from fuzzyclip.datasets.fetching.fetch import fetch_dataset
from fuzzyclip.utils.files import write_json
from fuzzyclip.utils.tree import DatasetError
from stages import paths
from stages.params import load_params
from stages.run import run_stage
from stages.schema import Dataset, Params

log = logging.getLogger(__name__)


def main(key: str) -> None:
    """Make data/raw/<key> and the record of where it came from."""
    params = load_params("download", key)
    dataset = params.datasets[key]
    if key in REGISTRY and dataset.kind != key:
        raise DatasetError(
            f"datasets.{key}: the name belongs to {get_dataset(key).title}; choose another name "
            f"for an entry of kind {dataset.kind}"
        )
    spec = get_dataset(dataset.kind)
    source = params.data.source if spec.archives else "own"
    if source == "sample":
        drawn = json.loads(paths.sample_note(key).read_text())
        categories = drawn["categories"]
        place = {"path": paths.sample(key), "sha256": drawn["sha256"], "download": False}
    else:
        categories = dataset.categories
        place = describe_place(key, dataset, params)
    record = fetch_dataset(
        spec, paths.raw(key), protocol=dataset.protocol, categories=categories, **place
    )
    if source != "sample":
        log.info("%s: licence %s %s", record["title"], record["licence"], record["page"])
    write_json(paths.record(key), {"source": source, "categories": categories} | record)


def describe_place(key: str, dataset: Dataset, params: Params) -> dict[str, Any]:
    """The place of the real archives, or of a folder of one's own."""
    archives = params.data.archives
    return {
        "path": paths.from_repository(dataset.path) if dataset.path else None,
        "archives_dir": paths.from_repository(archives) if archives else None,
        "downloads_dir": paths.SCRATCH / f"download-{key}",
        "urls": dataset.urls,
        "sha256": dataset.sha256,
        "allow_unverified": params.allow_unverified,
        "download": params.data.download,
    }


if __name__ == "__main__":
    run_stage(download=main)
