"""Options that several commands share, and loading a model."""

import math
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fuzzyclip.model.score_kinds import ScoreKind
from fuzzyclip.utils.files import find_cache
from fuzzyclip.utils.json_text import format_json
from fuzzyclip.utils.ranges import COUNT, FEW, NUMBER, SIDE
from fuzzyclip.utils.settings import Runtime as Runtime_

if TYPE_CHECKING:
    from fuzzyclip.clip.backbone import Backbone as Backbone_
    from fuzzyclip.model.card import Tiling
    from fuzzyclip.model.inference import Opener
    from fuzzyclip.model.loaded import FuzzyCLIP


@dataclass(frozen=True)
class Alone:
    """A frozen backbone without a model's directory, and what is done with it.

    Attributes:
        backbone: what `--backbone` names; None where a model is meant.
        method: of the harness; None compares with good parts.
        image_size: side of its input; None for its own.
        fast: whether it gets the fast setting.
    """

    backbone: str | None = None
    method: str | None = None
    image_size: int | None = None
    fast: bool = False

    def find_model(self) -> Path | None:
        """The directory of the model whose own backbone is meant; None of a fetched one."""
        from fuzzyclip.model.card import FILENAME, TOWER

        folder = Path(self.backbone or "")
        is_model = (folder / FILENAME).is_file() and not (folder / TOWER).is_file()
        return folder if is_model else None


#: Exit code where some images could not be read; the others are done.
SOME_UNREADABLE = 3

_MODEL = typer.Option(
    envvar="FUZZYCLIP_MODEL",
    help="A model's directory (a finished pipeline has models/visa/fuzzyclip), or MLflow's "
    "address of one (models:/..., runs:/...).",
)
Model = Annotated[str, _MODEL]
#: Where `--backbone` may stand for it.
OptionalModel = Annotated[str | None, _MODEL]
Backbone = Annotated[
    str | None,
    typer.Option(
        help="In place of --model: a frozen image model alone, by the name or folder of `fuzzyclip "
        "fetch`, or that of a model's directory. It compares with --reference, or with --batch, or "
        "does what --method says."
    ),
]
Method = Annotated[
    str | None,
    typer.Option(
        help="With --backbone: a method that needs no training (clip, clip_ac, clip_surgery, "
        "winclip, nearest). (default: nearest, which compares with --reference)"
    ),
]
ImageSize = Annotated[
    int | None,
    typer.Option(
        min=32,
        max=SIDE.most,
        help="With --backbone: side in pixels that images are squashed to. (default: about 518)",
    ),
]
Fast = Annotated[
    bool,
    typer.Option(
        "--fast",
        help="With --backbone: the fast setting, meant to halve an image's time, at a cost in "
        "quality (docs/fast.md). A model has the backbone that it was trained or calibrated with.",
    ),
]
Category = Annotated[
    str | None,
    typer.Option(
        help="What the images show, in words: metal bracket. It goes into the prompts. (default: "
        "the only calibrated one, or object)"
    ),
]
Device = Annotated[str, typer.Option(help="auto (CUDA, then MPS, then CPU), cpu, cuda:1, mps.")]
Runtime = Annotated[
    Runtime_,
    typer.Option(
        help="What runs the frozen image tower on a CPU: torch, onnx (ONNX Runtime), openvino, or "
        "auto: the fastest that gives the same features, measured once where many images are ahead."
    ),
]
Weights = Annotated[
    Path | None, typer.Option(help="The frozen CLIP's weights, where the model does not hold them.")
]
VerifyKey = Annotated[
    Path | None,
    typer.Option(
        envvar="FUZZYCLIP_VERIFY_KEY",
        help="Public key (PEM): a model that its owner did not sign, or that has changed since, is "
        "refused before anything of it is read.",
    ),
]
Signature = Annotated[
    Path | None,
    typer.Option(
        envvar="FUZZYCLIP_SIGNATURE",
        help="The model's signature, where it is not the directory's own model.sig.",
    ),
]
BatchSize = Annotated[
    int, typer.Option(min=1, max=COUNT.most, help="Images in a pass of the frozen CLIP.")
]
Workers = Annotated[
    int, typer.Option(min=1, max=FEW.most, help="Threads that read and decode images.")
]
Tile = Annotated[
    int | None,
    typer.Option(
        min=32,
        max=COUNT.most,
        help="Look at overlapping tiles of this side in pixels, not at the whole image squashed.",
    ),
]
Overlap = Annotated[
    int | None,
    typer.Option(
        min=0, max=COUNT.most, help="Pixels that neighbouring tiles share. (default: a quarter)"
    ),
]
Reference = Annotated[
    list[str] | None,
    typer.Option(
        help="Images of normal parts to compare with (file, folder, pattern; may be repeated). Few "
        "will do: 1, 2, 4."
    ),
]
Score = Annotated[
    ScoreKind | None,
    typer.Option(
        help="What decides an image: class (learned prompts, which hold no category), map (its "
        "highest value), both (their mean). (default: as calibrated, else class)"
    ),
]
MaxPixels = Annotated[
    int | None, typer.Option(min=1, help="Refuse larger images. (default: 178956970)")
]
White = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Value shown as white in images of more than 8 bits: 4095 for 12 bits stored in 16. "
        "(default: the largest of their type)",
    ),
]


def echo_json(data: Any, indent: int | None = None) -> None:
    """Print JSON that a program reads, whatever encoding the output has."""
    typer.echo(format_json(data, indent, sys.stdout.encoding or "utf-8"))


def read_score(text: str) -> float:
    """A score as it was typed.

    Raises:
        BadParameter: no number; of a share in percent says which score has that probability.
    """
    share = _read_percent(text)
    if share is not None and 0 < share < 1:
        raise typer.BadParameter(
            f"{text}: scores are log-odds; a probability of {text.strip()} is the score "
            f"{math.log(share / (1 - share)):.4g}"
        )
    try:
        return float(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is no number: give one such as 0 or 1.5") from error


def read_share(given: str | float) -> float:
    """A share as it was typed, 0.05 or 5%, or as it is by default.

    Raises:
        BadParameter: neither.
    """
    text = str(given)
    share = _read_percent(text)
    try:
        return float(text) if share is None else share
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is no share: give one such as 0.05 or 5%") from error


def _read_percent(text: str) -> float | None:
    """The share that a number with a percent sign is; None for anything else."""
    number = re.fullmatch(r"\s*(\d+(?:[.,]\d+)?)\s*%\s*", text)
    return float(number[1].replace(",", ".")) / 100 if number else None


def check_number(value: float | None) -> float | None:
    """A score as it was typed, if it is one.

    Raises:
        BadParameter: not finite, or beyond all scores.
    """
    if value is not None and not NUMBER.least <= value <= NUMBER.most:
        raise typer.BadParameter(
            f"{value} is no score: give a number, such as 0, where anomalous is as likely as normal"
        )
    return value


def check_rate(value: float) -> float:
    """A share as it was typed, if normal images can have it.

    Raises:
        BadParameter: none between 0 and 1.
    """
    if not 0 < value < 1:
        raise typer.BadParameter(f"{value:g}: give a share between 0 and 1, such as 0.05")
    return value


def choose_tiling(tile: int | None, overlap: int | None) -> "Tiling | None":
    """The tiling that `--tile` and `--overlap` ask for."""
    from fuzzyclip.model.tiles import choose_tiling as choose

    try:
        return choose(tile, overlap)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def choose_source(model: str | None, alone: Alone) -> str:
    """The model's directory or address; empty where a backbone alone is meant.

    Raises:
        BadParameter: both are given, or neither, or what goes with a backbone alone.
    """
    if alone.backbone is None:
        for name, given in (("--method", alone.method), ("--image-size", alone.image_size)):
            if given is not None:
                raise typer.BadParameter("it goes with --backbone", param_hint=name)
        if alone.fast:
            raise typer.BadParameter(
                "a model goes with the backbone that its parts were trained and its thresholds "
                "chosen with. Make a fast one: fuzzyclip package --backbone NAME --fast, then "
                "fuzzyclip calibrate",
                param_hint="--fast",
            )
        if model is None:
            raise typer.BadParameter(
                "give a model's directory; or --backbone, an image model alone (fuzzyclip fetch)",
                param_hint="--model",
            )
        return model
    if model is not None and model != os.environ.get("FUZZYCLIP_MODEL"):
        raise typer.BadParameter("give --model or --backbone, not both", param_hint="--backbone")
    return ""


def find_text_cache() -> Path:
    """The folder that keeps text features from one run to the next; safe to delete."""
    return find_cache() / "texts"


def load_model(
    model: str | None,
    category: str | None,
    device: str,
    weights: Path | None,
    reference: list[str] | None,
    *,
    opener: "Opener | None" = None,
    tiling: "Tiling | None" = None,
    calibrated: bool = True,
    verify_key: Path | None = None,
    signature: Path | None = None,
    alone: Alone = Alone(),
    runtime: Runtime_ = "torch",
    images: int | None = None,
) -> "tuple[FuzzyCLIP, str, list[Path]]":
    """The model, with reference images in mind, the category that is meant, and those images.

    Where `alone` names a backbone, that and its method stand for a model. Reference images are
    opened by `opener`, and cut by `tiling`, as those that are compared with them. Where
    `calibrated`, a category without a threshold is refused in a model that has some of others. Text
    features are kept from one run to the next, in a folder that is safe to delete.
    `runtime` and `images` are those of `FuzzyCLIP.run_by`.
    """
    from fuzzyclip.cli.image_lists import list_images
    from fuzzyclip.model.loaded import FuzzyCLIP

    source, texts = choose_source(model, alone), find_text_cache()
    references = list_images(reference) if reference else []
    if source:
        detector = FuzzyCLIP.load(
            source, device=device, weights=weights, text_cache=texts, verify_key=verify_key,
            signature=signature,
        )  # fmt: skip
    else:
        check_alone_signed(alone, verify_key, signature)
        detector = build_alone(alone, device, weights)
    detector = detector.run_by(runtime, images)
    if detector.card.is_sample:
        typer.echo("trained on drawn samples: for trying the tool, not for inspection", err=True)
    chosen = detector.choose_category(category, required=calibrated)
    if chosen != category and chosen in detector.card.calibrations:
        typer.echo(f"category {chosen!r}, as it was calibrated", err=True)
    if references:
        detector = detector.remember(references, chosen, opener, tiling)
    return detector, chosen, references


def check_alone_signed(alone: Alone, verify_key: Path | None, signature: Path | None) -> None:
    """Check the signature of the model whose backbone is meant; a fetched one has none.

    Raises:
        BadParameter: a signature is asked for where there is none.
        ModelError: the model is not as signed.
    """
    from fuzzyclip.model.signing import check_signature

    if folder := alone.find_model():
        check_signature(folder, verify_key, signature)
    elif verify_key is not None or signature is not None:
        raise typer.BadParameter(
            "a fetched backbone is compared with its checksum and not signed: leave it out, and "
            "FUZZYCLIP_VERIFY_KEY out of the environment",
            param_hint="--verify-key",
        )


def build_alone(
    alone: Alone,
    device: str,
    weights: Path | None,
    *,
    settings: dict[str, Any] | None = None,
    name: str | None = None,
) -> "FuzzyCLIP":
    """A detector of a backbone and a method, with settings of the method and a name of its own.

    Raises:
        WeightsError: the backbone is not there; says how to get it.
        ValueError: the method can not be a detector so; says what can be done.
    """
    from fuzzyclip.model.loaded import FuzzyCLIP
    from fuzzyclip.model.scoring import PLAIN

    backbone, changed = load_alone(alone, device, weights)
    return FuzzyCLIP.build(
        backbone, alone.method or PLAIN, settings=settings, text_cache=find_text_cache(), name=name,
        fast=changed,
    )  # fmt: skip


def load_alone(alone: Alone, device: str, weights: Path | None) -> "tuple[Backbone_, str | None]":
    """The backbone that is named: a model's own, or a fetched one; what is fast in it, or None."""
    from fuzzyclip.clip.backbone import load_backbone
    from fuzzyclip.model.card import read_card
    from fuzzyclip.model.directory import load_own_backbone
    from fuzzyclip.towers.fast import explain_fast, make_fast
    from fuzzyclip.towers.folder import TowerError, find_tower
    from fuzzyclip.utils.devices import check_device

    check_device(device)
    if folder := alone.find_model():
        if alone.image_size is not None:
            raise typer.BadParameter(
                "a model's own backbone has its size", param_hint="--image-size"
            )
        if alone.fast:
            raise typer.BadParameter(
                "a model's own backbone is as it is: name a fetched one", param_hint="--fast"
            )
        return load_own_backbone(folder, read_card(folder), weights=weights, device=device), None
    if weights is not None:
        raise typer.BadParameter("a fetched backbone has its own", param_hint="--weights")
    if alone.fast and alone.image_size is not None:
        raise typer.BadParameter("it says the size: leave --image-size out", param_hint="--fast")
    settings, changed = find_tower(alone.backbone or "", image_size=alone.image_size), None
    try:
        if alone.fast:
            plain, settings = settings, make_fast(settings)
            changed = explain_fast(plain, settings)
        return load_backbone(settings, device=device), changed
    except ValueError as error:
        raise TowerError(f"backbone {alone.backbone}: {error}") from error
