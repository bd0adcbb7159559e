"""A tower's folder: its card, its configuration and its weights; found by path or by name."""

import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationError

from fuzzyclip.utils.faults import naming
from fuzzyclip.utils.files import find_cache, is_file_name
from fuzzyclip.utils.json_text import parse_json
from fuzzyclip.utils.settings import BackboneSettings, Blocks, Record, Side, say_first_fault

CARD, MODEL = "tower.json", "model.json"


class TowerError(ValueError):
    """A tower is not there, can not be had, or is not the one that it should be."""


def _check_name(name: str) -> str:
    if not is_file_name(name):
        raise ValueError(f"{name!r} is no name of a file in this folder")
    return name


FileName = Annotated[str, AfterValidator(_check_name)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Tower(Record):
    """The card of a tower's folder.

    Attributes:
        name: by which it was fetched: `timm/vit_small_patch14_dinov2`, `ViT-L-14-336:openai`.
        model: file of its configuration, with `model_cfg` and `preprocess_cfg`.
        weights: file of its weights.
        sha256: of that file.
        source: where it came from, in words.
        origin_sha256: of the file that it was taken from; the same where that is kept as it is.
        verified: whether that digest was compared with one that is published, pinned or was given.
        licence: of the weights; None where it is not known.
        image_size: side of the input to inspect with, in pixels.
        blocks: blocks whose patch tokens are taken, counted from 1.
    """

    name: str
    model: FileName = MODEL
    weights: FileName
    sha256: Digest
    source: str
    origin_sha256: Digest
    verified: bool
    licence: str | None = None
    image_size: Side
    blocks: Blocks


def find_tower(
    name_or_folder: str | Path,
    *,
    image_size: int | None = None,
    blocks: tuple[int, ...] | None = None,
) -> BackboneSettings:
    """Settings of a tower's folder, or of a name that was fetched into the cache.

    Args:
        name_or_folder: a folder of `fetch_tower`, or a name that it takes.
        image_size: side of the input in pixels; None takes the tower's own.
        blocks: blocks whose tokens are taken, from 1; None takes the tower's own.

    Raises:
        TowerError: there is none, or a file of it is missing. Whether the weights are those of the
            card is seen when they are loaded.
        ValueError: there is no such name, or a number is out of range.
    """
    folder = locate_tower(name_or_folder)
    return build_settings(folder, read_tower(folder), image_size=image_size, blocks=blocks)


def build_settings(
    folder: Path,
    tower: Tower,
    *,
    image_size: int | None = None,
    blocks: tuple[int, ...] | None = None,
) -> BackboneSettings:
    """Settings by which `fuzzyclip.clip.backbone.load_backbone` loads a folder's tower.

    Raises:
        ValueError: a number is out of range.
    """
    try:
        return BackboneSettings(
            model=str(folder / tower.model),
            weights=str(folder / tower.weights),
            sha256=tower.sha256,
            image_size=tower.image_size if image_size is None else image_size,
            blocks=tower.blocks if blocks is None else blocks,
        )
    except ValidationError as error:
        raise ValueError(f"tower {tower.name}: {say_first_fault(error)}") from error


def locate_tower(name_or_folder: str | Path) -> Path:
    """The folder of a tower, which has a card.

    Raises:
        TowerError: neither a folder with a card nor a name that was fetched.
        ValueError: there is no such name.
    """
    folder = Path(name_or_folder).expanduser()
    if (folder / CARD).is_file():
        return folder
    none = f"{folder}: no tower there ({CARD} is missing); fuzzyclip fetch makes one"
    if isinstance(name_or_folder, Path) or folder.is_absolute():
        raise TowerError(none)
    from fuzzyclip.towers.names import read_name

    try:
        name = read_name(name_or_folder).name
    except ValueError as error:
        if folder.is_dir():
            raise TowerError(none) from error
        raise
    cached = place_in_cache(name)
    if (cached / CARD).is_file():
        return cached
    raise TowerError(f"tower {name} is not there: fuzzyclip fetch {name}")


def place_in_cache(name: str) -> Path:
    """Where a tower lies that was fetched without saying where; safe to delete."""
    return find_cache() / "towers" / re.sub(r"[^\w.-]", "--", name, flags=re.ASCII)


def read_tower(folder: Path) -> Tower:
    """The card of a folder; the files that it names are there.

    Raises:
        TowerError: a file is missing, or the card says what no card says.
    """
    path = folder / CARD
    try:
        with naming(path, TowerError):
            content = parse_json(path.read_bytes())
    except TowerError as error:
        raise TowerError(f"{error}; {_again(folder)}") from error
    try:
        tower = Tower.model_validate(content)
    except ValidationError as error:
        raise TowerError(f"{path}: {say_first_fault(error)}; {_again(folder)}") from error
    for name in (tower.model, tower.weights):
        if not (folder / name).is_file():
            raise TowerError(f"{folder / name} is missing; {_again(folder)}")
    return tower


def _again(folder: Path) -> str:
    return f"remove {folder} and fetch it again"
