"""`fuzzyclip package`: a method and a frozen backbone as a model's directory."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fuzzyclip.cli import options

if TYPE_CHECKING:
    from fuzzyclip.model.loaded import FuzzyCLIP

Out = Annotated[Path, typer.Option(help="Directory to make; must not exist yet or be empty.")]
Given = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="A setting of the method, as in params.yaml (may be repeated): as=mended, cut=2.5.",
    ),
]
Learned = Annotated[
    Path | None,
    typer.Option(
        help="What the pipeline's baselines have learned, in place of --method and --backbone: "
        "baselines/METHOD/AUXILIARY.safetensors. It says method, settings and backbone."
    ),
]
Copy = Annotated[
    bool | None,
    typer.Option(
        "--weights-inside/--weights-elsewhere",
        help="Whether the backbone's weights go into the directory. (default: up to 200 MB)",
    ),
]
Name = Annotated[str | None, typer.Option(help="Name of the model. (default: the method's)")]


def package(
    out: Out,
    method: options.Method = None,
    backbone: options.Backbone = None,
    image_size: options.ImageSize = None,
    fast: options.Fast = False,
    learned: Learned = None,
    given: Given = None,
    copy: Copy = None,
    name: Name = None,
    weights: options.Weights = None,
) -> None:
    """Make a model of a method, for predict, calibrate, export and serving.

    Methods that need no training take a frozen backbone; those that have one come out of the
    pipeline (dvc repro baselines). FuzzyCLIP itself is packaged by the pipeline.
    """
    from fuzzyclip.model.directory import check_free, is_small
    from fuzzyclip.model.learned import load_learned
    from fuzzyclip.utils.files import show_line

    check_free(out)
    alone = options.Alone(backbone, method, image_size, fast)
    if learned is not None:
        for option, value in (("--method", method), ("--backbone", backbone), ("--set", given),
                              ("--image-size", image_size), ("--fast", fast or None)):  # fmt: skip
            if value is not None:
                raise typer.BadParameter("the file of --learned says it", param_hint=option)
        detector = load_learned(learned, weights=weights, name=name)
    else:
        if backbone is None:
            raise typer.BadParameter("name a frozen backbone", param_hint="--backbone")
        detector = options.build_alone(
            alone, "cpu", weights, settings=read_settings(given or []), name=name
        )
    inside = is_small(detector.backbone.settings.weights) if copy is None else copy
    card = detector.save(out, copy=inside)
    typer.echo(f"{out} written: {show_line(describe(detector))}")
    if card.backbone.place == "elsewhere":
        typer.echo(
            f"the weights are not in it: give {detector.backbone.settings.weights} as --weights",
            err=True,
        )


def read_settings(given: list[str]) -> dict[str, Any]:
    """Settings as they were typed: numbers, lists, true and false as JSON has them, else a text.

    Raises:
        BadParameter: no `KEY=VALUE`, or a key twice.
    """
    from fuzzyclip.utils.json_text import parse_json

    settings: dict[str, Any] = {}
    for text in given:
        key, sign, value = text.partition("=")
        if not sign or not key:
            raise typer.BadParameter(f"{text!r} is no KEY=VALUE", param_hint="--set")
        if key.strip() in settings:
            raise typer.BadParameter(f"{key.strip()} is set twice", param_hint="--set")
        try:
            settings[key.strip()] = parse_json(value)
        except ValueError:
            settings[key.strip()] = value
    return settings


def describe(detector: "FuzzyCLIP") -> str:
    """What a model does, in a line."""
    data = detector.card.data
    training = "no training" if data is None else f"trained on {data.auxiliary}"
    text = "reads the category's name" if detector.scoring.reads_text else "reads no text"
    fast = f", fast ({detector.card.fast})" if detector.card.fast else ""
    return f"{detector.card.name}, {training}, {text}{fast}"
