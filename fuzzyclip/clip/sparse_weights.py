"""The sample CLIP's files, and how its cut vocabulary is stored.

A small open_clip CLIP pretrained by tools/pretrain_sample on drawn parts. For demonstration and
tests, not for inspection: it has seen nothing but drawings.

The tokenizer is CLIP's own with its 49408 tokens, of which the file keeps the useful rows only.
Every other token gets one learned row for unknown words.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

SAMPLE_CONFIG: Path = Path(__file__).parent.parent / "sample" / "weights" / "model.json"
SAMPLE_WEIGHTS: Path = Path(__file__).parent.parent / "sample" / "weights" / "model.safetensors"

EMBEDDING = "token_embedding.weight"
IDS, ROWS, UNKNOWN = "token_embedding.ids", "token_embedding.rows", "token_embedding.unknown"
METADATA = {"sparse_vocabulary": EMBEDDING}  # one field: several have no fixed order on disk


def load_sample_config(path: Path = SAMPLE_CONFIG) -> dict[str, Any]:
    """open_clip's configuration of the sample CLIP."""
    config: dict[str, Any] = json.loads(path.read_text())
    return config


def save_sample_weights(
    path: Path, state: Mapping[str, Tensor], token_ids: Sequence[int], unknown: Tensor
) -> None:
    """Write a state dict as fp16 safetensors with a cut vocabulary.

    Args:
        path: file to write; it appears only when complete.
        state: open_clip's state dict; its token embedding (n, width) holds the kept rows only.
        token_ids: the n tokens of those rows.
        unknown: row (width,) of every other token.

    Raises:
        ValueError: as many rows as tokens are needed.
    """
    rows = state[EMBEDDING]
    if len(rows) != len(token_ids):
        raise ValueError(f"{EMBEDDING} has {len(rows)} rows for {len(token_ids)} token ids")
    tensors = {
        name: tensor.detach().half().contiguous()
        for name, tensor in state.items()
        if name not in (EMBEDDING, "attn_mask")  # the mask is rebuilt by the model
    }
    tensors[ROWS] = rows.detach().half().contiguous()
    tensors[UNKNOWN] = unknown.detach().half().contiguous()
    tensors[IDS] = torch.as_tensor(token_ids, dtype=torch.int32)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file(tensors, str(partial), metadata=METADATA)
    partial.chmod(0o644)  # safetensors makes files for their owner only
    partial.replace(path)


def load_sample_state_dict(path: Path = SAMPLE_WEIGHTS) -> dict[str, Tensor]:
    """Read the sample CLIP's weights as a full open_clip state dict, float32.

    Args:
        path: a file written by `save_sample_weights`.

    Returns:
        The state dict. The token embedding has all of the tokenizer's rows; a token that is not
        stored gets the row for unknown words.

    Raises:
        ValueError: the file does not hold a cut vocabulary.
    """
    with safe_open(str(path), framework="pt") as file:
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if not {IDS, ROWS, UNKNOWN} <= state.keys():
        raise ValueError(
            f"{path}: no {ROWS!r} inside, so this is not a file of the sample CLIP; load it as "
            "ordinary open_clip weights"
        )
    ids, rows, unknown = state.pop(IDS), state.pop(ROWS), state.pop(UNKNOWN)
    vocabulary = load_sample_config()["text_cfg"]["vocab_size"]
    full = unknown.float().repeat(vocabulary, 1)  # (vocabulary, width)
    full[ids.long()] = rows.float()
    return {EMBEDDING: full, **{name: tensor.float() for name, tensor in state.items()}}
