"""Drawn pairs for pretraining: the same part without and with a defect, kept in shards on disk."""

import io
import logging
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from fuzzyclip.sample.defects import DEFECTS
from fuzzyclip.sample.draw import damage_part, draw_canvas, draw_part
from fuzzyclip.sample.evaluation_recipes import EVALUATION
from fuzzyclip.utils.files import replace_file
from tools.pretrain_sample.recipes import CATEGORIES, PRETRAINING

log = logging.getLogger(__name__)

SIDE = 144  # pixels of a stored picture
CELLS = 36  # cells per side of a stored mask, three to a patch of 12 pixels
PAIRS_PER_SHARD = 256

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Pairs:
    """Pictures of parts, normal and damaged.

    Attributes:
        images: (n, 2, 144, 144, 3): the same part, normal and damaged.
        coverage: (n, 36, 36): how many of a cell's 16 pixels the defect covers.
        category: (n,) number in CATEGORIES.
        defect: (n,) number in DEFECTS.
    """

    images: Picture
    coverage: Picture
    category: NDArray[np.int64]
    defect: NDArray[np.int64]


def _develop(image: Picture, grey: bool, quality: int) -> Picture:
    """The picture as a camera's file would give it: resized, perhaps grey, perhaps JPEG."""
    photo = Image.fromarray(image)
    if photo.size != (SIDE, SIDE):
        photo = photo.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    if quality:
        with io.BytesIO() as file:
            photo.save(file, "JPEG", quality=quality)
            photo = Image.open(file).convert("RGB")
    if grey:
        photo = photo.convert("L").convert("RGB")
    return np.asarray(photo)


def count_cells(mask: NDArray[np.bool_]) -> Picture:
    """Defective pixels (36, 36) of each cell of a mask (H, W), at the stored pictures' size."""
    if mask.shape != (SIDE, SIDE):
        stretched = Image.fromarray(mask).convert("F").resize((SIDE, SIDE))
        mask = np.asarray(stretched) > 100
    cell = SIDE // CELLS
    pixels: Picture = mask.reshape(CELLS, cell, CELLS, cell).sum(axis=(1, 3)).astype(np.uint8)
    return pixels


def draw_shard(folder: Path, seed: int, shard: int) -> None:
    """Draw one shard of pairs, or keep it if it is there and whole.

    Args:
        folder: of all shards.
        seed: with the shard's number it fixes the pictures.
        shard: number of the shard, from 0.
    """
    path = folder / f"pairs_{seed}_{shard:04d}.npz"
    if path.exists():
        try:
            read_shard(path)
            return
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            log.warning("%s is broken (%s); it is drawn anew", path, error)
    rng = np.random.default_rng([seed, shard])
    images = np.empty((PAIRS_PER_SHARD, 2, SIDE, SIDE, 3), np.uint8)
    coverage = np.empty((PAIRS_PER_SHARD, CELLS, CELLS), np.uint8)
    category = rng.integers(len(CATEGORIES), size=PAIRS_PER_SHARD)
    defect = np.empty(PAIRS_PER_SHARD, np.int64)
    for pair, number in enumerate(category):
        size = (SIDE, SIDE)
        if rng.random() < 0.4:
            size = (int(rng.integers(120, 201)), int(rng.integers(120, 201)))
        canvas = draw_canvas(PRETRAINING[CATEGORIES[number]], rng, size)
        camera, grey = int(rng.integers(1 << 62)), bool(rng.random() < 0.15)
        quality = int(rng.integers(70, 96)) if rng.random() < 0.2 else 0
        normal, _ = damage_part(canvas, None, rng, camera)
        defect[pair] = rng.integers(len(DEFECTS))
        damaged, mask = damage_part(canvas, DEFECTS[defect[pair]], rng, camera)
        images[pair, 0] = _develop(normal, grey, quality)
        images[pair, 1] = _develop(damaged, grey, quality)
        coverage[pair] = count_cells(mask)
    with replace_file(path) as temporary, temporary.open("wb") as file:
        np.savez(file, images=images, coverage=coverage, category=category, defect=defect)


def read_shard(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a shard, whose check sums NumPy's zip archive compares."""
    with np.load(path) as loaded:
        return {name: loaded[name] for name in ("images", "coverage", "category", "defect")}


def load_pairs(folder: Path, seed: int, shards: int, workers: int) -> Pairs:
    """Draw what is missing with worker processes, and read all shards into memory.

    Args:
        folder: of the shards; made where it is not there.
        seed: of the drawings.
        shards: how many, of `PAIRS_PER_SHARD` pairs each.
        workers: processes that draw.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(workers) as pool:
        jobs = [pool.submit(draw_shard, folder, seed, shard) for shard in range(shards)]
        for job in tqdm(jobs, desc="drawing", unit="shard", disable=None):
            job.result()
    loaded = [read_shard(folder / f"pairs_{seed}_{shard:04d}.npz") for shard in range(shards)]
    return Pairs(
        np.concatenate([shard["images"] for shard in loaded]),
        np.concatenate([shard["coverage"] for shard in loaded]),
        np.concatenate([shard["category"] for shard in loaded]),
        np.concatenate([shard["defect"] for shard in loaded]),
    )


def draw_held_out(per_class: int, seed: int) -> dict[str, tuple[Picture, NDArray[np.bool_]]]:
    """Test pictures of the held-out categories.

    Args:
        per_class: normal and as many damaged pictures of each category; all defects in turn.
        seed: seed of the pictures.

    Returns:
        Category to images (2 per_class, 144, 144, 3) and masks (2 per_class, 144, 144); the
        normal ones come first.
    """
    held_out = {}
    for number, (category, recipe) in enumerate(EVALUATION.items()):
        rng = np.random.default_rng([seed, number])
        defects = [None] * per_class + [DEFECTS[i % len(DEFECTS)] for i in range(per_class)]
        drawn = [draw_part(recipe, rng, (SIDE, SIDE), defect) for defect in defects]
        held_out[category] = (np.stack([d[0] for d in drawn]), np.stack([d[1] for d in drawn]))
    return held_out


def turn_over(pictures: NDArray[np.uint8], symmetry: int) -> NDArray[np.uint8]:
    """One of the eight symmetries of the square, over axes -3 and -2 of pictures (..., H, W, C)."""
    turned = np.rot90(pictures, symmetry % 4, axes=(-3, -2))
    return np.flip(turned, axis=-2) if symmetry >= 4 else turned
