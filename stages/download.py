"""download: a dataset's archives, verified and extracted; the sample's are drawn first."""

import logging
import tempfile
from pathlib import Path
from typing import Any

from fuzzyclip.datasets import REGISTRY, get_dataset
from fuzzyclip.datasets.fetching.fetch import fetch_dataset
from fuzzyclip.datasets.spec import DatasetSpec
from fuzzyclip.sample.archives import sample_categories, write_sample_archives
from fuzzyclip.utils.files import write_json
from fuzzyclip.utils.tree import DatasetError
from stages import paths
from stages.params import load_params
from stages.run import run_stage
from stages.schema import Dataset, Params

PARAMS = (
    "data.source",
    "data.archives",
    "data.download",
    "sample",
    "datasets.${key}.kind",
    "datasets.${key}.path",
    "datasets.${key}.urls",
    "datasets.${key}.sha256",
    "datasets.${key}.protocol",
    "datasets.${key}.categories",
)

log = logging.getLogger(__name__)


def main(key: str) -> None:
    """Make data/raw/<key> and the record of where it came from."""
    params = load_params(PARAMS, key=key)
    dataset = params.datasets[key]
    if key in REGISTRY and dataset.kind != key:
        raise DatasetError(
            f"datasets.{key}: the name belongs to {get_dataset(key).title}; choose another name "
            f"for an entry of kind {dataset.kind}"
        )
    spec = get_dataset(dataset.kind)
    categories = dataset.categories
    source = params.data.source if spec.archives else "own"
    if source == "sample":
        drawn = sample_categories(spec.name)
        categories = [name for name in drawn if categories is None or name in categories]
        record = fetch_sample(key, spec, params, categories)
    else:
        record = fetch(key, spec, params, dataset)
        log.info("%s: licence %s %s", record["title"], record["licence"], record["page"])
    header = {"source": source, "categories": categories}
    write_json(paths.record(key), header | record)


def fetch(key: str, spec: DatasetSpec, params: Params, dataset: Dataset) -> dict[str, Any]:
    """Fetch the real archives, or a folder of one's own."""
    archives = params.data.archives
    return fetch_dataset(
        spec,
        paths.raw(key),
        protocol=dataset.protocol,
        path=Path(dataset.path).expanduser() if dataset.path else None,
        archives_dir=Path(archives).expanduser() if archives else None,
        downloads_dir=paths.SCRATCH / f"download-{key}",
        urls=dataset.urls,
        sha256=dataset.sha256,
        allow_unverified=params.allow_unverified,
        download=params.data.download,
        categories=dataset.categories,
    )


def fetch_sample(
    key: str, spec: DatasetSpec, params: Params, categories: list[str]
) -> dict[str, Any]:
    """Draw the sample's archives, and fetch from their folder as from any other.

    Raises:
        DatasetError: nothing of this dataset, or of this protocol's archives, is drawn.
    """
    protocol = params.datasets[key].protocol
    if not categories or spec.list_archives(protocol) != spec.archives:
        raise DatasetError(
            f"datasets.{key}: the sample draws nothing of {spec.title} for these categories and "
            f"the protocol {protocol}; set data.source: official, or remove the entry"
        )
    size, target = params.sample, paths.raw(key)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".sample-") as folder:
        sha256 = write_sample_archives(
            spec.name,
            Path(folder),
            seed=size.seed,
            train_good=size.train_good,
            test_good=size.test_good,
            test_bad=size.test_bad,
        )
        return fetch_dataset(
            spec,
            target,
            protocol=protocol,
            path=Path(folder),
            sha256=sha256,
            download=False,
            categories=categories,
        )


if __name__ == "__main__":
    run_stage("download", main, keyed=True)
