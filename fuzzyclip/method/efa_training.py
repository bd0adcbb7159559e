"""Training EFA's layers: tokens and masks of one cluster's images, focal and dice over the blocks.

Shapes: B rows, L blocks, P patches, W vision width, D embedding width, S image size.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from fuzzyclip.clip.backbone import Backbone
from fuzzyclip.clip.encoding import encode_images, preprocess
from fuzzyclip.clip.pixels import load_pixels
from fuzzyclip.features.store import CategoryFeatures
from fuzzyclip.images.decode import load_image, load_mask
from fuzzyclip.images.masks import load_masks
from fuzzyclip.method.efa import Heads
from fuzzyclip.method.efa_loss import compute_alignment_losses
from fuzzyclip.method.mosaic import MosaicPlan, build_mosaic, build_mosaic_mask
from fuzzyclip.method.mosaic_cache import MosaicCache
from fuzzyclip.method.training import CurveRow, train
from fuzzyclip.utils.transfers import send


@dataclass(frozen=True)
class TrainingImages:
    """The images that one cluster's layers are trained on.

    Attributes:
        rows: index rows with a column `mask_above`; their paths are relative to `root`.
        root: what the paths are relative to.
        features: stored features of each row's category.
        places: position of each row within its category's features.
        backbone: the frozen CLIP, for mosaics and for stores without patch tokens.
        mosaics: rows that a mosaic replaces, by epoch.
        cache: where tokens of mosaics are kept; None encodes them anew each time.
        workers: threads that decode images.
    """

    rows: pd.DataFrame
    root: Path
    features: Sequence[CategoryFeatures]
    places: Sequence[int]
    backbone: Backbone
    mosaics: MosaicPlan = field(default_factory=dict)
    cache: MosaicCache | None = None
    workers: int = 1

    def __len__(self) -> int:
        return len(self.rows)

    def read_batch(self, rows: Sequence[int], epoch: int) -> tuple[Tensor, Tensor]:
        """Patch tokens (B, L, P, W) and masks (B, S, S) in {0, 1} of one step, on the device."""
        plain = [row for row in rows if (epoch, row) not in self.mosaics]
        mixed = [row for row in rows if (epoch, row) in self.mosaics]
        tokens = [*self._read_plain(plain), *self._encode_mosaics(mixed, epoch)]
        masks = [*self._load_masks(plain), *self._build_masks(mixed, epoch)]
        device = self.backbone.device
        return torch.stack(tokens), send(torch.from_numpy(np.stack(masks)), device).float()

    def _read_plain(self, rows: Sequence[int]) -> list[Tensor]:
        if not rows:
            return []
        if all(self.features[row].has_tokens for row in rows):
            device = self.backbone.device
            return [self.features[row].read_tokens([self.places[row]], device)[0] for row in rows]
        paths = [self._image_path(row) for row in rows]
        pixels = load_pixels(paths, self.backbone, self.workers)
        return list(encode_images(self.backbone, pixels)[1])

    def _encode_mosaics(self, rows: Sequence[int], epoch: int) -> list[Tensor]:
        """Tokens of the mosaics that replace rows: kept ones, or encoded in one pass."""
        plans = [[self._image_path(part) for part in self.mosaics[epoch, row]] for row in rows]
        places = [self.cache.locate(plan) if self.cache else None for plan in plans]
        found = [self.cache.read(p) if self.cache and p else None for p in places]
        missing = [number for number, tokens in enumerate(found) if tokens is None]
        if missing:
            pixels = [self._build_pixels(plans[number]) for number in missing]
            encoded = encode_images(self.backbone, torch.stack(pixels))[1]
            for number, tokens in zip(missing, encoded, strict=True):
                place = places[number]
                found[number] = self.cache.write(place, tokens) if self.cache and place else tokens
        return [tokens.to(self.backbone.device) for tokens in found if tokens is not None]

    def _build_pixels(self, plan: Sequence[Path]) -> Tensor:
        """A mosaic as model input, (3, S, S)."""
        mosaic = build_mosaic([load_image(path) for path in plan], self.backbone.image_size)
        return preprocess(mosaic, self.backbone)

    def _load_masks(self, rows: Sequence[int]) -> list[np.ndarray]:
        chosen = self.rows.iloc[list(rows)]
        return list(load_masks(chosen, self.backbone.image_size))

    def _build_masks(self, rows: Sequence[int], epoch: int) -> list[np.ndarray]:
        size = self.backbone.image_size
        built = []
        for row in rows:
            parts = [self._load_mask(part) for part in self.mosaics[epoch, row]]
            built.append(build_mosaic_mask(parts, size))
        return built

    def _image_path(self, row: int) -> Path:
        return self.root / str(self.rows["image_path"].iloc[row])

    def _load_mask(self, row: int) -> np.ndarray:
        chosen = self.rows.iloc[row]
        if not chosen["mask_path"]:
            return np.zeros((2, 2), dtype=bool)
        return load_mask(self.root / str(chosen["mask_path"]), int(chosen["mask_above"]))


def train_heads(
    images: TrainingImages,
    text_embed: Tensor,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    checkpoint: Path | None = None,
    after_epoch: Callable[[int, Heads], None] | None = None,
    description: str = "EFA",
) -> tuple[Heads, list[CurveRow]]:
    """Train one cluster's layers; see `fuzzyclip.method.training.train` for the other arguments.

    Args:
        images: what is trained on, N rows.
        text_embed: (D, 2), one prompt for all (a stack, "object"), or (N, D, 2), one for each row
            (the precise prompts of Table 4).
        after_epoch: called with the epoch and the layers as they are then.

    Returns:
        The trained layers, and the curve with `loss`, `focal` and `dice` of each step.
    """
    backbone = images.backbone
    torch.manual_seed(seed)
    heads = Heads(len(backbone.blocks), backbone.vision_width, backbone.embed_dim)
    heads.to(backbone.device)
    text = text_embed.to(backbone.device)

    def load(rows: Sequence[int], epoch: int) -> tuple[Tensor, Tensor, Tensor]:
        prompt = text if text.dim() == 2 else text[list(rows)]  # (D, 2) or (B, D, 2)
        return *images.read_batch(rows, epoch), prompt

    def compute_losses(batch: tuple[Tensor, Tensor, Tensor]) -> dict[str, Tensor]:
        tokens, masks, prompt = batch
        return compute_alignment_losses(heads, tokens, masks, prompt, backbone.grid)

    curve = train(
        heads,
        load,
        compute_losses,
        count=len(images),
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
        checkpoint=checkpoint,
        after_epoch=None if after_epoch is None else lambda epoch: after_epoch(epoch, heads),
        description=description,
    )
    return heads, curve
