"""Images as a request holds them, and the answer that FuzzyCLIP itself gives."""

import base64
import io

import numpy as np
from PIL import Image

from fuzzyclip.model.card import Tiling
from fuzzyclip.report.heatmaps import encode_map_png, encode_mask_png

TILED = Tiling(side=32, overlap=8)


def encode(image, kind="PNG"):
    with io.BytesIO() as file:
        image.save(file, kind)
        return file.getvalue()


def text(content):
    return base64.b64encode(content).decode()


def draw(width=48, height=40, seed=0):
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


GOOD = text(encode(draw()))


def expect(found, pictures=("map",)):
    """The answer that FuzzyCLIP itself gives."""
    own = found.to_row()
    own.pop("image")
    encoded = {"map": encode_map_png(found.anomaly_map), "mask": encode_mask_png(found.mask)}
    shown = {name: text(png) if name in pictures else None for name, png in encoded.items()}
    return own | shown | {"error": None}
