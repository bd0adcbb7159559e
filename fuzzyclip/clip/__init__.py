"""The frozen CLIP: built, filled, frozen, and run.

Importing what it is built with, without the half of that which is hardly ever used:
open_clip imports torchvision and timm, which ask torch's compiler for one function each
(`torch._dynamo.utils.is_compile_supported`, `torch._dynamo.disable`). Loading it, and with it sympy
and torch.distributed, takes as long as PyTorch itself, in every stage and every
`fuzzyclip predict`. Here both are imported with stand-ins for the compiler's modules, which load it
when one of these functions is called, or when anything else of it is asked for.
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


class _StandIn(ModuleType):
    """A module that is loaded when it is asked for something."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # the import system looks at these
            raise AttributeError(name)
        return getattr(_load(self.__name__), name)


def _load(name: str) -> Any:
    """The real module, with the stand-ins out of the way."""
    _remove()
    return importlib.import_module(name)


def _remove() -> None:
    for name in (COMPILER, UTILS):
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
    """Import torchvision and timm; torch's compiler only where something else has done so."""
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


import_lightly()
