"""model.json: all that a model is besides its tensors, as a schema.

A model's directory holds
- `model.json`, this card;
- `efa.safetensors` and `rpl.safetensors`, FuzzyCLIP's trained layers and prompts; or
  `learned.safetensors`, what another method has learned, where it learns;
- `backbone.json`, open_clip's configuration of the frozen CLIP, and its weights, or else the card
  says which weights belong to it;
- `memory-*.safetensors`, tokens of normal parts, where some were remembered.

Nothing in it is run: JSON and tensors alone. `backbone.json` is read as
`fuzzyclip.clip.model_configs` says; no name in either makes code run, and numbers are finite.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AliasChoices, Field, ValidationError, model_validator

from fuzzyclip.model.score_kinds import DEFAULT, ScoreKind
from fuzzyclip.utils.faults import AGAIN_FROM_SOURCE, describe
from fuzzyclip.utils.json_text import RepeatedKeyError, parse_json
from fuzzyclip.utils.ranges import FEW, POSITIVE
from fuzzyclip.utils.settings import (
    BackboneSettings,
    Channels,
    Count,
    CountOrZero,
    Deviations,
    EfaTest,
    Number,
    Record,
    Share,
    TextSettings,
    Whole,
    say_first_fault,
)

FILENAME = "model.json"
#: Tells the folder of a fetched backbone, which has a `model.json` of another kind.
TOWER = "tower.json"
#: Raised with every change that older code would misread. Until 1 image scores were probabilities.
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
#: However many images of a plant, or pixels of all of them.
Images = Annotated[int, Field(ge=0)]


class Threshold(Record):
    """A threshold with all that is known of it; `model.calibration` chooses them.

    Attributes:
        value: scores from here on are anomalous; finite.
        method: "f1_max" and "quantile" as in `model.calibration`, "natural" where anomalous
            becomes likelier than normal, "given" by hand, "batch" by the scores of the unlabelled
            images themselves (`model.batch`).
        normal, anomalous: images that it was chosen from; read as `good` and `bad`, too, as
            earlier versions wrote them.
        false_alarm_rate: share of normal images that reach it: counted ("f1_max"), or expected of
            new ones ("quantile").
        false_alarm_interval: where that rate of new images lies, to 95 %.
        miss_rate, miss_interval: the same of anomalous images that do not reach it; counted.
        precision, recall, f1: of those that reach it.
        asked_rate: false alarm rate that was asked for.
        counted: what the rates are shares of. Pixels have no intervals: neighbours are alike.
        note: what a user should know, in words.
    """

    value: Number
    method: Literal["f1_max", "quantile", "natural", "given", "batch"]
    normal: Images = Field(default=0, validation_alias=AliasChoices("normal", "good"))
    anomalous: Images = Field(default=0, validation_alias=AliasChoices("anomalous", "bad"))
    false_alarm_rate: Share | None = None
    false_alarm_interval: tuple[Share, Share] | None = None
    miss_rate: Share | None = None
    miss_interval: tuple[Share, Share] | None = None
    precision: Share | None = None
    recall: Share | None = None
    f1: Share | None = None
    asked_rate: Share | None = None
    counted: Literal["images", "pixels"] = "images"
    note: str = ""


_LIKELIER = "not calibrated: where anomalous becomes likelier than normal"
#: Of image scores, which are log-odds, and of map pixels, which are probabilities.
NATURAL = Threshold(value=0.0, method="natural", note=_LIKELIER)
NATURAL_PIXEL = Threshold(value=0.5, method="natural", note=_LIKELIER)


class BackboneCard(BackboneSettings):
    """The frozen CLIP.

    Attributes:
        model: open_clip's name of it, or the configuration's file name; for finding weights.
        weights: name of a file, or open_clip's tag.
        sha256: of the weights' file.
        place: whether that file lies in the directory or elsewhere.
        fingerprint: of the backbone that the parts were trained with.
    """

    model: FileName
    weights: Name
    sha256: Annotated[str, Field(pattern=r"^([0-9a-f]{64}|random-[0-9]{1,19})$")]
    mean: Channels
    std: Deviations
    place: Literal["inside", "elsewhere", "tag"]
    fingerprint: Digest

    @model_validator(mode="after")
    def _check_weights(self) -> "BackboneCard":
        if self.place != "elsewhere":  # that file is only named, for a user to give it
            _check_plain(self.weights)
        return self


class DataCard(Record):
    """Data that something was trained on.

    Attributes:
        licences: of each dataset.
        sources: of each one's images: `official`, `own`, or the drawn `sample`.
    """

    auxiliary: str
    datasets: list[str]
    licences: dict[str, str]
    sources: dict[str, str]


class TrainingCard(DataCard):
    """Data that FuzzyCLIP's parts were trained on, and their settings.

    Attributes:
        rpl: its `temperature` is that of image scores, see `fuzzyclip.method.fuzzyclip`.
    """

    efa: dict[str, Any]
    rpl: dict[str, Any]

    @model_validator(mode="after")
    def _check_temperature(self) -> "TrainingCard":
        temperature = self.rpl.get("temperature")
        if isinstance(temperature, bool) or not isinstance(temperature, int | float):
            raise ValueError(f"rpl: temperature must be a number, not {temperature!r}")
        POSITIVE.check("rpl", temperature=temperature)
        return self


class MethodCard(Record):
    """Another method than FuzzyCLIP.

    Attributes:
        name: as `fuzzyclip.baselines.registry` knows it.
        settings: all of them.
        facts: plain data that it has learned.
        data: what it was trained on; None where it learns nothing.
    """

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
    settings: dict[str, Any] = Field(default_factory=dict)
    facts: dict[str, Any] = Field(default_factory=dict)
    data: DataCard | None = None


class Tiling(Record):
    """Overlapping tiles in place of the whole squashed image; see `fuzzyclip.model.tiles`.

    Attributes:
        side: of a tile in pixels of the image.
        overlap: pixels that neighbours share at least.
    """

    side: Count
    overlap: CountOrZero


class Calibration(Record):
    """Thresholds of one category's image scores and map pixels, and where they hold.

    Attributes:
        tiling: how images were looked at.
        memory: digest of the normal memory that took part, if one did.
        score: what decided an image; cards from before there was a choice do not say it.
    """

    image: Threshold
    pixel: Threshold
    tiling: Tiling | None = None
    memory: Digest | None = None
    score: ScoreKind = DEFAULT


class MemoryCard(Record):
    """Remembered normal parts of one category: their file in the directory, and images' names."""

    file: FileName
    sha256: Digest
    images: list[str]


#: Names of a cluster. Each is encoded with all templates when the model is loaded.
Names = Annotated[list[Name], Field(min_length=1, max_length=FEW.most)]


class Card(Record):
    """A model; see the module's head.

    Attributes:
        versions: of what made it.
        method: None for FuzzyCLIP itself, of which the next three tell.
        training, test, clusters: of FuzzyCLIP's parts; clusters are CSP's names of each.
        files: SHA-256 of each file in the directory that belongs to it.
        calibrations, memories: by category, as it stands in the prompt.
        fast: what the backbone's fast setting changed, in words; None without it. Its settings say
            it, too; this says that it was meant.
    """

    format: Literal[2] = FORMAT
    name: str
    versions: dict[str, str]
    method: MethodCard | None = None
    training: TrainingCard | None = None
    backbone: Whole[BackboneCard]
    text: Whole[TextSettings]
    test: Whole[EfaTest] | None = None
    clusters: Annotated[list[Names], Field(max_length=FEW.most)] = Field(default_factory=list)
    files: dict[FileName, Digest]
    calibrations: dict[str, Calibration] = Field(default_factory=dict)
    memories: dict[str, MemoryCard] = Field(default_factory=dict)
    fast: Annotated[str, Field(min_length=1, max_length=200)] | None = None

    @property
    def data(self) -> DataCard | None:
        """What the model was trained on; None where nothing was."""
        return self.training if self.method is None else self.method.data

    @property
    def is_sample(self) -> bool:
        """Whether drawn images took part in a training."""
        return self.data is not None and "sample" in self.data.sources.values()

    @model_validator(mode="after")
    def _check_parts(self) -> "Card":
        """A card tells of FuzzyCLIP's own parts, or of another method."""
        own = {"training": self.training, "test": self.test, "clusters": self.clusters}
        if self.method is None and (missing := [name for name, part in own.items() if not part]):
            raise ValueError(f"{', '.join(missing)}: missing, and there is no other `method`")
        if self.method is not None and (beside := [name for name, part in own.items() if part]):
            raise ValueError(f"{', '.join(beside)}: of FuzzyCLIP, beside another `method`")
        return self

    @model_validator(mode="before")
    @classmethod
    def _read_format_1(cls, data: Any) -> Any:
        """Its parts are still good; its thresholds of probabilities, which tie at 1, are not."""
        if (
            not isinstance(data, dict) or repr(data.get("format")) != "1"
        ):  # nor True, which is 1 too
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
    if (folder / TOWER).is_file():
        raise ModelError(f"{folder} is a backbone of `fuzzyclip fetch`: give it as --backbone")
    if not path.is_file():
        missing = f"no model here ({FILENAME} is missing)" if folder.is_dir() else "no such folder"
        raise ModelError(
            f"{folder}: {missing}. A finished pipeline has its models in "
            "models/<auxiliary set>/fuzzyclip"
        )
    if (size := path.stat().st_size) > LARGEST_CARD:
        raise ModelError(f"{path}: {size:,} bytes, more than the {LARGEST_CARD:,} of a card")
    content = path.read_bytes()
    try:
        parse_json(content.decode("utf-8"))
    except RepeatedKeyError as error:
        raise ModelError(f"{path}: {error}") from error
    except (ValueError, RecursionError) as error:
        words = describe(error) or "nested too deeply to be read"
        raise ModelError(f"{path}: {words}; {AGAIN_FROM_SOURCE}") from error
    try:
        return Card.model_validate_json(content)
    except ValidationError as error:
        raise ModelError(f"{path}: {say_first_fault(error)}") from error
