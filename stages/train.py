"""train: what a baseline learns from each auxiliary set that `pairs` names.

The file says all that made it, settings and CLIP too, also for a method that learns nothing: the
evaluation needs no parameter of a method's own.
"""

import json
from pathlib import Path
from typing import Any

from fuzzyclip.baselines.registry import build_method, read_settings
from fuzzyclip.method.interface import Learned, Method
from fuzzyclip.method.training_set import make_training_set
from fuzzyclip.utils.tensor_files import write_tensors
from stages import paths
from stages.clip import choose_clip, make_encoder, prepare_clip
from stages.params import ParamsError, load_params, resolve
from stages.run import run_stage
from stages.schema import Params
from stages.stored import (
    check_masks,
    checkpoint_path,
    open_auxiliary,
    read_manifest,
    write_curve,
)
from stages.times import Watch, keep_time, watch_training


def main(key: str) -> None:
    """Make baselines/<key>: a file an auxiliary set, and the curve of its training."""
    # what it reads of `features` is the type that the stored ones are of
    params = load_params("train", key, also=("features",))
    checkpoints = [
        train(key, auxiliary, params) for auxiliary in sorted(set(params.pairs.values()))
    ]
    for checkpoint in checkpoints:  # kept until all are done: a killed stage goes on with each
        checkpoint.unlink(missing_ok=True)


def train(name: str, auxiliary: str, params: Params) -> Path:
    """Learn from one auxiliary set; gives the checkpoint, which the caller removes.

    Raises:
        ValueError: the method has no such setting, refuses a value, or learns from masks that are
            not there.
    """
    block = params.methods[name]
    place = f"methods.{name}"
    settings = resolve(block.settings, auxiliary, params.data.source, place)
    try:
        method = build_method(name, settings)
    except (ValueError, TypeError) as error:
        raise ParamsError(f"params.yaml, {place}: {error}") from error
    clip, clip_settings = choose_clip(params, block)
    encode = make_encoder(prepare_clip(params, clip_settings)(), params.text)
    members_of = read_manifest(auxiliary)["members"] if method.trains else []
    header = {
        "kind": "method",
        "method": name,
        "auxiliary": auxiliary,
        "datasets": [member["dataset"] for member in members_of],
        "licences": {member["dataset"]: member["licence"] for member in members_of},
        "sources": {member["dataset"]: member["source"] for member in members_of},
        "backbone": encode.backbone.fingerprint,
        "clip": clip,
        "clip_settings": clip_settings.model_dump(mode="json"),
        "features": block.features,
        "settings": describe_settings(method),
        "text": params.text.model_dump(mode="json"),
        "seed": params.seed,
    }
    checkpoint = checkpoint_path(auxiliary, header)
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    learned, watch = Learned(), Watch()
    # text is out of reach: the evaluation says so of the method, and the others go on
    if method.trains and (encode.backbone.reads_text or not method.reads_text):
        members = open_auxiliary(auxiliary, encode.backbone, method.kind, block.features)
        check_masks(auxiliary, members, method.title)
        images = make_training_set(
            members,
            encode.backbone,
            method.kind,
            workers=params.machine.workers,
            mosaics=paths.MOSAICS,
            dtype=params.features.dtype,
        )
        with watch_training([checkpoint]) as watch:
            learned = method.fit(encode, images, params.seed, checkpoint)
    path = paths.learned(name, auxiliary)
    write_tensors(path, dict(learned.tensors), header | {"facts": dict(learned.facts)})
    keep_time(path, watch)
    if learned.curve:
        write_curve(path.with_suffix(".csv"), learned.curve)
    return checkpoint


def describe_settings(method: Method) -> dict[str, Any]:
    """All settings of a method, defaults and all, as plain data."""
    settings: dict[str, Any] = json.loads(json.dumps(read_settings(method), default=str))
    return settings


if __name__ == "__main__":
    run_stage(train=main)
