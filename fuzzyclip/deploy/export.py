"""A detector as an ONNX or OpenVINO file, compared with PyTorch before it takes its place.

    export_onnx(category_model, Path("bottle.onnx"), images, Origin("bottle"))
    export_openvino(category_model, Path("bottle.onnx"), Path("bottle.xml"), images)

A large model has its weights in a second file beside it, `bottle.onnx.data`, because a single ONNX
file ends at 2 GB. The two belong together under these names.

OpenVINO runs the ONNX file as it is, too (`open_exported(path, "openvino")`); its own form, with
the weights in `bottle.bin`, opens faster and is what its tools want. Files of int8 are right there,
but slower than float32: OpenVINO does not join their operators.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from fuzzyclip.deploy.facts import KEY, Origin, describe, read_facts, to_json
from fuzzyclip.deploy.graph import DetectorGraph
from fuzzyclip.deploy.parity import FLOAT32, INT8, Difference, check_parity, compute_reference
from fuzzyclip.deploy.runtimes import INPUT, MAP, SCORE, OnnxRuntime, OpenVino
from fuzzyclip.engines.onnx_files import DATA, OPSET, WRITERS, write_onnx
from fuzzyclip.engines.quantising import quantise
from fuzzyclip.engines.sessions import keep_core
from fuzzyclip.model.inference import CategoryModel
from fuzzyclip.model.score_kinds import DEFAULT, ScoreKind
from fuzzyclip.utils.extras import import_extra
from fuzzyclip.utils.files import place_together

#: Bytes of weights above which they get a file of their own; protobuf ends at 2**31.
EXTERNAL_ABOVE = 2**30
#: Types of the image tower's weights, and what each may differ by.
ALLOWED = {"float32": FLOAT32, "int8": INT8}


def export_onnx(
    category_model: CategoryModel,
    path: Path,
    images: Sequence[Image.Image | Path],
    origin: Origin,
    *,
    weights: str = "float32",
    allowed: Difference | None = None,
    external_above: int = EXTERNAL_ABOVE,
) -> Difference:
    """Write a detector as ONNX, if onnxruntime gets the detector's own numbers from the file.

    The file is made in a temporary folder beside `path`, run there, and moved when it agrees. An
    int8 file is made of a float32 file that was compared first, so that what it differs by is
    rounding. Beside the detector it takes memory of twice the image tower's weights, 2.5 GB for
    ViT-L/14 at 518 px; int8 takes 4.2 GB.

    Args:
        category_model: in float32.
        path: ends in .onnx.
        images: real ones of the category, at least one; several tell more.
        origin: goes into the file with what the detector knows, see `fuzzyclip.deploy.facts`.
        weights: `float32`; or `int8` for the blocks of the image tower.
        allowed: what the file may differ by; None takes `ALLOWED`.
        external_above: bytes of weights from which they get a file of their own.

    Returns:
        What the file differs by.

    Raises:
        ParityError: it differs by more; nothing is written.
        ExportError: the detector can not become a graph.
        MissingExtraError: a package is missing.
        ValueError: another suffix or type of weights, no images, a detector that is not float32.
        OSError: an image can not be read, or a file not be written.
    """
    if path.suffix != ".onnx":
        raise ValueError(f"{path}: an ONNX file's name ends in .onnx")
    if weights not in ALLOWED:
        raise ValueError(f"weights must be one of {', '.join(ALLOWED)}, not {weights!r}")
    for name in (*WRITERS, "onnxruntime"):
        import_extra(name)
    graph = DetectorGraph(category_model)
    reference = compute_reference(category_model, images)
    with place_together(path, path.with_name(path.name + DATA)) as folder:
        file = folder / path.name
        write_graph(graph, file)
        difference = Difference(0.0, 0.0, 0.0)
        for kind in dict.fromkeys(("float32", weights)):
            if kind == "int8":
                quantise(file)
            finish_file(file, describe(category_model, origin, kind), external_above)
            limit = allowed if allowed is not None and kind == weights else ALLOWED[kind]
            label = _label(path, kind, category_model.score)
            difference = check_parity(reference, OnnxRuntime(file), limit, label)
    return difference


def write_graph(graph: DetectorGraph, path: Path) -> None:
    """A graph as ONNX, its weights in `<name>.data` beside it.

    Raises:
        ExportError: PyTorch can not trace it.
    """
    size, device = graph.image_size, graph.mean.device
    # onnxruntime's own sigmoid ends at 18 on either side, which matters to log-odds made of it
    sigmoid: Any = torch.ops.aten.sigmoid.default
    write_onnx(
        graph,
        path,
        torch.zeros(2, size, size, 3, dtype=torch.uint8, device=device),
        (INPUT, (MAP, SCORE)),
        title="the detector",
        translations={} if graph.score == "class" else {sigmoid: write_sigmoid},
    )


def write_sigmoid(value: Any) -> Any:
    """A sigmoid by its definition, in operators of ONNX."""
    operators = getattr(import_extra("onnxscript"), f"opset{OPSET}")
    return operators.Reciprocal(operators.Exp(operators.Neg(value)) + 1.0)


def finish_file(path: Path, facts: dict[str, Any], external_above: int) -> None:
    """Write the facts into an ONNX file with its `.data`; small data go into the file itself."""
    onnx = import_extra("onnx")
    data = path.with_name(path.name + DATA)
    small = data.is_file() and data.stat().st_size <= external_above
    model = onnx.load(str(path), load_external_data=small)
    del model.metadata_props[:]
    entry = model.metadata_props.add()
    entry.key, entry.value = KEY, to_json(facts)
    onnx.save(model, str(path))
    if small:
        data.unlink()
    elif data.is_file():
        data.chmod(path.stat().st_mode)  # onnx makes it for its owner only
    onnx.checker.check_model(str(path))


def export_openvino(
    category_model: CategoryModel,
    source: Path,
    path: Path,
    images: Sequence[Image.Image | Path],
    *,
    allowed: Difference | None = None,
) -> Difference:
    """Write an ONNX file of `export_onnx` as OpenVINO's, if it gives the detector's own numbers.

    Args:
        category_model: what `source` was made of.
        source: the .onnx, float32 or int8; its facts are taken over.
        path: ends in .xml; a .bin appears beside it.
        images: as `export_onnx` takes them.
        allowed: what the file may differ by; None takes what its type of weights may.

    Returns:
        What the file differs by.

    Raises:
        ParityError: it differs by more; nothing is written.
        MissingExtraError: a package is missing.
        ValueError: another suffix, no images, or a `source` of another origin.
        OSError: a file can not be read or written.
    """
    if path.suffix != ".xml":
        raise ValueError(f"{path}: an OpenVINO file's name ends in .xml")
    openvino = import_extra("openvino")
    facts = read_facts(source)
    if facts["backbone_fingerprint"] != category_model.backbone.fingerprint:
        raise ValueError(f"{source}: made with another backbone than the detector's")
    if (kind := facts.get("score", DEFAULT)) != category_model.score:
        raise ValueError(f"{source}: gives the score {kind!r}, not {category_model.score!r}")
    reference = compute_reference(category_model, images)
    with place_together(path, path.with_suffix(".bin")) as folder:
        file = folder / path.name
        model = keep_core(openvino).read_model(str(source))
        model.set_rt_info(to_json(facts), KEY)
        openvino.save_model(model, str(file), compress_to_fp16=False)
        limit = ALLOWED[facts["weights"]] if allowed is None else allowed
        label = _label(path, facts["weights"], category_model.score)
        return check_parity(reference, OpenVino(file), limit, label)


def _label(path: Path, weights: str, score: ScoreKind) -> str:
    """A file in messages; where the map decides, small differences of its pixels count."""
    return f"{path.name} ({weights}{'' if score == DEFAULT else f', score {score}'})"
