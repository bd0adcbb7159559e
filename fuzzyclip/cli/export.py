"""`fuzzyclip export`: a model for other runtimes, compared with itself before it is written."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fuzzyclip.cli.options import (
    Category,
    Model,
    Reference,
    Score,
    Signature,
    VerifyKey,
    Weights,
    load_model,
)

if TYPE_CHECKING:
    from fuzzyclip.deploy.parity import Difference
    from fuzzyclip.model.loaded import FuzzyCLIP
    from fuzzyclip.model.score_kinds import ScoreKind


class Format(StrEnum):
    """Formats that a model can be exported to."""

    ONNX = "onnx"
    ONNX_INT8 = "onnx-int8"
    OPENVINO = "openvino"
    OPENVINO_INT8 = "openvino-int8"
    MLFLOW = "mlflow"


FormatOption = Annotated[
    Format,
    typer.Option(
        "--format",
        help="onnx and openvino hold one category, with its text features inside; mlflow is a "
        "folder for `mlflow models serve` and holds them all.",
    ),
]
Out = Annotated[
    Path, typer.Option(help="FILE.onnx, FILE.xml for OpenVINO, or a folder for MLflow.")
]
Check = Annotated[
    list[str] | None,
    typer.Option(
        help="Images that the file is compared on (file, folder, pattern; may be repeated): at "
        "least one, several tell more. Not for mlflow."
    ),
]


def export(
    model: Model,
    out: Out,
    format_: FormatOption = Format.ONNX,
    category: Category = None,
    check: Check = None,
    reference: Reference = None,
    score: Score = None,
    weights: Weights = None,
    verify_key: VerifyKey = None,
    signature: Signature = None,
) -> None:
    """Write a model for another runtime: image in, map and score out.

    The file is run on the given images and compared with PyTorch first. Where it differs by more
    than rounding nothing is written.
    """
    from fuzzyclip.model.directory import find_folder
    from fuzzyclip.model.signing import check_signature

    if out.exists():
        raise ValueError(f"{out} exists already; name another place or remove it")
    if format_ is Format.MLFLOW:
        if score is not None:
            raise typer.BadParameter(
                "a served model decides as each category is calibrated, or as a request says",
                param_hint="--score",
            )
        folder = find_folder(model)
        check_signature(folder, verify_key, signature)
        from fuzzyclip.deploy.mlflow_model import save_served

        save_served(folder, out)
    else:
        if not check:
            raise typer.BadParameter(
                "name images that the file is compared on", param_hint="--check"
            )
        detector, chosen, _ = load_model(
            model, category, "cpu", weights, reference, verify_key=verify_key, signature=signature
        )
        difference = _export(detector, chosen, out, format_, check, score)
        typer.echo(
            f"differs from PyTorch by at most {difference.score:.2g} in scores and "
            f"{difference.map_max:.2g} in maps ({difference.map_mean:.2g} in an image's mean)"
        )
    typer.echo(f"{out} written")


def _export(
    detector: "FuzzyCLIP",
    category: str,
    out: Path,
    format_: Format,
    check: list[str],
    score: "ScoreKind | None",
) -> "Difference":
    """ONNX, or OpenVINO by way of ONNX."""
    from fuzzyclip.cli.image_lists import list_images
    from fuzzyclip.deploy.export import export_onnx, export_openvino
    from fuzzyclip.deploy.facts import Origin
    from fuzzyclip.model.directory import EFA, LEARNED
    from fuzzyclip.utils.scratch import hold_folder

    kind = "int8" if format_ in (Format.ONNX_INT8, Format.OPENVINO_INT8) else "float32"
    own = detector.card.calibrations.get(category)
    if own and own.tiling:
        typer.echo(
            "the thresholds hold for tiles: cut the image as the model's card says", err=True
        )
    if own is None:
        typer.echo("no threshold in the file: the category is not calibrated", err=True)
    thresholds = {}
    if own is not None:  # refused where they do not hold
        image, pixel = detector.choose_thresholds(category, own.tiling, score=score)
        thresholds = {"image_score": image.value, "anomaly_map": pixel.value}
    memory, files = detector.memories.get(category), detector.card.files
    origin = Origin(
        category,
        thresholds=thresholds,
        model_sha256=files.get(EFA) or files.get(LEARNED),
        remembered_tokens=0 if memory is None else memory.tokens.shape[1],
    )
    images, category_model = list_images(check), detector.build_category_model(category, score)
    if format_ in (Format.ONNX, Format.ONNX_INT8):
        return export_onnx(category_model, out, images, origin, weights=kind)
    with hold_folder(out) as temporary:
        between = temporary / "model.onnx"
        export_onnx(category_model, between, images, origin, weights=kind)
        return export_openvino(category_model, between, out, images)
