"""Facts that an exported file holds of itself: a JSON object in its metadata under one key.

ONNX keeps it in `metadata_props`, OpenVINO in the XML's `rt_info`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from fuzzyclip.utils.extras import import_extra
from fuzzyclip.utils.json_text import format_json, parse_json

if TYPE_CHECKING:
    from fuzzyclip.model.inference import CategoryModel

KEY = "fuzzyclip"
#: Version of the facts' layout; until 1 image scores were probabilities.
LAYOUT = 2
PACKAGES = ("fuzzyclip", "torch", "open_clip_torch", "timm", "onnxscript", "onnxruntime")
INPUT = (
    "image: uint8 (B, S, S, 3), RGB, each image squashed to S x S by PIL's bicubic filter. Mean "
    "and standard deviation are inside the graph"
)
OUTPUTS = (
    "anomaly_map: float32 (B, S, S) in [0, 1], the mean over the taken blocks of a pixel's "
    "probability to be anomalous; image_score: float32 (B,), log-odds, 0 where anomalous is as "
    "likely as normal; of the class feature, the map's highest value or both, as `score` says. "
    "Higher is more anomalous"
)


@dataclass(frozen=True)
class Origin:
    """Facts that a detector does not know of itself.

    Attributes:
        category: whose text features are in the file.
        prompts: they were made of; empty takes the scorer's own.
        thresholds: by name, such as `image_score`; those of maps hold for maps in [0, 1].
        model_sha256: of the trained model, where it has one.
        remembered_tokens: of a block, where the method compares with nothing else.
    """

    category: str
    prompts: Sequence[str] = ()
    thresholds: Mapping[str, float] = field(default_factory=dict)
    model_sha256: str | None = None
    remembered_tokens: int = 0


def describe(category_model: "CategoryModel", origin: Origin, weights: str) -> dict[str, Any]:
    """All facts as plain data; equal arguments and packages give equal facts.

    `weights` is the type of the image tower's weights in the file, `float32` or `int8`.
    """
    backbone, scorer = category_model.backbone, category_model.scorer
    return {
        "layout": LAYOUT,
        "category": origin.category,
        "prompts": list(origin.prompts) or [scorer.prompt],
        "thresholds": dict(origin.thresholds),
        "image_size": backbone.image_size,
        "input": INPUT,
        "outputs": OUTPUTS,
        "mean": list(backbone.mean),
        "std": list(backbone.std),
        "blocks": list(backbone.blocks),
        "sigma": category_model.sigma,
        "score": category_model.score,
        "remembered_tokens": origin.remembered_tokens
        if scorer.memory is None
        else scorer.memory.tokens.shape[1],
        "weights": weights,
        "model_sha256": origin.model_sha256,
        "backbone": backbone.identity,
        "backbone_fingerprint": backbone.fingerprint,
        "versions": {name: _find_version(name) for name in PACKAGES},
    }


def read_facts(path: Path) -> dict[str, Any]:
    """The facts of an exported file, an .onnx or an OpenVINO .xml.

    Raises:
        OSError: it can not be read.
        ValueError: it was not exported by this package.
        MissingExtraError: ONNX's package is missing.
    """
    return parse_facts((_read_xml if path.suffix == ".xml" else _read_onnx)(path), path)


def parse_facts(text: str | None, path: Path) -> dict[str, Any]:
    """Facts from what a file has under `KEY`.

    Raises:
        ValueError: it has nothing there, or facts of another layout.
    """
    if text is None:
        raise ValueError(f"{path}: no facts in its metadata; export it with fuzzyclip")
    try:
        facts: dict[str, Any] = parse_json(text)
        layout = facts.get("layout")
    except (ValueError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{path}: facts that are no table of JSON ({error}); export it again"
        ) from error
    if layout != LAYOUT:
        raise ValueError(f"{path}: facts of layout {layout}, not {LAYOUT}; export it again")
    return facts


def to_json(facts: Mapping[str, Any]) -> str:
    """Facts as they are written."""
    return format_json(facts)


def _read_onnx(path: Path) -> str | None:
    onnx = import_extra("onnx")
    content = path.read_bytes()
    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf's own, which has no public name
        raise ValueError(f"{path}: not an ONNX file ({error})") from error
    entries = {entry.key: entry.value for entry in model.metadata_props}
    return entries.get(KEY)


def _read_xml(path: Path) -> str | None:
    try:
        entry = ElementTree.parse(path).find(f"rt_info/{KEY}")
    except ElementTree.ParseError as error:
        raise ValueError(f"{path}: not an OpenVINO file ({error})") from error
    return None if entry is None else entry.get("value")


def _find_version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
