"""Running the frozen towers: images to class features and patch tokens, prompts to text features.

Shapes: B images, S image size, L taken blocks, P patches, W vision width, D embedding width,
n prompts, T tokens, V text width.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms import v2

from fuzzyclip.backbone import Backbone, get_text_tower
from fuzzyclip.text import PromptTooLongError


def preprocess(image: Image.Image, backbone: Backbone) -> Tensor:
    """One RGB image as model input, (3, S, S): squashed by PIL's bicubic filter, normalised."""
    size = (backbone.image_size, backbone.image_size)
    pixels: Tensor = v2.functional.pil_to_tensor(image.resize(size, Image.Resampling.BICUBIC))
    mean = torch.tensor(backbone.mean).view(3, 1, 1)
    std = torch.tensor(backbone.std).view(3, 1, 1)
    return (pixels.float() / 255 - mean) / std  # (3, S, S)


@torch.no_grad()
def encode_images(backbone: Backbone, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Class features and patch tokens of a batch, in one pass through the frozen image tower.

    Args:
        backbone: the frozen CLIP.
        pixels: (B, 3, S, S), from `preprocess`.

    Returns:
        image_embed (B, D) after ln_post and projection, not normalised; patch_tokens
        (B, L, P, W) after each taken block, before ln_post and projection, without the class
        token. Both float32, on the backbone's device.
    """
    visual: Any = backbone.model.visual
    with _autocast(backbone):
        taken = visual.forward_intermediates(
            pixels.to(backbone.device, non_blocking=True),
            indices=[block - 1 for block in backbone.blocks],
            normalize_intermediates=False,
            output_fmt="NLC",
        )
    tokens = torch.stack(taken["image_intermediates"], dim=1)  # (B, L, P, W)
    return taken["image_features"].float(), tokens.float()


@torch.no_grad()
def project_tokens(backbone: Backbone, patch_tokens: Tensor) -> Tensor:
    """Patch tokens in CLIP's joint space by the tower's own ln_post and projection, (..., P, D).

    What the untrained rows of a table compare with text; EFA replaces it by trained layers.
    """
    visual: Any = backbone.model.visual
    projected: Tensor = visual.ln_post(patch_tokens)
    if visual.proj is not None:
        projected = projected @ visual.proj  # (..., P, D)
    return projected


def count_tokens(backbone: Backbone, prompt: str) -> int:
    """Tokens of a prompt, start and end included."""
    return len(backbone.tokenizer.encode(prompt)) + 2


def tokenize(backbone: Backbone, prompts: Sequence[str]) -> Tensor:
    """Token ids (n, T), cut after the longest prompt's end.

    Cutting is exact: attention is causal, so what follows a prompt's end never reaches it.

    Raises:
        PromptTooLongError: a prompt exceeds the context; open_clip would truncate it silently.
    """
    for prompt in prompts:
        if (length := count_tokens(backbone, prompt)) > backbone.context_length:
            raise PromptTooLongError(
                f"prompt of {length} tokens does not fit {backbone.context_length}: {prompt!r}"
            )
    ids: Tensor = backbone.tokenizer(list(prompts)).to(backbone.device)
    kept: Tensor = ids[:, : int(ids.argmax(dim=1).max()) + 1]  # (n, T)
    return kept


def embed_tokens(backbone: Backbone, ids: Tensor) -> Tensor:
    """Word embeddings without positions, (n, T, V)."""
    embedded: Tensor = get_text_tower(backbone.model).token_embedding(ids)
    return embedded


def run_text_tower(
    backbone: Backbone,
    embedded: Tensor,
    end: Tensor,
    before_block: Callable[[int, Tensor], Tensor] | None = None,
) -> Tensor:
    """Text features of embedded prompts, with a hook for learnable tokens; keeps gradients.

    Args:
        backbone: the frozen CLIP.
        embedded: (n, T, V) word embeddings without positions.
        end: (n,) position of each prompt's end token in the last block's sequence.
        before_block: `(block counted from 0, x) -> x`, called before each block; may lengthen
            the sequence.

    Returns:
        (n, D) text features, not normalised.
    """
    tower = get_text_tower(backbone.model)
    x = embedded + tower.positional_embedding[: embedded.shape[1]]  # (n, T, V)
    causal = _mask_future(x)
    for index, block in enumerate(tower.transformer.resblocks):
        if before_block is not None:
            x = before_block(index, x)
        if len(causal) != x.shape[1]:
            causal = _mask_future(x)
        x = block(x, attn_mask=causal)
    x = tower.ln_final(x)
    out: Tensor = x[torch.arange(len(x), device=x.device), end]  # (n, V)
    projection = tower.text_projection
    if isinstance(projection, nn.Linear):
        out = projection(out)
    elif projection is not None:
        out = out @ projection
    return out  # (n, D)


def _mask_future(x: Tensor) -> Tensor:
    """Additive attention mask (T, T): a token sees itself and what stands before it."""
    length = x.shape[1]
    return torch.full((length, length), float("-inf"), device=x.device).triu(1)


@torch.no_grad()
def encode_text(backbone: Backbone, prompts: Sequence[str], batch_size: int = 256) -> Tensor:
    """Text features of prompts, (n, D), not normalised, float32."""
    pieces = []
    for start in range(0, len(prompts), batch_size):
        ids = tokenize(backbone, prompts[start : start + batch_size])
        with _autocast(backbone):
            piece = run_text_tower(backbone, embed_tokens(backbone, ids), ids.argmax(dim=1))
        pieces.append(piece.float())
    return torch.cat(pieces)


def normalise(embeds: Tensor) -> Tensor:
    """Unit length along the last axis."""
    return F.normalize(embeds, dim=-1)


def _autocast(backbone: Backbone) -> torch.autocast:
    lowered = backbone.precision != torch.float32
    return torch.autocast(backbone.device.type, backbone.precision, enabled=lowered)
