"""features: every test image through the frozen image tower, once."""

import logging
import shutil
from pathlib import Path

from fuzzyclip.clip.backbone import Backbone
from fuzzyclip.distributed.engine import encode_shards_on_ray
from fuzzyclip.features.encode import encode_shards
from fuzzyclip.features.shards import Shard
from fuzzyclip.features.store import adopt_shards, check_space, finish_category, plan_category
from fuzzyclip.images.index_file import read_index
from stages import paths
from stages.clip import CLIP_PARAMS, load_clip, prepare_clip
from stages.earlier import list_earlier
from stages.params import load_params
from stages.run import run_stage
from stages.schema import Params

PARAMS = (*CLIP_PARAMS, "features")

log = logging.getLogger(__name__)


def main(key: str) -> None:
    """Make features/<key>: class features, and patch tokens where they are kept.

    Shards are made in the scratch folder, which DVC leaves alone: a killed stage goes on with them.
    Those of the last result that are still right are taken over.
    """
    # Which sets are auxiliary decides only whether tokens are kept or encoded again by their
    # readers, never a result: a new auxiliary set must not encode every image anew.
    params = load_params((*PARAMS, "auxiliary"), key=key)
    backbone = load_clip(params)
    rows = read_index(paths.index(key), paths.raw(key))
    categories = dict(list(rows[rows["split"] == "test"].groupby("category", sort=True)))
    scratch = paths.SCRATCH / f"features-{key}-{backbone.fingerprint[:16]}"
    shards = {
        category: plan_category(
            scratch / str(category),
            members,
            backbone,
            dtype=params.features.dtype if keeps_tokens(params, key) else None,
            shard_size=params.features.shard_size,
        )
        for category, members in categories.items()
    }
    fill(key, [shard for each in shards.values() for shard in each], backbone, params)
    for category, members in categories.items():
        finish_category(scratch / str(category), members, shards[category])
    for folder in scratch.iterdir():
        if folder.name not in map(str, categories):
            shutil.rmtree(folder)  # of an attempt with other categories
    replace_folder(scratch, paths.features(key))


def fill(key: str, shards: list[Shard], backbone: Backbone, params: Params) -> None:
    """Write the shards that are missing: taken over, or encoded."""
    missing = [shard for shard in shards if not shard.is_written()]
    if missing and (earlier := list_earlier(f"features@{key}", paths.features(key))):
        for path in adopt_shards(missing, earlier):
            path.unlink()  # or DVC would take it for what is made anew: the digest is the same
        missing = [shard for shard in missing if not shard.is_written()]
    log.info("%s: %s", key, check_space(missing, paths.SCRATCH, backbone))
    machine = params.machine
    work = {"batch_size": machine.batch_size, "workers": machine.workers}
    if machine.engine == "local":
        encode_shards(missing, backbone, **work, title=key)
    else:
        encode_shards_on_ray(
            missing,
            prepare_clip(params),
            **work,
            address=machine.ray.address,
            actors=machine.ray.actors,
            use_gpus=machine.device != "cpu",
            title=key,
        )


def keeps_tokens(params: Params, dataset: str) -> bool:
    """Whether a dataset's patch tokens are kept on disk."""
    if params.features.tokens == "auxiliary":
        return any(dataset in params.auxiliary[name] for name in params.auxiliary)
    return params.features.tokens == "all"


def replace_folder(made: Path, target: Path) -> None:
    """Put a folder where another one may be."""
    if target.exists():
        shutil.rmtree(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    made.replace(target)


if __name__ == "__main__":
    run_stage("features", main, keyed=True)
