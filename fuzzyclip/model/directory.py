"""Finding, writing and reading a model's directory."""

import json
import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fuzzyclip.clip.backbone import Backbone, load_backbone
from fuzzyclip.model.card import (
    FILENAME,
    BackboneCard,
    Card,
    MethodCard,
    ModelError,
    TrainingCard,
)
from fuzzyclip.model.fetched import ADDRESS, fetch_model
from fuzzyclip.utils.files import compute_sha256, describe_fault, make_folder, write_json
from fuzzyclip.utils.settings import BackboneSettings, EfaTest, TextSettings
from fuzzyclip.utils.tensor_files import check_tensors, write_tensors

EFA, RPL, CONFIG, WEIGHTS = "efa.safetensors", "rpl.safetensors", "backbone.json", "backbone"
#: What another method than FuzzyCLIP has learned.
LEARNED = "learned.safetensors"
#: Bytes up to which a weights file is carried along without being asked for.
SMALL = 200_000_000
#: Packages whose versions can change a result.
VERSIONED = ("fuzzyclip", "torch", "open_clip_torch", "pillow", "timm")


def find_folder(source: str | Path) -> Path:
    """The directory of a model, fetched first where `source` is an address.

    Args:
        source: a directory; or an address that MLflow understands, of a model that was logged there
            or of a plain directory. MLFLOW_TRACKING_URI says which server or store.

    Raises:
        ModelError: there is no such store, MLflow does not find it, or it is no model of ours.
    """
    return fetch_model(str(source)) if ADDRESS.match(str(source)) else Path(source)


def write_model(
    out: Path,
    *,
    name: str,
    backbone: Backbone,
    copy: bool,
    efa: Path,
    rpl: Path,
    text: TextSettings,
    test: EfaTest,
    licences: Mapping[str, str],
    sources: Mapping[str, str],
) -> Card:
    """Make a model's directory; it appears whole or not at all.

    Args:
        out: the directory; must not exist yet or be empty.
        name: of the model.
        backbone: the one that the parts were trained with.
        copy: whether a file of its weights goes into the directory.
        efa, rpl: files of EFA's layers, with clusters in the header, and of RPL's prompts.
        text, test: how names become prompts, and how the parts are used.
        licences: of the datasets they were trained on.
        sources: of their images: `official`, `own`, or the drawn `sample`.

    Raises:
        ModelError: `out` is taken, or a part was trained with another backbone.
        BrokenFileError: a part does not hold what was written.
    """
    check_free(out)
    headers = {path: check_tensors(path) for path in (efa, rpl)}
    for path, header in headers.items():
        if header.get("backbone") != backbone.fingerprint:
            raise ModelError(f"{path} was trained with another backbone")
    with make_folder(out) as making:
        making.mkdir()
        shutil.copyfile(efa, making / EFA)
        shutil.copyfile(rpl, making / RPL)
        described = _place_backbone(making, backbone, copy)
        card = Card(
            name=name,
            versions=list_versions(),
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
            files=_list_files(making),
        )
        write_card(making, card)
    return card


def write_method(
    out: Path,
    *,
    name: str,
    backbone: Backbone,
    copy: bool,
    method: MethodCard,
    tensors: Mapping[str, Tensor],
    text: TextSettings,
    fast: str | None = None,
) -> Card:
    """Make the directory of another method; it appears whole or not at all.

    Args:
        out, name, backbone, copy, text: as `write_model` takes them.
        method: which one, and what else it has learned.
        tensors: what it has learned; none where it learns nothing.
        fast: as the card has it.

    Raises:
        ModelError: `out` is taken.
    """
    check_free(out)
    with make_folder(out) as making:
        making.mkdir()
        if tensors:
            write_tensors(making / LEARNED, dict(tensors), {"method": method.name})
        described = _place_backbone(making, backbone, copy)
        card = Card(
            name=name,
            versions=list_versions(),
            method=method,
            backbone=described,
            text=text,
            files=_list_files(making),
            fast=fast,
        )
        write_card(making, card)
    return card


def check_free(out: Path) -> None:
    """Refuse, as a ModelError, to make a directory where something is."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ModelError(f"{out} exists already; name another place or remove it")


def list_versions() -> dict[str, str]:
    """Versions of what makes a model."""
    return {package: version(package) for package in VERSIONED}


def _list_files(folder: Path) -> dict[str, str]:
    """SHA-256 of each file."""
    return {path.name: compute_sha256(path) for path in sorted(folder.iterdir())}


def _is_listed(model: str) -> bool:
    """Whether open_clip has a model of this name."""
    from open_clip import list_models  # not above: `fuzzyclip.clip` has to import it first, lightly

    return model in list_models()


def _place_backbone(folder: Path, backbone: Backbone, copy: bool) -> BackboneCard:
    """Write the configuration, copy the weights where that was asked for, and describe both."""
    write_json(folder / CONFIG, backbone.identity["config"])
    described, file = describe_backbone(backbone), Path(backbone.settings.weights)
    if copy and file.is_file():
        named = f"{WEIGHTS}{file.suffix}"
        shutil.copyfile(file, folder / named)
        return described.model_copy(update={"place": "inside", "weights": named})
    return described


def describe_backbone(backbone: Backbone) -> BackboneCard:
    """A backbone whose weights lie where they are."""
    settings = backbone.settings
    file = Path(settings.weights)
    place: Literal["elsewhere", "tag"] = "elsewhere" if file.is_file() else "tag"
    described = {
        "model": settings.model if _is_listed(settings.model) else CONFIG,
        "weights": file.name if file.is_file() else settings.weights,
        "sha256": backbone.identity["weights_sha256"],
        "place": place,
        "fingerprint": backbone.fingerprint,
    }
    return BackboneCard(**settings.model_dump() | described)


def write_card(folder: Path, card: Card) -> None:
    """model.json, in the card's own order; of FuzzyCLIP and of other methods what each has."""
    others = {"method"} if card.method is None else {"training", "test", "clusters"}
    others |= {"fast"} if card.fast is None else set()
    write_json(folder / FILENAME, json.loads(card.model_dump_json(exclude=others)))


def read_parts(folder: Path, card: Card) -> dict[str, dict[str, Tensor]]:
    """Tensors of EFA's and RPL's files, or of another method's, after comparing all with the card.

    Raises:
        ModelError: a file is missing, is not the one that the card names, or lacks its tensors.
    """
    own: tuple[str, ...] = (EFA, RPL)
    if card.method is not None:
        learned = card.method.data is not None or LEARNED in card.files
        own = (LEARNED,) if learned else ()
    if unknown := [name for name in (*own, CONFIG) if name not in card.files]:
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
    parts = {name: read_finite_tensors(folder / name) for name in own}
    if card.method is not None:
        return parts
    shape = tuple(parts[RPL].get("text_embed", torch.empty(0)).shape)
    if len(shape) != 2 or shape[0] != 2:
        raise ModelError(f"{folder / RPL}: text_embed of shape {shape}, not of two prompts")
    return parts


def check_file(path: Path, sha256: str) -> None:
    """Refuse a file, as a ModelError, that is another one than the card says."""
    if compute_sha256(path) != sha256:
        other = f"not the file that {FILENAME} names; copy it again"
        raise ModelError(f"{path} is {describe_fault(path) or other}")


def read_finite_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, also one that was made without check sums.

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
        weights: the weights' file where it lies elsewhere.
        device: as `fuzzyclip.clip.backbone.choose_device` takes it.

    Raises:
        ModelError: the weights are not at hand, or the backbone differs from the model's own.
        WeightsError: they are other weights.
    """
    own = card.backbone
    if weights and not weights.is_file():
        raise ModelError(f"{weights}: no such weights file")
    if own.place == "elsewhere" and not weights:
        raise ModelError(
            f"{folder} does not hold the weights of its backbone: give the file {own.weights} "
            f"(sha256 {own.sha256}) as `weights` (--weights; of a server FUZZYCLIP_WEIGHTS)"
        )
    chosen = weights or (folder / own.weights if own.place == "inside" else own.weights)
    random = own.sha256.startswith("random-")
    known = chosen == own.weights and not random and _is_listed(own.model)
    places = {
        "model": own.model if known else str(folder / CONFIG),
        "weights": str(chosen),
        "sha256": None if random else own.sha256,
    }
    settings = own.model_dump(include=set(BackboneSettings.model_fields)) | places
    seed = int(own.sha256.removeprefix("random-")) if random else 0
    backbone = load_backbone(BackboneSettings(**settings), device=device, seed=seed)
    if backbone.fingerprint != own.fingerprint:
        raise ModelError(
            f"{folder}: its parts were trained with another backbone than this version of "
            f"FuzzyCLIP builds from it (made with {card.versions})"
        )
    return backbone


def is_small(weights: str) -> bool:
    """True of weights in a file that may well travel with a model."""
    path = Path(weights)
    return path.is_file() and path.stat().st_size <= SMALL
