"""WinCLIP's windows: small squares of patches, each seen by the image tower without the rest.

The class token and a window's patches, as they enter the first block with their position
embeddings, run through the whole tower as a sequence of their own; the class token's output is the
window's feature (WinCLIP, section 4.2). An image of 15 x 15 patches has 365 windows.

Shapes: B images, S image size, P patches, W vision width, D embedding width, N windows.
"""

from typing import Any

import torch
from open_clip.timm_model import TimmModel
from torch import Tensor

from fuzzyclip.clip.backbone import Backbone
from fuzzyclip.clip.towers import ImageTower
from fuzzyclip.features.kinds import FeatureKind
from fuzzyclip.utils.transfers import send

#: Sides of the windows in patches: WinCLIP's small and middle scale.
SIDES = (2, 3)
#: Sequences in a pass of the tower: bounds the memory, and what CUDA's attention takes at once.
PASS_SEQUENCES = 512


def list_windows(grid: tuple[int, int], side: int) -> Tensor:
    """Patches of every window of one size, stride 1, row by row, (n, side * side).

    Args:
        grid: patches down and across.
        side: of the windows in patches.

    Raises:
        ValueError: the grid is smaller than a window.
    """
    if min(grid) < side:
        raise ValueError(
            f"WinCLIP looks at windows of {side} x {side} patches, but an image has only "
            f"{grid[0]} x {grid[1]}: take a larger image_size or smaller patches"
        )
    numbers = torch.arange(grid[0] * grid[1]).view(grid)
    return numbers.unfold(0, side, 1).unfold(1, side, 1).reshape(-1, side * side)


@torch.no_grad()
def encode_windows(backbone: Backbone, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Class features of a batch and of all its windows, through the frozen image tower.

    Args:
        backbone: the frozen CLIP.
        pixels: (B, 3, S, S), from `preprocess`.

    Returns:
        image_embed (B, D), the same as from `encode_images`, and the windows' features (B, 1, N, D)
        size by size as in `SIDES`, each size as in `list_windows`. Neither is normalised; both are
        float32, on the backbone's device.

    Raises:
        ValueError: the image tower has no class token that is read, or the grid is too small.
    """
    tower = backbone.image_tower
    _check_class_token(tower)
    windows = [list_windows(tower.grid, side).to(backbone.device) for side in SIDES]
    lowered = backbone.precision != torch.float32
    with torch.autocast(backbone.device.type, backbone.precision, enabled=lowered):
        tokens = _embed_patches(tower.visual, send(pixels, backbone.device))
        image_embed = _read_class_token(tower, tokens)
        embeds = [_encode_size(tower, tokens, chosen) for chosen in windows]
    return image_embed.float(), torch.cat(embeds, dim=1)[:, None].float()


def _check_class_token(tower: ImageTower) -> None:
    visual = tower.visual
    if isinstance(visual, TimmModel) or visual.attn_pool is not None or visual.pool_type != "tok":
        raise ValueError(
            "WinCLIP reads a window by its class token; this model's image tower is timm's or "
            "pools its tokens in another way. Take an open_clip ViT with a class token, such as "
            "ViT-B-16-plus-240, or leave WinCLIP out"
        )


def _embed_patches(visual: Any, pixels: Tensor) -> Tensor:
    """What enters the first block, the class token first, (B, 1 + P, W)."""
    patches = visual.conv1(pixels).flatten(2).transpose(1, 2)  # (B, P, W)
    first = visual.class_embedding.to(patches.dtype).expand(len(patches), 1, -1)
    embedded = torch.cat((first, patches), dim=1) + visual.positional_embedding.to(patches.dtype)
    entering: Tensor = visual.ln_pre(embedded)
    return entering


def _encode_size(tower: ImageTower, tokens: Tensor, windows: Tensor) -> Tensor:
    """Features of all windows of one size, (B, n, D), some windows of all images at a time.

    Args:
        tower: the image tower.
        tokens: (B, 1 + P, W), from `_embed_patches`.
        windows: (n, side * side), from `list_windows`.
    """
    first, patches = tokens[:, :1], tokens[:, 1:]
    embeds = []
    for chosen in torch.split(windows, max(1, PASS_SEQUENCES // len(tokens))):
        inside = patches[:, chosen]  # (B, n, side * side, W)
        sequences = torch.cat((first[:, None].expand(-1, len(chosen), -1, -1), inside), dim=2)
        read = _read_class_token(tower, sequences.flatten(0, 1))
        embeds.append(read.view(len(tokens), len(chosen), -1))
    return torch.cat(embeds, dim=1)


def _read_class_token(tower: ImageTower, tokens: Tensor) -> Tensor:
    """The class token of sequences (m, T, W) after all blocks, in the joint space, (m, D)."""
    return tower.project(tower.visual.transformer(tokens)[:, 0])


WINDOWS = FeatureKind("windows", encode_windows)
