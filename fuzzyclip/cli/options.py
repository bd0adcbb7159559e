"""Options that several commands share, loading a model, and the end where something is wrong."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fuzzyclip.model.score_kinds import ScoreKind
from fuzzyclip.utils.ranges import COUNT, FEW, NUMBER

if TYPE_CHECKING:
    from fuzzyclip.model.card import Tiling
    from fuzzyclip.model.inference import Opener
    from fuzzyclip.model.loaded import FuzzyCLIP

#: Exit code where some images could not be read; the others are done.
SOME_UNREADABLE = 3

Model = Annotated[
    str,
    typer.Option(
        envvar="FUZZYCLIP_MODEL",
        help="A model's directory (a finished pipeline has models/visa/fuzzyclip), or MLflow's "
        "address of one (models:/..., runs:/...).",
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


class Refusal:
    """Ends the command with the message alone, where the message says it all.

    A pipe that is no longer read (`| head`) is no mistake: the command ends without a word.
    """

    def __enter__(self) -> None:
        """Nothing to open."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Turn an error that a person can mend into a message and exit code 1."""
        if isinstance(error, ValueError | OSError) and not isinstance(error, BrokenPipeError):
            typer.echo(str(error), err=True)
            raise typer.Exit(1) from error


def choose_tiling(tile: int | None, overlap: int | None) -> "Tiling | None":
    """The tiling that `--tile` and `--overlap` ask for."""
    from fuzzyclip.model.tiles import choose_tiling as choose

    try:
        return choose(tile, overlap)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def load_model(
    model: str,
    category: str | None,
    device: str,
    weights: Path | None,
    reference: list[str] | None,
    *,
    opener: "Opener | None" = None,
    calibrated: bool = True,
    verify_key: Path | None = None,
    signature: Path | None = None,
) -> "tuple[FuzzyCLIP, str, list[Path]]":
    """The model, with reference images in mind, the category that is meant, and those images.

    Reference images are opened by `opener`, as those that are compared with them. Where
    `calibrated`, a category without a threshold is refused in a model that has some of others. Text
    features are kept from one run to the next, in a folder that is safe to delete.
    """
    from fuzzyclip.cli.image_lists import list_images
    from fuzzyclip.model.loaded import FuzzyCLIP

    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    texts = cache / "fuzzyclip" / "texts"
    references = list_images(reference) if reference else []
    detector = FuzzyCLIP.load(
        model, device=device, weights=weights, text_cache=texts, verify_key=verify_key,
        signature=signature,
    )  # fmt: skip
    if "sample" in detector.card.training.sources.values():
        typer.echo("trained on drawn samples: for trying the tool, not for inspection", err=True)
    chosen = detector.choose_category(category, required=calibrated)
    if chosen != category and chosen in detector.card.calibrations:
        typer.echo(f"category {chosen!r}, as it was calibrated", err=True)
    if references:
        detector = detector.remember(references, chosen, opener)
    return detector, chosen, references
