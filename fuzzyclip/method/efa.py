"""EFA, ensemble feature alignment: linear layers that bring patch tokens to the text's space.

One linear layer per cluster and taken block (paper, section 2.3, eq. 5). A block's tokens, mapped
and compared with the two text features, give a softmax map (eq. 6); the maps of a cluster's blocks
are summed, and at test time the clusters' maps are weighed by how near the image lies to each
cluster's prompt (eq. 9 to 11).

A map is told as the log-odds of that sum's share of what it can be at most, in float64: as a
float32 the sum is the same for all pixels whose margins are beyond about 17 on either side, and
metrics would take them for equal (docs/fidelity.md).

Shapes: B images, L blocks, P = h * w patches, W vision width, D embedding width, K clusters,
H x W_px output pixels.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from fuzzyclip.method import Scale
from fuzzyclip.utils.ranges import POSITIVE, SIGMA

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
    """Anomalous minus normal logit of each token, (..., P): what a softmax over the two depends on.

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


def compute_plane(
    mapped: Tensor, text_embed: Tensor, grid: tuple[int, int], size: tuple[int, int]
) -> Tensor:
    """Margins of a block's pixels, (B, H, W_px): log-odds of its softmax map (eq. 6).

    The anomalous of two softmax channels is a sigmoid of the margin. `mapped` (B, P, D) and
    `text_embed` are as `compute_margins` has them.
    """
    return upsample(compute_margins(mapped, text_embed)[:, None], grid, size)[:, 0]


def join_planes(planes: Iterable[tuple[Tensor, Tensor | None]]) -> Tensor:
    """Log-odds of the weighted mean of several maps of probabilities, (B, H, W_px).

    Anomalous and normal probabilities are summed apart, so that the ends are as precise as the
    middle; in float64, since a sum of some that are near 1 and some near 0 lies in the middle. One
    plane at a time stays in the processor's cache, however many there are.

    Args:
        planes: log-odds of each map, (B, H, W_px), and its weight for each image, (B,); None for 1.

    Returns:
        float64; float32 on devices that have no other, and in an exported file.

    Raises:
        ValueError: there are no planes.
    """
    sums: list[Tensor] = []
    for plane, weights in planes:
        fine = plane.to(choose_sum_type(plane.device))
        sides = fine.sigmoid(), fine.neg().sigmoid_()
        if weights is not None:
            for side in sides:
                side *= weights.view(-1, 1, 1)
        if sums:
            for total, side in zip(sums, sides, strict=True):
                total += side
        else:
            sums = [*sides]
    if not sums:
        raise ValueError("there are no maps to join")
    return divide_odds(*sums)


def choose_sum_type(device: torch.device) -> torch.dtype:
    """The type that maps are summed in; what an exported file says of pixels is for people."""
    coarse = device.type == "mps" or torch.compiler.is_exporting()
    return torch.float32 if coarse else torch.float64


def divide_odds(above: Tensor, below: Tensor) -> Tensor:
    """log(above / below), finite; uses both up.

    Neither is taken for less than the smallest normal float: log-odds of float32 end at about 87,
    those of float64 at 708, and a margin is 200 at most.
    """
    tiny = torch.finfo(above.dtype).tiny
    return above.clamp_min_(tiny).log_() - below.clamp_min_(tiny).log_()


def compute_weights(image_embed: Tensor, anchors: Tensor, temperature: float = 100.0) -> Tensor:
    """Weight of each cluster's map for each image (eq. 11), (B, K), rows sum to 1.

    Args:
        image_embed: (B, D), unit rows.
        anchors: (K, D), unit rows: what the image is compared with, see `WEIGHTS`.
        temperature: factor on the cosines. Eq. 11 prints none, as eqs. 2 and 6 print none of the
            100 their code has; with 1 the weights are uniform to about 0.01.
    """
    POSITIVE.check("the clusters' weights", temperature=temperature)
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
    """The weighted anomaly map of all clusters (eq. 11, right) as log-odds, (B, H, W_px).

    Args:
        heads: K trained sets of layers.
        patch_tokens: (B, L, P, W).
        text_embeds: (K, D, 2), the test prompt with each cluster's names (eq. 9).
        weights: (B, K) from `compute_weights`.
        grid: patches down and across.
        size: pixels down and across.
    """

    def list_planes() -> Iterator[tuple[Tensor, Tensor]]:
        for block in range(patch_tokens.shape[1]):
            tokens = patch_tokens[:, block].contiguous()  # (B, P, W)
            for cluster, head in enumerate(heads):
                mapped = head.layers[block](tokens)
                plane = compute_plane(mapped, text_embeds[cluster], grid, size)
                yield plane, weights[:, cluster]

    return join_planes(list_planes())


def smooth(
    maps: NDArray[np.floating], sigma: float, scale: Scale = Scale.PLAIN
) -> NDArray[np.floating]:
    """Gaussian smoothing of maps (B, H, W_px), each alone.

    Probabilities are smoothed, not their log-odds, on whichever scale the maps are. Sigma is in
    pixels; 0 leaves the maps alone.
    """
    SIGMA.check("smoothing", sigma=sigma)
    if sigma == 0:
        return maps
    from scipy.ndimage import gaussian_filter  # half a second, which training does without
    from scipy.special import expit

    sigmas = (0, sigma, sigma)
    if scale is Scale.PLAIN:
        smoothed: NDArray[np.floating] = gaussian_filter(maps, sigma=sigmas)
        return smoothed
    fine = maps.astype(np.float64)
    sides = [torch.from_numpy(gaussian_filter(expit(side), sigma=sigmas)) for side in (fine, -fine)]
    odds: NDArray[np.floating] = divide_odds(*sides).numpy()
    return odds
