"""Writing and reading a model's directory."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal
from uuid import uuid4

import torch
from open_clip import list_models
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fuzzyclip.clip.backbone import Backbone, load_backbone
from fuzzyclip.model.card import (
    FILENAME,
    BackboneCard,
    Card,
    EfaTestCard,
    ModelError,
    TextCard,
    TrainingCard,
)
from fuzzyclip.utils.files import compute_sha256, flush_tree, write_json
from fuzzyclip.utils.half_files import describe_fault
from fuzzyclip.utils.tensor_files import check_tensors

EFA, RPL, CONFIG, WEIGHTS = "efa.safetensors", "rpl.safetensors", "backbone.json", "backbone"
#: Bytes up to which a weights file is carried along without being asked for.
SMALL = 200_000_000
#: Packages whose versions can change a result.
VERSIONED = ("fuzzyclip", "torch", "open_clip_torch", "pillow", "timm")


@dataclass(frozen=True)
class WeightsSource:
    """Where the frozen CLIP of a model comes from.

    Attributes:
        model: open_clip's name, or a configuration's path.
        weights: a file, or open_clip's tag.
        copy: whether a weights file goes into the directory.
    """

    model: str
    weights: str
    copy: bool


def write_model(
    out: Path,
    *,
    name: str,
    backbone: Backbone,
    source: WeightsSource,
    efa: Path,
    rpl: Path,
    text: TextCard,
    test: EfaTestCard,
    licences: Mapping[str, str],
    sources: Mapping[str, str],
) -> Card:
    """Make a model's directory; it appears whole or not at all.

    Args:
        out: the directory; must not exist yet or be empty.
        name: of the model.
        backbone: the frozen CLIP that the parts were trained with.
        source: where it came from.
        efa: the file of EFA's layers, with clusters in its header.
        rpl: the file of RPL's prompts.
        text: how names become prompts.
        test: how the parts are used.
        licences: of the datasets they were trained on.
        sources: of their images: `official`, `own`, or the drawn `sample`.

    Raises:
        ModelError: `out` is taken, or a part was trained with another backbone.
        BrokenFileError: a part does not hold what was written.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ModelError(f"{out} exists already; name another place or remove it")
    headers = {path: check_tensors(path) for path in (efa, rpl)}
    for path, header in headers.items():
        if header.get("backbone") != backbone.fingerprint:
            raise ModelError(f"{path} was trained with another backbone")
    out.parent.mkdir(parents=True, exist_ok=True)
    making = out.with_name(f".{out.name}.{uuid4().hex}.tmp")
    making.mkdir()
    try:
        shutil.copyfile(efa, making / EFA)
        shutil.copyfile(rpl, making / RPL)
        write_json(making / CONFIG, backbone.identity["config"])
        described = _place_weights(making, backbone, source)
        card = Card(
            name=name,
            versions={package: version(package) for package in VERSIONED},
            training=TrainingCard(
                auxiliary=headers[efa]["auxiliary"],
                datasets=headers[efa]["datasets"],
                licences=dict(licences),
                sources=dict(sources),
                efa=headers[efa]["settings"],
                rpl=headers[rpl]["settings"] | {"stack_names": headers[rpl]["stack"]},
            ),
            backbone=described,
            text=text,
            test=test,
            clusters=[cluster["names"] for cluster in headers[efa]["clusters"]],
            files={path.name: compute_sha256(path) for path in sorted(making.iterdir())},
        )
        write_card(making, card)
        flush_tree(making)
        if out.exists():
            out.rmdir()
        making.rename(out)
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return card


def _place_weights(folder: Path, backbone: Backbone, source: WeightsSource) -> BackboneCard:
    """Copy the weights where that was asked for, and describe the backbone."""
    identity, file = backbone.identity, Path(source.weights)
    place: Literal["inside", "elsewhere", "tag"] = "elsewhere" if file.is_file() else "tag"
    named = file.name if file.is_file() else source.weights
    if source.copy and file.is_file():
        place, named = "inside", f"{WEIGHTS}{file.suffix}"
        shutil.copyfile(file, folder / named)
    return BackboneCard(
        model=source.model if source.model in list_models() else CONFIG,
        weights=named,
        place=place,
        sha256=identity["weights_sha256"],
        image_size=identity["image_size"],
        blocks=identity["blocks"],
        activation=identity["activation"],
        position_embedding=identity["position_embedding"],
        mean=identity["mean"],
        std=identity["std"],
        precision=identity["precision"],
        fingerprint=backbone.fingerprint,
    )


def write_card(folder: Path, card: Card) -> None:
    """model.json, in the card's own order."""
    write_json(folder / FILENAME, json.loads(card.model_dump_json()))


def read_parts(folder: Path, card: Card) -> dict[str, dict[str, Tensor]]:
    """Tensors of EFA's and RPL's files, after comparing all files with the card.

    Raises:
        ModelError: a file is missing, is not the one that the card names, or lacks its tensors.
    """
    if unknown := [name for name in (EFA, RPL, CONFIG) if name not in card.files]:
        raise ModelError(
            f"{folder / FILENAME} has no digest of {', '.join(unknown)}; copy it again"
        )
    for name, digest in card.files.items():
        path = folder / name
        if not path.is_file():
            raise ModelError(f"{path} is missing; copy the model's directory again")
        if name.startswith(f"{WEIGHTS}.") and name != CONFIG:
            continue  # `load_backbone` compares it
        check_file(path, digest)
    parts = {name: read_tensors(folder / name) for name in (EFA, RPL)}
    shape = tuple(parts[RPL].get("text_embed", torch.empty(0)).shape)
    if len(shape) != 2 or shape[0] != 2:
        raise ModelError(f"{folder / RPL}: text_embed of shape {shape}, not of two prompts")
    return parts


def check_file(path: Path, sha256: str) -> None:
    """Compare a file with what the card says of it.

    Raises:
        ModelError: it is another one; says which, where that can be seen.
    """
    if compute_sha256(path) != sha256:
        other = f"not the file that {FILENAME} names; copy it again"
        raise ModelError(f"{path} is {describe_fault(path) or other}")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file.

    Raises:
        ModelError: the file can not be read as that, or holds what is not a finite number.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        reason = describe_fault(path) or f"not readable as safetensors ({error})"
        raise ModelError(f"{path}: {reason}") from error
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise ModelError(f"{path}: {name} holds values that are not finite; train it anew")
    return tensors


def load_own_backbone(
    folder: Path, card: Card, *, weights: Path | None = None, device: str = "auto"
) -> Backbone:
    """The frozen CLIP of a model.

    Args:
        folder: the model's directory.
        card: of it.
        weights: the weights' file where it lies elsewhere.
        device: see `fuzzyclip.clip.backbone.choose_device`.

    Raises:
        ModelError: the weights are not at hand, or the backbone differs from the model's own.
        WeightsError: they are other weights.
    """
    own = card.backbone
    if weights and not weights.is_file():
        raise ModelError(f"{weights}: no such weights file")
    if own.place == "elsewhere" and not weights:
        raise ModelError(
            f"{folder} does not hold the weights of its CLIP: give the file {own.weights} (sha256 "
            f"{own.sha256}) as `weights`"
        )
    chosen = weights or (folder / own.weights if own.place == "inside" else own.weights)
    random = own.sha256.startswith("random-")
    known = chosen == own.weights and not random and own.model in list_models()
    backbone = load_backbone(
        own.model if known else str(folder / CONFIG),
        str(chosen),
        image_size=own.image_size,
        blocks=own.blocks,
        activation=own.activation,
        position_embedding=own.position_embedding,
        mean=own.mean,
        std=own.std,
        sha256=None if random else own.sha256,
        device=device,
        precision=own.precision,
        seed=int(own.sha256.removeprefix("random-")) if random else 0,
    )
    if backbone.fingerprint != own.fingerprint:
        raise ModelError(
            f"{folder}: its parts were trained with another backbone than this version of "
            f"FuzzyCLIP builds from it (made with {card.versions})"
        )
    return backbone


def is_small(weights: str, limit: int = SMALL) -> bool:
    """Whether weights are a file that may well travel with a model: at most `limit` bytes."""
    path = Path(weights)
    return path.is_file() and path.stat().st_size <= limit
