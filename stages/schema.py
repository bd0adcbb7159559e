"""What params.yaml may say: every key with its type and range, and the links between keys.

Numbers written as `1e-3` (a string to PyYAML, a number to DVC) are understood, and `no` is never
taken for 0.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from fuzzyclip.utils.files import is_file_name
from fuzzyclip.utils.schemas import CHANNELS
from stages.values import (
    ByAuxiliary,
    Count,
    CountOrZero,
    Few,
    FewOrZero,
    Keyed,
    NonNegative,
    Number,
    Positive,
    Section,
    Seed,
    Share,
    Side,
    Sigma,
    check_ascending,
    read_numbers,
    refuse_bool,
)


class Ray(Section):
    """Where the engine `ray` runs; see `fuzzyclip.distributed.engine`."""

    address: str | None
    actors: Few | None


class Machine(Section):
    """How the work is done, never what comes out; no stage depends on it."""

    device: str
    batch_size: Count
    workers: Few
    compile: bool
    engine: Literal["local", "ray"]
    ray: Ray

    @model_validator(mode="after")
    def _check_device(self) -> "Machine":
        """Ray chooses the GPU; an actor sees that one alone."""
        if self.engine == "ray" and self.device not in ("auto", "cpu", "cuda"):
            raise ValueError(f"device {self.device!r}: with the engine ray it is auto, cpu or cuda")
        return self


class Data(Section):
    """Where the images come from, and what happens to those that cannot be used."""

    source: Literal["sample", "official"]
    archives: str | None
    download: bool
    on_error: Literal["fail", "drop"]


class Sample(Section):
    """Size of the drawn sample, images a category."""

    seed: Seed
    train_good: Count
    test_good: Count
    test_bad: Count


def _check_category(name: str) -> str:
    """A category is a folder of features, whatever it is called in prompts."""
    if not is_file_name(name):
        raise ValueError(f"{name!r} is no name of a folder; `names` says what stands in prompts")
    return name


Category = Annotated[str, AfterValidator(_check_category)]


class Dataset(Section):
    """One dataset: where it lies, what of it is used, and how it is named in prompts."""

    kind: str
    path: str | None
    urls: dict[str, list[str]] | None
    sha256: dict[str, str] | None
    protocol: str
    categories: list[Category] | None
    counts: Literal["published", "any"]
    mask_above: Annotated[int, BeforeValidator(refuse_bool), Field(ge=0, le=65534)]
    names: Literal["raw", "readable"] | dict[str, str]


class Backbone(Section):
    """One CLIP; see `fuzzyclip.clip.backbone.load_backbone`."""

    model: str
    weights: str
    sha256: str | None
    image_size: Side
    blocks: Annotated[list[Few], AfterValidator(check_ascending)]
    activation: Literal["model", "gelu", "quickgelu"]
    position_embedding: Literal["bicubic", "bilinear"]
    mean: Annotated[list[Number], CHANNELS] | None
    std: Annotated[list[Positive], CHANNELS] | None
    precision: Literal["float32", "bfloat16", "float16"]


class Features(Section):
    """What the feature store keeps."""

    tokens: Literal["all", "auxiliary", "none"]
    dtype: Literal["float32", "float16", "bfloat16", "int8"]
    shard_size: Count


class Text(Section):
    """How names become prompts."""

    ensemble: Literal["full", "single"]
    separator: str
    underscore: Literal["keep", "space"]


class Csp(Section):
    """Clustering of the auxiliary categories."""

    points: Literal["normal", "both", "bare", "image"]
    penalty: NonNegative
    form: Literal["sum", "mean"]
    max_clusters: Few
    partition: Literal["auto", "paper"] | Few


class EfaTrain(Section):
    """Training of the layers; maps go by auxiliary set, with `default` for the others."""

    prompt: Literal["stacked", "precise", "object"]
    epochs: ByAuxiliary[Count]
    batch_size: Count
    learning_rate: ByAuxiliary[Positive]
    mosaic: ByAuxiliary[Share]
    keep: Literal["last", "all"]


class EfaTest(Section):
    """The test side of EFA; changing it trains nothing."""

    prompt: Literal["test", "cluster", "test+cluster", "test+cluster+test", "object"]
    weights: Literal["eq11", "train_cluster", "center", "uniform"] | Few
    temperature: Positive
    sigma: Sigma


class Efa(Section):
    train: EfaTrain
    test: EfaTest


class Rpl(Section):
    """Prompt learning for classification."""

    template: Literal["c1", "c2", "c3", "c4", "c5"]
    stack: Literal["cluster", "object"]
    layout: Literal["inplace", "prepend", "template_ctx"]
    words: Few
    deep_tokens: FewOrZero
    depth: Few
    attachment: Literal["overwrite", "insert"]
    deep_per_side: bool
    temperature: Positive
    text_weight: Literal["scaled"] | NonNegative
    epochs: dict[str, Count]
    batch_size: Count
    learning_rate: ByAuxiliary[Positive]


class Method(BaseModel):
    """A method of the paper's tables; its settings are checked when it is built."""

    model_config = ConfigDict(extra="allow", frozen=True)

    backbone: dict[str, str] | None = None

    @model_validator(mode="before")
    @classmethod
    def _read_numbers(cls, data: Any) -> Any:
        return read_numbers(data)

    def choose_backbone(self, run: str) -> str:
        """Key of its CLIP in `backbones`, where `run` is the run's."""
        return (self.backbone or {}).get(run, run)

    @property
    def settings(self) -> dict[str, Any]:
        """All but the backbone, as written."""
        return dict(self.model_extra or {})


class Evaluation(Section):
    """What is evaluated, and how."""

    rows: list[Literal["precise", "object", "stacked", "stacked_auxiliary", "fuzzyclip"]]
    shots: Annotated[list[Count], AfterValidator(check_ascending)]
    pixel_metrics: Literal["exact", "streaming"]
    overlays: CountOrZero
    gallery: CountOrZero


class Package(Section):
    """What a packaged model holds."""

    weights: Literal["auto", "copy", "refer"]


class Tracking(Section):
    """Where MLflow puts the runs, and what they hold."""

    experiment: str
    models: bool


class Params(Section):
    """All of params.yaml."""

    seed: Seed
    backbone: str
    allow_unverified: bool
    machine: Machine
    data: Data
    sample: Sample
    datasets: Keyed[Dataset]
    auxiliary: Keyed[list[str]]
    pairs: Keyed[str]
    backbones: Keyed[Backbone]
    features: Features
    text: Text
    csp: Csp
    efa: Efa
    rpl: Rpl
    methods: Keyed[Method]
    evaluation: Evaluation
    package: Package
    tracking: Tracking

    @model_validator(mode="after")
    def _check_references(self) -> "Params":
        """Names that point at other keys must be there, and no model meets its own data."""
        if self.backbone not in self.backbones:
            raise ValueError(f"backbone: {self.backbone!r} is not a key of backbones")
        for name, members in self.auxiliary.items():
            unknown = [member for member in members if member not in self.datasets]
            if unknown or not members or len(set(members)) < len(members):
                raise ValueError(f"auxiliary.{name}: {members} must name distinct keys of datasets")
        for dataset, name in self.pairs.items():
            if dataset not in self.datasets:
                raise ValueError(f"pairs.{dataset}: not a key of datasets")
            if name not in self.auxiliary:
                raise ValueError(f"pairs.{dataset}: {name!r} is not a key of auxiliary")
            for member in self.auxiliary[name]:
                if member == dataset or self._is_same_data(member, dataset):
                    raise ValueError(
                        f"pairs.{dataset}: auxiliary set {name!r} contains {member}; a model is "
                        "never evaluated on data it was trained on"
                    )
        for name, method in self.methods.items():
            if not name.isidentifier():
                raise ValueError(f"methods.{name}: not the name of a module of fuzzyclip/baselines")
            for run, own in (method.backbone or {}).items():
                for key in {run, own} - set(self.backbones):
                    raise ValueError(f"methods.{name}.backbone: {key!r} is not a key of backbones")
        if "fuzzyclip" not in self.evaluation.rows:
            raise ValueError("evaluation.rows must contain fuzzyclip")
        return self

    def _is_same_data(self, one: str, other: str) -> bool:
        """Whether two entries are one dataset, under two protocols for example."""
        first, second = self.datasets[one], self.datasets[other]
        return first.kind == second.kind != "folder" or (
            first.path is not None and first.path == second.path
        )
