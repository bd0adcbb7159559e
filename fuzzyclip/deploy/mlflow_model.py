"""A packaged model as one of MLflow's: signature, example, packages and code.

with describe_model(Path("models/visa/fuzzyclip")) as described:
    mlflow.pyfunc.log_model(name="fuzzyclip-visa", **described)
"""

import base64
import io
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from PIL import Image, ImageDraw

from fuzzyclip.model.card import read_card
from fuzzyclip.utils.scratch import give_usual_mode, hold_private_folder
from fuzzyclip.utils.tree import copy_tree, read_tree

#: The packaged model among the logged one's artifacts.
ARTIFACT = "model"
PACKAGE = Path(__file__).resolve().parent.parent
ENTRY = PACKAGE / "deploy" / "pyfunc.py"
#: What of the package a model does not take along: the sample's CLIP, which it brings if it needs.
LEFT_OUT = ("__pycache__", "*.safetensors")
#: All that is imported on the way from a request to its answer.
PACKAGES = (
    "filelock", "matplotlib", "mlflow", "numpy", "open_clip_torch", "pandas", "pillow", "pydantic",
    "pydantic_core", "safetensors", "scikit-learn", "scipy", "timm", "torch", "torchvision", "tqdm",
)  # fmt: skip

#: What the example shows, where the model is calibrated for nothing.
EXAMPLE = "metal plate"

#: Columns of a request, each of them optional; see `fuzzyclip.deploy.request`.
INPUTS = Schema(
    [ColSpec(DataType.string, name, required=False) for name in ("image", "path", "category")]
)
#: Columns of the answer; see `fuzzyclip.deploy.serving.OUTPUTS`. All but one are null where a row
#: could not be answered, and that one where it could.
OUTPUTS = Schema(
    [
        ColSpec(kind, name, required=False)
        for name, kind in {
            "category": DataType.string,
            "image_score": DataType.double,
            "probability": DataType.double,
            "label": DataType.long,
            "decision": DataType.string,
            "threshold": DataType.double,
            "threshold_method": DataType.string,
            "map_max": DataType.double,
            "defect_share": DataType.double,
            "width": DataType.long,
            "height": DataType.long,
            "map": DataType.string,
            "mask": DataType.string,
            "error": DataType.string,
        }.items()
    ]
)
#: What comes with a request; see `fuzzyclip.deploy.request.Options`.
PARAMS = ParamSchema(
    [
        ParamSpec("map", DataType.string, "png16"),
        ParamSpec("mask", DataType.boolean, False),
        ParamSpec("threshold", DataType.double, None),
        ParamSpec("tile", DataType.long, None),
        ParamSpec("overlap", DataType.long, None),
        ParamSpec("score", DataType.string, None),
        ParamSpec("white", DataType.long, None),
    ]
)


@contextmanager
def describe_model(folder: Path) -> Iterator[dict[str, Any]]:
    """Arguments of MLflow's `log_model` and `save_model`, good until the block ends.

    The model brings this package along as it stands, so that a server needs pip's packages alone.

    Raises:
        ModelError: there is no model, or one that this version does not understand.
        ValueError: it holds what is no file.
    """
    card = read_card(folder)
    category = next(iter(card.calibrations), EXAMPLE)
    tree = read_tree(folder, linked=True)
    with hold_private_folder() as temporary:
        code = temporary / PACKAGE.name
        whole = folder.resolve()
        if any((folder / name).is_symlink() for name in tree.files):  # DVC's, which MLflow refuses
            whole = temporary / "model" / whole.name
            whole.parent.mkdir()
            copy_tree(tree, whole)
        shutil.copytree(PACKAGE, code, ignore=shutil.ignore_patterns(*LEFT_OUT))
        yield {
            "python_model": str(ENTRY),
            "artifacts": {ARTIFACT: str(whole)},
            "code_paths": [str(code)],
            "pip_requirements": [f"{name}=={_read_version(name)}" for name in PACKAGES],
            "signature": ModelSignature(INPUTS, OUTPUTS, PARAMS),
            "input_example": pd.DataFrame({"image": [draw_example()], "category": [category]}),
            "metadata": {
                "fuzzyclip": card.versions["fuzzyclip"],
                "model": card.name,
                "datasets": ", ".join(card.data.datasets if card.data else ()),
                "backbone": card.backbone.model,
                "backbone_fingerprint": card.backbone.fingerprint,
            },
        }


def save_served(folder: Path, out: Path) -> None:
    """Write a packaged model as a directory that `mlflow models serve -m` takes.

    Raises:
        ModelError: there is no model, or one that this version does not understand.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    if not sys.stderr.isatty():
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    with describe_model(folder) as described:
        mlflow.pyfunc.save_model(path=str(out), **described)
    for path in [*out.rglob("*")]:  # copies have the modes of what was copied
        give_usual_mode(path)


def draw_example() -> str:
    """A small drawing of a plate with a scratch, as base64 of a PNG file."""
    image = Image.new("RGB", (64, 64), (90, 90, 96))
    draw = ImageDraw.Draw(image)
    draw.ellipse((8, 8, 55, 55), (168, 170, 174))
    draw.line((22, 40, 42, 24), (40, 38, 36), width=2)
    with io.BytesIO() as file:
        image.save(file, "PNG")
        return base64.b64encode(file.getvalue()).decode("ascii")


def _read_version(package: str) -> str:
    """As the index has it: builds of PyTorch for one kind of machine add `+cpu` to it."""
    return version(package).partition("+")[0]
