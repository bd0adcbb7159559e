"""V-V paths, streams of tokens that attend value to value, and feature surgery upon them.

CLIP Surgery lets patches of one meaning attend to one another by comparing values with values. The
increment of a block, out_proj(softmax(v v^T / sqrt(width of a head)) v), is computed from ln_1 of
the original path, which stays as it was trained. An increment therefore depends on no stream, and
every stream is a sum of increments: any number of them costs one more attention a block. Streams
pass through no feed-forward network.

The kind `vv` (`make_vv_kind`) keeps of an image two class features side by side, (B, 2 * D): CLIP's
own, and the same without ln_post, which AnomalyCLIP's code leaves out in front of a projection that
was trained behind it; `read_class` takes one. Beside them are patch tokens of V-V streams in the
joint space, (B, L, P, D), that is after ln_post and projection, not normalised, row by row of the
grid, without the class token. Level 0 (`SURGERY_LEVEL`) is CLIP Surgery's stream after the last
block; levels 1 to L - 1 (`DPAM_LEVELS`) are AnomalyCLIP's stream after each tap, in the tower's
order. Both methods use nothing but projected tokens of these streams, so they are projected once,
and are narrower. CLIP-AD's kind is in `clip_ad`.

Feature surgery, which CLIP Surgery and CLIP-AD share, takes what two texts have in common from each
token's similarity to them.

Shapes: B images, S image size, P patches, N = 1 + P tokens, W vision width, D embedding width,
H heads, L levels.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from fuzzyclip.clip.backbone import Backbone
from fuzzyclip.clip.encoding import normalise, project_tokens
from fuzzyclip.features.kinds import FeatureKind
from fuzzyclip.utils.prefetch import send

#: Levels of the kind `vv`.
SURGERY_LEVEL = 0
DPAM_LEVELS = slice(1, None)
#: Blocks in which CLIP Surgery attends V-V, in towers of 12 and of 24.
SURGERY_BLOCKS = 6
#: AnomalyCLIP's settings are counted in the 24 blocks of ViT-L: V-V in the last 19 of them.
DPAM_DEPTH, DPAM_BLOCKS = 24, 19


@dataclass(frozen=True)
class Stream:
    """One V-V stream of a tower; blocks are counted from 1.

    Attributes:
        start: the first block whose increment it takes. It starts as the original path before that
            block, unless the block is among `restarts`.
        restarts: blocks whose increment replaces what the stream was.
        taps: blocks after which its tokens are taken, ascending.
    """

    start: int
    taps: tuple[int, ...]
    restarts: tuple[int, ...] = ()


def plan_surgery(depth: int) -> Stream:
    """CLIP Surgery's stream: the last 6 blocks, of fewer than 12 half; tapped after the last."""
    count = max(1, min(SURGERY_BLOCKS, depth // 2))
    return Stream(start=depth - count + 1, taps=(depth,))


def plan_dpam(depth: int, taps: Sequence[int] = (DPAM_DEPTH,)) -> Stream:
    """AnomalyCLIP's stream (DPAM): the last 19 of 24 blocks, with taps that are counted in 24.

    They are stretched over the tower's `depth`, every count rounded up; taps that then coincide are
    taken once.

    Raises:
        ValueError: a tap is before the stream's start, block 6 of 24, or past the last block.
    """
    first = DPAM_DEPTH - DPAM_BLOCKS + 1
    if not taps or not all(isinstance(tap, int) and first <= tap <= DPAM_DEPTH for tap in taps):
        raise ValueError(
            f"taps {list(taps)}: AnomalyCLIP's V-V stream has tokens after blocks {first} to "
            f"{DPAM_DEPTH}, counted in ViT-L's {DPAM_DEPTH}"
        )
    scaled = sorted({-(-tap * depth // DPAM_DEPTH) for tap in taps})
    count = -(-DPAM_BLOCKS * depth // DPAM_DEPTH)
    return Stream(start=depth - count + 1, taps=tuple(scaled))


def make_vv_kind(taps: tuple[int, ...] = (DPAM_DEPTH,)) -> FeatureKind:
    """The kind that CLIP Surgery and AnomalyCLIP share, of the module's layout.

    Other taps, of AnomalyCLIP's stream (`plan_dpam`), make another kind.

    Raises:
        ValueError: a tap is none of that stream's blocks.
    """
    plan_dpam(DPAM_DEPTH, taps)
    own = [] if taps == (DPAM_DEPTH,) else [str(tap) for tap in taps]
    return FeatureKind("-".join(["vv", *own]), _EncodeVV(taps), version=2, classes=2)


def read_class(image_embed: Tensor, plain: bool = False) -> Tensor:
    """One of two class features side by side, (B, 2 * D) to unit rows (B, D).

    `plain` is the one without ln_post.
    """
    return normalise(image_embed.chunk(2, dim=1)[int(plain)])


@dataclass(frozen=True)
class _EncodeVV:
    """`Encode` of the kind `vv`: as a value, so that kinds of the same settings are equal."""

    taps: tuple[int, ...]

    def __call__(self, backbone: Backbone, pixels: Tensor) -> tuple[Tensor, Tensor]:
        depth = backbone.image_tower.depth
        streams = (plan_surgery(depth), plan_dpam(depth, self.taps))
        paths = run_paths(backbone, pixels, streams)
        levels = [project_tokens(backbone, level[:, 1:]) for level in paths.streams]
        plain = paths.last @ backbone.image_tower.visual.proj
        image_embed = torch.cat((project_tokens(backbone, paths.last), plain), dim=1)
        return image_embed, torch.stack(levels, dim=1)  # (B, 2 * D), (B, L, P, D)


@dataclass(frozen=True)
class Paths:
    """Results of one pass; float32, before ln_post and projection.

    Attributes:
        last: (B, W), the original path's class token after the last block.
        streams: (B, N, W) for each tap of each stream, stream by stream; row 0 is the original
            path's class token.
        originals: (B, N, W), the original path after the same blocks.
    """

    last: Tensor
    streams: list[Tensor]
    originals: list[Tensor]


@torch.no_grad()
def run_paths(
    backbone: Backbone, pixels: Tensor, streams: Sequence[Stream], late_taps: bool = False
) -> Paths:
    """One pass through the frozen image tower with its original path and V-V streams.

    Args:
        backbone: the frozen CLIP, whose image tower `check_vv_tower` accepts.
        pixels: (B, 3, S, S), from `preprocess`.
        streams: planned for this tower's depth.
        late_taps: take the original path at a tap with the next block's attention added, as
            CLIP-AD's code does (but after the last block): it adds in place to tokens it has
            already collected. A fault, kept to compare with its numbers.

    Raises:
        ValueError: V-V streams are not defined in this tower.
    """
    check_vv_tower(backbone)
    depth = backbone.image_tower.depth
    followers = [_Follower(stream) for stream in streams]
    taps = [tap for stream in streams for tap in stream.taps]
    originals: dict[int, Tensor] = {}
    lowered = backbone.precision != torch.float32
    with torch.autocast(backbone.device.type, backbone.precision, enabled=lowered):
        for step in _walk(backbone, pixels, min(stream.start for stream in streams)):
            for follower in followers:
                follower.see(step)
            if late_taps and step.block - 1 in taps:
                originals[step.block - 1] = step.middle
            if step.block in taps and not (late_taps and step.block < depth):
                originals[step.block] = step.after
    tokens = [taken for follower in followers for taken in follower.taken]
    return Paths(
        last=step.after[:, 0].float(),
        streams=[
            torch.cat((originals[tap][:, :1], taken[:, 1:]), dim=1).float()
            for tap, taken in zip(taps, tokens, strict=True)
        ],
        originals=[originals[tap].float() for tap in taps],
    )


def check_vv_tower(backbone: Backbone) -> None:
    """Refuse all but open_clip's own ViT with plain blocks that is read at a class token."""
    backbone.require_plain("V-V attention")
    visual = backbone.image_tower.visual
    plain = (
        isinstance(visual, VisionTransformer)
        and visual.attn_pool is None
        and visual.pool_type == "tok"
        and visual.proj is not None
        and all(_is_plain(block) for block in visual.transformer.resblocks)
    )
    if not plain:
        raise ValueError(
            "V-V attention is defined for open_clip's own ViT with a class token and plain blocks "
            f"(ViT-B-16-plus-240, ViT-L-14-336), not for this image tower, {type(visual).__name__}."
            " Choose such a model, or leave out CLIP Surgery, CLIP-AD (SDP) and AnomalyCLIP"
        )


def _is_plain(block: nn.Module) -> bool:
    """True for x + attn(ln_1(x)), then x + mlp(ln_2(x)), with one matrix for q, k and v."""
    if type(block) is not ResidualAttentionBlock or hasattr(block, "ln_1_kv"):
        return False
    attention = block.attn
    return isinstance(attention, nn.MultiheadAttention) and attention.in_proj_weight is not None


@dataclass(frozen=True)
class _Step:
    """One block of the original path, each (B, N, W): before it, V-V increment, after attention
    and after the whole block; the increment is None before the first block that needs it."""

    block: int
    before: Tensor
    increment: Tensor | None
    middle: Tensor
    after: Tensor


def _walk(backbone: Backbone, pixels: Tensor, first: int) -> Iterator[_Step]:
    """The tower's blocks, with V-V increments from block `first` on."""
    visual = backbone.image_tower.visual
    after = visual._embeds(send(pixels, backbone.device))  # (B, N, W)
    for number, block in enumerate(visual.transformer.resblocks, 1):
        before = after
        attended, increment = _attend(block.attn, block.ln_1(before), number >= first)
        middle = before + block.ls_1(attended)
        after = middle + block.ls_2(block.mlp(block.ln_2(middle)))
        scaled = None if increment is None else block.ls_1(increment).to(before.dtype)
        yield _Step(number, before, scaled, middle, after)


def _attend(attn: Any, x: Tensor, with_vv: bool) -> tuple[Tensor, Tensor | None]:
    """Attention of q with k, and of v with v where that is asked for, (B, N, W) each.

    Fused kernels hold neither table of N x N weights.
    """
    q, k, v = (
        part.view(*x.shape[:2], attn.num_heads, -1).transpose(1, 2)
        for part in F.linear(x, attn.in_proj_weight, attn.in_proj_bias).chunk(3, dim=-1)
    )  # (B, H, N, W / H)

    def mix(query: Tensor, key: Tensor) -> Tensor:
        mixed = F.scaled_dot_product_attention(query, key, v)
        out: Tensor = attn.out_proj(mixed.transpose(1, 2).flatten(2))
        return out

    return mix(q, k), mix(v, v) if with_vv else None


class _Follower:
    """A stream's running sum, and its tokens after each tap, (B, N, W)."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.taken: list[Tensor] = []
        self._state: Tensor | None = None

    def see(self, step: _Step) -> None:
        """Take part in a block. Sums are new tensors: what was taken does not change any more."""
        if step.increment is None or step.block < self.stream.start:
            return
        if step.block in self.stream.restarts:
            self._state = step.increment
        else:
            self._state = (step.before if self._state is None else self._state) + step.increment
        if step.block in self.stream.taps:
            self.taken.append(self._state)


def compute_surgery(
    tokens: Tensor, class_embed: Tensor, text_embed: Tensor, factor: float
) -> Tensor:
    """Feature surgery of two texts, the anomalous one's similarity to each token, (B, P).

    The element-wise products of a token with each text, weighted by w, lose their mean over the
    texts and are summed. Of two texts this is half the difference of the weighted cosines. The
    weights, softmax(factor * class cosines) divided by its mean, restrain the text that the image
    as a whole resembles.

    Args:
        tokens: (B, P, D), any length.
        class_embed: (B, D), unit rows.
        text_embed: (D, 2), unit columns: normal, anomalous.
        factor: on the class feature's cosines.
    """
    weights = 2 * (factor * class_embed @ text_embed).softmax(dim=-1)  # (B, 2), mean 1
    weighted = normalise(tokens) @ text_embed * weights[:, None]  # (B, P, 2)
    return (weighted[..., 1] - weighted[..., 0]) / 2


def upsample_patches(patches: Tensor, grid: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Values of patches (B, P) as pixels (B, S, S), bilinear between the patches' centres.

    Corners are not aligned, as in the published code of CLIP Surgery and CLIP-AD; EFA's maps align
    them (`fuzzyclip.method.efa.upsample`).
    """
    planes = patches.unflatten(1, grid)[:, None]  # type: ignore[no-untyped-call]
    return F.interpolate(planes, size=size, mode="bilinear", align_corners=False)[:, 0]
