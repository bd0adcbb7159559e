"""The only reader of params.yaml: validated whole, and shown to a stage only as far as declared.

Unknown keys are refused, numbers written as `1e-3` (a string to PyYAML, a number to DVC) are
understood, and `no` is never taken for 0.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from stages import paths

T = TypeVar("T")


#: Parameters that decide how work is done or what is permitted, never what comes out: every stage
#: may read them, none depends on them.
OPEN_TO_ALL = ("machine", "allow_unverified")


class ParamsError(ValueError):
    """params.yaml does not say what the pipeline understands."""


def _refuse_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("a number is needed, not a yes/no value")
    return value


Number = Annotated[float, BeforeValidator(_refuse_bool)]
Count = Annotated[int, BeforeValidator(_refuse_bool), Field(ge=1)]
Seed = Annotated[int, BeforeValidator(_refuse_bool), Field(ge=0)]
Share = Annotated[float, BeforeValidator(_refuse_bool), Field(ge=0, le=1)]
Positive = Annotated[float, BeforeValidator(_refuse_bool), Field(gt=0)]
NonNegative = Annotated[float, BeforeValidator(_refuse_bool), Field(ge=0)]


class Section(BaseModel):
    """A part of params.yaml: no unknown keys, no change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Machine(Section):
    """How the work is done, never what comes out; no stage depends on it."""

    device: str
    batch_size: Count
    workers: Count


class Data(Section):
    """Where the images come from."""

    source: Literal["sample", "official"]
    archives: str | None
    download: bool


class Sample(Section):
    """Size of the drawn sample, images a category."""

    seed: Seed
    train_good: Count
    test_good: Count
    test_bad: Count


class Dataset(Section):
    """One dataset: what of it is used, and how it is named in prompts."""

    protocol: str
    categories: list[str] | None
    counts: Literal["published", "any"]
    names: Literal["raw", "readable"]


class Backbone(Section):
    """One CLIP; see `fuzzyclip.backbone.load_backbone`."""

    model: str
    weights: str
    sha256: str | None
    image_size: Count
    blocks: list[Count]
    activation: Literal["model", "gelu", "quickgelu"]
    position_embedding: Literal["bicubic", "bilinear"]
    mean: list[Number] | None
    std: list[Positive] | None
    precision: Literal["float32", "bfloat16", "float16"]


class Features(Section):
    """What the feature store keeps."""

    tokens: Literal["all", "auxiliary", "none"]
    dtype: Literal["float32", "float16", "bfloat16"]
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
    max_clusters: Count
    partition: Literal["auto", "paper"] | Count


class EfaTrain(Section):
    """Training of the layers; maps go by auxiliary set, with `default` for the others."""

    epochs: Count
    batch_size: Count
    learning_rate: dict[str, Positive]
    mosaic: dict[str, Share]


class EfaTest(Section):
    """The test side of EFA; changing it trains nothing."""

    prompt: Literal["test", "cluster", "test+cluster", "test+cluster+test"]
    weights: Literal["eq11", "train_cluster", "center", "uniform"]
    temperature: Positive
    sigma: NonNegative


class Efa(Section):
    train: EfaTrain
    test: EfaTest


class Rpl(Section):
    """Prompt learning for classification."""

    template: Literal["c1", "c2", "c3", "c4", "c5"]
    stack: Literal["cluster", "object"]
    layout: Literal["inplace", "prepend", "template_ctx"]
    words: Count
    deep_tokens: Seed
    depth: Count
    attachment: Literal["overwrite", "insert"]
    deep_per_side: bool
    temperature: Positive
    text_weight: Literal["scaled"] | NonNegative
    epochs: dict[Literal["sample", "official"], Count]
    batch_size: Count
    learning_rate: Positive


class Evaluation(Section):
    """What is evaluated beside the metrics."""

    rows: list[Literal["precise", "object", "stacked", "stacked_auxiliary", "fuzzyclip"]]
    overlays: Seed


class Tracking(Section):
    """Where MLflow puts the runs."""

    experiment: str


class Params(Section):
    """All of params.yaml."""

    seed: Seed
    backbone: str
    allow_unverified: bool
    machine: Machine
    data: Data
    sample: Sample
    datasets: dict[str, Dataset]
    auxiliary: dict[str, list[str]]
    pairs: dict[str, str]
    backbones: dict[str, Backbone]
    features: Features
    text: Text
    csp: Csp
    efa: Efa
    rpl: Rpl
    evaluation: Evaluation
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
            if dataset in self.auxiliary[name]:
                raise ValueError(
                    f"pairs.{dataset}: auxiliary set {name!r} contains {dataset}; a model is never "
                    "evaluated on data it was trained on"
                )
        if "fuzzyclip" not in self.evaluation.rows:
            raise ValueError("evaluation.rows must contain fuzzyclip")
        return self


def choose(table: Mapping[str, T], name: str, key: str) -> T:
    """The entry for an auxiliary set, or the table's `default`.

    Raises:
        ParamsError: neither is there.
    """
    if name in table:
        return table[name]
    if "default" in table:
        return table["default"]
    raise ParamsError(f"params.yaml: {key} has no entry for {name!r} and no default")


class _Declared:
    """A view of params that raises on what the stage did not declare to DVC."""

    def __init__(self, value: Any, declared: Sequence[str], where: str = "") -> None:
        self._value, self._declared, self._where = value, declared, where

    def _get(self, value: Any, name: str) -> Any:
        where = f"{self._where}.{name}".removeprefix(".")
        if any(where == path or where.startswith(path + ".") for path in self._declared):
            return value
        if any(path.startswith(where + ".") for path in self._declared):
            return _Declared(value, self._declared, where)
        raise ParamsError(
            f"this stage reads the parameter {where!r} but does not declare it; add it to the "
            "stage's PARAMS and to its params in dvc.yaml"
        )

    def __getattr__(self, name: str) -> Any:
        return self._get(getattr(self._value, name), name)

    def __getitem__(self, name: str) -> Any:
        return self._get(self._value[name], name)


def read_params(path: Path = paths.PARAMS) -> Params:
    """All of params.yaml, validated.

    Raises:
        ParamsError: not YAML, or not what `Params` describes; each fault with its key.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ParamsError(f"{path}: {error}") from error
    try:
        return Params.model_validate(data)
    except ValidationError as error:
        faults = [
            f"  {'.'.join(map(str, fault['loc'])) or '(whole file)'}: {fault['msg']}"
            for fault in error.errors()
        ]
        raise ParamsError(f"{path} is not valid:\n" + "\n".join(faults)) from error


def load_params(declared: Sequence[str], **keys: str) -> Params:
    """What a stage may see of params.yaml.

    Args:
        declared: the stage's PARAMS, the same as its `params` in dvc.yaml; `${name}` is filled
            from `keys` or from the top level of params.yaml.
        keys: values for the declared names, e.g. `key="visa"`.
    """
    params = read_params()
    names = {"backbone": params.backbone, **keys}
    filled = list(declared)
    for name, value in names.items():
        filled = [path.replace("${" + name + "}", value) for path in filled]
    return cast(Params, _Declared(params, [*filled, *OPEN_TO_ALL]))
