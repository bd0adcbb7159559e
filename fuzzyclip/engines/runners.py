"""The image tower run by onnxruntime or OpenVINO from its ONNX file, where `ImageTower.encode` is.

Shapes: B images, S image size, D embedding width, L taken blocks, P patches, W vision width.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fuzzyclip.engines.sessions import compile_openvino, open_onnxruntime

Floats = NDArray[np.float32]

#: Names in the file.
PIXELS, EMBED, TOKENS = "pixels", "image_embed", "patch_tokens"
#: Tokens of a pass at most, if it is not of one image: these runtimes build whole tables of
#: attention, whose memory a larger pass would multiply without making it faster.
PASS_TOKENS = 2048


class Runner(ABC):
    """A runtime with the tower's file open; pickled, it is opened again where it arrives."""

    #: As `machine.runtime` calls it, and the package that it is.
    name: ClassVar[str]
    package: ClassVar[str]

    def __init__(self, path: Path, blocks: Sequence[int], tokens: int, threads: int) -> None:
        """Open a file.

        Args:
            path: of the tower, see `fuzzyclip.engines.tower_files`.
            blocks: whose tokens the file gives.
            tokens: of an image, which say how many images are sent at a time.
            threads: that compute.

        Raises:
            RuntimeError: the file can not be opened.
            MissingExtraError: the runtime is not installed.
        """
        self._given = (path, tuple(blocks), tokens, threads)
        self.blocks = tuple(blocks)
        self.pass_images = count_pass_images(tokens)
        self._open(path, threads)

    def __reduce__(self) -> tuple[Any, ...]:
        """An open file does not travel."""
        return type(self), self._given

    @property
    def label(self) -> str:
        """The package with its version, as headers and summaries have it."""
        return f"{self.package} {version(self.package)}"

    def __call__(self, pixels: Tensor, blocks: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Image features (B, D) and patch tokens (B, L, P, W) of pixels (B, 3, S, S), float32.

        Raises:
            ValueError: other blocks than the file's.
        """
        if tuple(blocks) != self.blocks:
            raise ValueError(f"the file gives blocks {list(self.blocks)}, not {list(blocks)}")
        passes = torch.split(pixels.float().contiguous(), self.pass_images)
        answers = [self._run(each.numpy()) for each in passes]
        embeds, tokens = zip(*answers, strict=True)
        return _join(embeds), _join(tokens)

    @abstractmethod
    def _open(self, path: Path, threads: int) -> None:
        """Open the file."""

    @abstractmethod
    def _run(self, pixels: Floats) -> tuple[Floats, Floats]:
        """Features and tokens of one pass."""


def count_pass_images(tokens: int) -> int:
    """Images in a pass, which have so many tokens each."""
    return max(1, PASS_TOKENS // tokens)


def _join(pieces: Sequence[Floats]) -> Tensor:
    return torch.from_numpy(pieces[0] if len(pieces) == 1 else np.concatenate(pieces))


class OnnxRuntime(Runner):
    """By onnxruntime."""

    name = "onnx"
    package = "onnxruntime"

    def _open(self, path: Path, threads: int) -> None:
        self._session: Any = open_onnxruntime(path, threads)

    def _run(self, pixels: Floats) -> tuple[Floats, Floats]:
        embeds, tokens = self._session.run([EMBED, TOKENS], {PIXELS: pixels})
        return embeds, tokens


class OpenVino(Runner):
    """By OpenVINO."""

    name = "openvino"
    package = "openvino"

    def _open(self, path: Path, threads: int) -> None:
        self._compiled: Any = compile_openvino(path, threads)

    def _run(self, pixels: Floats) -> tuple[Floats, Floats]:
        results = self._compiled(pixels, share_outputs=False)  # or the next pass would write there
        return results[EMBED], results[TOKENS]


#: Runtimes by their names in `machine.runtime`.
RUNNERS: dict[str, type[Runner]] = {each.name: each for each in (OnnxRuntime, OpenVino)}
