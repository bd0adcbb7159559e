"""Where CLIP's weights come from, and the checks before they are used.

A weights argument is one of
- a file: `.safetensors`, or a PyTorch checkpoint that loads with `weights_only=True`;
- a tag of open_clip (`openai`, `laion2b_s32b_b82k`, ...): fetched once into the Hugging Face cache;
- `random`: the model's own initialisation under a seed, for tests.
"""

import logging
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from fuzzyclip.files import compute_sha256

log = logging.getLogger(__name__)

RANDOM = "random"
#: Header field that marks weights whose vocabulary was cut to the rows in use.
SPARSE_VOCABULARY = "sparse_vocabulary"


class WeightsError(ValueError):
    """Weights are missing, unverified, or do not fit the model."""


def find_weights(model_name: str, weights: str) -> Path:
    """The file behind `weights`: a path as it is, an open_clip tag after its download.

    Raises:
        WeightsError: neither a file nor a tag of this model, or the download failed.
    """
    path = Path(weights).expanduser()
    if path.is_file():
        return path
    from open_clip import pretrained

    entry = pretrained.get_pretrained_cfg(model_name, weights)
    if not entry:
        tags = pretrained.list_pretrained_tags_by_model(model_name)
        raise WeightsError(
            f"weights {weights!r}: no such file, and no open_clip tag of model {model_name!r} "
            f"(tags: {', '.join(tags) or 'none'})"
        )
    log.info("fetching the weights %s of %s", weights, model_name)
    try:
        return Path(pretrained.download_pretrained(entry, prefer_hf_hub=True))
    except Exception as error:
        raise WeightsError(
            f"weights {weights!r} of {model_name!r} could not be downloaded ({error}). Offline: "
            "get the file on another machine and give its path as `weights`"
        ) from error


def verify_weights(path: Path, sha256: str | None, allow_unverified: bool) -> str:
    """The file's SHA-256, after comparing it with the expected one.

    Raises:
        WeightsError: it differs, or none is expected and that was not allowed.
    """
    actual = compute_sha256(path)
    if sha256 is None and not allow_unverified:
        raise WeightsError(
            f"weights {path.name}: no sha256 is given to check them against. The file's is {actual}"
            ": set it as the backbone's `sha256`, or set `allow_unverified: true`"
        )
    if sha256 is not None and actual != sha256.lower():
        raise WeightsError(
            f"weights {path}: sha256 is {actual}, expected {sha256}. Replace the file, or correct "
            "the backbone's `sha256`"
        )
    return actual


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a weights file, float32, under open_clip's names; never unpickles code.

    Raises:
        WeightsError: the file can not be read as weights.
    """
    try:
        if path.suffix == ".safetensors":
            with safe_open(str(path), framework="pt") as file:
                sparse = SPARSE_VOCABULARY in (file.metadata() or {})
            if sparse:
                from fuzzyclip.sample.clip import load_sample_state_dict

                return load_sample_state_dict(path)
            state = load_file(path)
        else:
            loaded = torch.load(path, map_location="cpu", weights_only=True)
            state = dict(loaded.get("state_dict", loaded))
    except Exception as error:
        raise WeightsError(
            f"weights {path}: not readable as safetensors or as a plain PyTorch checkpoint "
            f"({error}). TorchScript archives hold code and are refused: convert them first"
        ) from error
    return {name.removeprefix("module."): tensor.float() for name, tensor in state.items()}
