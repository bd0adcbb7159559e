"""The run's frozen CLIP, built from the parameters that the stages share."""

from functools import partial

from torch import Tensor

from fuzzyclip.backbone import Backbone, load_backbone
from fuzzyclip.encoding import count_tokens, encode_text
from fuzzyclip.text import encode_stack
from stages.schema import Params

#: What a stage that loads the backbone declares.
CLIP_PARAMS = ("backbone", "backbones.${backbone}")


def load_clip(params: Params) -> Backbone:
    """The backbone named by `backbone`."""
    chosen = params.backbones[params.backbone]
    return load_backbone(
        chosen.model,
        chosen.weights,
        image_size=chosen.image_size,
        blocks=chosen.blocks,
        activation=chosen.activation,
        position_embedding=chosen.position_embedding,
        mean=chosen.mean,
        std=chosen.std,
        sha256=chosen.sha256,
        allow_unverified=params.allow_unverified,
        device=params.machine.device,
        precision=chosen.precision,
    )


def encode_names(
    backbone: Backbone, params: Params, names: list[str], prefix: str = "", suffix: str = ""
) -> Tensor:
    """T(prefix + stacked names + suffix) under the `text` parameters, (D, 2)."""
    return encode_stack(
        names,
        partial(encode_text, backbone),
        partial(count_tokens, backbone),
        context_length=backbone.context_length,
        separator=params.text.separator,
        underscore=params.text.underscore,
        ensemble=params.text.ensemble,
        prefix=prefix,
        suffix=suffix,
    )
