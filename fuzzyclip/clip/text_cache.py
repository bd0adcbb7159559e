"""Text features on disk: a string goes through the text tower once, however many stages ask for it.

One file a frozen CLIP, shared by processes, safe to delete. It can only save work: what it gives is
what `encode_text` gives, to the last bit; where it is broken, read-only or on a full disk, the text
tower does the work as if there were no file.

Shapes: n prompts, D embedding width.
"""

import hashlib
import json
import logging
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from safetensors import SafetensorError
from torch import Tensor

from fuzzyclip.clip.backbone import Backbone
from fuzzyclip.clip.encoding import PASS_ROWS, PASS_STEP, encode_text
from fuzzyclip.clip.weights import RANDOM
from fuzzyclip.utils.files import BrokenFileError
from fuzzyclip.utils.tensor_files import read_tensors, write_tensors

log = logging.getLogger(__name__)

#: Version of the code that makes features. Raise it when the same string, weights and settings no
#: longer give the same numbers.
CODE = 1
#: Parts of an identity that text features do not depend on.
IMAGE_ONLY = ("image_size", "blocks", "position_embedding", "mean", "std", "merge")
#: Seconds to wait for another process that writes.
PATIENCE = 30.0


class TextCache:
    """Text features of one frozen CLIP, kept in a file of its own."""

    def __init__(self, folder: Path, backbone: Backbone) -> None:
        """Name the file in a folder that is made when something is first stored."""
        self.backbone = backbone
        identity = json.dumps(describe_text(backbone), sort_keys=True)
        self.path = folder / f"{hashlib.sha256(identity.encode()).hexdigest()}.safetensors"
        self._known: dict[str, Tensor] | None = None

    def encode(self, prompts: Sequence[str]) -> Tensor:
        """Text features (n, D), float32, not normalised, on the backbone's device.

        Raises:
            PromptTooLongError: a prompt exceeds the context.
            ValueError: the tokenizer is of another model.
        """
        if self._known is None:
            self._known = self._read()
        missing = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._known]
        if missing:
            made = encode_text(self.backbone, missing).cpu()
            self._known |= dict(zip(missing, made, strict=True))
            self._write(self._known)
        embeds = [self._known[prompt] for prompt in prompts]
        joined = torch.stack(embeds) if embeds else torch.empty(0, self.backbone.embed_dim)
        return joined.to(self.backbone.device)

    def _read(self) -> dict[str, Tensor]:
        """The features (D,) in the file; none where it is broken or not there."""
        try:
            tensors, header = read_tensors(self.path)
            return dict(zip(header["prompts"], tensors["text_embed"], strict=True))
        except FileNotFoundError:
            return {}
        except (OSError, BrokenFileError) as error:
            _warn(f"text cache: {error}; its texts are encoded anew")
            return {}

    def _write(self, known: dict[str, Tensor]) -> None:
        """Replace the file by one with these features and with what others have stored."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(self.path.with_suffix(".lock"), timeout=PATIENCE):
                known = self._read() | known
                embeds = torch.stack([*known.values()])  # (n, D)
                write_tensors(self.path, {"text_embed": embeds}, {"prompts": [*known]})
        except (OSError, SafetensorError, ValueError) as error:
            _warn(f"text cache {self.path}: {error}; texts are encoded without it")


def describe_text(backbone: Backbone) -> dict[str, Any]:
    """Plain data: all that a text feature depends on besides its string."""
    identity = backbone.identity
    if not identity["weights_sha256"].startswith(RANDOM):  # else drawn after the image tower's
        config = {k: v for k, v in identity["config"].items() if k != "vision_cfg"}
        kept = {k: v for k, v in identity.items() if k not in IMAGE_ONLY}
        identity = kept | {"config": config}
    made = {"code": CODE, "passes": [PASS_ROWS, PASS_STEP], "device": backbone.device.type}
    return identity | made


@cache
def _warn(message: str) -> None:
    """Once is enough: a stage asks the cache for every name."""
    log.warning(message)
