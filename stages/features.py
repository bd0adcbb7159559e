"""features: every test image through the run's frozen image tower, once for all that read it."""

import logging
import shutil
from pathlib import Path

from fuzzyclip.clip.backbone import Backbone
from fuzzyclip.distributed.engine import encode_shards_on_ray
from fuzzyclip.features.encode import encode_shards
from fuzzyclip.features.kinds import TOKENS, FeatureKind
from fuzzyclip.features.shards import Shard
from fuzzyclip.features.store import adopt_shards, check_space, finish_category, plan_category
from fuzzyclip.images.index_file import read_index
from stages import paths
from stages.clip import CLIP_PARAMS, load_clip, prepare_clip
from stages.dvc_cache import list_earlier
from stages.params import load_params
from stages.run import run_stage
from stages.schema import Params

PARAMS = (*CLIP_PARAMS, "features")

log = logging.getLogger(__name__)


def main(key: str) -> None:
    """Make features/tokens/<key>: class features, and patch tokens where they are kept."""
    # Which sets are auxiliary decides only whether tokens are kept or encoded again by their
    # readers, never a result: a new auxiliary set must not encode every image anew.
    params = load_params((*PARAMS, "auxiliary"), key=key)
    backbone = load_clip(params)
    encode_dataset(f"features@{key}", paths.TOKENS, key, TOKENS, backbone, params.backbone, params)


def encode_dataset(
    stage: str,
    view: str,
    dataset: str,
    kind: FeatureKind,
    backbone: Backbone,
    clip: str,
    params: Params,
) -> None:
    """Make features/<view>/<dataset>.

    Shards are made in the scratch folder, which DVC leaves alone: a killed stage goes on with them.
    Those of the last result that are still right are taken over.

    Args:
        stage: whose last result that is, as dvc.lock names it.
        view: key of the features.
        dataset: whose test images are encoded.
        kind: what is kept of an image.
        backbone: the frozen CLIP.
        clip: its key in `backbones`.
        params: of the stage.
    """
    rows = read_index(paths.index(dataset), paths.raw(dataset))
    categories = {
        str(category): members
        for category, members in rows[rows["split"] == "test"].groupby("category", sort=True)
    }
    scratch = paths.SCRATCH / f"features-{view}-{dataset}-{backbone.fingerprint[:16]}"
    shards = {
        category: plan_category(
            scratch / category,
            members,
            backbone,
            dtype=params.features.dtype if keeps_tokens(params, dataset) else None,
            shard_size=params.features.shard_size,
            kind=kind,
        )
        for category, members in categories.items()
    }
    target = paths.features(dataset, view)
    missing = adopt_earlier(stage, target, [shard for each in shards.values() for shard in each])
    log.info("%s, %s: %s", dataset, view, check_space(missing, paths.SCRATCH, backbone))
    encode(missing, backbone, clip, params, f"{view} {dataset}")
    for category, members in categories.items():
        finish_category(scratch / category, members, shards[category])
    for folder in scratch.iterdir():
        if folder.name not in categories:
            shutil.rmtree(folder)  # of an attempt with other categories
    replace_folder(scratch, target)


def adopt_earlier(stage: str, out: Path, shards: list[Shard]) -> list[Shard]:
    """Take over what the last result has of these shards; those that are still missing."""
    missing = [shard for shard in shards if not shard.is_written()]
    if missing and (earlier := list_earlier(stage, out)):
        for path in adopt_shards(missing, earlier):
            path.unlink()  # or DVC would take it for what is made anew: the digest is the same
        missing = [shard for shard in missing if not shard.is_written()]
    return missing


def encode(shards: list[Shard], backbone: Backbone, clip: str, params: Params, title: str) -> None:
    """Write shards, in this process or on Ray."""
    machine = params.machine
    work = {"batch_size": machine.batch_size, "workers": machine.workers}
    if machine.engine == "local":
        encode_shards(shards, backbone, **work, title=title)
    else:
        encode_shards_on_ray(
            shards,
            prepare_clip(params, params.backbones[clip]),
            **work,
            address=machine.ray.address,
            actors=machine.ray.actors,
            use_gpus=machine.device != "cpu",
            title=title,
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
    run_stage(features=main)
