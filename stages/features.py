"""features: every test image through the frozen image tower, once."""

import shutil

from fuzzyclip.datasets.index_file import read_index
from fuzzyclip.features import write_category
from stages import paths
from stages.clip import CLIP_PARAMS, load_clip
from stages.params import load_params
from stages.run import run_stage
from stages.schema import Params

PARAMS = (*CLIP_PARAMS, "features")


def main(key: str) -> None:
    """Make features/<key>: class features, and patch tokens where they are kept.

    Shards are made in the scratch folder, which DVC leaves alone: a killed stage goes on with them.
    """
    # Which sets are auxiliary decides only whether tokens are kept or encoded again by their
    # readers, never a result: a new auxiliary set must not encode every image anew.
    params = load_params((*PARAMS, "auxiliary"), key=key)
    backbone = load_clip(params)
    rows = read_index(paths.index(key))
    rows = rows[rows["split"] == "test"]
    scratch = paths.SCRATCH / f"features-{key}-{backbone.fingerprint[:16]}"
    for category, members in rows.groupby("category", sort=True):
        write_category(
            scratch / str(category),
            members,
            paths.raw(key),
            backbone,
            tokens=keeps_tokens(params, key),
            dtype=params.features.dtype,
            shard_size=params.features.shard_size,
            batch_size=params.machine.batch_size,
            workers=params.machine.workers,
        )
    target = paths.features(key)
    if target.exists():
        shutil.rmtree(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch.replace(target)


def keeps_tokens(params: Params, dataset: str) -> bool:
    """Whether a dataset's patch tokens are kept on disk."""
    if params.features.tokens == "auxiliary":
        return any(dataset in params.auxiliary[name] for name in params.auxiliary)
    return params.features.tokens == "all"


if __name__ == "__main__":
    run_stage("features", main, keyed=True)
