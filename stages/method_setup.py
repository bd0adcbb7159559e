"""A method as params.yaml sets it up: its settings, its CLIP, what it has learned."""

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import Tensor

from fuzzyclip.baselines.registry import build_method
from fuzzyclip.clip.backbone import Backbone
from fuzzyclip.clip.name_encoder import NameEncoder
from fuzzyclip.images.masks import load_masks
from fuzzyclip.method.interface import Method, TrainingSet
from fuzzyclip.utils.files import BrokenFileError, compute_sha256
from fuzzyclip.utils.tensor_files import read_tensors, write_tensors
from stages import paths
from stages.category import Category
from stages.clip import load_clip, make_encoder
from stages.members import AuxiliarySet, Open, open_auxiliary
from stages.params import resolve
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
    settings = resolve(block.settings, auxiliary, params.data.source, f"methods.{name}")
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


def learn(name: str, auxiliary: str, ready: SetUp, params: Params) -> dict[str, Tensor]:
    """What a method learns from an auxiliary set; once for all datasets that it is tested on.

    Raises:
        ValueError: the auxiliary set has anomalous images without masks.
    """
    if not ready.method.trains:
        return {}
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
            return known
        images = gather_images(auxiliary, ready, params.machine.workers)
        checkpoint = paths.SCRATCH / f"{path.stem}-{torch.__version__}.pt"
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        tensors = ready.method.fit(ready.encode, images, params.seed, checkpoint)
        write_tensors(path, dict(tensors), header)
        checkpoint.unlink(missing_ok=True)
        return read_tensors(path)[0]


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
    categories = list_members(auxiliary, ready, workers)
    table = auxiliary.rows

    def load_tokens(rows: Sequence[int]) -> Tensor:
        tokens: dict[int, Tensor] = {}
        for member, chosen in table.iloc[list(rows)].groupby("member", sort=False):
            read = categories[str(member)].read_tokens(chosen["place"].tolist())
            tokens |= dict(zip(chosen.index, read, strict=True))
        return torch.stack([tokens[row] for row in rows])  # (n, L, P, W)

    def load_row_masks(rows: Sequence[int]) -> Tensor:
        masks = load_masks(table.iloc[list(rows)], Path(), ready.backbone.image_size)
        return torch.from_numpy(masks)  # (n, S, S)

    return TrainingSet(
        image_embed=auxiliary.image_embed,
        load_tokens=load_tokens,
        load_masks=load_row_masks,
        labels=torch.tensor(table["label"].to_numpy()),
        names=table["name"].tolist(),
    )


def list_members(auxiliary: AuxiliarySet, ready: SetUp, workers: int) -> dict[str, Category]:
    """The categories of an auxiliary set, by member."""
    categories = {}
    for member, features in auxiliary.features.items():
        dataset, name = member.split("/", 1)
        rows = auxiliary.rows[auxiliary.rows["member"] == member].reset_index(drop=True)
        kind = ready.method.kind
        categories[member] = Category(dataset, name, rows, features, ready.backbone, workers, kind)
    return categories


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
