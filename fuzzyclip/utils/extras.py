"""Packages of FuzzyCLIP's extras, imported where they are used, and told how to get where not."""

import importlib
import os
import sys
from types import ModuleType
from typing import Any

#: openvino's reporter of use to its makers; it would report the import already.
TELEMETRY = "openvino_telemetry"
#: Keeps onnxruntime from reporting to its makers, for which it leaves a number of the machine and
#: a data base in ~/.cache/Microsoft when it is imported.
SILENT = "ORT_DISABLE_TELEMETRY"


class MissingExtraError(ValueError):
    """A package of an extra is not installed, or broken."""


def import_extra(name: str, extra: str = "export") -> Any:
    """A module of the packages that an extra, `fuzzyclip[export]`, brings; none calls its makers.

    Whoever wants that sets ORT_DISABLE_TELEMETRY=0 for onnxruntime.

    Raises:
        MissingExtraError: it is not installed.
    """
    os.environ.setdefault(SILENT, "1")  # read when the first package imports it
    try:
        return import_openvino() if name == "openvino" else importlib.import_module(name)
    except ImportError as error:
        raise MissingExtraError(
            f"{name} is not installed or broken ({error}): pip install 'fuzzyclip[{extra}]'"
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
