"""Images and masks, in every format that is read."""

import io
import random
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fuzzyclip.images.decode import load_image, load_mask
from tools.fuzz.kind import Kind
from tools.fuzz.mutate import mutate_bytes

#: Kinds of a picture: format, mode, and what saving it takes.
PICTURES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("PNG", "RGB", {}), ("PNG", "L", {}), ("PNG", "I;16", {}), ("PNG", "P", {}),
    ("PNG", "RGBA", {}), ("PNG", "1", {}),
    ("JPEG", "RGB", {}), ("JPEG", "L", {"progressive": True}), ("JPEG", "CMYK", {}),
    ("BMP", "RGB", {}), ("BMP", "P", {}),
    ("TIFF", "RGB", {"compression": "tiff_lzw"}), ("TIFF", "I;16", {}), ("TIFF", "F", {}),
    ("TIFF", "L", {"compression": "tiff_adobe_deflate"}),
    ("WEBP", "RGB", {}), ("WEBP", "RGBA", {"lossless": True}), ("GIF", "P", {}),
    ("PPM", "RGB", {}), ("PPM", "L", {}),
)  # fmt: skip
#: Bytes of the header that say a picture's size, by format.
SIZES = {"PNG": (16, 24), "BMP": (18, 26), "GIF": (6, 10), "PPM": (3, 8), "WEBP": (24, 30)}


class Images(Kind):
    """Images to inspect."""

    sizes = ((24, 16), (40, 33))

    def prepare(self, folder: Path) -> None:
        del folder
        rng = np.random.default_rng(0)
        self.contents = []
        for size in self.sizes:
            for kind, mode, options in PICTURES:
                pixels = self.draw(rng, size)
                image = Image.fromarray(pixels)
                if mode in ("I;16", "F"):
                    scale = np.uint16(257) if mode == "I;16" else np.float32(1 / 255)
                    image = Image.fromarray(pixels[..., 0] * scale)
                else:
                    image = image.convert(mode)
                with io.BytesIO() as stream:
                    image.save(stream, kind, **options)
                    self.contents.append((kind, stream.getvalue()))

    def draw(self, rng: np.random.Generator, size: tuple[int, int]) -> Any:
        """Pixels (H, W, 3)."""
        return rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)

    def mutate(self, rng: random.Random, place: Path) -> None:
        kind, content = rng.choice(self.contents)
        if rng.random() < 0.2 and kind in SIZES:
            begin, end = SIZES[kind]
            made = bytearray(content)
            made[rng.randrange(begin, end)] = rng.randrange(256)
            content = bytes(made)
        else:
            content = mutate_bytes(rng, content)
        (place / f"part.{kind.lower()}").write_bytes(content)

    def read(self, place: Path) -> Any:
        (path,) = place.iterdir()
        return load_image(path)

    def find_fault(self, place: Path, content: Any) -> str:
        """RGB without metadata, the same twice, and of the size that its header says."""
        (path,) = place.iterdir()
        if content.mode != "RGB" or content.info:
            return f"mode {content.mode}, metadata {[*content.info]}"
        with Image.open(path) as opened:
            if sorted(opened.size) != sorted(content.size):
                return f"{content.size} of {opened.size}"
        if content.tobytes() != load_image(path).tobytes():
            return "other pixels the second time"
        return ""


class Masks(Images):
    """Ground truth: black but for a block."""

    def draw(self, rng: np.random.Generator, size: tuple[int, int]) -> Any:
        """Pixels (H, W, 3)."""
        pixels = np.zeros((size[1], size[0], 3), np.uint8)
        top, left = rng.integers(0, 8, 2)
        pixels[top : top + 6, left : left + 9] = 255
        return pixels

    def read(self, place: Path) -> Any:
        (path,) = place.iterdir()
        return load_mask(path)

    def find_fault(self, place: Path, content: Any) -> str:
        """Yes and no in two dimensions, the same twice."""
        (path,) = place.iterdir()
        if content.dtype != bool or content.ndim != 2:
            return f"{content.dtype} of shape {content.shape}"
        return "" if np.array_equal(content, load_mask(path)) else "another mask the second time"
