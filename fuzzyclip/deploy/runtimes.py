"""Running an exported file; needs NumPy, Pillow and the runtime, not PyTorch.

    run = open_exported(Path("bottle.onnx"))
    maps, scores = run(run.load([Path("1.png"), Path("2.png")]))

Shapes: B images, S image size.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fuzzyclip.deploy.facts import KEY, parse_facts, read_facts
from fuzzyclip.engines.sessions import compile_openvino, open_onnxruntime
from fuzzyclip.images.decode import load_image
from fuzzyclip.utils.ranges import SIDE

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]

#: Names in the graph.
INPUT, MAP, SCORE = "image", "anomaly_map", "image_score"


def load_pixels(images: Sequence[Image.Image | Path], size: int) -> Pixels:
    """Images as the graph wants them, (B, S, S, 3): RGB, squashed by PIL's bicubic filter.

    It is what `fuzzyclip.clip.encoding.preprocess` does before it normalises.

    Raises:
        ValueError: no images.
        OSError: a file can not be read.
    """
    if not images:
        raise ValueError("no images")
    resized = []
    for image in images:
        opened = load_image(image) if isinstance(image, Path) else image.convert("RGB")
        resized.append(np.asarray(opened.resize((size, size), Image.Resampling.BICUBIC)))
    return np.stack(resized)


class Exported(ABC):
    """An exported detector that is ready to run; its `facts` are those of `describe`."""

    def __init__(self, path: Path, threads: int | None = None) -> None:
        """Open a file, whose data must lie beside it; `threads` None is the runtime's choice.

        Raises:
            OSError: the file can not be read.
            ValueError: it is none of ours, or broken.
            MissingExtraError: the runtime is not installed.
        """
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file")
        self.path = path
        try:
            self.facts = self._open(path, threads)
        except RuntimeError as error:
            raise ValueError(f"{path}: can not be opened ({error}); export it again") from error
        size = self.facts.get("image_size")
        if type(size) is not int:
            raise ValueError(f"{path}: image_size is {size!r}, not a number; export it again")
        SIDE.check(str(path), image_size=size)
        self.image_size = size

    def load(self, images: Sequence[Image.Image | Path]) -> Pixels:
        """`load_pixels` of this file's size."""
        return load_pixels(images, self.image_size)

    def __call__(self, pixels: Pixels) -> tuple[Floats, Floats]:
        """Maps (B, S, S) in [0, 1] and scores (B,), log-odds, of uint8 pixels (B, S, S, 3).

        Raises:
            ValueError: pixels of another type or shape, or an answer that is not finite.
        """
        shape = (self.image_size, self.image_size, 3)
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1:] != shape:
            raise ValueError(
                f"{self.path.name} takes uint8 pixels (B, {', '.join(map(str, shape))}), not "
                f"{pixels.dtype} {pixels.shape}; `load` makes them of images"
            )
        if not len(pixels):
            raise ValueError("no images")
        maps, scores = self._run(pixels)
        if not (np.isfinite(maps).all() and np.isfinite(scores).all()):
            raise ValueError(f"{self.path.name} answers what is not a finite number")
        return maps, scores

    @abstractmethod
    def _open(self, path: Path, threads: int | None) -> dict[str, Any]:
        """Load the file, raising RuntimeError for a broken one; its facts."""

    @abstractmethod
    def _run(self, pixels: Pixels) -> tuple[Floats, Floats]:
        """Maps and scores of pixels that were looked at."""


class OnnxRuntime(Exported):
    """By onnxruntime, on the CPU."""

    def _open(self, path: Path, threads: int | None) -> dict[str, Any]:
        self._session: Any = open_onnxruntime(path, threads)
        return parse_facts(self._session.get_modelmeta().custom_metadata_map.get(KEY), path)

    def _run(self, pixels: Pixels) -> tuple[Floats, Floats]:
        maps, scores = self._session.run([MAP, SCORE], {INPUT: pixels})
        return maps, scores


class OpenVino(Exported):
    """By OpenVINO, on the CPU; takes its own .xml and .onnx."""

    def _open(self, path: Path, threads: int | None) -> dict[str, Any]:
        self._compiled: Any = compile_openvino(path, threads)
        return read_facts(path)

    def _run(self, pixels: Pixels) -> tuple[Floats, Floats]:
        results = self._compiled(np.ascontiguousarray(pixels))
        return results[MAP], results[SCORE]


#: Runtimes by name.
RUNTIMES: dict[str, type[Exported]] = {"onnxruntime": OnnxRuntime, "openvino": OpenVino}


def open_exported(path: Path, runtime: str = "auto", threads: int | None = None) -> Exported:
    """An exported file, an .onnx or an OpenVINO .xml, ready to run.

    Args:
        runtime: `onnxruntime`, `openvino`, or `auto`: OpenVINO for .xml, else onnxruntime.
        threads: that compute; None for the runtime's own choice.

    Raises:
        ValueError: another runtime's name; the file is none of ours, or broken.
        OSError: the file can not be read.
    """
    if runtime == "auto":
        runtime = "openvino" if path.suffix == ".xml" else "onnxruntime"
    if runtime not in RUNTIMES:
        raise ValueError(f"runtime must be auto or one of {', '.join(RUNTIMES)}, not {runtime!r}")
    return RUNTIMES[runtime](path, threads)
