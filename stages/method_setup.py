"""A method as params.yaml sets it up: its settings, its CLIP, what it has learned."""

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import Tensor

from fuzzyclip.baselines.registry import build_method
from fuzzyclip.clip.backbone import Backbone
from fuzzyclip.clip.name_encoder import NameEncoder
from fuzzyclip.method.interface import Learned, Method, TrainingSet
from fuzzyclip.method.training_set import make_training_set
from fuzzyclip.utils.files import BrokenFileError, compute_sha256
from fuzzyclip.utils.tensor_files import read_tensors, write_tensors
from stages import paths
from stages.clip import load_clip, make_encoder
from stages.members import Open, open_auxiliary
from stages.params import choose
from stages.schema import Params
from stages.views import make_opener

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SetUp:
    """A method, ready to learn and to look.

    Attributes:
        method: with its settings.
        settings: as chosen for the auxiliary set, defaults not listed.
        clip: key of its backbone.
        backbone: its CLIP.
        encode: names to text features.
        open_one: opens a category's images for it.
    """

    method: Method
    settings: dict[str, Any]
    clip: str
    backbone: Backbone
    encode: NameEncoder
    open_one: Open


def set_up(name: str, auxiliary: str, params: Params) -> SetUp:
    """A method of params.yaml.

    Raises:
        ValueError: it has no such setting, or refuses a value; names both.
    """
    block = params.methods[name]
    settings = choose_settings(name, block.settings, auxiliary, params.data.source)
    try:
        method = build_method(name, settings)
    except (ValueError, TypeError) as error:
        raise ValueError(f"params.yaml, methods.{name}: {error}") from error
    clip = block.choose_backbone(params.backbone)
    backbone = load_clip(params, clip)
    return SetUp(
        method=method,
        settings=settings,
        clip=clip,
        backbone=backbone,
        encode=make_encoder(backbone, params),
        open_one=make_opener(method.kind, backbone, clip != params.backbone, params),
    )


def choose_settings(
    name: str, settings: Mapping[str, Any], auxiliary: str, source: str
) -> dict[str, Any]:
    """Settings as they are for one auxiliary set and source of data.

    A map with `default` is a table by auxiliary set, or by `data.source`; any other value is meant
    as it stands.
    """
    chosen = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and "default" in value:
            entry = auxiliary if auxiliary in value else source
            chosen[key] = choose(value, entry, f"methods.{name}.{key}")
        else:
            chosen[key] = value
    return chosen


def learn(name: str, auxiliary: str, ready: SetUp, params: Params) -> Learned:
    """What a method learns from an auxiliary set; once for all datasets that it is tested on.

    Raises:
        ValueError: the auxiliary set has anomalous images without masks.
    """
    if not ready.method.trains:
        return Learned()
    header = {
        "kind": "method",
        "method": name,
        "auxiliary": auxiliary,
        "manifest": compute_sha256(paths.auxiliary(auxiliary)),
        "backbone": ready.backbone.fingerprint,
        "code": json.loads(paths.method_code(name).read_text())["sha256"],
        "settings": {key: str(value) for key, value in sorted(ready.settings.items())},
        "text": [params.text.ensemble, params.text.separator, params.text.underscore],
        "seed": params.seed,
    }
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode()).hexdigest()
    path = paths.method_tensors(name, auxiliary, digest)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):  # of two processes that want the same, one trains
        if (known := read_learned(path)) is not None:
            log.info("%s has learned from %s already", name, auxiliary)
            return Learned(known)
        images = gather_images(auxiliary, ready, params.machine.workers)
        checkpoint = paths.SCRATCH / f"{path.stem}-{torch.__version__}.pt"
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        learned = ready.method.fit(ready.encode, images, params.seed, checkpoint)
        write_tensors(path, dict(learned.tensors), header)
        checkpoint.unlink(missing_ok=True)
        return Learned(read_tensors(path)[0])


def read_learned(path: Path) -> dict[str, Tensor] | None:
    """What a method learned before, or None where that is not there or broken."""
    try:
        return read_tensors(path)[0]
    except FileNotFoundError:
        return None
    except BrokenFileError as error:
        log.warning("%s; it is learned anew", error)
        return None


def gather_images(name: str, ready: SetUp, workers: int) -> TrainingSet:
    """All test images of an auxiliary set, as a method reads them."""
    auxiliary = open_auxiliary(name, ready.backbone, ready.open_one)
    if unmasked := auxiliary.find_unmasked():
        raise ValueError(
            f"auxiliary.{name}: {', '.join(unmasked)} has anomalous images without masks; "
            f"{ready.method.title} learns from masks"
        )
    return make_training_set(auxiliary, ready.backbone, ready.method.kind, workers=workers)


def describe(name: str, auxiliary: str, ready: SetUp, params: Params) -> dict[str, Any]:
    """The choices that made a result, for the file beside it."""
    backbone = params.backbones[ready.clip]
    return {
        "method": name,
        "title": ready.method.title,
        "note": getattr(ready.method, "note", ""),
        "auxiliary": auxiliary if ready.method.trains else None,
        "kind": ready.method.kind.name,
        "settings": describe_settings(ready.method) | {"sigma": ready.method.sigma},
        "backbone": ready.clip,
        "model": backbone.model,
        "image_size": backbone.image_size,
        "text": params.text.model_dump(),
        "seed": params.seed,
    }


def describe_settings(method: Method) -> dict[str, Any]:
    """All settings of a method, defaults and all, as plain data."""
    said: dict[str, Any] = json.loads(json.dumps(asdict(method), default=str))  # type: ignore[call-overload]
    return said
