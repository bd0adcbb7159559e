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
#: Smallest length that is divided by, as in `torch.nn.functional.normalize`.
LEAST_LENGTH = 1e-12


class Heads(nn.Module):
    """The linear layers of one cluster, one for each taken block (eq. 5)."""

    def __init__(self, blocks: int, vision_width: int, embed_dim: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(vision_width, embed_dim) for _ in range(blocks))

    def forward(self, patch_tokens: Tensor) -> Tensor:
        """(B, L, P, W) patch tokens to (B, L, P, D) in the text's space."""
        mapped = [layer(patch_tokens[:, i]) for i, layer in enumerate(self.layers)]
        return torch.stack(mapped, dim=1)


def compute_margins(mapped: Tensor, text_embed: Tensor) -> Tensor:
    """Abnormal minus normal logit of each token, (..., P): what a softmax over the two depends on.

    Args:
        mapped: (..., P, D), any length.
        text_embed: (D, 2), or (B, D, 2) where `mapped` is (B, P, D); unit columns.
    """
    direction = text_embed[..., 1] - text_embed[..., 0]  # (D,) or (B, D)
    along: Tensor = (mapped @ direction[..., None]).squeeze(-1)
    lengths: Tensor = torch.linalg.vector_norm(mapped, dim=-1).clamp_min(LEAST_LENGTH)
    return LOGIT_SCALE * along / lengths


def upsample(margins: Tensor, grid: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Margins of patches to pixels, (B, L, P) to (B, L, H, W_px), bilinear, corners aligned.

    Logits are upsampled and the softmax follows, as in the code the paper builds on. Upsampling is
    linear, so that the difference of two logits' planes is the plane of their difference.
    """
    planes = margins.view(*margins.shape[:2], *grid)
    return F.interpolate(planes, size=size, mode="bilinear", align_corners=True)


def add_map(
    total: Tensor,
    mapped: Tensor,
    text_embed: Tensor,
    weights: Tensor | float,
    grid: tuple[int, int],
) -> None:
    """Add a block's map (eq. 6) to a sum (B, 1, H, W_px), in place.

    The abnormal of two softmax channels is a sigmoid of the margin. One plane at a time stays in
    the processor's cache, however many blocks and clusters there are.

    Args:
        total: what is added to.
        mapped: (B, P, D), the block's tokens in the text's space.
        text_embed: (D, 2), unit columns.
        weights: of each image, (B,), or of all.
        grid: patches down and across.
    """
    margins = compute_margins(mapped, text_embed)[:, None]  # (B, 1, P)
    plane = upsample(margins, grid, (total.shape[-2], total.shape[-1])).sigmoid_()
    if isinstance(weights, Tensor):
        plane *= weights.view(-1, 1, 1, 1)
    else:
        plane *= weights
    total += plane


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
            mapped = head.layers[block](tokens)
            add_map(total, mapped, text_embeds[cluster], weights[:, cluster], grid)
    return total[:, 0]


def smooth(maps: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    """Gaussian smoothing of maps (B, H, W_px), each alone; sigma in pixels, 0 leaves them alone."""
    if sigma == 0:
        return maps
    smoothed: NDArray[np.float32] = gaussian_filter(maps, sigma=(0, sigma, sigma))
    return smoothed
