"""Token Merging: patch tokens that look alike go through the image tower as one.

After Bolya et al., "Token Merging: Your ViT But Faster" (ICLR 2023), written from its description:
between a block's attention and its MLP the tokens, taken alternately, are split in two sets; each
of the first finds the most similar of the second, by the cosine of keys averaged over the heads;
the most similar pairs are merged, as averages weighted by how many patches a token stands for; and
attention weighs a token by that number. Each block merges as many tokens as the others. Tokens
before the patches (class, registers) stay.

Where tokens are taken, every patch gets its group's token back, so that maps keep their grid.

Which pairs are merged hangs on last digits, so that images go through one by one: otherwise an
image's features would depend on what it is sent with. Another device or version may merge another
pair of two that are equally alike, which moves more than last digits.

Shapes: B images, N tokens, X of them before the patches, P patches, G groups, C width of a key,
W width of a token, L taken blocks.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from open_clip.timm_model import TimmModel
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from timm.layers.attention import Attention
from timm.models import vision_transformer as timm_vit
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Block:
    """A block as x + attend(norm(x)), then x + feed(x).

    Attributes:
        norm: of (B, N, W), before the attention.
        attend: attention of what was normed, (B, N, W), with what is added to its logits,
            (B, 1, 1, N), or None.
        feed: the MLP with its norm, (B, N, W) to (B, N, W).
        keys: of what was normed, the keys averaged over the heads, (B, N, C).
    """

    norm: Callable[[Tensor], Tensor]
    attend: Callable[[Tensor, Tensor | None], Tensor]
    feed: Callable[[Tensor], Tensor]
    keys: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Parts:
    """An image tower taken apart.

    Attributes:
        embed: pixels (B, 3, S, S) to tokens (B, N, W) with their positions.
        blocks: in order.
        pool: the last block's tokens (B, N, W) to image features (B, D).
        prefix: X, tokens before the patches.
    """

    embed: Callable[[Tensor], Tensor]
    blocks: Sequence[Block]
    pool: Callable[[Tensor], Tensor]
    prefix: int


def plan_merges(patches: int, depth: int, share: float) -> list[int]:
    """Tokens to merge away in each block, about equally many.

    A block can merge away no more than half of the tokens that come to it.

    Args:
        patches: P.
        depth: number of blocks.
        share: of the patches, that are merged away in the end.

    Raises:
        ValueError: so many blocks can not merge as much.
    """
    total = int(share * patches)
    plan: list[int] = []
    for block in range(1, depth + 1):
        due = total * block // depth - sum(plan)
        plan.append(min(due, (patches - sum(plan)) // 2))
    if sum(plan) < total:
        raise ValueError(
            f"merge {share:g}: {depth} blocks can merge {sum(plan)} of {patches} tokens away, not "
            f"{total}: lower it"
        )
    return plan


def encode_merged(
    visual: Any, pixels: Tensor, blocks: Sequence[int], share: float
) -> tuple[Tensor, Tensor]:
    """`fuzzyclip.clip.towers.ImageTower.encode` of the images of a batch together.

    Raises:
        ValueError: see `take_apart` and `plan_merges`.
    """
    parts = take_apart(visual)
    x, prefix = parts.embed(pixels), parts.prefix
    patches = x.shape[1] - prefix
    groups = torch.arange(patches, device=x.device).expand(len(x), -1)  # (B, P): each one's own
    sizes: Tensor | None = None  # (B, N) patches of each token; None while all are single
    taken = []
    plan = plan_merges(patches, len(parts.blocks), share)
    for number, (block, count) in enumerate(zip(parts.blocks, plan, strict=True), 1):
        normed = block.norm(x)
        bias = None if sizes is None else sizes.log()[:, None, None]
        x = x + block.attend(normed, bias)
        if count:
            if sizes is None:
                sizes = x.new_ones(x.shape[:2])
            places = match(block.keys(normed)[:, prefix:], count)
            x, sizes = merge(x, sizes, places, prefix, count)
            groups = places.gather(1, groups)
        x = x + block.feed(x)
        if number in blocks:
            taken.append(spread(x[:, prefix:], groups))
    whole = torch.cat((x[:, :prefix], spread(x[:, prefix:], groups)), dim=1)
    return parts.pool(whole), torch.stack(taken, dim=1)


def match(keys: Tensor, count: int) -> Tensor:
    """Place of each token (B, N) among those that are left when `count` are merged away.

    Tokens at even places go into the one at an odd place whose key has the largest cosine with
    theirs; the pairs of the largest cosines are merged. Those left keep their order.

    Args:
        keys: (B, N, C).
        count: at most N // 2.
    """
    unit = F.normalize(keys.float(), dim=-1)
    likeness, partner = (unit[:, ::2] @ unit[:, 1::2].mT).max(dim=2)  # (B, N / 2) each
    first = likeness.topk(count, dim=1).indices
    gone, into = 2 * first, 2 * partner.gather(1, first) + 1  # (B, count)
    own = torch.arange(keys.shape[1], device=keys.device).expand(len(keys), -1)
    stays = torch.ones_like(own).scatter(1, gone, torch.zeros_like(gone))
    rank = stays.cumsum(dim=1) - 1  # of those that stay
    return rank.gather(1, own.scatter(1, gone, into))


def merge(
    x: Tensor, sizes: Tensor, places: Tensor, prefix: int, count: int
) -> tuple[Tensor, Tensor]:
    """Tokens (B, N - count, W) and their sizes (B, N - count): averages weighted by sizes.

    Args:
        x: (B, N, W), the first `prefix` of which stay.
        sizes: (B, N).
        places: of `match`, (B, N - prefix).
        prefix: X.
        count: tokens that are merged away.
    """
    ahead = torch.arange(prefix, device=x.device).expand(len(x), -1)
    places = torch.cat((ahead, places + prefix), dim=1)  # (B, N)
    left = x.shape[1] - count
    together = x.new_zeros(len(x), left).scatter_add(1, places, sizes)
    wide = places[..., None].expand(-1, -1, x.shape[2])
    sums = x.new_zeros(len(x), left, x.shape[2]).scatter_add(1, wide, x * sizes[..., None])
    return sums / together[..., None], together


def spread(tokens: Tensor, groups: Tensor) -> Tensor:
    """Each patch's group's token, (B, P, W), from tokens (B, G, W) and groups (B, P)."""
    return tokens.gather(1, groups[..., None].expand(-1, -1, tokens.shape[2]))


def take_apart(visual: Any) -> Parts:
    """The parts of an image tower whose tokens can be merged.

    Raises:
        ValueError: it is neither open_clip's nor timm's plain ViT; says so.
    """
    if type(visual) is VisionTransformer and all(map(_is_plain, visual.transformer.resblocks)):
        blocks = [_take_open_clip(block) for block in visual.transformer.resblocks]
        return Parts(visual._embeds, blocks, lambda x: _pool_open_clip(visual, x), 1)
    if isinstance(visual, TimmModel):
        trunk: Any = visual.trunk
        if type(trunk) is timm_vit.VisionTransformer and all(map(_is_plain_timm, trunk.blocks)):
            blocks = [_take_timm(block) for block in trunk.blocks]
            return Parts(
                lambda pixels: _embed_timm(trunk, pixels),
                blocks,
                lambda x: visual.head(trunk.forward_head(trunk.norm(x))),
                trunk.num_prefix_tokens,
            )
    named = type(getattr(visual, "trunk", visual)).__name__
    raise ValueError(
        f"merge: tokens are merged in open_clip's and timm's plain ViTs, not in this image tower, "
        f"{named}: leave it at 0"
    )


def _is_plain(block: nn.Module) -> bool:
    attention = getattr(block, "attn", None)
    return (
        type(block) is ResidualAttentionBlock
        and isinstance(attention, nn.MultiheadAttention)
        and attention.batch_first
    )


def _is_plain_timm(block: nn.Module) -> bool:
    attention: Any = getattr(block, "attn", None)
    return (
        type(block) is timm_vit.Block
        and type(attention) is Attention
        and isinstance(attention.k_norm, nn.Identity)
    )


def _take_open_clip(block: Any) -> Block:
    def attend(normed: Tensor, bias: Tensor | None) -> Tensor:
        attended: Tensor = block.attn(normed, normed, normed, need_weights=False, attn_mask=bias)[0]
        scaled: Tensor = block.ls_1(attended)
        return scaled

    width, heads = block.attn.embed_dim, block.attn.num_heads
    weight, bias = block.attn.in_proj_weight, block.attn.in_proj_bias
    return Block(
        norm=block.ln_1,
        attend=attend,
        feed=lambda x: block.ls_2(block.mlp(block.ln_2(x))),
        keys=lambda normed: _average_keys(normed, weight, bias, width, heads),
    )


def _pool_open_clip(visual: Any, x: Tensor) -> Tensor:
    pooled: Tensor = visual._pool(x)[0]
    return pooled if visual.proj is None else pooled @ visual.proj


def _take_timm(block: Any) -> Block:
    qkv, width, heads = block.attn.qkv, block.attn.attn_dim, block.attn.num_heads
    return Block(
        norm=block.norm1,
        attend=lambda normed, bias: block.ls1(block.attn(normed, attn_mask=bias)),
        feed=lambda x: block.ls2(block.mlp(block.norm2(x))),
        keys=lambda normed: _average_keys(normed, qkv.weight, qkv.bias, width, heads),
    )


def _embed_timm(trunk: Any, pixels: Tensor) -> Tensor:
    embedded: Tensor = trunk.norm_pre(trunk.patch_drop(trunk._pos_embed(trunk.patch_embed(pixels))))
    return embedded


def _average_keys(
    normed: Tensor, weight: Tensor, bias: Tensor | None, width: int, heads: int
) -> Tensor:
    """Keys averaged over the heads, (B, N, C): being linear, by the average of the weights.

    Args:
        normed: (B, N, W).
        weight: (3 * width, W) of queries, keys and values, one below the other; bias likewise.
        bias: (3 * width,) or None.
        width: of all heads together.
        heads: their number.
    """
    own = weight[width : 2 * width].view(heads, -1, weight.shape[1]).mean(dim=0)  # (C, W)
    shift = None if bias is None else bias[width : 2 * width].view(heads, -1).mean(dim=0)
    return F.linear(normed, own, shift)
