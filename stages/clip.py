"""Frozen CLIPs, built from the parameters that the stages share."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from fuzzyclip.clip.backbone import Backbone, load_backbone
from fuzzyclip.clip.name_encoder import NameEncoder
from fuzzyclip.clip.text_cache import TextCache
from fuzzyclip.utils.settings import BackboneSettings, TextSettings
from stages import paths
from stages.schema import Params

#: What a stage that loads the backbone declares.
CLIP_PARAMS = ("backbone", "backbones.${backbone}")


def load_clip(params: Params, name: str | None = None) -> Backbone:
    """The backbone named by `backbone`, or another key of `backbones`."""
    return prepare_clip(params, params.backbones[name or params.backbone])()


def prepare_clip(params: Params, settings: BackboneSettings) -> Callable[[], Backbone]:
    """A frozen CLIP, to be loaded in another process, in any folder.

    Args:
        params: how the work is done.
        settings: of the CLIP.
    """
    places = {key: _make_absolute(getattr(settings, key)) for key in ("model", "weights")}
    return partial(
        load_backbone,
        settings.model_copy(update=places),
        allow_unverified=params.allow_unverified,
        device=params.machine.device,
        compiled=params.machine.compile,
    )


def _make_absolute(name: str) -> str:
    """A file's path from the root; open_clip's names stay."""
    return str(Path(name).absolute()) if Path(name).is_file() else name


def make_encoder(backbone: Backbone, text: TextSettings) -> NameEncoder:
    """Names to text features; those of single strings are kept, for all stages."""
    return NameEncoder(backbone, TextCache(paths.TEXTS, backbone).encode, text)
