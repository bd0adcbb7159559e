"""Settings of a run, each fact once: of the frozen CLIP, of FuzzyCLIP's parts, of the evaluation.

params.yaml, headers of trained files and a model's card hold these types. First what every schema
is made of: numbers with ranges, records, words for what they refuse. This module imports no
PyTorch, so that what only moves or draws may read settings.
"""

from difflib import get_close_matches
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_serializer,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from fuzzyclip.utils import ranges


def limit(limits: ranges.Range) -> Any:
    """A range as a limit of a field."""
    return Field(ge=limits.least, le=limits.most)


def refuse_bool(value: Any) -> Any:
    """Anything but yes and no, which pydantic takes for 1 and 0; a ValueError for these."""
    if isinstance(value, bool):
        raise ValueError("a number is needed, not a yes/no value")
    return value


NoBool = BeforeValidator(refuse_bool)
Number = Annotated[float, NoBool, limit(ranges.NUMBER)]
Positive = Annotated[float, NoBool, limit(ranges.POSITIVE)]
NonNegative = Annotated[float, NoBool, limit(ranges.FACTOR)]
Share = Annotated[float, NoBool, limit(ranges.SHARE)]
#: Share of tokens that are merged away; a tenth of them stay at least.
Merged = Annotated[float, NoBool, Field(ge=0, le=0.9)]
Sigma = Annotated[float, NoBool, limit(ranges.SIGMA)]
Side = Annotated[int, NoBool, limit(ranges.SIDE)]
Count = Annotated[int, NoBool, limit(ranges.COUNT)]
CountOrZero = Annotated[int, NoBool, limit(ranges.COUNT_OR_ZERO)]
Few = Annotated[int, NoBool, limit(ranges.FEW)]
FewOrZero = Annotated[int, NoBool, limit(ranges.FEW_OR_ZERO)]
Seed = Annotated[int, NoBool, limit(ranges.SEED)]
#: One number a colour channel.
CHANNELS: Any = Field(min_length=3, max_length=3)
Channels = tuple[Number, Number, Number]
Deviations = tuple[Positive, Positive, Positive]


def check_ascending(numbers: tuple[int, ...]) -> tuple[int, ...]:
    """Numbers that ascend, as blocks come from the towers, and are distinct; else a ValueError."""
    if list(numbers) != sorted(set(numbers)):
        raise ValueError("numbers must be ascending and distinct")
    return numbers


#: Blocks of a tower, counted from 1.
Blocks = Annotated[tuple[Few, ...], AfterValidator(check_ascending)]


#: Type of the fault of a key that a record does not have.
UNKNOWN = "extra_forbidden"


class Record(BaseModel):
    """Settings, or a part of a file: no unknown keys, no change after they are made.

    Of an unknown key the fault says what it may have been meant for.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    #: Fields that files need not say, also where the record is `Whole`: newer than some files, and
    #: off by default.
    OPTIONAL: ClassVar[frozenset[str]] = frozenset()

    @model_validator(mode="wrap")
    @classmethod
    def _suggest_keys(cls, data: Any, validate: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return validate(data)
        except ValidationError as error:
            faults = error.errors()
            if not any(fault["type"] == UNKNOWN for fault in faults):
                raise
            names = [field.alias or name for name, field in cls.model_fields.items()]
            details = [_restate(fault, names) for fault in faults]
            raise ValidationError.from_exception_data(cls.__name__, details) from error


def _restate(fault: Any, names: list[str]) -> InitErrorDetails:
    """A fault as pydantic reported it, and of a key that is none of the names, which is near."""
    words = str(fault["msg"])
    if fault["type"] == UNKNOWN and len(fault["loc"]) == 1:
        near = get_close_matches(str(fault["loc"][0]), names, n=1, cutoff=0.5)
        words += f"; did you mean {near[0]}?" if near else f"; there are {', '.join(names)}"
    kind = PydanticCustomError(fault["type"], "{words}", {"words": words})
    return InitErrorDetails(type=kind, loc=fault["loc"], input=fault["input"])


R = TypeVar("R", bound=BaseModel)


def _refuse_defaults(data: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    record = validate(data)
    if isinstance(data, dict):
        require_fields(type(record), data)
    return record


#: A record of which a file says every field but the `OPTIONAL`: defaults are for code alone.
Whole = Annotated[R, WrapValidator(_refuse_defaults)]


def require_fields(record: type[BaseModel], data: dict[str, Any]) -> None:
    """Refuse plain data that leave fields of a record to their defaults.

    Raises:
        ValidationError: names each field that is missing.
    """
    optional = record.OPTIONAL if issubclass(record, Record) else frozenset()
    missing = [name for name in record.model_fields if name not in {*data, *optional}]
    if missing:
        raise ValidationError.from_exception_data(
            record.__name__,
            [{"type": "missing", "loc": (name,), "input": data} for name in missing],
        )


def say_first_fault(error: ValidationError) -> str:
    """The first fault of a validation: its place, as far as there is one, and what is wrong."""
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"]))
    fault = first["msg"].removeprefix("Value error, ")
    return f"{place}: {fault}" if place else fault


class BackboneSettings(Record):
    """All that decides a frozen CLIP's outputs; `fuzzyclip.clip.backbone` builds it.

    Attributes:
        model: open_clip's model name, or the path of a JSON configuration.
        weights: a file, an open_clip tag, or `random` (see `fuzzyclip.clip.weights`).
        sha256: expected digest of the weights' file; OpenAI's need none, for theirs are published.
        image_size: side of the square input in pixels, S; images are squashed to it.
        blocks: blocks of the image tower whose patch tokens are taken, counted from 1 as in the
            paper, ascending.
        activation: `model` (what the configuration says), `gelu` or `quickgelu`. Weights trained
            with QuickGELU also run with GELU, and APRIL-GAN's numbers were made that way.
        position_embedding: how the grid of position embeddings is resized.
        mean: input mean of the three channels; None takes the weights' own, see
            `fuzzyclip.clip.model_configs.read_channels`.
        std: input standard deviation of the three channels; None takes the weights' own.
        precision: type in which the towers compute. bfloat16 and float16 by autocast; int8: the
            linear layers of the image tower by ONNX Runtime on a CPU, see `fuzzyclip.engines.int8`,
            all else in float32.
        merge: share of the image tower's patch tokens that are merged away on the way, see
            `fuzzyclip.clip.merging`. Settings without merging are written down without this key, as
            they were before there was any: neither a fingerprint nor a file changes.
    """

    OPTIONAL = frozenset({"merge"})

    model: str
    weights: str
    sha256: str | None = None
    image_size: Side
    blocks: Blocks
    activation: Literal["model", "gelu", "quickgelu"] = "model"
    position_embedding: Literal["bicubic", "bilinear"] = "bicubic"
    mean: Channels | None = None
    std: Deviations | None = None
    precision: Literal["float32", "bfloat16", "float16", "int8"] = "float32"
    merge: Merged = 0.0

    @model_serializer(mode="wrap")
    def _leave_out_what_is_off(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        data: dict[str, Any] = write(self)
        if not self.merge:
            data.pop("merge", None)
        return data


#: What runs the frozen image tower on a CPU; see `fuzzyclip.engines.choice.choose_engine`.
Runtime = Literal["auto", "torch", "onnx", "openvino"]


class TextSettings(Record):
    """Making prompts of names; see `fuzzyclip.clip.prompts`.

    Attributes:
        ensemble: `full`: the mean of 35 templates, as in the baselines' code; `single`: "a photo
            of a ..." alone.
        separator: between stacked names; the paper shows bare juxtaposition.
        underscore: `keep` leaves metal_nut as it is, `space` makes "metal nut" of it.
    """

    ensemble: Literal["full", "single"] = "full"
    separator: Annotated[str, Field(max_length=500)] = " "
    underscore: Literal["keep", "space"] = "keep"


class CspSettings(Record):
    """Clustering of the auxiliary categories; see `fuzzyclip.method.csp`.

    Attributes:
        points: what is clustered: `normal`, the normal side of each name's text feature; `both`
            sides; `bare`, "a photo of a NAME."; or `image`, the mean class feature. The paper does
            not say.
        penalty: factor of e^k in lambda(k), the paper's 0.1.
        form: spread of a partition: `sum` of squared distances (eq. 4), or the sum of each
            cluster's `mean`.
        max_clusters: largest k worth a try. SSE(1) <= N <= 27 on unit vectors, so the default
            penalty rules out more.
        partition: `auto`, the lowest score (k*); `paper`, pcb1-4 apart from the rest; or a number
            of clusters.
    """

    points: Literal["normal", "both", "bare", "image"] = "normal"
    penalty: NonNegative = 0.1
    form: Literal["sum", "mean"] = "sum"
    max_clusters: Few = 6
    partition: Literal["auto", "paper"] | Few = "auto"


class EfaTraining(Record):
    """Training of EFA's layers, one set a cluster; see `fuzzyclip.method.efa_training`.

    Attributes:
        prompt: what the layers are trained against (Table 4): the cluster's `stacked` names,
            `precise` (each image's own category) or the word `object`.
        epochs: over the cluster's images.
        batch_size: images a step.
        learning_rate: of Adam. The paper has 1e-3 for VisA and 1e-4 for MVTec-AD.
        mosaic: share of images replaced by a mosaic of four; the code the paper builds on has 0.2
            for MVTec-AD alone.
        keep: `last`, or `all`: the layers within the first epoch and after each one too (Figure 1).
    """

    prompt: Literal["stacked", "precise", "object"] = "stacked"
    epochs: Count = 2
    batch_size: Count = 16
    learning_rate: Positive = 1e-4
    mosaic: Share = 0.2
    keep: Literal["last", "all"] = "last"


class EfaTest(Record):
    """The use of trained layers; changing it trains nothing.

    Attributes:
        prompt: class part of the test prompt, key of `fuzzyclip.method.scorer.TEST_PROMPTS`
            (Table 8); eq. 9 is `test+cluster`.
        weights: what weighs the clusters: key of `fuzzyclip.method.efa.WEIGHTS`, three readings of
            the paper and none; or the number of one cluster, from 1, that stands alone (Table 5).
        temperature: factor on the cosines of the weights; the paper prints none.
        sigma: Gaussian smoothing of maps in pixels; the paper mentions none.
    """

    prompt: Literal["test", "cluster", "test+cluster", "test+cluster+test", "object"] = (
        "test+cluster"
    )
    weights: Literal["eq11", "train_cluster", "center", "uniform"] | Few = "eq11"
    temperature: Positive = 100.0
    sigma: Sigma = 0.0


class PromptShape(Record):
    """All that decides the tensors of RPL's prompt learner.

    Attributes:
        template: key of `fuzzyclip.method.rpl.TEMPLATES`; c4 is the best of Table 9.
        layout: `inplace`: the template's own first E words are learnable (Table 9 varies the
            template while E varies on its own, so the words must be the template's); `prepend`: E
            random words stand before a short sentence; `template_ctx`: all words before the names
            are learnable, E is their number.
        words: E, learnable words (section 3.1.2: 12).
        deep_tokens: L, learnable tokens in each deep layer (section 3.1.2: 20; its 29 is taken as
            a misprint).
        depth: M, layers with learnable tokens, the words being the first layer's (section 3.1.2:
            9, so 8 deep tensors).
        attachment: `overwrite`: deep tokens replace positions 1 to L; `insert`: they are
            added after the start token.
        deep_per_side: separate deep tokens for the normal and the anomalous prompt.
    """

    template: Literal["c1", "c2", "c3", "c4", "c5"] = "c4"
    layout: Literal["inplace", "prepend", "template_ctx"] = "inplace"
    words: Few = 12
    deep_tokens: FewOrZero = 20
    depth: Few = 9
    attachment: Literal["overwrite", "insert"] = "overwrite"
    deep_per_side: bool = False


class RplSettings(PromptShape):
    """RPL: the shape of its prompts, and their training; see `fuzzyclip.method.rpl`.

    Attributes:
        stack: what stands for [cluster]: the stacked names of the auxiliary set, or "object".
        temperature: factor on the cosines, in training and in the log-odds of image scores:
            1 / 0.07.
        text_weight: factor on L_text: a number (eq. 12 as printed is 1, next to nothing between
            unit vectors), or `scaled`, see `weigh_text`.
        epochs: the paper trains one.
        batch_size: class features a step.
        learning_rate: of Adam. The paper says 1e-3 and, a sentence before, 1e-4.
    """

    stack: Literal["cluster", "object"] = "cluster"
    temperature: Positive = 14.285714
    text_weight: Literal["scaled"] | NonNegative = "scaled"
    epochs: Count = 1
    batch_size: Count = 16
    learning_rate: Positive = 1e-3

    def weigh_text(self, embed_dim: int) -> float:
        """Factor on L_text for features of D numbers: D makes a squared distance of their mean."""
        return float(embed_dim) if self.text_weight == "scaled" else self.text_weight


Variant = Literal["precise", "object", "stacked", "stacked_auxiliary"]


class EvaluationSettings(Record):
    """The choice of what is evaluated, and how.

    Attributes:
        variants: ways without training that are measured beside FuzzyCLIP, on the same features.
        shots: numbers of normal training images that FuzzyCLIP remembers, a further variant each,
            ascending; not zero-shot, and not of the paper.
        pixel_metrics: `exact`: all pixels of a category are sorted, in memory; `streaming`:
            constant memory, and each metric comes with certain bounds.
        overlays: anomalous images a category whose maps are kept for pictures, beside a normal one.
        gallery: images a category, label and kind (best, worst, borderline) that the page shows.
    """

    variants: tuple[Variant, ...] = ("precise", "object", "stacked", "stacked_auxiliary")
    shots: Annotated[tuple[Count, ...], AfterValidator(check_ascending)] = ()
    pixel_metrics: Literal["exact", "streaming"] = "exact"
    overlays: CountOrZero = 2
    gallery: CountOrZero = 1
