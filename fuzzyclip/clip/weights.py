"""Where CLIP's weights come from, and the checks before they are used.

A weights argument is one of
- a file: `.safetensors`, a PyTorch checkpoint that loads with `weights_only=True`, or a TorchScript
  archive, of which the tensors alone are read;
- a tag of open_clip (`openai`, `laion2b_s32b_b82k`, ...): fetched once into a cache;
- `random`: the model's own initialisation under a seed, for tests.

OpenAI publishes the SHA-256 of its weights in their addresses, which open_clip's table holds: those
files need no other checksum, whether fetched or placed by hand.

The sample CLIP, which tools/pretrain_sample trained on drawn parts, is for demonstration and tests,
not for inspection. Its tokenizer is CLIP's own with 49408 tokens, of which its file keeps the rows
of useful ones; every other token gets one learned row for unknown words.
"""

import json
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from fuzzyclip.clip.model_configs import TIMM
from fuzzyclip.clip.torchscript import is_torchscript, read_torchscript
from fuzzyclip.utils.files import (
    compute_sha256,
    describe_fault,
    measure_safetensors,
    replace_file,
)
from fuzzyclip.utils.scratch import give_usual_mode

log = logging.getLogger(__name__)

RANDOM = "random"
#: Header field that marks weights whose vocabulary was cut to the rows in use; the file has no
#: other, since several have no fixed order on disk.
SPARSE_VOCABULARY = "sparse_vocabulary"
#: Entries of a checkpoint that hold its tensors, where it holds more.
NESTED = ("state_dict", "model")
#: Tensors of OpenAI's and of other TorchScript archives that are no weights.
NO_WEIGHTS = ("input_resolution", "context_length", "vocab_size", "attn_mask")

SAMPLE_CONFIG = Path(__file__).parent.parent / "sample" / "weights" / "model.json"
SAMPLE_WEIGHTS = SAMPLE_CONFIG.with_name("model.safetensors")
#: The token embedding, and what the sample CLIP's file holds in its place.
EMBEDDING = "token_embedding.weight"
IDS, ROWS, UNKNOWN = "token_embedding.ids", "token_embedding.rows", "token_embedding.unknown"


class WeightsError(ValueError):
    """Weights are missing, unverified, or do not fit the model."""


def find_weights(
    model_name: str, weights: str, sha256: str | None = None, allow_unverified: bool = False
) -> Path:
    """The file behind `weights`: a path as it is, an open_clip tag after its download.

    Args:
        model_name: open_clip's.
        weights: a file or a tag.
        sha256: expected digest; of a tag's two sources the one is taken that has it.
        allow_unverified: whether a tag's file may be one without a published digest.

    Raises:
        WeightsError: neither a file nor a tag of this model, or the download failed.
    """
    path = Path(weights).expanduser()
    if path.is_file():
        return path
    from open_clip import pretrained

    entry = pretrained.get_pretrained_cfg(model_name, weights)
    if not entry and model_name.startswith(TIMM):
        raise WeightsError(
            f"weights {weights!r} of {model_name}: no such file; get one by `fuzzyclip fetch "
            f"{model_name}`, and give its path"
        )
    if not entry:
        tags = pretrained.list_pretrained_tags_by_model(model_name)
        raise WeightsError(
            f"weights {weights!r}: no such file, and no open_clip tag of model {model_name!r} "
            f"(tags: {', '.join(tags) or 'none'})"
        )
    log.info("fetching the weights %s of %s", weights, model_name)
    failures = []
    for hub in _choose_sources(entry, sha256, allow_unverified):
        try:
            return Path(pretrained.download_pretrained(entry, prefer_hf_hub=hub))
        except Exception as error:
            failures.append(error)
    raise WeightsError(
        f"weights {weights!r} of {model_name!r} could not be downloaded "
        f"({'; '.join(map(str, failures))}). Offline: get {_name_source(entry)} on another machine "
        "and give the file's path as `weights`"
    ) from failures[0]


def _choose_sources(
    entry: Mapping[str, Any], sha256: str | None, allow_unverified: bool
) -> tuple[bool, ...]:
    """Whether to take a tag's file from the Hugging Face hub; in order, where one may fail.

    The hub has the same tensors in another file, of which no digest is published.
    """
    published = read_published_sha256(entry)
    if not published or (sha256 and sha256.lower() != published):
        return (True,)
    return (False, True) if allow_unverified and not sha256 else (False,)


def _name_source(entry: Mapping[str, Any]) -> str:
    if read_published_sha256(entry) or not entry.get("hf_hub"):
        return str(entry["url"])
    return f"its weights from huggingface.co/{entry['hf_hub'].rstrip('/')}"


def read_published_sha256(entry: Mapping[str, Any]) -> str | None:
    """The digest in the address of an open_clip tag's weights; OpenAI's have one."""
    match = re.search(r"/([0-9a-f]{64})/", entry.get("url", ""))
    return match[1] if match else None


def list_published_sha256() -> set[str]:
    """All digests that open_clip's table holds."""
    from open_clip import pretrained

    entries = (pretrained.get_pretrained_cfg(*names) for names in pretrained.list_pretrained())
    return {digest for entry in entries if (digest := read_published_sha256(entry))}


def verify_weights(path: Path, sha256: str | None, allow_unverified: bool) -> str:
    """The file's SHA-256, after comparing it with the expected one.

    Raises:
        WeightsError: it differs, or none is expected, it is not a published one, and that was not
            allowed. A file that is no weights file is named as what it is.
    """
    _refuse_faulty(path)
    actual = compute_sha256(path)
    if sha256 is None and not allow_unverified and actual not in list_published_sha256():
        raise WeightsError(
            f"weights {path.name}: no sha256 is given to check them against, and they are none of "
            f"the files that OpenAI published. The file's is {actual}: set it as the backbone's "
            "`sha256`, or set `allow_unverified: true`"
        )
    if sha256 is not None and actual != sha256.lower():
        raise WeightsError(
            f"weights {path}: sha256 is {actual}, expected {sha256}. Replace the file, or correct "
            "the backbone's `sha256`"
        )
    return actual


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a weights file, float32, under open_clip's names; never runs code from it.

    Raises:
        WeightsError: the file can not be read as weights.
    """
    _refuse_faulty(path)
    try:
        state = {
            name.removeprefix("module."): tensor.float()
            for name, tensor in _read_tensors(path).items()
            if name.split(".")[-1] not in NO_WEIGHTS
        }
    except Exception as error:
        raise WeightsError(
            f"weights {path}: not readable as safetensors, as a plain PyTorch checkpoint or as "
            f"TorchScript ({error})"
        ) from error
    for name, tensor in state.items():
        if not tensor.isfinite().all():
            raise WeightsError(f"weights {path}: {name} holds values that are not finite")
    return state


def _read_tensors(path: Path) -> Mapping[str, Tensor]:
    """The tensors of a file of any kind, as they are."""
    if measure_safetensors(path):  # whatever its name
        with safe_open(str(path), framework="pt") as file:
            sparse = SPARSE_VOCABULARY in (file.metadata() or {})
        if sparse:
            return load_sample_state_dict(path)
        tensors: dict[str, Tensor] = load_file(path)
        return tensors
    if is_torchscript(path):
        return read_torchscript(path)
    return _unwrap(torch.load(path, map_location="cpu", weights_only=True))


def _unwrap(loaded: Any) -> Mapping[str, Tensor]:
    """The dictionary of tensors in a checkpoint: itself or one of its entries."""
    for key in NESTED:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    if not isinstance(loaded, Mapping):
        raise TypeError(f"it holds a {type(loaded).__name__}, no dictionary of tensors")
    if others := [str(name) for name, item in loaded.items() if not isinstance(item, Tensor)]:
        raise TypeError(
            f"no tensors: {', '.join(others[:5])}. A dictionary of tensors is looked for at the "
            f"top and under {' and '.join(NESTED)}"
        )
    return loaded


def _refuse_faulty(path: Path) -> None:
    if not path.is_file():
        raise WeightsError(f"weights {path}: no such file")
    if fault := describe_fault(path):
        raise WeightsError(f"weights {path}: {fault}")


def load_sample_config() -> dict[str, Any]:
    """open_clip's configuration of the sample CLIP."""
    config: dict[str, Any] = json.loads(SAMPLE_CONFIG.read_text())
    return config


def save_sample_weights(
    path: Path, state: Mapping[str, Tensor], token_ids: Sequence[int], unknown: Tensor
) -> None:
    """Write a state dict as fp16 safetensors with a cut vocabulary.

    The file appears only when complete.

    Args:
        path: of the file.
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
    with replace_file(path) as temporary:
        save_file(tensors, str(temporary), metadata={SPARSE_VOCABULARY: EMBEDDING})
        give_usual_mode(temporary)  # safetensors makes files for their owner only


def load_sample_state_dict(path: Path = SAMPLE_WEIGHTS) -> dict[str, Tensor]:
    """A file of `save_sample_weights` as a full open_clip state dict, float32.

    Its token embedding has all of the tokenizer's rows; a token that is not stored gets the row for
    unknown words.

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
