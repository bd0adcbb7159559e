"""Reading open_clip's towers: one view on ViTs and text transformers that are built differently.

`check_towers` refuses a configuration that has no such view before anything is built.
`clip.backbone` builds and fills the model, `clip.encoding` runs it through these views.

Shapes: B images, S image size, L taken blocks, P patches, W vision width, D embedding width,
n prompts, T tokens.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import open_clip
import timm
import torch
from open_clip.timm_model import TimmModel
from open_clip.tokenizer import HFTokenizer
from torch import Tensor, nn

from fuzzyclip.clip.merging import encode_merged
from fuzzyclip.clip.model_configs import VIT_MODULES

SUPPORTED = (
    "Supported are open_clip's own ViT and timm's plain ViTs, each with open_clip's own text "
    "transformer or with none; not timm or HF towers of other kinds"
)
#: Tokens that are pooled at once; CUDA's attention refuses batches beyond 65,535 in all heads.
POOL_CHUNK = 2048


class NoTextError(ValueError):
    """Text is to be read by a model that is an image tower alone."""


def check_towers(model: str, config: dict[str, Any]) -> None:
    """Refuse a model whose towers, by open_clip's configuration, can not be read here.

    Raises:
        ValueError: with the reason.
    """
    vision, text = config["vision_cfg"], config.get("text_cfg", {})
    name = vision.get("timm_model_name")
    pool = vision.get("timm_pool", "avg")
    unpooled = not pool and vision.get("timm_proj", "linear") not in ("linear", "mlp")
    image = f"its image tower, timm's {name}," if name else "its image tower"
    obstacles = (
        (name and not timm.is_model(name), f"{image} does not exist"),
        (
            name and not timm.models.is_model_in_modules(name, VIT_MODULES),
            f"{image} is convolutional or hierarchical: its blocks share no grid of tokens",
        ),
        (
            isinstance(vision.get("layers"), list),
            f"{image} is a ResNet, which has no patch tokens",
        ),
        (name and pool in ("abs_attn", "rot_attn"), f"{image} pools a feature map, not tokens"),
        (
            (name and unpooled)
            or vision.get("pool_type") == "none"
            or isinstance(vision.get("attentional_pool"), str),
            f"{image} does not pool its tokens to one feature",
        ),
        ("multimodal_cfg" in config, "it is a CoCa, whose towers also serve a caption decoder"),
        (
            text.get("hf_model_name"),
            f"its text tower is Hugging Face's {text.get('hf_model_name')}",
        ),
        (text.get("embed_cls"), "its text tower appends a class token to the prompt"),
        (text.get("pool_type") == "none", "its text tower does not pool its tokens to one feature"),
        (
            text.get("pool_type") == "first" and not text.get("no_causal_mask"),
            "its text tower reads the first token, which sees none of the prompt",
        ),
    )
    for applies, reason in obstacles:
        if applies:
            raise ValueError(f"model {model}: {reason}. {SUPPORTED}")


@dataclass(frozen=True)
class ImageTower:
    """An image tower whose blocks all see the same grid of patch tokens.

    Attributes:
        visual: open_clip's module.
        depth: number of blocks.
        width: W, width of a token.
        embed_dim: D, width of the image feature.
        grid: patches down and across.
        project: (..., W) tokens of any block to (..., D): the tower's own final norm, pooling and
            projection of each token as if it were the only one. A class token or an average pools
            one token to itself. Attention pooling (SigLIP, PE) over one token has nothing to weigh
            and gives its value, so that the layers after the attention apply as trained.
        merge: share of the patch tokens that are merged away on the way, see
            `fuzzyclip.clip.merging`.
    """

    visual: Any
    depth: int
    width: int
    embed_dim: int
    grid: tuple[int, int]
    project: Callable[[Tensor], Tensor]
    merge: float = 0.0

    def encode(self, pixels: Tensor, blocks: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Image features (B, D), not normalised, and patch tokens (B, L, P, W) of pixels.

        The tokens are as the blocks, counted from 1, give them, before the final norm; blocks in
        the tower's order, patches row by row of the grid, without class and register tokens.
        """
        if self.merge:
            # One by one, see there; a graph to be exported knows no number of images.
            images = (pixels,) if torch.compiler.is_exporting() else torch.split(pixels, 1)
            each = [encode_merged(self.visual, image, blocks, self.merge) for image in images]
            embeds, tokens = zip(*each, strict=True)
            return torch.cat(embeds), torch.cat(tokens)
        taken = self.visual.forward_intermediates(
            pixels,
            indices=[block - 1 for block in blocks],
            normalize_intermediates=False,
            output_fmt="NLC",
        )
        return taken["image_features"], torch.stack(taken["image_intermediates"], dim=1)


def read_image_tower(visual: Any, merge: float = 0.0) -> ImageTower:
    """The view on an image tower that passed `check_towers`, with a share of tokens merged away."""
    if not isinstance(visual, TimmModel):
        rows, columns = visual.grid_size
        depth, width = len(visual.transformer.resblocks), visual.transformer.width
        project = partial(_project_by_open_clip, visual)
        return ImageTower(visual, depth, width, visual.output_dim, (rows, columns), project, merge)
    trunk = visual.trunk
    rows, columns = trunk.patch_embed.grid_size
    projections = [layer for layer in visual.head.modules() if isinstance(layer, nn.Linear)]
    embed_dim = projections[-1].out_features if projections else trunk.num_classes
    return ImageTower(
        visual=visual,
        depth=len(trunk.blocks),
        width=trunk.embed_dim,
        embed_dim=embed_dim or trunk.num_features,  # without any projection tokens are features
        grid=(rows, columns),
        project=partial(_project_by_timm, visual),
        merge=merge,
    )


def measure_patch(visual: Any) -> int:
    """Side of a patch in pixels."""
    trunk = getattr(visual, "trunk", None)
    return int(visual.conv1.stride[0] if trunk is None else trunk.patch_embed.feat_ratio())


def _project_by_open_clip(visual: Any, tokens: Tensor) -> Tensor:
    """See `ImageTower.project`."""
    if visual.attn_pool is not None:
        tokens = _pool_alone(partial(_attend, visual.attn_pool), tokens)
    projected: Tensor = visual.ln_post(tokens)
    if visual.proj is not None:
        projected = projected @ visual.proj
    return projected


def _project_by_timm(visual: Any, tokens: Tensor) -> Tensor:
    """See `ImageTower.project`."""
    trunk = visual.trunk
    tokens = trunk.norm(tokens)
    if getattr(trunk, "attn_pool", None) is not None:
        tokens = _pool_alone(trunk.attn_pool, tokens)
    projected: Tensor = visual.head(trunk.head(trunk.fc_norm(tokens)))
    return projected


def _pool_alone(pool: Callable[[Tensor], Tensor], tokens: Tensor) -> Tensor:
    """Pool sequences of one token, each token by itself: (..., W) to (..., pooled width)."""
    alone = tokens.reshape(-1, 1, tokens.shape[-1])
    # A graph to be exported knows no number of images, hence none of chunks.
    chunks = (alone,) if torch.compiler.is_exporting() else torch.split(alone, POOL_CHUNK)
    pooled = torch.cat([pool(chunk) for chunk in chunks])
    return pooled.view(*tokens.shape[:-1], -1)


def _attend(pooler: Any, alone: Tensor) -> Tensor:
    """open_clip's attentional pooling of (N, 1, W); of its queries, which then agree, the first."""
    keys = pooler.ln_k(alone)
    query = pooler.ln_q(pooler.query[:1]).expand(len(alone), -1, -1)
    pooled: Tensor = pooler.attn(query, keys, keys, need_weights=False)[0]
    return pooled[:, 0]


@dataclass(frozen=True)
class TextTower:
    """A text transformer of open_clip.

    Attributes:
        module: the module that holds its layers, the CLIP itself or its `text` part.
        causal: whether a token sees only what stands before it.
        pool: which position becomes the feature: `argmax` (the largest id, which is the end token
            of open_clip's tokenizer), `eos`, `first` or `last` (of the padded prompt).
        end_id: the end token's id; only `eos` reads it.
    """

    module: Any
    causal: bool
    pool: str
    end_id: int

    @property
    def reads_end(self) -> bool:
        """True where the feature is read at the prompt's end, wherever that is."""
        return self.pool in ("argmax", "eos")

    def find_ends(self, ids: Tensor) -> Tensor:
        """Position whose output becomes the feature of each prompt, (n,) from ids (n, T).

        Raises:
            ValueError: a prompt has no end token, so the tokenizer is of another model.
        """
        if self.pool == "argmax":
            return ids.argmax(dim=1)
        if self.pool == "eos":
            is_end = ids == self.end_id
            if not is_end.any(dim=1).all():
                raise ValueError(
                    f"the tokenizer writes no end token {self.end_id}, which the text tower reads"
                )
            return is_end.int().argmax(dim=1)
        last = 0 if self.pool == "first" else ids.shape[1] - 1
        return torch.full((len(ids),), last, device=ids.device)


def read_text_tower(model: Any) -> TextTower:
    """The view on the text tower of a model that passed `check_towers`."""
    if hasattr(model, "token_embedding"):  # open_clip.CLIP holds the text tower's layers itself
        module, pool, end_id = model, model.text_pool_type, model.text_eos_id
    else:
        module, pool, end_id = model.text, model.text.pool_type, model.text.eos_id
    return TextTower(module, module.attn_mask is not None, pool, end_id)


def build_tokenizer(text: dict[str, Any]) -> Any:
    """The tokenizer that a text configuration asks for: open_clip's own or Hugging Face's.

    Code that lies beside Hugging Face's files is never run, whatever they say.

    Raises:
        ValueError: Hugging Face's can not be had, or open_clip's own has no such setting.
    """
    context, settings = text.get("context_length", 77), text.get("tokenizer_kwargs") or {}
    name = text.get("hf_tokenizer_name")
    if not name:
        try:
            return open_clip.SimpleTokenizer(context_length=context, **settings)
        except TypeError as error:
            raise ValueError(f"text_cfg.tokenizer_kwargs {settings}: {error}") from error
    folder = Path(name).expanduser()
    source = str(folder) if folder.is_dir() else name
    settings = settings | {"tokenizer_mode": text.get("tokenizer_mode")}
    try:
        return HFTokenizer(source, context_length=context, **settings, trust_remote_code=False)
    except ImportError as error:
        raise ValueError(
            f"the text tower's tokenizer {name!r} needs a package that is missing ({error}): "
            "pip install transformers sentencepiece"
        ) from error
    except Exception as error:
        raise ValueError(
            f"the text tower's tokenizer {name!r} can not be had ({error}). Offline: get its files "
            "(tokenizer.json and tokenizer_config.json) on another machine and give their folder "
            "as text_cfg.hf_tokenizer_name in a JSON copy of the model's configuration"
        ) from error


def hash_vocabulary(tokenizer: Any) -> str:
    """SHA-256 of a Hugging Face tokenizer's words and their ids."""
    vocabulary = json.dumps(sorted(tokenizer.tokenizer.get_vocab().items()))
    return hashlib.sha256(vocabulary.encode()).hexdigest()
