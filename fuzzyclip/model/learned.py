"""A detector of what a method of the harness has learned, by the file that the pipeline keeps."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fuzzyclip.clip.backbone import load_backbone
from fuzzyclip.model.card import DataCard, ModelError
from fuzzyclip.model.loaded import FuzzyCLIP
from fuzzyclip.utils.files import BrokenFileError
from fuzzyclip.utils.settings import BackboneSettings, TextSettings, say_first_fault
from fuzzyclip.utils.tensor_files import read_tensors


class Header(BaseModel):
    """What the pipeline says of what a method has learned; it has more than is read here."""

    model_config = ConfigDict(frozen=True, strict=True)

    kind: Literal["method"]
    method: str
    auxiliary: str
    datasets: list[str]
    licences: dict[str, str] = Field(default_factory=dict)
    sources: dict[str, str] = Field(default_factory=dict)
    backbone: str
    clip_settings: Annotated[BackboneSettings, Field(strict=False)]
    settings: dict[str, Any]
    text: Annotated[TextSettings, Field(strict=False)]
    facts: dict[str, Any] = Field(default_factory=dict)

    @property
    def data(self) -> DataCard | None:
        """What the method was trained on; None where it learns nothing."""
        if not self.datasets:
            return None
        return DataCard(
            auxiliary=self.auxiliary,
            datasets=self.datasets,
            licences=self.licences,
            sources=self.sources,
        )


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
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such file")
    try:
        tensors, said = read_tensors(path)
    except BrokenFileError as error:
        raise ModelError(str(error)) from error
    try:
        header = Header.model_validate(said)
    except ValidationError as error:
        raise ModelError(
            f"{path} is not what a method has learned ({say_first_fault(error)}): `dvc repro "
            "baselines` makes baselines/<method>/<auxiliary set>.safetensors"
        ) from error
    if tensors and not header.datasets:
        raise ModelError(f"{path}: datasets: none, though something was learned; train it again")
    settings = header.clip_settings
    if weights is not None:
        settings = settings.model_copy(update={"weights": str(weights)})
    try:
        # the header's fingerprint tells whether the weights are those of the training
        backbone = load_backbone(settings, allow_unverified=True, device=device)
    except ValueError as error:
        raise ModelError(
            f"{path}: its backbone can not be built ({error}); paths in it begin where the "
            "pipeline ran: start there"
        ) from error
    if backbone.fingerprint != header.backbone:
        raise ModelError(
            f"{path} was made with another backbone than {settings.model} with "
            f"{settings.weights}: give its weights, or train it again"
        )
    return FuzzyCLIP.build(
        backbone,
        header.method,
        settings=header.settings,
        text=header.text,
        tensors=tensors or None,
        facts=header.facts,
        data=header.data,
        name=name,
    )
