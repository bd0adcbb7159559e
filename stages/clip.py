"""Frozen CLIPs, built from the parameters that the stages share."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from fuzzyclip.clip.backbone import Backbone, load_backbone
from fuzzyclip.clip.name_encoder import NameEncoder
from fuzzyclip.clip.text_cache import TextCache
from fuzzyclip.utils.settings import BackboneSettings, TextSettings
from stages import paths
from stages.schema import MethodBlock, Params


def load_clip(params: Params) -> Backbone:
    """The backbone named by `backbone`."""
    return prepare_clip(params, params.backbones[params.backbone])()


def choose_clip(params: Params, block: MethodBlock) -> tuple[str, BackboneSettings]:
    """A baseline's CLIP: its name, the run's or that of its tower, and its settings."""
    run = params.backbone
    tower = params.towers[block.tower].get(run)
    if tower is None:
        return run, params.backbones[run]
    return block.tower, tower.change(params.backbones[run])


def prepare_clip(params: Params, settings: BackboneSettings) -> Callable[[], Backbone]:
    """A frozen CLIP, to be loaded in another process, in any folder."""
    names = {key: getattr(settings, key) for key in ("model", "weights")}
    # a file's path from the root; open_clip's names stay
    files = {key: str(Path(name).absolute()) for key, name in names.items() if Path(name).is_file()}
    return partial(
        load_backbone,
        settings.model_copy(update=files),
        allow_unverified=params.allow_unverified,
        device=params.machine.device,
        compiled=params.machine.compile,
    )


def make_encoder(backbone: Backbone, text: TextSettings) -> NameEncoder:
    """Names to text features; those of single strings are kept, for all stages."""
    return NameEncoder(backbone, TextCache(paths.TEXTS, backbone).encode, text)
