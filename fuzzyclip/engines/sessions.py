"""Opening ONNX files by onnxruntime and OpenVINO on the CPU; needs no PyTorch."""

from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from fuzzyclip.utils.extras import import_extra


def open_onnxruntime(path: Path, threads: int | None = None) -> Any:
    """onnxruntime's session of an ONNX file, by so many threads; None for its own choice.

    Raises:
        RuntimeError: the file is broken.
        MissingExtraError: onnxruntime is not installed.
    """
    runtime = import_extra("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = 3  # errors; warnings tell of its own optimisations
    errors = runtime.capi.onnxruntime_pybind11_state
    broken = (
        errors.Fail,
        errors.InvalidGraph,
        errors.InvalidProtobuf,
        errors.NotImplemented,
        errors.RuntimeException,
    )
    try:
        return runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except broken as error:
        raise RuntimeError(str(error)) from error


def compile_openvino(path: Path, threads: int | None = None) -> Any:
    """OpenVINO's compiled form, in float32, of an ONNX file or its own; `threads` as above.

    Raises:
        RuntimeError: the file is broken.
        MissingExtraError: OpenVINO is not installed.
    """
    core = keep_core(import_extra("openvino"))
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}  # bfloat16 elsewhere
    if threads:
        settings["INFERENCE_NUM_THREADS"] = threads
    return core.compile_model(core.read_model(str(path)), "CPU", settings)


@cache
def keep_core(openvino: ModuleType) -> Any:
    """OpenVINO's `Core`, one for the process and until its end.

    A core that compiles for the CPU gives the thread another stack for signals, and puts the one
    before it back when it goes. Of two that go in the order they came, the second puts back the
    first one's, which is gone by then, and the next Ctrl-C is a segmentation fault (2026.4).
    """
    return openvino.Core()
