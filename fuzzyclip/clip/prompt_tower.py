"""Two learned prompts through the frozen text tower, without what no learned token can change.

The same features and gradients as `clip.encoding.run_text_tower` with deep tokens put in place
before each block, for less work. Attention is causal and a feature is read at the prompt's end, so

- the start token sees only itself: its states are computed once for a whole training;
- a position that the next block's deep tokens overwrite is seen by others (key and value), but
  nothing reads its output: no query and no MLP;
- the last block needs an output at the prompts' ends alone.

Shapes: n prompts, T tokens, V text width, D embedding width, N blocks, L deep tokens, M depth.
"""

from typing import Any

import torch
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor, nn

from fuzzyclip.clip.backbone import Backbone
from fuzzyclip.clip.encoding import mask_future, project_ends


def can_skip(backbone: Backbone) -> bool:
    """True where the text tower is built as this module takes it apart; else run it plainly."""
    tower = backbone.text_tower
    blocks = tower.module.transformer.resblocks
    return tower.causal and tower.reads_end and all(map(_is_standard, blocks))


def _is_standard(block: nn.Module) -> bool:
    if type(block) is not ResidualAttentionBlock or hasattr(block, "ln_1_kv"):
        return False
    return isinstance(block.attn, nn.MultiheadAttention) and block.attn.batch_first


@torch.no_grad()
def run_start(backbone: Backbone, start: Tensor) -> Tensor:
    """Input of each block at the start token's position, (N, V), from its embedding (V,)."""
    tower = backbone.text_tower.module
    x = (start + tower.positional_embedding[0]).view(1, 1, -1)
    states = []
    for block in tower.transformer.resblocks:
        states.append(x[0, 0])
        x = block(x)
    return torch.stack(states)


def run_prompts(
    backbone: Backbone,
    embedded: Tensor,
    end: Tensor,
    start: Tensor,
    deep: Tensor,
    inserted: bool,
) -> Tensor:
    """Text features of prompts with deep tokens; keeps gradients.

    Args:
        backbone: the frozen CLIP; see `can_skip`.
        embedded: (n, T, V) word embeddings without positions, the start token first.
        end: (n,) position of each end token in the last block's sequence.
        start: (N, V) from `run_start`.
        deep: (M - 1, n, L, V) tokens of the blocks after the first; L may be 0 and M 1.
        inserted: whether the first of them lengthen the sequence; all others stand on the ones
            before them. If false, the first overwrite words.

    Returns:
        (n, D) text features, not normalised.
    """
    tower = backbone.text_tower.module
    blocks, length = tower.transformer.resblocks, deep.shape[2]
    rest = embedded[:, 1:] + tower.positional_embedding[1 : embedded.shape[1]]  # (n, T - 1, V)
    mask = mask_future(embedded.shape[1] + length, embedded.device)  # room for inserted tokens
    for number, block in enumerate(blocks):
        parts = [start[number].expand(len(rest), 1, -1)]
        if 1 <= number <= len(deep):
            parts.append(deep[number - 1])
        x = torch.cat([*parts, rest], dim=1)  # (n, T, V)
        if number == len(blocks) - 1:
            break
        overwrites = number < len(deep) and not (inserted and number == 0)
        first, count = 1 + length if overwrites else 1, x.shape[1]
        rest = _run_block(block, x, x[:, first:], mask[first:count, :count])
    return project_ends(backbone, _run_ends(blocks[-1], x, end, mask))


def _run_ends(block: Any, x: Tensor, end: Tensor, mask: Tensor) -> Tensor:
    """A block's output at the prompts' ends, (n, V), given all of x (n, T, V)."""
    seen = mask[end, : x.shape[1]]  # (n, T)
    seen = seen.repeat_interleave(block.attn.num_heads, dim=0)[:, None]  # (n * heads, 1, T)
    chosen = x[torch.arange(len(x), device=x.device), end][:, None]  # (n, 1, V)
    return _run_block(block, x, chosen, seen)[:, 0]


def _run_block(block: Any, x: Tensor, chosen: Tensor, mask: Tensor) -> Tensor:
    """ResidualAttentionBlock's own forward: all of x (n, T, V) is seen, output is that of `chosen`.

    These are (n, Q, V); the additive mask is (Q, T) or (n * heads, Q, T).
    """
    seen = block.ln_1(x)
    attended = block.attention(block.ln_1(chosen), seen, seen, attn_mask=mask)
    chosen = chosen + block.ls_1(attended)
    output: Tensor = chosen + block.ls_2(block.mlp(block.ln_2(chosen)))
    return output
