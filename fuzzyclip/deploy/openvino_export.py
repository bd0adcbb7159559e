"""An exported ONNX file in OpenVINO's own form, compared with PyTorch before it takes its place.

OpenVINO runs the ONNX file as it is, too (`open_exported(path, "openvino")`); its own form opens
faster and is what its tools want: `<name>.xml`, and the weights in `<name>.bin`. Files of
int8 are right there, but slower than float32: OpenVINO does not join their operators.
"""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from fuzzyclip.deploy.extra import import_extra
from fuzzyclip.deploy.facts import KEY, read_facts, to_json
from fuzzyclip.deploy.onnx_export import ALLOWED
from fuzzyclip.deploy.parity import Difference, check_parity, compute_reference
from fuzzyclip.deploy.runtimes import OpenVino
from fuzzyclip.model.inference import CategoryModel
from fuzzyclip.utils.files import place_together


def export_openvino(
    detector: CategoryModel,
    source: Path,
    path: Path,
    images: Sequence[Image.Image | Path],
    *,
    allowed: Difference | None = None,
    threads: int | None = None,
) -> Difference:
    """Write an ONNX file of `export_onnx` as OpenVINO's, if it gives the detector's own numbers.

    Args:
        detector: what `source` was made of.
        source: the .onnx, float32 or int8; its facts are taken over.
        path: ends in .xml; a .bin appears beside it.
        images: see `export_onnx`.
        allowed: what the file may differ by; None takes what its type of weights may.
        threads: of OpenVINO while it compares; None for its own choice.

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
    if facts["backbone_fingerprint"] != detector.backbone.fingerprint:
        raise ValueError(f"{source}: made with another backbone than the detector's")
    reference = compute_reference(detector, images)
    with place_together(path, path.with_suffix(".bin")) as folder:
        file = folder / path.name
        model = openvino.Core().read_model(str(source))
        model.set_rt_info(to_json(facts), KEY)
        openvino.save_model(model, str(file), compress_to_fp16=False)
        limit = ALLOWED[facts["weights"]] if allowed is None else allowed
        label = f"{path.name} ({facts['weights']})"
        return check_parity(reference, OpenVino(file, threads), limit, label)
