"""The sample CLIP while it is trained: open_clip's towers, read block by block.

Shapes: B images, P = 12 x 12 patches, W vision width, D embedding width, n captions, T tokens.
"""

from collections.abc import Sequence

import open_clip
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from fuzzyclip.sample.clip import EMBEDDING, load_sample_config

DENSE_BLOCKS = (3, 5, 7)  # 0-based; their patch tokens learn where the defect is
CELLS_PER_PATCH = 9
MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073]) * 255
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711]) * 255


def build_clip(vocabulary_size: int) -> nn.Module:
    """The sample CLIP with its own initialisation and a vocabulary of `vocabulary_size` rows."""
    config = load_sample_config()
    text = {**config["text_cfg"], "vocab_size": vocabulary_size}
    clip: nn.Module = open_clip.CLIP(
        embed_dim=config["embed_dim"], vision_cfg=config["vision_cfg"], text_cfg=text
    )
    return clip


class DenseHeads(nn.Module):
    """Linear read-outs of the defect from patch tokens; thrown away after pretraining."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.Linear(width, 1 + CELLS_PER_PATCH) for _ in DENSE_BLOCKS)

    def forward(self, tokens: Sequence[Tensor]) -> Tensor:
        """Logits (blocks, B, P, 10) of "the patch" and "its cells are defective"."""
        return torch.stack([head(x) for head, x in zip(self.heads, tokens, strict=True)])


def encode_images(visual: nn.Module, pictures: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Image features and the patch tokens of `DENSE_BLOCKS`.

    Args:
        visual: open_clip's vision tower.
        pictures: uint8 (B, H, W, 3).

    Returns:
        Features (B, D) of unit length and, for each block, tokens (B, P, W).
    """
    inputs = ((pictures.float() - MEAN) / STD).permute(0, 3, 1, 2)  # (B, 3, H, W)
    with sdpa_kernel(SDPBackend.MATH):  # twice as fast as flash attention on a CPU at this size
        out = visual.forward_intermediates(  # type: ignore[operator]
            inputs, indices=list(DENSE_BLOCKS), output_fmt="NLC"
        )
    features = nn.functional.normalize(out["image_features"].float(), dim=-1)
    return features, [tokens.float() for tokens in out["image_intermediates"]]


def encode_captions(clip: nn.Module, numbers: Tensor) -> Tensor:
    """Text features (n, D) of unit length.

    As open_clip's `encode_text`, for captions (n, T) that are cut after the last end of text.
    """
    length = numbers.shape[1]
    x = clip.token_embedding(numbers) + clip.positional_embedding[:length]  # type: ignore[operator,index]
    x = clip.transformer(x, attn_mask=clip.attn_mask[:length, :length])  # type: ignore[operator,index]
    ends = x[torch.arange(len(numbers)), numbers.argmax(dim=1)]  # (n, W)
    features = clip.ln_final(ends) @ clip.text_projection  # type: ignore[operator]
    return nn.functional.normalize(features.float(), dim=-1)


def split_parameters(*modules: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Weight matrices of the transformer blocks, and all other parameters."""
    matrices, others = [], []
    for module in modules:
        for name, parameter in module.named_parameters():
            hidden = "resblocks" in name and parameter.ndim == 2 and name != EMBEDDING
            (matrices if hidden else others).append(parameter)
    return matrices, others
