"""download: a dataset's archives, verified and extracted; the sample's are drawn first."""

import logging
import tempfile
from pathlib import Path
from typing import Any

from fuzzyclip.datasets import get_dataset
from fuzzyclip.datasets.fetch import fetch_dataset
from fuzzyclip.files import write_json
from fuzzyclip.sample.archives import sample_categories, write_sample_archives
from stages import paths
from stages.params import Params, load_params
from stages.run import run_stage

PARAMS = ("data", "sample", "datasets.${key}")

log = logging.getLogger(__name__)


def main(key: str) -> None:
    """Make data/raw/<key> and the record of where it came from."""
    params = load_params(PARAMS, key=key)
    categories = params.datasets[key].categories
    if params.data.source == "sample":
        drawn = sample_categories(key)
        categories = [name for name in drawn if categories is None or name in categories]
        record = fetch_sample(key, params, categories)
    else:
        archives = params.data.archives
        record = fetch_dataset(
            get_dataset(key),
            paths.raw(key),
            archives_dir=Path(archives).expanduser() if archives else None,
            sha256=None,
            allow_unverified=params.allow_unverified,
            download=params.data.download,
            categories=categories,
        )
        log.info("%s: %s (%s)", record["title"], record["licence"], record["page"])
    header = {"source": params.data.source, "categories": categories}
    write_json(paths.record(key), header | record)


def fetch_sample(key: str, params: Params, categories: list[str]) -> dict[str, Any]:
    """Draw the sample's archives, and fetch from their folder as from any other."""
    size, target = params.sample, paths.raw(key)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".sample-") as folder:
        sha256 = write_sample_archives(
            key,
            Path(folder),
            seed=size.seed,
            train_good=size.train_good,
            test_good=size.test_good,
            test_bad=size.test_bad,
        )
        return fetch_dataset(
            get_dataset(key),
            target,
            archives_dir=Path(folder),
            sha256=sha256,
            allow_unverified=False,
            download=False,
            categories=categories,
        )


if __name__ == "__main__":
    run_stage("download", main, keyed=True)
