"""`precision: int8` of a backbone: the linear layers of its image tower in int8, by ONNX Runtime.

That is no engine beside others, but another backbone. Its features are not PyTorch's, so that its
fingerprint, stores, cards and thresholds are its own, and no runtime replaces it.
"""

from dataclasses import replace

import torch

from fuzzyclip.clip.backbone import Backbone
from fuzzyclip.engines.runners import PASS_TOKENS, OnnxRuntime
from fuzzyclip.engines.tower_files import keep_tower
from fuzzyclip.utils.extras import import_extra

#: Raised with every change of what `quantise` makes of a tower; goes into the fingerprint.
RECIPE = 1


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
        ValueError: it is not on the CPU, or its tower can not be written so.
        MissingExtraError: a package is not installed.
    """
    if backbone.device.type != "cpu":
        raise ValueError(f"precision int8 is computed on the CPU, not on {backbone.device}")
    if backbone.compiled:
        raise ValueError("precision int8 is computed by ONNX Runtime: compile goes without it")
    import_extra(OnnxRuntime.package)
    try:
        path, _ = keep_tower(backbone)
        alone = PASS_TOKENS  # an image of so many tokens fills a pass
        engine = Int8Runner(path, backbone.blocks, alone, torch.get_num_threads())
    except (ValueError, OSError, RuntimeError, MemoryError) as error:
        raise ValueError(f"precision int8: {error}") from error
    return replace(backbone, engine=engine)
