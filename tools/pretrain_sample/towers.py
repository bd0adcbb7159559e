"""The sample CLIP while it is trained: open_clip's towers, read block by block.

Shapes: B images, P = 12 x 12 patches, W vision width, D embedding width, n captions, T tokens.
"""

from collections.abc import Sequence
from typing import Any

import open_clip
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from fuzzyclip.clip.weights import EMBEDDING, load_sample_config

DENSE_BLOCKS = (3, 4, 5, 6, 7)  # 0-based; their patch tokens learn where the defect is
CELLS_PER_PATCH = 9
GRID = 12  # patches per side
MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073]) * 255
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711]) * 255


def build_clip(vocabulary_size: int) -> Any:
    """The sample CLIP with its own initialisation and a vocabulary of `vocabulary_size` rows."""
    config = load_sample_config()
    text = {**config["text_cfg"], "vocab_size": vocabulary_size}
    return open_clip.CLIP(
        embed_dim=config["embed_dim"], vision_cfg=config["vision_cfg"], text_cfg=text
    )


class DenseHeads(nn.Module):
    """Linear read-outs of the defect from patch tokens; thrown away after pretraining."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.Linear(width, 1 + CELLS_PER_PATCH) for _ in DENSE_BLOCKS)

    def forward(self, tokens: Sequence[Tensor]) -> Tensor:
        """Logits (blocks, B, P, 10) of "the patch" and "its cells are defective"."""
        return torch.stack([head(x) for head, x in zip(self.heads, tokens, strict=True)])


def encode_images(visual: Any, pictures: Tensor, positions: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Image features and the patch tokens of `DENSE_BLOCKS`, also of windows of pictures.

    As open_clip's `forward_intermediates`, but a window keeps the position embeddings of its
    place in the whole picture.

    Args:
        visual: open_clip's vision tower.
        pictures: uint8 (B, H, W, 3), whole or windows.
        positions: (B, P) numbers of the patches in the whole picture's grid.

    Returns:
        Features (B, D) of unit length and, for each block, tokens (B, P, W).
    """
    inputs = ((pictures.float() - MEAN) / STD).permute(0, 3, 1, 2)  # (B, 3, H, W)
    places = visual.positional_embedding
    patches = visual.conv1(inputs).flatten(2).transpose(1, 2) + places[1:][positions]  # (B, P, W)
    start = (visual.class_embedding + places[0]).expand(len(pictures), 1, -1)  # (B, 1, W)
    x = visual.ln_pre(torch.cat([start.to(patches.dtype), patches], dim=1))  # (B, 1 + P, W)
    with sdpa_kernel(SDPBackend.MATH):  # faster than flash attention on a CPU at this size
        x, blocks = visual.transformer.forward_intermediates(x, indices=list(DENSE_BLOCKS))
    features = visual.ln_post(x)[:, 0] @ visual.proj  # (B, D)
    normalised = nn.functional.normalize(features.float(), dim=-1)
    return normalised, [tokens[:, 1:].float() for tokens in blocks]


def encode_captions(clip: Any, numbers: Tensor) -> Tensor:
    """Text features (n, D) of unit length.

    As open_clip's `encode_text`, for captions (n, T) that are cut after the last end of text.
    """
    length = numbers.shape[1]
    x = clip.token_embedding(numbers) + clip.positional_embedding[:length]  # (n, T, W)
    x = clip.transformer(x, attn_mask=clip.attn_mask[:length, :length])
    ends = x[torch.arange(len(numbers)), numbers.argmax(dim=1)]  # (n, W)
    features = clip.ln_final(ends) @ clip.text_projection  # (n, D)
    return nn.functional.normalize(features.float(), dim=-1)


def split_parameters(*modules: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Weight matrices of the transformer blocks, and all other parameters."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for module in modules:
        for name, parameter in module.named_parameters():
            hidden = "resblocks" in name and parameter.ndim == 2 and name != EMBEDDING
            (matrices if hidden else others).append(parameter)
    return matrices, others
