"""Additions to a model, a category at a time: thresholds and remembered normal parts, on disk.

They are added in place or in a copy, which then are no longer what was signed: they have no
signature. Remembered parts have a file a category.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch

from fuzzyclip.baselines.nearest import TiledMemory
from fuzzyclip.clip.backbone import Backbone
from fuzzyclip.method.scorer import NormalMemory
from fuzzyclip.model.card import Calibration, Card, MemoryCard, ModelError, read_card
from fuzzyclip.model.directory import check_file, read_finite_tensors, write_card
from fuzzyclip.model.signing import SIGNATURE
from fuzzyclip.utils.files import compute_sha256, make_folder, show_name
from fuzzyclip.utils.tensor_files import write_tensors
from fuzzyclip.utils.tree import DatasetError, copy_tree, read_tree

TOKENS = "tokens"
#: Tiles of each part, where parts were looked at by tiles.
TILES = "tiles"


def store(
    folder: Path,
    category: str,
    calibration: Calibration,
    *,
    memory: NormalMemory | None = None,
    references: Sequence[str] = (),
    out: Path | None = None,
) -> Card:
    """Write a category's thresholds, and its memory, into a model.

    Args:
        folder: the model's directory.
        category: as it stands in the prompts; what was stored of it is replaced.
        calibration: its thresholds.
        memory: its normal parts, where they took part.
        references: names of their images.
        out: directory of a copy that is changed instead; must not exist.

    Raises:
        ModelError: `out` exists, or the model's directory holds what is not to be copied.
    """
    if out is None:
        return _change(folder, category, calibration, memory, references)
    if out.exists():
        raise ModelError(f"{out} exists already; name another place or remove it")
    try:
        with make_folder(out) as making:
            copy_tree(read_tree(folder, linked=True), making)
            return _change(making, category, calibration, memory, references)
    except DatasetError as error:
        raise ModelError(str(error)) from error


def _change(
    folder: Path,
    category: str,
    calibration: Calibration,
    memory: NormalMemory | None,
    references: Sequence[str],
) -> Card:
    card = read_card(folder)
    old = card.memories.get(category)
    memories = {name: entry for name, entry in card.memories.items() if name != category}
    if memory is not None:
        names = [show_name(name) for name in references]
        memories[category] = write_memory(folder, category, memory, names)
    changed = card.model_copy(
        update={
            "memories": memories,
            "calibrations": card.calibrations | {category: calibration},
        }
    )
    write_card(folder, changed)
    (folder / SIGNATURE).unlink(missing_ok=True)
    if old is not None and old.file not in {entry.file for entry in memories.values()}:
        (folder / old.file).unlink(missing_ok=True)
    return changed


def digest_memory(memory: NormalMemory) -> str:
    """SHA-256 over the remembered tokens."""
    return hashlib.sha256(memory.tokens.cpu().numpy().tobytes()).hexdigest()


def read_memories(folder: Path, card: Card, backbone: Backbone) -> dict[str, NormalMemory]:
    """All memories of a model, by category.

    Raises:
        ModelError: a file is missing, another one, or of another backbone.
    """
    memories = {}
    for category, entry in card.memories.items():
        path = folder / entry.file
        if not path.is_file():
            raise ModelError(f"{path} is missing; copy the model's directory again")
        check_file(path, entry.sha256)
        held = read_finite_tensors(path)
        tokens = held.get(TOKENS, torch.empty(0))
        expected = (len(backbone.blocks), backbone.vision_width)
        if tokens.ndim != 3 or tokens.shape[::2] != expected or not tokens.numel():
            raise ModelError(f"{path}: tokens of shape {tuple(tokens.shape)} are of another CLIP")
        memories[category] = _make_memory(path, tokens, held.get(TILES), backbone)
    return memories


def _make_memory(
    path: Path, tokens: torch.Tensor, tiles: torch.Tensor | None, backbone: Backbone
) -> NormalMemory:
    """A memory of tokens (L, R, W) and, where parts were looked at by tiles, of their numbers."""
    own, patches = tokens.to(backbone.device), backbone.grid[0] * backbone.grid[1]
    if tiles is None:
        return NormalMemory(own, backbone.grid, backbone.image_size)
    counts = tuple(int(count) for count in tiles.flatten())
    if min(counts, default=0) < 1 or sum(counts) * patches != tokens.shape[1]:
        raise ModelError(f"{path}: {list(counts)[:10]} tiles of parts do not make up its tokens")
    return TiledMemory(own, backbone.grid, backbone.image_size, counts)


def write_memory(
    folder: Path, category: str, memory: NormalMemory, images: Sequence[str]
) -> MemoryCard:
    """Write a category's memory of images into a model's directory, for its card to name."""
    path = folder / f"memory-{digest_memory(memory)[:16]}.safetensors"
    tensors = {TOKENS: memory.tokens}
    if isinstance(memory, TiledMemory):
        tensors[TILES] = torch.tensor(memory.tiles, dtype=torch.int32)
    write_tensors(path, tensors, {"category": category})
    return MemoryCard(file=path.name, sha256=compute_sha256(path), images=list(images))
