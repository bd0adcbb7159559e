"""One step's input: windows of drawn pairs, and captions.

Early in pretraining a step sees windows around the defects instead of whole pictures, which costs
less than half and shows more defective patches.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tools.pretrain_sample.captions import (
    DEFECT_STATES,
    GENERAL_SHARE,
    Words,
    make_caption,
    make_defect_caption,
    make_names,
)
from tools.pretrain_sample.kinds import KIND_OF_CATEGORY, draw_kinds
from tools.pretrain_sample.pictures import CELLS, Pairs, Picture, turn_over
from tools.pretrain_sample.recipes import CATEGORIES
from tools.pretrain_sample.towers import GRID

PATCH = 12  # pixels
PATCH_CELLS = CELLS // GRID
PATCH_SHARE = 0.04  # of a patch's pixels, from which the patch counts as defective
NAMES_PER_STEP = 4
THINGS_PER_STEP = 16  # names that are sorted by what kind of thing they are
KINDS = 1 + len(DEFECT_STATES)  # no defect, and each defect


@dataclass(frozen=True)
class PairBatch:
    """B images, half of them normal, of P patches; n captions of images; m names."""

    images: Tensor  # uint8 (B, H, W, 3)
    positions: Tensor  # (B, P): numbers of the patches in the whole picture's grid
    labels: Tensor  # (B,): 0 normal, 1 anomalous
    kinds: Tensor  # (B,): 0 normal, else number of the defect from 1
    category_kinds: Tensor  # (B,): what kind of thing is shown
    targets: Tensor  # (B, P, 10), from `patch_targets`
    positive: Tensor  # bool (B, n): captions of the image's category and state
    captions: list[str]  # n: the images' categories and states
    name_captions: list[str]  # 2 m: each name's normal and anomalous caption
    kind_captions: list[str]  # 7 m: each name's caption of every kind
    thing_captions: list[str]  # 2 t: each thing's normal and anomalous caption
    things: Tensor  # (t, 4): share of each kind of thing


def patch_targets(coverage: Tensor) -> Tensor:
    """Defective or not: each patch and its nine cells, (B, P, 10).

    Args:
        coverage: (B, 3 h, 3 w) defective pixels of each cell of 16; P = h w.
    """
    cells = coverage.float().unfold(1, 3, 3).unfold(2, 3, 3)  # (B, h, w, 3, 3)
    cells = cells.flatten(3).flatten(1, 2)  # (B, P, 9)
    patch = cells.sum(dim=-1, keepdim=True) > PATCH_SHARE * 144
    return torch.cat([patch, cells >= 3], dim=-1).float()


def _place_window(coverage: Picture, window: int, rng: np.random.Generator) -> tuple[int, int]:
    """Top left patch of a window that holds a defective cell of a mask (36, 36)."""
    cells = np.argwhere(coverage >= coverage.max())
    patch = cells[rng.integers(len(cells))] // PATCH_CELLS
    low = np.maximum(patch - window + 1, 0)
    high = np.minimum(patch, GRID - window)
    row, column = rng.integers(low, high + 1)
    return int(row), int(column)


def _vary_light(images: Picture, rng: np.random.Generator) -> Picture:
    """Random colour balance and brightness, the same for both pictures of a pair."""
    count = len(images)
    gain = rng.uniform(0.85, 1.15, (count, 1, 1, 1, 3)).astype(np.float32)
    offset = rng.uniform(-16, 16, (count, 1, 1, 1, 1)).astype(np.float32)
    varied: Picture = np.clip(images * gain + offset, 0, 255).astype(np.uint8)
    return varied


def _cut_windows(
    images: Picture, coverage: Picture, window: int, rng: np.random.Generator
) -> tuple[Picture, Picture, NDArray[np.int64]]:
    """Turned windows of pairs (count, 2, ...), of their masks, and the patches' positions."""
    grid = np.arange(GRID * GRID).reshape(GRID, GRID)
    pictures, masks, positions = [], [], []
    for pair, mask in zip(images, coverage, strict=True):
        symmetry = int(rng.integers(8))
        pair, mask = turn_over(pair, symmetry), turn_over(mask[..., None], symmetry)[..., 0]
        row, column = _place_window(mask, window, rng)
        rows, columns = slice(row, row + window), slice(column, column + window)
        pixels = [slice(PATCH * s.start, PATCH * s.stop) for s in (rows, columns)]
        cells = [slice(PATCH_CELLS * s.start, PATCH_CELLS * s.stop) for s in (rows, columns)]
        pictures.append(pair[:, pixels[0], pixels[1]])
        masks.append(mask[cells[0], cells[1]])
        positions.append(grid[rows, columns].ravel())
    return np.stack(pictures), np.stack(masks), np.stack(positions)


def make_batch(
    pairs: Pairs,
    count: int,
    window: int,
    words: Words,
    rng: np.random.Generator,
    shares: Sequence[float] | None = None,
) -> PairBatch:
    """Pictures of `count` random pairs with their captions, and captions of other names.

    Args:
        pairs: the drawn pictures.
        count: pairs in the batch.
        window: patches per side of what is seen of a picture; 12 is all of it.
        words: what names are made of.
        rng: source of all choices.
        shares: how often each category is chosen, relatively; None is evenly.
    """
    if shares is None:
        chosen = rng.integers(len(pairs.images), size=count)
    else:
        weights = np.asarray(shares)[pairs.category]
        chosen = rng.choice(len(weights), size=count, p=weights / weights.sum())
    images, masks, positions = _cut_windows(
        pairs.images[chosen], pairs.coverage[chosen], window, rng
    )
    images = _vary_light(images, rng)
    coverage = np.stack([np.zeros_like(masks), masks], axis=1)  # (count, 2, cells, cells)
    category = np.repeat(pairs.category[chosen], 2)  # (B,)
    labels = np.tile([0, 1], count)  # (B,)
    kinds = np.stack([np.zeros(count, np.int64), pairs.defect[chosen] + 1], axis=1).ravel()
    meanings = sorted(set(zip(category.tolist(), kinds.tolist(), strict=True)))
    names = make_names(NAMES_PER_STEP, words, rng)
    things, shares_of_kinds = draw_kinds(THINGS_PER_STEP, rng)
    caption_category, caption_kind = np.array(meanings).T
    positive = (category[:, None] == caption_category) & (kinds[:, None] == caption_kind)
    return PairBatch(
        torch.from_numpy(images.reshape(-1, *images.shape[2:])),
        torch.from_numpy(np.repeat(positions, 2, axis=0)),
        torch.from_numpy(labels),
        torch.from_numpy(kinds),
        KIND_OF_CATEGORY[torch.from_numpy(category)],
        patch_targets(torch.from_numpy(coverage.reshape(-1, *coverage.shape[2:]))),
        torch.from_numpy(positive),
        [make_defect_caption(CATEGORIES[c], kind, rng, GENERAL_SHARE) for c, kind in meanings],
        [make_caption(name, state, rng) for name in names for state in (0, 1)],
        [make_defect_caption(name, kind, rng) for name in names for kind in range(KINDS)],
        [make_caption(thing, state, rng) for thing in things for state in (0, 1)],
        shares_of_kinds,
    )
