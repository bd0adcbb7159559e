"""index: one row an image, every image and mask opened once, counts checked."""

import json
import logging

from fuzzyclip.datasets import get_dataset
from fuzzyclip.datasets.base.meta import write_meta
from fuzzyclip.datasets.indexing import build_index, name_categories
from fuzzyclip.images.index_file import write_index
from stages import paths
from stages.params import load_params
from stages.run import run_stage

log = logging.getLogger(__name__)


def main(key: str) -> None:
    """Make data/index/<key>.csv, .json and .meta.json; every fault is reported at once."""
    params = load_params("index", key)
    dataset = params.datasets[key]
    record = json.loads(paths.record(key).read_text())
    # The sample is a subset by nature.
    published = dataset.counts == "published" and record["source"] != "sample"
    index = build_index(
        get_dataset(dataset.kind),
        paths.raw(key),
        protocol=dataset.protocol,
        categories=record["categories"],
        expect_counts=published,
        on_error=params.data.on_error,
        mask_above=dataset.mask_above,
        workers=params.machine.workers,
    )
    for name, counts in index.info["counts"].items():
        images = [f"{number} {part.replace('_', ' ')}" for part, number in counts.items()]
        log.info("%s/%s: %s images", key, name, ", ".join(images))
    # A fact of the dataset from here on: who reads the index needs no parameter for it.
    index.info["prompts"] = name_categories(index.info, dataset.names)
    index.info["source"] = record["source"]
    index.info["complete"] = published and record["categories"] is None
    index.info["verified"] = all(archive["verified"] for archive in record["archives"])
    write_index(index, paths.index(key), paths.index_info(key))
    write_meta(index.frame, index.info, paths.index_meta(key))


if __name__ == "__main__":
    run_stage(index=main)
