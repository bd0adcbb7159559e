"""`precision: int8` of a backbone: the linear layers of its image tower in int8, by ONNX Runtime.

That is no engine beside others, but another backbone. Its features are not PyTorch's, so that its
fingerprint, stores, cards and thresholds are its own, and no runtime replaces it.
"""

from contextlib import suppress
from dataclasses import replace

import torch
from torch.nn import functional as F

from fuzzyclip.clip.backbone import Backbone
from fuzzyclip.engines.equality import UnequalError, draw_pixels
from fuzzyclip.engines.machine import describe_machine, name_facts
from fuzzyclip.engines.runners import PASS_TOKENS, OnnxRuntime
from fuzzyclip.engines.tower_files import find_folder, keep_tower, read_json
from fuzzyclip.utils.extras import import_extra
from fuzzyclip.utils.files import write_json

#: Raised with every change of what `quantise` makes of a tower; goes into the fingerprint.
RECIPE = 1
#: What the cosine of features with float32's is at least, on average. Rounding leaves it near 1; a
#: broken file, or a processor whose products overflow, gives another thing altogether.
LEAST_COSINE = 0.8


class Int8Runner(OnnxRuntime):
    """By onnxruntime, from a file with layers in int8."""

    @property
    def label(self) -> str:
        """The package with its version, and the type."""
        return f"{super().label}, int8"


def open_int8(backbone: Backbone) -> Backbone:
    """A backbone of `precision: int8`, whose image tower is run in it; its file is made once.

    Images go through one by one: ONNX Runtime brings what comes in to eight bits with one scale a
    pass, so that an image's features would depend on what it is sent with.

    Raises:
        ValueError: it is not on the CPU, its tower can not be written so, or the file gives
            features that are far from float32's.
        MissingExtraError: a package is not installed.
    """
    if backbone.device.type != "cpu":
        raise ValueError(f"precision int8 is computed on the CPU, not on {backbone.device}")
    if backbone.compiled:
        raise ValueError("precision int8 is computed by ONNX Runtime: compile goes without it")
    import_extra(OnnxRuntime.package)
    try:
        path, digits = keep_tower(backbone)
        alone = PASS_TOKENS  # an image of so many tokens fills a pass
        engine = Int8Runner(path, backbone.blocks, alone, torch.get_num_threads())
        _require_near(backbone, engine, digits)
    except (ValueError, OSError, RuntimeError, MemoryError) as error:
        raise ValueError(f"precision int8: {error}") from error
    return replace(backbone, engine=engine)


def _require_near(backbone: Backbone, engine: Int8Runner, digits: str) -> None:
    """Refuse, as an UnequalError, a file whose features are far from float32's on this machine."""
    machine = describe_machine()
    place = find_folder(backbone) / f"near-{name_facts(machine)}.json"
    known = read_json(place)
    if known is not None and known.get("file") == digits:
        return
    pixels = draw_pixels(backbone.image_size)
    with torch.no_grad():
        expected = backbone.image_tower.encode(pixels, backbone.blocks)
    pairs = zip(engine(pixels, backbone.blocks), expected, strict=True)
    cosine = min(float(F.cosine_similarity(own, wanted, dim=-1).mean()) for own, wanted in pairs)
    if not cosine >= LEAST_COSINE:
        raise UnequalError(
            f"{engine.label} gives features whose cosine with float32's is {cosine:.2f} on "
            f"average, {LEAST_COSINE} is the least: take float32"
        )
    with suppress(OSError):  # then they are compared again the next time
        write_json(place, {"file": digits, "cosine": cosine, "machine": machine})
