"""Attention as PyTorch's fused kernels compute it, in place of `nn.MultiheadAttention`.

PyTorch's own module builds the whole table of N x N weights on the CPU, and where it does not, it
multiplies a batch token by token. Fused kernels never hold the table, on any device.

Shapes: B sequences, Q queries, N keys, V width, H heads.
"""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F


class FusedAttention(nn.MultiheadAttention):
    """`nn.MultiheadAttention` for batches first, without dropout, weights or other extras."""

    @classmethod
    def adopt(cls, attention: nn.MultiheadAttention) -> "FusedAttention":
        """The same attention with the very same parameters."""
        fused = cls(
            attention.embed_dim,
            attention.num_heads,
            bias=attention.in_proj_bias is not None,
            batch_first=True,
            device="meta",
        )
        fused.load_state_dict(attention.state_dict(keep_vars=True), assign=True)
        return fused.train(attention.training)

    def forward(  # type: ignore[override]  # other arguments are refused, being unknown
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        need_weights: bool = False,
        attn_mask: Tensor | None = None,
    ) -> tuple[Tensor, None]:
        """Attended (B, Q, V), and None where the weights would be.

        Args:
            query: (B, Q, V).
            key: (B, N, V).
            value: the same as `key`.
            need_weights: must be false.
            attn_mask: additive, (Q, N), or (B * H, Q, N).
        """
        if need_weights or value is not key:
            raise ValueError("fused attention gives no weights and takes one tensor to look at")
        width = self.embed_dim
        weight, bias = self.in_proj_weight, self.in_proj_bias
        if query is key:
            q, k, v = F.linear(query, weight, bias).chunk(3, dim=-1)
        else:
            own = None if bias is None else bias[:width]
            others = None if bias is None else bias[width:]
            q = F.linear(query, weight[:width], own)
            k, v = F.linear(key, weight[width:], others).chunk(2, dim=-1)
        if attn_mask is not None and attn_mask.dim() == 3:
            attn_mask = attn_mask.unflatten(0, (-1, self.num_heads))  # type: ignore[no-untyped-call]
        attended = F.scaled_dot_product_attention(
            self._split(q), self._split(k), self._split(v), attn_mask=attn_mask
        )  # (B, H, Q, V / H)
        return self.out_proj(attended.transpose(1, 2).flatten(2)), None

    def _split(self, x: Tensor) -> Tensor:
        """(B, N, V) to (B, H, N, V / H)."""
        return x.view(*x.shape[:2], self.num_heads, -1).transpose(1, 2)


def fuse_attention(tower: nn.Module) -> None:
    """Let the blocks of open_clip's own transformers attend by fused kernels, in place.

    timm's towers do so already; attention that differs (pooling, other blocks) is left alone.
    """
    for transformer in (module for module in tower.modules() if hasattr(module, "resblocks")):
        blocks: Any = transformer.resblocks
        for block in blocks:
            attention = getattr(block, "attn", None)
            if type(attention) is nn.MultiheadAttention and attention.batch_first:
                block.attn = FusedAttention.adopt(attention)
