"""The schema of params.yaml: every key with its type and range, and the links between keys.

Settings that the library knows are of its own types; here is what only the pipeline knows. `no` is
never taken for 0, nor a number for a name.
"""

from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from fuzzyclip.method import OWN
from fuzzyclip.utils.files import is_file_name
from fuzzyclip.utils.settings import (
    BackboneSettings,
    Blocks,
    Count,
    CspSettings,
    EfaTest,
    EfaTraining,
    EvaluationSettings,
    Few,
    NoBool,
    Record,
    RplSettings,
    Runtime,
    Seed,
    Side,
    TextSettings,
    Whole,
)
from stages.paths import TOKENS
from stages.values import DEFAULT, Keyed, Name, check_tables, list_cases, read_numbers, resolve

Source = Literal["sample", "official"]
#: Key of `towers` that leaves a method with the run's own CLIP.
OWN_TOWER = "own"


class Ray(Record):
    """The place of the engine `ray`; see `fuzzyclip.distributed.engine`."""

    address: str | None
    actors: Few | None


class Machine(Record):
    """Settings of how the work is done; no stage depends on them.

    `device`, `compile` and `runtime` may move the last digits of what comes out, others nothing.
    """

    device: str
    workers: Few
    compile: bool
    runtime: Runtime
    engine: Literal["local", "ray"]
    ray: Ray

    @model_validator(mode="after")
    def _check_device(self) -> "Machine":
        """Ray chooses the GPU; an actor sees that one alone."""
        if self.engine == "ray" and self.device not in ("auto", "cpu", "cuda"):
            raise ValueError(f"device {self.device!r}: with the engine ray it is auto, cpu or cuda")
        return self

    @model_validator(mode="after")
    def _check_runtime(self) -> "Machine":
        """Another runtime than PyTorch stands alone: on this CPU, uncompiled, in this process."""
        if self.runtime in ("auto", "torch"):
            return self
        obstacles = {
            f"device {self.device!r}: it runs on the CPU": self.device not in ("auto", "cpu"),
            "compile is of PyTorch": self.compile,
            "the engine ray runs PyTorch": self.engine == "ray",
        }
        for reason, applies in obstacles.items():
            if applies:
                raise ValueError(f"runtime {self.runtime!r}: {reason}; take auto or torch")
        return self


class Data(Record):
    """The images' origin, and what happens to those that cannot be used."""

    source: Source
    archives: str | None
    download: bool
    on_error: Literal["fail", "drop"]


class Sample(Record):
    """Size of the drawn sample, images a category."""

    seed: Seed
    train_normal: Count
    test_normal: Count
    test_anomalous: Count


def _check_category(name: str) -> str:
    """A category is a folder of features, whatever it is called in prompts."""
    if not is_file_name(name):
        raise ValueError(f"{name!r} is no name of a folder; `names` says what stands in prompts")
    return name


Category = Annotated[Name, AfterValidator(_check_category)]


class Dataset(Record):
    """One dataset: where it lies, what of it is used, and how it is named in prompts."""

    kind: str
    path: str | None
    urls: dict[str, list[str]] | None
    sha256: dict[str, str] | None
    protocol: str
    categories: list[Category] | None
    counts: Literal["published", "any"]
    mask_above: Annotated[int, NoBool, Field(ge=0, le=65534)]
    names: Literal["raw", "readable"] | dict[Name, Name]


class Features(Record):
    """Settings of the feature store."""

    tokens: Literal["all", "auxiliary", "none"]
    dtype: Literal["float32", "float16", "bfloat16", "int8"]
    shard_size: Count


class Efa(Record):
    """EFA; both blocks as written, for `stages.params.choose_settings`."""

    train: Annotated[dict[str, Any], check_tables(EfaTraining)]
    test: Annotated[dict[str, Any], check_tables(EfaTest)]


class MethodBlock(BaseModel):
    """A method of the paper's tables; its settings are checked when it is built."""

    model_config = ConfigDict(extra="allow", frozen=True)

    features: str = TOKENS
    tower: str = OWN_TOWER

    @model_validator(mode="before")
    @classmethod
    def _read_numbers(cls, data: Any) -> Any:
        return read_numbers(data)

    @model_validator(mode="after")
    def _check_tables(self) -> "MethodBlock":
        for auxiliary, source in list_cases(self.settings):
            resolve(self.settings, auxiliary, source)
        return self

    @property
    def settings(self) -> dict[str, Any]:
        """All but features and tower, as written."""
        return dict(self.model_extra or {})


class Tower(BackboneSettings):
    """What differs from the run's CLIP; the other fields are not set."""

    model: str = ""
    weights: str = ""
    image_size: Side = 1
    blocks: Blocks = ()

    def change(self, run: BackboneSettings) -> BackboneSettings:
        """The run's CLIP with these settings in place of its own."""
        return run.model_copy(update={name: getattr(self, name) for name in self.model_fields_set})


class Package(Record):
    """Contents of a packaged model."""

    weights: Literal["auto", "copy", "refer"]


class Tracking(Record):
    """MLflow's experiment, and what its runs hold."""

    experiment: Annotated[Name, Field(min_length=1, max_length=500)]  # as MLflow takes it
    models: bool


class Params(Record):
    """All of params.yaml."""

    seed: Seed
    backbone: str
    allow_unverified: bool
    machine: Machine
    data: Data
    sample: Sample
    datasets: Keyed[Dataset]
    auxiliary: Keyed[list[Name]]
    pairs: Keyed[Name]
    backbones: Keyed[Whole[BackboneSettings]]
    towers: Keyed[Keyed[Tower]]
    features: Features
    text: Whole[TextSettings]
    csp: Whole[CspSettings]
    efa: Efa
    rpl: Annotated[dict[str, Any], check_tables(RplSettings)]
    views: Keyed[str]
    methods: Keyed[MethodBlock]
    evaluation: Whole[EvaluationSettings]
    package: Package
    tracking: Tracking

    @model_validator(mode="after")
    def _check_references(self) -> "Params":
        """Names that point at other keys must be there, and no model meets its own data."""
        if self.backbone not in self.backbones:
            raise ValueError(f"backbone: {self.backbone!r} is not a key of backbones")
        for name, members in self.auxiliary.items():
            if name in (DEFAULT, *get_args(Source)):
                raise ValueError(f"auxiliary.{name}: in tables this key means something else")
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
            if not name.isidentifier() or name == OWN:
                raise ValueError(f"methods.{name}: not the name of a folder of fuzzyclip/baselines")
            if method.features not in (TOKENS, *self.views):
                raise ValueError(f"methods.{name}.features: {method.features!r} is no key of views")
            if method.tower not in self.towers:
                raise ValueError(f"methods.{name}.tower: {method.tower!r} is no key of towers")
        for tower, by_run in self.towers.items():
            if unknown := [run for run in by_run if run not in self.backbones]:
                raise ValueError(f"towers.{tower}: {unknown[0]!r} is not a key of backbones")
        if self.towers.get(OWN_TOWER) != {}:
            raise ValueError(f"towers.{OWN_TOWER}: this is the run's CLIP as it is, {{}}")
        for view, owner in self.views.items():
            if view == TOKENS:
                raise ValueError(f"views.{view}: so the run's own features are called")
            if owner not in self.methods:
                raise ValueError(
                    f"views.{view}: {owner!r} is not a key of methods; name another that reads the "
                    "same features, or remove the view"
                )
        return self

    def _is_same_data(self, key: str, other: str) -> bool:
        """True if two entries are one dataset, under two protocols for example."""
        first, second = self.datasets[key], self.datasets[other]
        return first.kind == second.kind != "folder" or (
            first.path is not None and first.path == second.path
        )
