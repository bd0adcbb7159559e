"""A detector of what a method of the harness has learned, by the file that the pipeline keeps."""

from pathlib import Path
from typing import Any

from fuzzyclip.clip.backbone import load_backbone
from fuzzyclip.model.card import DataCard, ModelError
from fuzzyclip.model.loaded import FuzzyCLIP
from fuzzyclip.utils.files import BrokenFileError
from fuzzyclip.utils.settings import BackboneSettings, TextSettings
from fuzzyclip.utils.tensor_files import read_tensors

#: Facts of a header without which there is no detector.
NEEDED = ("method", "auxiliary", "datasets", "backbone", "clip_settings", "settings", "text")
#: What a file is asked for whose header lacks one of these.
KIND = "method"


def load_learned(
    path: Path, *, weights: Path | None = None, device: str = "cpu", name: str | None = None
) -> FuzzyCLIP:
    """The detector of `baselines/<method>/<auxiliary set>.safetensors`.

    Args:
        path: the file; its header says the method, its settings and the frozen backbone.
        weights: the backbone's file, where it does not lie where the header says.
        device: as `fuzzyclip.clip.backbone.choose_device` takes it.
        name: of the model; None takes the method's.

    Raises:
        ModelError: the file is none of these, or its backbone is not the one that is built from it.
        MethodRefusedError: the method can not be a detector.
        WeightsError: the backbone's weights are not there, or others.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such file")
    try:
        tensors, header = read_tensors(path)
    except BrokenFileError as error:
        raise ModelError(str(error)) from error
    if header.get("kind") != KIND or any(key not in header for key in NEEDED):
        raise ModelError(
            f"{path} is not what a method has learned: `dvc repro baselines` makes "
            "baselines/<method>/<auxiliary set>.safetensors"
        )
    settings = BackboneSettings.model_validate(header["clip_settings"])
    if weights is not None:
        settings = settings.model_copy(update={"weights": str(weights)})
    # the header's fingerprint tells whether the weights are those of the training
    backbone = load_backbone(settings, allow_unverified=True, device=device)
    if backbone.fingerprint != header["backbone"]:
        raise ModelError(
            f"{path} was made with another backbone than {settings.model} with "
            f"{settings.weights}: give its weights, or train it again"
        )
    return FuzzyCLIP.build(
        backbone,
        header["method"],
        settings=header["settings"],
        text=TextSettings.model_validate(header["text"]),
        tensors=tensors or None,
        facts=header.get("facts"),
        data=_read_data(header),
        name=name,
    )


def _read_data(header: dict[str, Any]) -> DataCard | None:
    """What a method was trained on; None where it learns nothing."""
    if not header["datasets"]:
        return None
    known = {key: dict(header.get(key, {})) for key in ("licences", "sources")}
    return DataCard(auxiliary=header["auxiliary"], datasets=header["datasets"], **known)
