"""train: what a baseline learns from each auxiliary set that `pairs` names.

The file says all that made it, settings and CLIP too, also for a method that learns nothing: the
evaluation needs no parameter of a method's own.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fuzzyclip.baselines.registry import build_method
from fuzzyclip.clip.backbone import Backbone
from fuzzyclip.method.interface import Learned, Method, TrainingSet
from fuzzyclip.method.training_set import make_training_set
from fuzzyclip.utils.tensor_files import write_tensors
from stages import paths
from stages.clip import load_clip, make_encoder
from stages.members import make_opener, open_auxiliary, read_manifest
from stages.params import ParamsError, load_params, resolve
from stages.run import run_stage
from stages.schema import Params
from stages.trained import checkpoint_path, write_curve

PARAMS = (
    "backbone",
    "backbones",
    "data.source",
    "methods.${key}",
    "pairs",
    "seed",
    "text",
)


def main(key: str) -> None:
    """Make baselines/<key>: a file an auxiliary set, and the curve of its training."""
    params = load_params(PARAMS, key=key)
    checkpoints = [
        train(key, auxiliary, params) for auxiliary in sorted(set(params.pairs.values()))
    ]
    for checkpoint in checkpoints:  # kept until all are done: a killed stage goes on with each
        checkpoint.unlink(missing_ok=True)


def train(name: str, auxiliary: str, params: Params) -> Path:
    """What one method learns from one auxiliary set; its checkpoint, which the caller removes.

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
    clip = block.choose_backbone(params.backbone)
    encode = make_encoder(load_clip(params, clip), params.text)
    members = read_manifest(auxiliary)["members"]
    header = {
        "kind": "method",
        "method": name,
        "auxiliary": auxiliary,
        "datasets": [member["dataset"] for member in members] if method.trains else [],
        "backbone": encode.backbone.fingerprint,
        "clip": clip,
        "clip_settings": params.backbones[clip].model_dump(mode="json"),
        "features": block.features,
        "settings": describe_settings(method),
        "text": params.text.model_dump(mode="json"),
        "seed": params.seed,
    }
    checkpoint = checkpoint_path(auxiliary, header)
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    learned = Learned()
    if method.trains:
        images = gather(method, auxiliary, block.features, encode.backbone, params)
        learned = method.fit(encode, images, params.seed, checkpoint)
    path = paths.learned(name, auxiliary)
    write_tensors(path, dict(learned.tensors), header | {"facts": dict(learned.facts)})
    if learned.curve:
        write_curve(path.with_suffix(".csv"), learned.curve)
    return checkpoint


def gather(
    method: Method, auxiliary: str, view: str, backbone: Backbone, params: Params
) -> TrainingSet:
    """All test images of an auxiliary set, as a method reads them.

    Raises:
        ValueError: it has anomalous images without masks.
    """
    images = open_auxiliary(auxiliary, make_opener(method.kind, backbone, view))
    if unmasked := images.find_unmasked():
        raise ValueError(
            f"auxiliary.{auxiliary}: {', '.join(unmasked)} has anomalous images without masks; "
            f"{method.title} learns from masks"
        )
    return make_training_set(images, backbone, method.kind, workers=params.machine.workers)


def describe_settings(method: Method) -> dict[str, Any]:
    """All settings of a method, defaults and all, as plain data."""
    settings: dict[str, Any] = json.loads(json.dumps(asdict(method), default=str))  # type: ignore[call-overload]
    return settings


if __name__ == "__main__":
    run_stage(train=main)
