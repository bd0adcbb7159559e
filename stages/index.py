"""index: one row an image, every image and mask opened once, counts checked."""

import json
import logging

from fuzzyclip.datasets import get_dataset
from fuzzyclip.datasets.index import build_index, count_images, write_index
from stages import paths
from stages.params import load_params
from stages.run import run_stage

PARAMS = ("datasets.${key}",)

log = logging.getLogger(__name__)


def main(key: str) -> None:
    """Make data/index/<key>.csv; every fault of the images is reported at once."""
    params = load_params(PARAMS, key=key)
    dataset = params.datasets[key]
    record = json.loads(paths.record(key).read_text())
    frame = build_index(
        get_dataset(key),
        paths.raw(key),
        protocol=dataset.protocol,
        categories=record["categories"],
        expect_counts=dataset.counts == "published" and record["source"] != "sample",
    )
    for name, counts in count_images(frame).items():
        log.info("%s/%s: %s", key, name, counts._asdict())
    write_index(frame, paths.index(key))


if __name__ == "__main__":
    run_stage("index", main, keyed=True)
