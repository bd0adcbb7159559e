"""The frozen CLIP: built by open_clip, filled with verified weights, frozen.

Any open_clip model works whose image tower is a plain ViT, its own or timm's, and whose text tower
is open_clip's own. For methods that read no text, such an image tower will do alone: DINOv2, for
one. `clip.towers` says what is plain, `clip.encoding` runs the towers.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import open_clip
import torch
from timm.layers.pos_embed import resample_abs_pos_embed
from torch import Tensor, nn

from fuzzyclip.clip.attention import fuse_attention
from fuzzyclip.clip.merging import plan_merges, take_apart
from fuzzyclip.clip.model_configs import read_channels, read_model_config
from fuzzyclip.clip.towers import (
    ImageTower,
    NoTextError,
    TextTower,
    build_tokenizer,
    check_towers,
    hash_vocabulary,
    read_image_tower,
    read_text_tower,
)
from fuzzyclip.clip.weights import (
    RANDOM,
    WeightsError,
    find_weights,
    read_state_dict,
    verify_weights,
)
from fuzzyclip.utils.settings import BackboneSettings

#: Keys of a configuration that decide which logit parameters its weights hold.
LOGIT_KEYS = ("init_logit_scale", "init_logit_bias", "nonscalar_logit_scale")
#: Beginnings of names in files of timm's that an image tower without a classifier may leave there.
LEFT_BEHIND = ("visual.trunk.head.", "visual.trunk.mask_token")
#: What opens a backbone of `precision: int8`. By name, as methods are: engines run backbones, and
#: know what one is. What it makes of a tower is bound to its recipe, which the fingerprint has.
INT8 = "fuzzyclip.engines.int8"
#: Patches of an image at most: 4096 pixels in patches of 16.
MOST_PATCHES = 65_536


class ImageEngine(Protocol):
    """Another program that runs the image tower, with `ImageTower.encode`'s arguments and answer.

    See `fuzzyclip.engines`.
    """

    @property
    def label(self) -> str:
        """Its package and version."""

    def __call__(self, pixels: Tensor, blocks: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Image features (B, D) and patch tokens (B, L, P, W) of pixels (B, 3, S, S)."""


@dataclass(frozen=True)
class Backbone:
    """A frozen CLIP, or an image tower alone, and all that decides its outputs.

    Attributes:
        model: open_clip's CLIP, in evaluation mode, without gradients; or `ImageTowerAlone`.
        tokenizer: prompts to token ids, (n, T); None where there is no text tower.
        settings: from which it was built; mean and std are never None.
        device: of the towers.
        identity: configuration, settings and the weights' SHA-256 as plain data; goes into headers.
        compiled: whether `torch.compile` runs the image tower. It needs a C++ compiler (Triton on
            a GPU) and a while at the first batch, and changes numbers in the last digits.
        engine: what runs the image tower in PyTorch's place; None for PyTorch. It changes numbers
            in the last digits as well, see `fuzzyclip.engines.choice.choose_engine`; or it is the
            one of `precision: int8`, see `fuzzyclip.engines.int8`.
    """

    model: nn.Module
    tokenizer: Any
    settings: BackboneSettings
    device: torch.device
    identity: dict[str, Any]
    compiled: bool = False
    engine: ImageEngine | None = None

    @property
    def image_size(self) -> int:
        """Side of the square model input, S pixels."""
        return self.settings.image_size

    @property
    def blocks(self) -> tuple[int, ...]:
        """Vision blocks whose patch tokens are taken, counted from 1 as in the paper."""
        return self.settings.blocks

    @property
    def mean(self) -> tuple[float, ...]:
        """Input mean of the three channels."""
        return tuple(self.identity["mean"])

    @property
    def std(self) -> tuple[float, ...]:
        """Input standard deviation of the three channels."""
        return tuple(self.identity["std"])

    @property
    def is_int8(self) -> bool:
        """Whether the image tower's linear layers compute in int8, by the engine."""
        return self.settings.precision == "int8"

    @property
    def precision(self) -> torch.dtype:
        """Type in which PyTorch computes of the frozen towers."""
        if self.is_int8:
            return torch.float32
        dtype: torch.dtype = getattr(torch, self.settings.precision)
        return dtype

    @property
    def fingerprint(self) -> str:
        """SHA-256 over `identity`: equal fingerprints give equal features."""
        return hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()

    @property
    def image_tower(self) -> ImageTower:
        return read_image_tower(self.model.visual, self.settings.merge)

    @cached_property
    def run_image_tower(self) -> Callable[[Tensor, Sequence[int]], tuple[Tensor, Tensor]]:
        """`ImageTower.encode`, by another engine or compiled where that was asked for."""
        if self.engine is not None:
            return self.engine
        encode = self.image_tower.encode
        return torch.compile(encode, dynamic=False) if self.compiled else encode

    @property
    def reads_text(self) -> bool:
        """Whether there is a text tower."""
        return self.tokenizer is not None

    def require_plain(self, reader: str) -> None:
        """Refuse, as a ValueError, what looks into a tower that is not run as it is trained.

        Args:
            reader: who looks, the begin of the message.
        """
        changes = {f"merge {self.settings.merge:g}": self.settings.merge, "int8": self.is_int8}
        for change, applies in changes.items():
            if applies:
                raise ValueError(
                    f"{reader} looks into the image tower's blocks, which {change} changes: choose "
                    "a backbone without it"
                )

    def require_text(self) -> None:
        """Refuse, as a NoTextError, to go on with an image tower alone."""
        if not self.reads_text:
            raise NoTextError(
                f"the model {self.settings.model} is an image tower without text: choose a CLIP, "
                "or a method that reads no text"
            )

    @property
    def text_tower(self) -> TextTower:
        """The text tower; a NoTextError where there is none."""
        self.require_text()
        return read_text_tower(self.model)

    @property
    def vision_width(self) -> int:
        return self.image_tower.width

    @property
    def embed_dim(self) -> int:
        return self.image_tower.embed_dim

    @property
    def grid(self) -> tuple[int, int]:
        """Patches down and across."""
        return self.image_tower.grid

    @property
    def context_length(self) -> int:
        return int(self.text_tower.module.context_length)


def choose_device(name: str = "auto") -> torch.device:
    """`auto` takes CUDA, then Apple's MPS, then the CPU; any other name is torch's own."""
    if name != "auto":
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


class ImageTowerAlone(nn.Module):
    """An image tower where a whole CLIP would hold it."""

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        self.visual = visual


def build_model(config: dict[str, Any], image_size: int, activation: str) -> nn.Module:
    """An open_clip CLIP, or its image tower alone, with its own initialisation.

    Args:
        config: see `read_model_config`; one that `check_towers` accepts.
        image_size: S; must be a multiple of the patch size.
        activation: `model` (what the configuration says), `gelu` or `quickgelu`.

    Raises:
        ValueError: S or the activation does not fit the image tower.
    """
    vision = {**config["vision_cfg"], "image_size": image_size}
    is_timm = bool(vision.get("timm_model_name"))
    if is_timm:
        vision["timm_model_pretrained"] = False  # the whole model's weights follow
    else:
        _check_size(image_size, vision.get("patch_size", 16))
    quick = {"model": config.get("quick_gelu", False), "gelu": False, "quickgelu": True}
    if activation not in quick:
        raise ValueError(f"activation must be one of {', '.join(quick)}, not {activation!r}")
    if is_timm and activation == "quickgelu":
        raise ValueError("activation quickgelu: timm's image towers can not be built with it")
    towers = {"embed_dim": config["embed_dim"], "vision_cfg": vision}
    model: nn.Module
    if "text_cfg" in config:
        build = open_clip.CustomTextCLIP if config.get("custom_text") else open_clip.CLIP
        model = build(
            **towers,
            text_cfg=dict(config["text_cfg"]),
            quick_gelu=quick[activation],
            **{name: config[name] for name in LOGIT_KEYS if name in config},
        )
    else:
        visual = open_clip.model._build_vision_tower(**towers, quick_gelu=quick[activation])
        model = ImageTowerAlone(visual)
    if is_timm:
        timm_model: Any = model.visual
        patches = timm_model.trunk.patch_embed
        _check_size(image_size, patches.feat_ratio())
        if tuple(patches.img_size) != (image_size, image_size):
            timm_model.set_input_size(image_size)
    return model


def imagine_image_tower(config: dict[str, Any]) -> Any:
    """The image tower of a configuration without numbers, to see what it is like, at once."""
    alone = {"embed_dim": config["embed_dim"], "vision_cfg": config["vision_cfg"]}
    size = alone["vision_cfg"].get("image_size", 224)
    with torch.device("meta"):
        return build_model(alone, size if isinstance(size, int) else size[0], "model").visual


def _check_size(image_size: int, patch: Any) -> None:
    if not isinstance(patch, int) or image_size % patch:
        raise ValueError(f"image_size {image_size} is not a multiple of the patch size {patch}")
    if (image_size // patch) ** 2 > MOST_PATCHES:
        raise ValueError(
            f"image_size {image_size} in patches of {patch} pixels: more than {MOST_PATCHES:,}"
        )


def load_backbone(
    settings: BackboneSettings,
    *,
    allow_unverified: bool = False,
    device: str = "auto",
    compiled: bool = False,
    seed: int = 0,
) -> Backbone:
    """Build CLIP, or an image tower alone, load and verify its weights, and freeze it.

    Args:
        settings: which one, and all that decides its outputs.
        allow_unverified: whether a weights file may have no expected digest.
        device: see `choose_device`.
        compiled: see `Backbone`.
        seed: of `random` weights.

    Raises:
        WeightsError: weights are missing, unverified or of another model.
        ValueError: see `read_model_config`, `check_towers`, `build_model`, `build_tokenizer`,
            `fuzzyclip.clip.merging.encode_merged` and `fuzzyclip.engines.int8.open_int8`.
        MissingExtraError: int8 needs a package that is not installed.
    """
    model, weights = settings.model, settings.weights
    config = read_model_config(model)
    check_towers(model, config)
    tokenizer = build_tokenizer(config["text_cfg"]) if "text_cfg" in config else None
    torch.manual_seed(seed)
    try:
        clip = build_model(config, settings.image_size, settings.activation)
    except (ArithmeticError, AssertionError, RuntimeError, TypeError) as error:
        raise ValueError(f"model {model}: open_clip can not build it ({error})") from error
    tower = read_image_tower(clip.visual)
    depth, (rows, columns) = tower.depth, tower.grid
    if not settings.blocks or max(settings.blocks) > depth:
        raise ValueError(f"blocks {list(settings.blocks)}: the image tower has blocks 1 to {depth}")
    if settings.merge:
        take_apart(clip.visual)
        plan_merges(rows * columns, depth, settings.merge)
    digest = f"{RANDOM}-{seed}"
    if weights != RANDOM:
        path = find_weights(model, weights, settings.sha256, allow_unverified)
        digest = verify_weights(path, settings.sha256, allow_unverified)
        _fill(clip, read_state_dict(path), settings.position_embedding, path)
    fuse_attention(clip)
    is_int8 = settings.precision == "int8"
    where = choose_device("cpu" if is_int8 and device == "auto" else device)
    clip.eval().requires_grad_(False).to(where)
    mean, std = read_channels(model, weights)
    settings = settings.model_copy(
        update={"mean": settings.mean or mean, "std": settings.std or std}
    )
    identity = {
        "config": config,
        "weights_sha256": digest,
        **settings.model_dump(mode="json", exclude={"model", "weights", "sha256"}),
    }
    if config.get("text_cfg", {}).get(
        "hf_tokenizer_name"
    ):  # a name or a folder says little of its content
        identity["vocabulary_sha256"] = hash_vocabulary(tokenizer)
    if not is_int8:
        return Backbone(clip, tokenizer, settings, where, identity, compiled)
    engine = import_module(INT8)
    identity["int8"] = engine.RECIPE
    opened: Backbone = engine.open_int8(
        Backbone(clip, tokenizer, settings, where, identity, compiled)
    )
    return opened


def _fill(clip: nn.Module, state: dict[str, Tensor], interpolation: str, path: Path) -> None:
    """Load a state dict, its position embeddings resized to the model's grid."""
    trunk: Any = getattr(clip.visual, "trunk", None)
    if isinstance(clip, ImageTowerAlone):
        state = _take_image_tower(state, clip)
    positions = state.get("visual.trunk.pos_embed")
    try:
        if not hasattr(clip, "positional_embedding"):  # older files of models with a text part
            state = open_clip.model.convert_to_custom_text_state_dict(state)
        open_clip.model.resize_pos_embed(state, clip, interpolation=interpolation)
        if positions is not None and trunk is not None:
            state["visual.trunk.pos_embed"] = resample_abs_pos_embed(
                positions,
                new_size=trunk.patch_embed.grid_size,
                num_prefix_tokens=0 if trunk.no_embed_class else trunk.num_prefix_tokens,
                interpolation=interpolation,
            )
        clip.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise WeightsError(f"weights {path} are not of this model: {error}") from error


def _take_image_tower(state: dict[str, Tensor], alone: ImageTowerAlone) -> dict[str, Tensor]:
    """Of a file's tensors those of an image tower, by its names in a whole CLIP.

    A file of timm's own has them without a prefix. A CLIP's text, a classifier's last layer and the
    token that stood for hidden patches in a training have no part in what the tower gives.
    """
    taken = {name: tensor for name, tensor in state.items() if name.startswith("visual.")}
    if not taken:
        prefix = "visual.trunk." if hasattr(alone.visual, "trunk") else "visual."
        taken = {f"{prefix}{name}": tensor for name, tensor in state.items()}
    own = alone.state_dict().keys()
    return {
        name: tensor
        for name, tensor in taken.items()
        if name in own or not name.startswith(LEFT_BEHIND)
    }
