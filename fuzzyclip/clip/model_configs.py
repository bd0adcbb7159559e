"""A model before it is built: its open_clip configuration and its input channels.

Image towers that have no text beside them, timm's DINOv2 and DINOv3 for two, are named
`timm/vit_small_patch14_dinov2`: such a name becomes a configuration without `text_cfg`.

A configuration may come with a model from anywhere, and open_clip hands its values on: to
constructors, to the tokenizer's, to Hugging Face's downloader. So what is not listed here, each key
with its type and range, is refused; nothing here is a path to code, and all sizes end.
"""

import difflib
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import open_clip
import timm
import torch
from open_clip import pretrained
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from fuzzyclip.utils.faults import naming
from fuzzyclip.utils.json_text import parse_json
from fuzzyclip.utils.ranges import FEW, NUMBER, POSITIVE, SHARE, SIDE
from fuzzyclip.utils.settings import CHANNELS, Record, limit, say_first_fault

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)
#: Bytes of a configuration file at most; open_clip's own have up to a thousand.
LARGEST_FILE = 1_000_000
#: Begins the name of an image tower of timm's without a text tower.
TIMM = "timm/"
#: timm's modules of ViTs whose blocks all see one grid of patch tokens.
VIT_MODULES = (
    "eva",  # also Perception Encoder, DINOv3
    "vision_transformer",  # also SigLIP, DINOv2
    "vision_transformer_hybrid",
    "vision_transformer_relpos",
    "vitamin",
)
#: Parameters of a tower at most, twice as many as in the largest of open_clip's, ViT-e-14.
LARGEST_TOWER = 8_000_000_000
#: A repository of Hugging Face's hub, or of its own old names: `owner/name`, `name`.
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)


def _check_tokenizer(name: str) -> str:
    """A name on the hub, or a folder that means the same wherever the command is started."""
    path = Path(name).expanduser()
    if path.is_absolute() and not name.startswith(("//", "\\")):
        return name
    if not HUB_NAME.fullmatch(name) or ".." in name:
        raise ValueError(
            f"{name!r} is neither a name on Hugging Face's hub nor an absolute path of a folder"
        )
    if path.exists():
        raise ValueError(
            f"{name!r} is a name on Hugging Face's hub, and {path.resolve()} hides it: start the "
            "command elsewhere, or give the absolute path if that folder is meant"
        )
    return name


Name = Annotated[str, Field(max_length=200)]
Tokenizer = Annotated[Name, AfterValidator(_check_tokenizer)]
Layers = Annotated[int, limit(FEW)]
Width = Annotated[int, Field(ge=1, le=65_536)]
Heads = Annotated[int, Field(ge=1, le=1024)]
Pixels = Annotated[int, limit(SIDE)]
Length = Annotated[int, Field(ge=1, le=4096)]
Words = Annotated[int, Field(ge=1, le=2_000_000)]
Token = Annotated[int, Field(ge=0, le=2_000_000)]
Ratio = Annotated[float, Field(gt=0, le=64)]
Share = Annotated[float, limit(SHARE)]
Number = Annotated[float, limit(NUMBER)]
Deviation = Annotated[float, limit(POSITIVE)]


class _Part(Record):
    """A part of a configuration: nothing unknown, nothing turned from one type into another."""

    model_config = ConfigDict(strict=True)


class Activation(_Part):
    """Arguments of an activation."""

    approximate: Literal["none", "tanh"] = "none"


class Norm(_Part):
    """Arguments of a layer norm."""

    eps: Annotated[float, Field(gt=0, le=1)] = 1e-5
    elementwise_affine: bool = True
    bias: bool = True


class TokenizerSettings(_Part):
    """Arguments of a tokenizer; none of the many that name files, addresses or code."""

    clean: Literal["lower", "whitespace", "canonicalize"] | None = None
    strip_sep_token: bool = False
    language: Annotated[str, Field(pattern=r"^\w{1,20}$")] | None = None


class _Tower(_Part):
    """What the two towers share."""

    width: Width = 512
    mlp_ratio: Ratio = 4.0
    ls_init_value: Number | None = None
    final_ln_after_pool: bool = False
    output_tokens: bool = False
    act_kwargs: Activation | None = None
    norm_kwargs: Norm | None = None
    block_type: Literal["default", "custom"] | None = None
    qk_norm: bool = False
    scaled_cosine_attn: bool = False
    scale_heads: bool = False
    scale_attn_inner: bool = False
    scale_attn: bool = False
    scale_fc: bool = False

    def _check_size(self, layers: int, embedded: int) -> None:
        """Refuse a transformer that no memory holds."""
        block = self.width**2 * (4 + 2 * self.mlp_ratio)
        if (count := layers * block + embedded * self.width) > LARGEST_TOWER:
            raise ValueError(
                f"a tower of {count:.2g} parameters; {LARGEST_TOWER:.0g} is the most that is built"
            )


class Vision(_Tower):
    """The image tower: open_clip's CLIPVisionCfg."""

    layers: Layers | Annotated[list[Layers], Field(min_length=4, max_length=4)] = 12
    width: Width = 768
    head_width: Width = 64
    patch_size: Pixels | None = 16
    image_size: Pixels | Annotated[list[Pixels], Field(min_length=2, max_length=2)] = 224
    patch_dropout: Share = 0.0
    attentional_pool: bool | Literal["parallel", "cascade"] = False
    attn_pooler_queries: Length = 256
    attn_pooler_heads: Heads = 8
    no_ln_pre: bool = False
    pos_embed_type: Literal["learnable", "sin_cos_2d"] = "learnable"
    pool_type: Literal["tok", "avg", "none"] = "tok"
    timm_model_name: Name | None = None
    timm_model_pretrained: bool = False
    timm_pool: Literal["", "avg", "avgmax", "max", "token", "map", "abs_attn", "rot_attn"] = "avg"
    timm_proj: Literal["", "linear", "mlp", "none"] | None = "linear"
    timm_proj_bias: bool = False
    timm_drop: Share = 0.0
    timm_drop_path: Share | None = None

    @model_validator(mode="after")
    def _check_tower(self) -> Self:
        if isinstance(self.layers, int):
            self._check_size(self.layers, 3 * (self.patch_size or 1) ** 2)
        return self


class Text(_Tower):
    """The text tower: open_clip's CLIPTextCfg."""

    context_length: Length = 77
    vocab_size: Words = 49408
    hf_tokenizer_name: Tokenizer | None = None
    tokenizer_mode: Literal["clips"] | None = None
    tokenizer_kwargs: TokenizerSettings | None = None
    heads: Heads = 8
    layers: Layers = 12
    embed_cls: bool = False
    pad_id: Token = 0
    eos_id: Token = 2
    no_causal_mask: bool = False
    pool_type: Literal["first", "last", "argmax", "eos", "none"] = "argmax"
    proj_bias: bool = False
    proj_type: Literal["linear", "none"] | None = "linear"
    hf_model_name: Name | None = None
    hf_model_pretrained: bool = True
    hf_proj_type: Literal["linear", "mlp", "none"] | None = "mlp"
    hf_pooler_type: Name | None = "mean_pooler"

    @model_validator(mode="after")
    def _check_tower(self) -> Self:
        self._check_size(self.layers, self.vocab_size + self.context_length)
        return self


class ModelConfig(_Part):
    """A whole model, or without `text_cfg` an image tower alone.

    What `multimodal_cfg` says is not read: such a model is refused.
    """

    embed_dim: Width
    vision_cfg: Vision
    text_cfg: Text | None = None
    custom_text: bool = False
    quick_gelu: bool = False
    init_logit_scale: Number | None = None
    init_logit_bias: Number | None = None
    nonscalar_logit_scale: bool = False
    multimodal_cfg: dict[str, Any] | None = None


class Preprocessing(BaseModel):
    """The part of a file's `preprocess_cfg` that is read."""

    model_config = ConfigDict(frozen=True, strict=True)

    mean: Annotated[list[Number], CHANNELS] | None = None
    std: Annotated[list[Deviation], CHANNELS] | None = None


Checked = TypeVar("Checked", bound=BaseModel)


def read_model_config(model: str) -> dict[str, Any]:
    """open_clip's configuration of a model: by name, or from a JSON file of one's own.

    An image tower alone has no key `text_cfg`, however it was written.

    Raises:
        ValueError: no such name or file, or one that says what `ModelConfig` does not know.
    """
    if model.endswith(".json"):
        content = _read_file(model)
        config = content.get("model_cfg", content)
        if isinstance(config, dict) and config.get("text_cfg", config) is None:
            config = {key: value for key, value in config.items() if key != "text_cfg"}
    elif model.startswith(TIMM):
        config = describe_timm(model.removeprefix(TIMM))
    else:
        config = open_clip.get_model_config(model)
    if config is None:
        close = difflib.get_close_matches(model, open_clip.list_models(), n=5)
        raise ValueError(f"open_clip has no model {model!r}{_offer(close)}")
    _check(ModelConfig, config, f"model {model}")
    return dict(config)


def _offer(names: list[str]) -> str:
    """The rest of a message that repeats an unknown name."""
    return f"; close names: {', '.join(names)}" if names else ""


def describe_timm(name: str) -> dict[str, Any]:
    """The configuration of an image tower of timm's alone, which pools as timm lets it.

    Args:
        name: timm's; a tag of weights after a dot plays no part.

    Raises:
        ValueError: timm has no such model, or it is none that could be read here.
    """
    name = name.partition(".")[0]
    if not timm.is_model(name):
        # pretrained ones have the largest names, such as vit_small_patch14_dinov2
        close = difflib.get_close_matches(name, timm.list_models("*vit*"), n=5)
        raise ValueError(f"timm has no model {name!r}{_offer(close)}")
    if not timm.models.is_model_in_modules(name, VIT_MODULES):
        raise ValueError(
            f"model {TIMM}{name}: it is no plain ViT, whose blocks share one grid of tokens"
        )
    with torch.device("meta"):
        trunk: Any = timm.create_model(name)
    vision = {
        "timm_model_name": name,
        "timm_pool": trunk.global_pool,
        "timm_proj": "none",
        "image_size": trunk.default_cfg["input_size"][-1],
    }
    return {"embed_dim": trunk.num_features, "vision_cfg": vision}


def read_channels(model: str, weights: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Input mean and standard deviation that belong to a model's weights; OpenAI's if none do.

    Read from open_clip's entry of a pretrained tag, or from a configuration file's
    `preprocess_cfg`. A weights file of a named model gets those on which all its tags agree. Of an
    image tower of timm's they are those of its first weights.

    Raises:
        ValueError: see `read_model_config`.
    """
    if model.endswith(".json"):
        section = _read_file(model).get("preprocess_cfg", {})
        preprocessing = _check(Preprocessing, section, f"model {model}")
        entries = [preprocessing.model_dump(exclude_none=True)]
    elif model.startswith(TIMM):
        first = timm.get_pretrained_cfg(model.removeprefix(TIMM))
        entries = [{"mean": first.mean, "std": first.std}] if first else []
    else:
        chosen = pretrained.get_pretrained_cfg(model, weights)
        tags = pretrained.list_pretrained_tags_by_model(model)
        entries = [chosen] if chosen else [pretrained.get_pretrained_cfg(model, t) for t in tags]
    known = {
        (tuple(entry.get("mean", OPENAI_MEAN)), tuple(entry.get("std", OPENAI_STD)))
        for entry in entries
    }
    return known.pop() if len(known) == 1 else (OPENAI_MEAN, OPENAI_STD)


def _read_file(model: str) -> dict[str, Any]:
    """Content of a file; refuses one that is too large, nested too deeply or no table of JSON."""
    path = Path(model).expanduser()
    if not path.is_file():
        raise ValueError(f"model configuration {path}: no such file")
    with path.open("rb") as file:
        text = file.read(LARGEST_FILE + 1)
    if len(text) > LARGEST_FILE:
        raise ValueError(f"model configuration {path}: more than {LARGEST_FILE:,} bytes")
    with naming(f"model configuration {path}", ValueError):
        content = parse_json(text)
    if not isinstance(content, dict):
        raise ValueError(f"model configuration {path}: a table is needed, not {content!r:.50}")
    return content


def _check(schema: type[Checked], data: Any, owner: str) -> Checked:
    """Raise the first fault in words."""
    try:
        return schema.model_validate(data)
    except ValidationError as error:
        fault = say_first_fault(error)
        raise ValueError(f"{owner}: its configuration is refused: {fault}") from error
