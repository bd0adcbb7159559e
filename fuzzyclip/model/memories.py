"""Remembered good parts on disk, a file a category."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch

from fuzzyclip.clip.backbone import Backbone
from fuzzyclip.method.normal_memory import NormalMemory
from fuzzyclip.model.card import Card, MemoryCard, ModelError
from fuzzyclip.model.directory import check_file, read_finite_tensors
from fuzzyclip.utils.files import compute_sha256
from fuzzyclip.utils.tensor_files import write_tensors

TOKENS = "tokens"


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
        tokens = read_finite_tensors(path).get(TOKENS, torch.empty(0))
        expected = (len(backbone.blocks), backbone.vision_width)
        if tokens.ndim != 3 or tokens.shape[::2] != expected or not tokens.numel():
            raise ModelError(f"{path}: tokens of shape {tuple(tokens.shape)} are of another CLIP")
        memories[category] = NormalMemory(
            tokens.to(backbone.device), backbone.grid, backbone.image_size
        )
    return memories


def write_memory(
    folder: Path, category: str, memory: NormalMemory, images: Sequence[str]
) -> MemoryCard:
    """Write a category's memory into a model's directory.

    Args:
        folder: the model's directory.
        category: as it stands in the prompts.
        memory: its good parts.
        images: their names, for the record.

    Returns:
        What the card has to say of it.
    """
    path = folder / f"memory-{digest_memory(memory)[:16]}.safetensors"
    write_tensors(path, {TOKENS: memory.tokens}, {"category": category})
    return MemoryCard(file=path.name, sha256=compute_sha256(path), images=list(images))
