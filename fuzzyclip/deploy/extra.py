"""Packages that only an export needs, imported where they are used."""

import importlib
import sys
from types import ModuleType
from typing import Any

#: openvino's reporter of use to its makers; it would report the import already.
TELEMETRY = "openvino_telemetry"


class MissingExtraError(ValueError):
    """A package of the extra `export` is not installed."""


def import_extra(name: str) -> Any:
    """A module of the packages that `fuzzyclip[export]` brings.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return import_openvino() if name == "openvino" else importlib.import_module(name)
    except ImportError as error:
        raise MissingExtraError(
            f"{name} is not installed or broken ({error}): pip install 'fuzzyclip[export]'"
        ) from error


def import_openvino() -> ModuleType:
    """openvino without its telemetry, which otherwise calls its makers without being asked to.

    Without the reporting package openvino takes a stub of its own; so it seems to be absent while
    openvino is imported. A process that imported openvino before has made its own choice.
    """
    if "openvino" in sys.modules or TELEMETRY in sys.modules:
        return importlib.import_module("openvino")
    absent: Any = None  # Python's own sign that a module can not be imported
    sys.modules[TELEMETRY] = absent
    try:
        return importlib.import_module("openvino")
    finally:
        del sys.modules[TELEMETRY]
