"""EFA, ensemble feature alignment: linear layers that bring patch tokens to the text's space.

One linear layer per cluster and taken block (paper, section 2.3, eq. 5). A block's tokens, mapped
and compared with the two text features, give a softmax map (eq. 6); the maps of a cluster's blocks
are summed, and at test time the clusters' maps are weighed by how near the image lies to each
cluster's prompt (eq. 9 to 11).

Shapes: B images, L blocks, P = h * w patches, W vision width, D embedding width, K clusters,
H x W_px output pixels.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn
from torch.nn import functional as F

#: Factor on cosines before a softmax. Eqs. 2 and 6 omit it; the code they build on has it.
LOGIT_SCALE = 100.0


class Heads(nn.Module):
    """The linear layers of one cluster, one for each taken block (eq. 5)."""

    def __init__(self, blocks: int, vision_width: int, embed_dim: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(vision_width, embed_dim) for _ in range(blocks))

    def forward(self, patch_tokens: Tensor) -> Tensor:
        """(B, L, P, W) patch tokens to (B, L, P, D) in the text's space."""
        mapped = [layer(patch_tokens[:, i]) for i, layer in enumerate(self.layers)]
        return torch.stack(mapped, dim=1)


def compute_logits(mapped: Tensor, text_embed: Tensor) -> Tensor:
    """Scaled cosines of mapped tokens with the normal and the abnormal text feature.

    Args:
        mapped: (B, L, P, D), any length.
        text_embed: (D, 2) or (B, D, 2), unit columns.

    Returns:
        (B, L, P, 2).
    """
    if text_embed.dim() == 3:
        text_embed = text_embed.unsqueeze(1)  # (B, 1, D, 2)
    return LOGIT_SCALE * (F.normalize(mapped, dim=-1) @ text_embed)


def compute_margins(mapped: Tensor, text_embed: Tensor) -> Tensor:
    """Abnormal minus normal logit, (..., P): all that a softmax over the two depends on.

    Args:
        mapped: (..., P, D), any length.
        text_embed: (D, 2), unit columns.
    """
    along: Tensor = mapped @ (text_embed[:, 1] - text_embed[:, 0])
    lengths: Tensor = torch.linalg.vector_norm(mapped, dim=-1).clamp_min(1e-12)  # as in F.normalize
    return LOGIT_SCALE * along / lengths


def upsample(logits: Tensor, grid: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Patch logits to pixels, (B, L, P, 2) to (B, L, 2, H, W_px), bilinear, corners aligned.

    Logits are upsampled and the softmax follows, as in the code the paper builds on.
    """
    batch, levels = logits.shape[:2]
    planes = logits.permute(0, 1, 3, 2).reshape(batch * levels, 2, *grid)  # (B*L, 2, h, w)
    pixels = F.interpolate(planes, size=size, mode="bilinear", align_corners=True)
    return pixels.view(batch, levels, 2, *size)


def compute_maps(
    mapped: Tensor, text_embed: Tensor, grid: tuple[int, int], size: tuple[int, int]
) -> Tensor:
    """Softmax maps of every block (eq. 6), (B, L, 2, H, W_px); channel 1 is abnormal."""
    return upsample(compute_logits(mapped, text_embed), grid, size).softmax(dim=2)


def sum_maps(maps: Tensor) -> Tensor:
    """Anomaly map of one cluster: the abnormal channel summed over blocks, (B, H, W_px)."""
    return maps[:, :, 1].sum(dim=1)


def compute_weights(image_embed: Tensor, anchors: Tensor, temperature: float = 100.0) -> Tensor:
    """Weight of each cluster's map for each image (eq. 11), (B, K), rows sum to 1.

    Args:
        image_embed: (B, D), unit rows.
        anchors: (K, D), unit rows: what the image is compared with, see `WEIGHTS`.
        temperature: factor on the cosines. Eq. 11 prints none, as eqs. 2 and 6 print none of the
            100 their code has; with 1 the weights are uniform to about 0.01.
    """
    return (temperature * image_embed @ anchors.T).softmax(dim=-1)


#: What an image can be compared with to weigh the clusters: the paper defines it three times.
WEIGHTS = {
    "eq11": "the test prompts' normal features (eqs. 10 and 11)",
    "train_cluster": "the training prompts' normal features (the paragraph before eq. 10)",
    "center": "the clusters' mean category features (introduction)",
    "uniform": "nothing: all clusters weigh the same",
}


@torch.no_grad()
def compute_ensemble_map(
    heads: Sequence[Heads],
    patch_tokens: Tensor,
    text_embeds: Tensor,
    weights: Tensor,
    grid: tuple[int, int],
    size: tuple[int, int],
) -> Tensor:
    """The weighted anomaly map of all clusters (eq. 11, right), (B, H, W_px).

    Equals the weighted sum of each cluster's `sum_maps(compute_maps(...))` up to rounding. It is
    cheaper because of two softmax channels only the abnormal one is asked for: a sigmoid of the
    logits' difference, and the difference of upsampled planes is the upsampled difference.

    Args:
        heads: K trained sets of layers.
        patch_tokens: (B, L, P, W).
        text_embeds: (K, D, 2), the test prompt with each cluster's names (eq. 9).
        weights: (B, K) from `compute_weights`.
        grid: patches down and across.
        size: pixels down and across.
    """
    total = patch_tokens.new_zeros(len(patch_tokens), 1, *size)
    for block in range(patch_tokens.shape[1]):
        tokens = patch_tokens[:, block].contiguous()  # (B, P, W)
        for cluster, head in enumerate(heads):
            margins = compute_margins(head.layers[block](tokens), text_embeds[cluster])
            # One plane at a time stays in the processor's cache, however many clusters there are.
            plane = F.interpolate(
                margins.view(-1, 1, *grid), size=size, mode="bilinear", align_corners=True
            )
            total.addcmul_(plane.sigmoid_(), weights[:, cluster].view(-1, 1, 1, 1))
    return total[:, 0]


def smooth(maps: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    """Gaussian smoothing of maps (B, H, W_px), each alone; sigma in pixels, 0 leaves them alone."""
    if sigma == 0:
        return maps
    smoothed: NDArray[np.float32] = gaussian_filter(maps, sigma=(0, sigma, sigma))
    return smoothed
