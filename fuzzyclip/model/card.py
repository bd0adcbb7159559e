"""model.json: all that a model is besides its tensors, as a schema.

A model's directory holds
- `model.json`, this card;
- `efa.safetensors` and `rpl.safetensors`, the trained layers and prompts;
- `backbone.json`, open_clip's configuration of the frozen CLIP, and its weights, or else the card
  says which weights belong to it;
- `memory-*.safetensors`, tokens of good parts, where some were remembered.

Nothing in it is run: JSON and tensors alone. `backbone.json` is read as
`fuzzyclip.clip.config_schema` says; no name in either makes code run, and numbers are finite.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from fuzzyclip.model.threshold import Threshold
from fuzzyclip.utils.ranges import COUNT, COUNT_OR_ZERO, FEW, NUMBER, POSITIVE, SIDE, SIGMA
from fuzzyclip.utils.schemas import CHANNELS, limit, say_first_fault

FILENAME = "model.json"
#: Raised with every change that older code could not read. Until 1 image scores were probabilities.
FORMAT: Literal[2] = 2
#: Bytes of it at most.
LARGEST_CARD = 32_000_000
PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class ModelError(ValueError):
    """A model's directory is missing, broken or of another kind."""


def _check_plain(name: str) -> str:
    """A card may come from anywhere; its names must not lead out of the directory."""
    if not PLAIN_NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not a plain file name")
    return name


FileName = Annotated[str, AfterValidator(_check_plain)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
#: Names in prompts; a prompt has room for no more than some tens of words.
Name = Annotated[str, Field(max_length=500)]
Number = Annotated[float, limit(NUMBER)]
Positive = Annotated[float, limit(POSITIVE)]
Few = Annotated[int, limit(FEW)]


class Part(BaseModel):
    """A part of the card: no unknown keys, no change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class BackboneCard(Part):
    """The frozen CLIP; see `fuzzyclip.clip.backbone.load_backbone`.

    Attributes:
        model: open_clip's name of it, or the configuration's file name; for finding weights.
        weights: name of a file, or open_clip's tag.
        place: whether that file lies in the directory or elsewhere.
        sha256: of the weights' file.
        fingerprint: of the backbone that the parts were trained with.
    """

    model: FileName
    weights: Name
    place: Literal["inside", "elsewhere", "tag"]
    sha256: Annotated[str, Field(pattern=r"^([0-9a-f]{64}|random-[0-9]{1,19})$")]
    image_size: Annotated[int, limit(SIDE)]
    blocks: Annotated[list[Few], Field(max_length=FEW.most)]
    activation: Literal["model", "gelu", "quickgelu"]
    position_embedding: Literal["bicubic", "bilinear"]
    mean: Annotated[list[Number], CHANNELS]
    std: Annotated[list[Positive], CHANNELS]
    precision: Literal["float32", "bfloat16", "float16"]
    fingerprint: Digest

    @model_validator(mode="after")
    def _check_weights(self) -> "BackboneCard":
        if self.place != "elsewhere":  # that file is only named, for a user to give it
            _check_plain(self.weights)
        return self


class TextCard(Part):
    """How names become prompts; see `fuzzyclip.clip.name_encoder`."""

    ensemble: Literal["full", "single"]
    separator: Name
    underscore: Literal["keep", "space"]


class EfaTestCard(Part):
    """How the trained parts are used; see `fuzzyclip.method.fuzzyclip.TestSide`."""

    prompt: str
    weights: str | Few
    temperature: Positive
    sigma: Annotated[float, limit(SIGMA)]


class TrainingCard(Part):
    """What the parts were trained on, and with which settings.

    Attributes:
        rpl: its `temperature` is that of image scores, see `fuzzyclip.method.fuzzyclip`.
    """

    auxiliary: str
    datasets: list[str]
    licences: dict[str, str]
    sources: dict[str, str]
    efa: dict[str, Any]
    rpl: dict[str, Any]

    @model_validator(mode="after")
    def _check_temperature(self) -> "TrainingCard":
        temperature = self.rpl.get("temperature")
        if isinstance(temperature, bool) or not isinstance(temperature, int | float):
            raise ValueError(f"rpl: temperature must be a number, not {temperature!r}")
        POSITIVE.check("rpl", temperature=temperature)
        return self


class Tiling(Part):
    """Overlapping tiles in place of the whole squashed image; see `fuzzyclip.model.tiles`.

    Attributes:
        side: of a tile in pixels of the image.
        overlap: pixels that neighbours share at least.
    """

    side: Annotated[int, limit(COUNT)]
    overlap: Annotated[int, limit(COUNT_OR_ZERO)]


class Calibration(Part):
    """Thresholds of one category, and under which way of looking they hold.

    Attributes:
        image: of image scores.
        pixel: of map pixels.
        tiling: how images were looked at.
        memory: digest of the normal memory that took part, if one did.
    """

    image: Threshold
    pixel: Threshold
    tiling: Tiling | None = None
    memory: Digest | None = None


class MemoryCard(Part):
    """Remembered good parts of one category.

    Attributes:
        file: in the directory.
        sha256: of that file.
        images: names of the images.
    """

    file: FileName
    sha256: Digest
    images: list[str]


#: Names of a cluster. Each is encoded with all templates when the model is loaded.
Names = Annotated[list[Name], Field(min_length=1, max_length=FEW.most)]


class Card(Part):
    """A model; see the module's head.

    Attributes:
        versions: of what made it.
        clusters: CSP's names of each cluster.
        files: SHA-256 of each file in the directory that belongs to it.
        calibrations: by category, as it stands in the prompt.
        memories: likewise.
    """

    format: Literal[2] = FORMAT
    name: str
    versions: dict[str, str]
    training: TrainingCard
    backbone: BackboneCard
    text: TextCard
    test: EfaTestCard
    clusters: Annotated[list[Names], Field(min_length=1, max_length=FEW.most)]
    files: dict[FileName, Digest]
    calibrations: dict[str, Calibration] = {}
    memories: dict[str, MemoryCard] = {}

    @model_validator(mode="before")
    @classmethod
    def _read_format_1(cls, data: Any) -> Any:
        """Its parts are still good; its thresholds of probabilities, which tie at 1, are not."""
        if not isinstance(data, dict) or data.get("format") != 1:
            return data
        if chosen := data.get("calibrations"):
            raise ValueError(
                "made when image scores were probabilities, and they are log-odds now: the "
                f"thresholds of {', '.join(map(repr, chosen))} mean nothing any more. Set "
                '"calibrations": {} in this file and calibrate again (fuzzyclip calibrate)'
            )
        return data | {"format": FORMAT}


def read_card(folder: Path) -> Card:
    """The card of a model's directory.

    Raises:
        ModelError: there is none, or it says what this version does not understand.
    """
    path = folder / FILENAME
    if not path.is_file():
        raise ModelError(
            f"{folder}: no model here ({FILENAME} is missing). A finished pipeline has its models "
            "in models/<auxiliary set>/fuzzyclip"
        )
    if (size := path.stat().st_size) > LARGEST_CARD:
        raise ModelError(f"{path}: {size:,} bytes, more than the {LARGEST_CARD:,} of a card")
    try:
        return Card.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise ModelError(f"{path}: {say_first_fault(error)}") from error
