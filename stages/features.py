"""features: every test image through a frozen image tower, once for all that read it.

`features` makes patch tokens of the run's CLIP, a dataset at a time; `views` what some baselines
read in their place: another kind of features, or another CLIP's, as `views` in params.yaml says.
"""

import logging
import shutil
from pathlib import Path

from fuzzyclip.baselines.registry import build_method
from fuzzyclip.clip.backbone import Backbone
from fuzzyclip.distributed.engine import encode_shards_on_ray
from fuzzyclip.engines.choice import choose_engine
from fuzzyclip.features.encode import encode_shards
from fuzzyclip.features.kinds import TOKENS, FeatureKind
from fuzzyclip.features.shards import Shard
from fuzzyclip.features.store import adopt_shards, check_space, finish_category, plan_category
from fuzzyclip.images.index_file import read_index
from stages import paths
from stages.clip import choose_clip, load_clip, prepare_clip
from stages.params import ParamsError, load_params, resolve
from stages.run import run_stage
from stages.schema import Params

#: What files of features end in; the others of a folder say which image stands where.
SHARDS = ".safetensors"

log = logging.getLogger(__name__)


def make_tokens(key: str) -> None:
    """Make features/tokens/<key>: class features, and patch tokens where they are kept."""
    params = load_params("features", key, also=("auxiliary",))
    encode_dataset(f"features@{key}", paths.TOKENS, key, TOKENS, load_clip(params), params)


def make_view(key: str) -> None:
    """Make features/<key>, a folder a dataset."""
    params = load_params("views", key, also=("auxiliary", "datasets"))
    method = params.views[key]
    block, source = params.methods[method], params.data.source
    settings = resolve(block.settings, "", source, f"methods.{method}")
    kind = build_method(method, settings).kind
    if not kind.stored:
        raise ParamsError(f"views.{key}: {method} reads images anew, of which nothing is stored")
    backbone = prepare_clip(params, choose_clip(params, block)[1])()
    for dataset in params.datasets:
        encode_dataset(f"views@{key}", key, dataset, kind, backbone, params)


def encode_dataset(
    stage: str, view: str, dataset: str, kind: FeatureKind, backbone: Backbone, params: Params
) -> None:
    """Make features/<view>/<dataset>.

    Shards are made in the scratch folder, which DVC leaves alone: a killed stage goes on with them.
    Those of the stage's last result, as dvc.lock names it, that are still right are taken over.
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
    if view != paths.TOKENS:  # where the view is of the run's own CLIP they are the same
        adopt_shards(missing, [*paths.features(dataset).rglob(f"*{SHARDS}")])
        missing = [shard for shard in missing if not shard.is_written()]
    log.info("%s, %s: %s", dataset, view, check_space(missing, paths.SCRATCH, backbone))
    encode(missing, backbone, params, f"{view} {dataset}")
    for category, members in categories.items():
        finish_category(scratch / category, members, shards[category])
    for folder in scratch.iterdir():
        if folder.name not in categories:
            shutil.rmtree(folder)  # of an attempt with other categories
    if target.exists():
        shutil.rmtree(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch.replace(target)


def adopt_earlier(stage: str, out: Path, shards: list[Shard]) -> list[Shard]:
    """Take over what the last result has of these shards; those that are still missing."""
    missing = [shard for shard in shards if not shard.is_written()]
    if missing and (earlier := list_earlier(stage, out)):
        for path in adopt_shards(missing, earlier):
            path.unlink()  # or DVC would take it for what is made anew: the digest is the same
        missing = [shard for shard in missing if not shard.is_written()]
    return missing


def list_earlier(stage: str, out: Path) -> list[Path]:
    """Shards of a stage's last result in DVC's cache, since DVC clears outputs before a run.

    Args:
        stage: its name in dvc.lock.
        out: its output folder, or a folder inside it.
    """
    if not paths.LOCK.is_file() or f"\n  {stage}:\n" not in paths.LOCK.read_text():
        return []
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo() as repo:
            output = repo.find_outs_by_path(str(out), strict=False)[0]
            inside = out.absolute().relative_to(output.fs_path).parts
            tree = output.get_obj() or ()
            places = [
                output.cache.oid_to_path(entry.value)
                for key, _, entry in tree
                if key[: len(inside)] == inside and Path(key[-1]).suffix == SHARDS
            ]
    except DvcException as error:
        log.info("nothing is taken over from an earlier %s: %s", out, error)
        return []
    return [Path(place) for place in places if Path(place).is_file()]


def encode(shards: list[Shard], backbone: Backbone, params: Params, title: str) -> None:
    """Write shards, in this process or on Ray."""
    machine = params.machine
    if machine.engine == "local":
        if shards and shards[0].kind == TOKENS:  # other kinds look into the tower
            images = sum(len(shard.images) for shard in shards)
            backbone = choose_engine(backbone, machine.runtime, images)
        encode_shards(shards, backbone, workers=machine.workers, title=title)
    else:
        encode_shards_on_ray(
            shards,
            prepare_clip(params, backbone.settings),
            workers=machine.workers,
            address=machine.ray.address,
            actors=machine.ray.actors,
            use_gpus=machine.device != "cpu",
            title=title,
        )


def keeps_tokens(params: Params, dataset: str) -> bool:
    """True if a dataset's patch tokens are kept on disk, not encoded again by their readers.

    It decides no result, so no stage depends on `auxiliary` for it: a new auxiliary set must not
    encode every image anew.
    """
    if params.features.tokens == "auxiliary":
        return any(dataset in params.auxiliary[name] for name in params.auxiliary)
    return params.features.tokens == "all"


if __name__ == "__main__":
    run_stage(features=make_tokens, views=make_view)
