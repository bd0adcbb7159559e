"""The frozen CLIP: built, filled, frozen, and run.

Importing what it is built with, without the half of that which is hardly ever used:
open_clip imports torchvision and timm, which ask torch's compiler for one function each
(`torch._dynamo.utils.is_compile_supported`, `torch._dynamo.disable`). Loading it, and with it sympy
and torch.distributed, takes as long as PyTorch itself, in every stage and every
`fuzzyclip predict`. Here both are imported with stand-ins for the compiler's modules, which load it
when one of these functions is called, or when anything else of it is asked for.

open_clip itself imports transformers, for text towers and captions that no model here has. The two
modules of it that do so are loaded when a class of theirs is built or asked for; what they then
find of transformers, or miss, is what they would have found at once.
"""

import importlib
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

COMPILER = "torch._dynamo"
UTILS = f"{COMPILER}.utils"
OPEN_CLIP = "open_clip"
#: The class that the rest of open_clip takes from each of its modules that import transformers.
LATE = {f"{OPEN_CLIP}.hf_model": "HFTextEncoder", f"{OPEN_CLIP}.coca_model": "CoCa"}


class _StandIn(ModuleType):
    """A module that is loaded when it is asked for something."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # the import system looks at these
            raise AttributeError(name)
        return getattr(_load(self.__name__), name)


class _Late(type):
    """A class that is loaded with its module when it is built or compared with."""

    def __call__(cls, *given: Any, **named: Any) -> Any:
        """An instance of the real class."""
        return _find(cls)(*given, **named)

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, _find(cls))


def _get_late(name: str) -> Any:
    """What open_clip has when it is asked for: its late modules, and the real CoCa."""
    if name == "CoCa":
        return _load(f"{OPEN_CLIP}.coca_model").CoCa
    if f"{OPEN_CLIP}.{name}" in LATE:
        return _load(f"{OPEN_CLIP}.{name}")
    raise AttributeError(f"module {OPEN_CLIP!r} has no attribute {name!r}")


def _find(stand_in: type) -> Any:
    return getattr(_load(stand_in.__module__), stand_in.__name__)


def _load(name: str) -> Any:
    """The real module, with the stand-ins out of the way."""
    _remove()
    return importlib.import_module(name)


def _remove() -> None:
    for name in (COMPILER, UTILS, *LATE):
        if isinstance(sys.modules.get(name), _StandIn):
            del sys.modules[name]


def _is_compile_supported(device_type: str) -> bool:
    return bool(_load(UTILS).is_compile_supported(device_type))


def _disable(
    function: Callable[..., Any] | None = None, *given: Any, **named: Any
) -> Callable[..., Any]:
    """`torch._dynamo.disable`, applied when the function is first called."""
    if function is None:  # as a decorator with settings
        return lambda decorated: _disable(decorated, *given, **named)
    disabled: list[Callable[..., Any]] = []

    @wraps(function)
    def call(*arguments: Any, **keywords: Any) -> Any:
        if not disabled:
            disabled.append(_load(COMPILER).disable(function, *given, **named))
        return disabled[0](*arguments, **keywords)

    return call


def import_lightly() -> None:
    """Import torchvision, timm and open_clip without what they hardly ever use.

    What something else has imported stays as it is.
    """
    _import_without_compiler()
    _import_without_transformers()


def _import_without_compiler() -> None:
    if COMPILER in sys.modules or {"torchvision", "timm"} <= sys.modules.keys():
        return
    compiler, utils = _StandIn(COMPILER), _StandIn(UTILS)
    compiler.__path__ = [str(Path(torch.__file__).parent / "_dynamo")]
    compiler.__dict__["disable"] = _disable
    utils.__dict__["is_compile_supported"] = _is_compile_supported
    sys.modules |= {COMPILER: compiler, UTILS: utils}
    try:
        importlib.import_module("torchvision")
        importlib.import_module("timm")
    finally:
        _remove()


def _import_without_transformers() -> None:
    if OPEN_CLIP in sys.modules:
        return
    for module, name in LATE.items():
        sys.modules[module] = _StandIn(module)
        sys.modules[module].__dict__[name] = _Late(name, (), {"__module__": module})
    try:
        names = vars(importlib.import_module(OPEN_CLIP))
    finally:
        _remove()
    if "__getattr__" not in names:  # open_clip has none so far
        names["__getattr__"] = _get_late
        names.pop("CoCa", None)


import_lightly()
