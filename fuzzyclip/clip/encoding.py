"""Running the frozen towers: images to class features and patch tokens, prompts to text features.

Shapes: B images, S image size, L taken blocks, P patches, W vision width, D embedding width,
n prompts, T tokens, V text width.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import open_clip
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from fuzzyclip.clip.backbone import Backbone
from fuzzyclip.clip.prompts import PromptTooLongError
from fuzzyclip.images.decode import load_image
from fuzzyclip.utils.prefetch import prefetch, send

#: Prompts in a pass of the text tower, and the step in which passes grow, in tokens. Small steps
#: pad little but leave more passes partly filled; these two cost no more than padding all prompts
#: of a name to the longest.
PASS_ROWS = 16
PASS_STEP = 4


def preprocess(image: Image.Image, backbone: Backbone) -> Tensor:
    """One RGB image as model input, (3, S, S): squashed by PIL's bicubic filter, normalised."""
    size = (backbone.image_size, backbone.image_size)
    resized = np.array(image.resize(size, Image.Resampling.BICUBIC))  # (S, S, 3)
    pixels = torch.from_numpy(resized).permute(2, 0, 1)
    mean = torch.tensor(backbone.mean).view(3, 1, 1)
    std = torch.tensor(backbone.std).view(3, 1, 1)
    return (pixels.float() / 255 - mean) / std  # (3, S, S)


def load_pixels(paths: Sequence[Path], backbone: Backbone, workers: int = 1) -> Tensor:
    """Images as one batch, (B, 3, S, S)."""
    return next(iterate_pixels([paths], backbone, workers=workers))


def iterate_pixels(
    batches: Sequence[Sequence[Path]],
    backbone: Backbone,
    *,
    digests: Sequence[Sequence[str]] | None = None,
    workers: int = 1,
) -> Iterator[Tensor]:
    """Batches (B, 3, S, S) of files; the images of the next one are decoded while one is used.

    Args:
        batches: files of each.
        backbone: the frozen CLIP.
        digests: SHA-256 that each file must have; None does not look.
        workers: threads. Decoding and resizing release the interpreter's lock.

    Raises:
        OSError: a file is missing, no image, or another one than `digests` says.
    """
    files = [path for batch in batches for path in batch]
    expected = [digest for batch in digests for digest in batch] if digests else [None] * len(files)

    def load(item: tuple[Path, str | None]) -> Tensor:
        return preprocess(load_image(*item), backbone)

    largest = max(map(len, batches), default=0)
    loaded = prefetch(load, zip(files, expected, strict=True), ahead=largest, workers=workers)
    for batch in batches:
        yield torch.stack(list(islice(loaded, len(batch))))


@torch.no_grad()
def encode_images(backbone: Backbone, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Class features and patch tokens of pixels (B, 3, S, S), in one pass of the image tower.

    Returns:
        image_embed (B, D) as the model's own `encode_image` gives it, not normalised; patch_tokens
        (B, L, P, W) after each taken block, before the final norm and projection, row by row of
        the grid, without class or register tokens. Both float32, on the backbone's device.
    """
    with _autocast(backbone):
        image_embed, tokens = backbone.run_image_tower(
            send(pixels, backbone.device), backbone.blocks
        )
    return image_embed.float(), tokens.float()


@torch.no_grad()
def project_tokens(backbone: Backbone, patch_tokens: Tensor) -> Tensor:
    """Patch tokens in CLIP's joint space by the tower's own last layers, (..., P, D).

    Untrained methods compare these with text; EFA replaces them by trained layers. See
    `fuzzyclip.clip.towers.ImageTower` for towers that pool by attention.
    """
    return backbone.image_tower.project(patch_tokens)


def count_tokens(backbone: Backbone, prompt: str) -> int:
    """Tokens of a prompt, start and end included; a NoTextError without a text tower."""
    backbone.require_text()
    tokenizer = backbone.tokenizer
    if isinstance(tokenizer, open_clip.SimpleTokenizer):
        return len(tokenizer.encode(prompt)) + 2
    words = tokenizer.clean_fn(prompt)
    if tokenizer.tokenizer_mode == "clips":  # open_clip adds start, end and class tokens itself
        return len(tokenizer.tokenizer(words, add_special_tokens=False)["input_ids"]) + 3
    return len(tokenizer.tokenizer(words)["input_ids"])


def tokenize(backbone: Backbone, prompts: Sequence[str]) -> Tensor:
    """Token ids (n, T); cut after the longest prompt's end where that is exact.

    It is where attention is causal and the feature is read at the end: what follows a prompt's
    end then never reaches it. Other towers see the padding, as they did in training.

    Raises:
        PromptTooLongError: a prompt exceeds the context; open_clip would truncate it silently.
        ValueError: the tokenizer is of another model.
    """
    ids = _tokenize_whole(backbone, prompts)
    return ids[:, : int(_measure_prompts(backbone, ids).max())]  # (n, T)


def _tokenize_whole(backbone: Backbone, prompts: Sequence[str]) -> Tensor:
    """Token ids padded to the whole context, (n, context); raises as `tokenize` does."""
    for prompt in prompts:
        if (length := count_tokens(backbone, prompt)) > backbone.context_length:
            raise PromptTooLongError(
                f"prompt of {length} tokens does not fit {backbone.context_length}: {prompt!r}"
            )
    ids: Tensor = backbone.tokenizer(list(prompts)).to(backbone.device)
    words = backbone.text_tower.module.token_embedding.num_embeddings
    if (largest := int(ids.max())) >= words:
        raise ValueError(f"the tokenizer writes token {largest}, the text tower knows {words}")
    return ids


def _measure_prompts(backbone: Backbone, ids: Tensor) -> Tensor:
    """Tokens of each prompt that can reach its feature, (n,), from ids (n, context)."""
    tower = backbone.text_tower
    ends = tower.find_ends(ids)
    if tower.causal and tower.reads_end:
        return ends + 1
    return torch.full_like(ends, ids.shape[1])


def embed_tokens(backbone: Backbone, ids: Tensor) -> Tensor:
    """Word embeddings without positions, (n, T, V), to be learned from.

    Raises:
        ValueError: the text feature is not read at the prompt's end, so that padding, which is no
            word, would be learned and overwritten.
    """
    tower = backbone.text_tower
    if not tower.reads_end:
        raise ValueError(
            f"prompts can not be learned with this model: its text tower reads the {tower.pool} "
            "token of the padded prompt, not the prompt's end. Rows without RPL work"
        )
    embedded: Tensor = tower.module.token_embedding(ids)
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
        end: (n,) position in the last block's sequence whose output becomes the feature.
        before_block: `(block counted from 0, x) -> x`, called before each block; may lengthen
            the sequence.

    Returns:
        (n, D) text features, not normalised.
    """
    causal, tower = backbone.text_tower.causal, backbone.text_tower.module
    x = embedded + tower.positional_embedding[: embedded.shape[1]]  # (n, T, V)
    mask = mask_future(x.shape[1], x.device) if causal else None
    for index, block in enumerate(tower.transformer.resblocks):
        if before_block is not None:
            x = before_block(index, x)
        if mask is not None and len(mask) != x.shape[1]:
            mask = mask_future(x.shape[1], x.device)
        x = block(x, attn_mask=mask)
    return project_ends(backbone, x[torch.arange(len(x), device=x.device), end])


def project_ends(backbone: Backbone, out: Tensor) -> Tensor:
    """The last block's output at the prompts' ends, (n, V), as text features, (n, D)."""
    tower = backbone.text_tower.module
    out = tower.ln_final(out)
    projection = tower.text_projection
    if isinstance(projection, nn.Linear):
        out = projection(out)
    elif projection is not None:
        out = out @ projection
    return out  # (n, D)


def mask_future(length: int, device: torch.device) -> Tensor:
    """Additive attention mask (T, T): a token sees itself and what stands before it."""
    return torch.full((length, length), float("-inf"), device=device).triu(1)


@torch.no_grad()
def encode_text(backbone: Backbone, prompts: Sequence[str]) -> Tensor:
    """Text features of prompts, (n, D), not normalised, float32, on the backbone's device.

    A prompt's feature is the same to the last bit whatever it is encoded with, so that a cache of
    features changes no result. Matrix products round differently in another shape; here the shape
    of a pass follows from the prompt's own length: always `PASS_ROWS` prompts, padded to the next
    multiple of `PASS_STEP` tokens. Holes in a pass are filled with its first prompt.

    Raises:
        PromptTooLongError: a prompt exceeds the context.
        ValueError: the tokenizer is of another model.
    """
    if not prompts:
        return torch.empty(0, backbone.embed_dim, device=backbone.device)
    ids = _tokenize_whole(backbone, prompts)
    lengths = _measure_prompts(backbone, ids).tolist()
    order, pieces = [], []
    for width, rows in _plan_passes(lengths, ids.shape[1]):
        filled = rows + rows[:1] * (PASS_ROWS - len(rows))
        pieces.append(_encode_ids(backbone, ids[filled, :width])[: len(rows)])
        order += rows
    places = torch.tensor(order, device=backbone.device).argsort()
    return torch.cat(pieces)[places]  # (n, D)


def _plan_passes(lengths: Sequence[int], context: int) -> Iterator[tuple[int, list[int]]]:
    """Width in tokens and row numbers of each pass; every row stands in one."""
    groups: dict[int, list[int]] = {}
    for row, length in enumerate(lengths):
        width = min(-(-length // PASS_STEP) * PASS_STEP, context)
        groups.setdefault(width, []).append(row)
    for width, rows in groups.items():
        for start in range(0, len(rows), PASS_ROWS):
            yield width, rows[start : start + PASS_ROWS]


def _encode_ids(backbone: Backbone, ids: Tensor) -> Tensor:
    """Text features (n, D), float32, of token ids (n, T), in one pass."""
    with _autocast(backbone):
        embedded = backbone.text_tower.module.token_embedding(ids)
        return run_text_tower(backbone, embedded, backbone.text_tower.find_ends(ids)).float()


def normalise(embeds: Tensor) -> Tensor:
    """Unit length along the last axis."""
    return F.normalize(embeds, dim=-1)


def _autocast(backbone: Backbone) -> torch.autocast:
    lowered = backbone.precision != torch.float32
    return torch.autocast(backbone.device.type, backbone.precision, enabled=lowered)
