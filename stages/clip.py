"""Frozen CLIPs, built from the parameters that the stages share."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from torch import Tensor

from fuzzyclip.clip.backbone import Backbone, load_backbone
from fuzzyclip.clip.name_encoder import NameEncoder
from fuzzyclip.clip.text_cache import TextCache
from stages import paths
from stages.schema import Params

#: What a stage that loads the backbone declares.
CLIP_PARAMS = ("backbone", "backbones.${backbone}")


def load_clip(params: Params, name: str | None = None) -> Backbone:
    """The backbone named by `backbone`, or another key of `backbones`."""
    return prepare_clip(params, name)()


def prepare_clip(params: Params, name: str | None = None) -> Callable[[], Backbone]:
    """`load_clip` without its parameters, to be called in another process, in any folder."""
    settings = params.backbones[params.backbone if name is None else name]
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


def open_texts(backbone: Backbone) -> TextCache:
    """Text features of single strings, which all stages share."""
    return TextCache(paths.TEXTS, backbone)


def make_encoder(backbone: Backbone, params: Params) -> NameEncoder:
    """Names to text features under the `text` parameters."""
    return NameEncoder(backbone, open_texts(backbone).encode, params.text)


def encode_names(backbone: Backbone, params: Params, names: list[str]) -> Tensor:
    """T(stacked names), (D, 2)."""
    return make_encoder(backbone, params)(names)
