"""`fuzzyclip calibrate`: the threshold between normal and anomalous, from a user's own images."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fuzzyclip.cli.options import (
    BatchSize,
    Category,
    Device,
    MaxPixels,
    Model,
    Overlap,
    Reference,
    Tile,
    Weights,
    White,
    Workers,
    choose_tiling,
    load_model,
)
from fuzzyclip.cli.predict import SOME_UNREADABLE
from fuzzyclip.cli.refusal import Refusal

if TYPE_CHECKING:
    from fuzzyclip.model.card import Threshold

Good = Annotated[
    list[str],
    typer.Option(help="Good images, none of them a reference: file, folder, pattern; may repeat."),
]
Bad = Annotated[
    list[str] | None,
    typer.Option(help="Images with defects: file, folder, pattern; may repeat."),
]
Masks = Annotated[
    list[str] | None,
    typer.Option(help="Ground truth of the bad images, by the same name or NAME_mask."),
]
Rate = Annotated[
    float,
    typer.Option(
        min=0, max=1, help="Wanted share of normal images that are called anomalous, without --bad."
    ),
]
Out = Annotated[
    Path | None, typer.Option(help="Write a changed copy of the model here. (default: change it)")
]


def calibrate(
    model: Model,
    good: Good,
    category: Category = "object",
    bad: Bad = None,
    masks: Masks = None,
    false_alarms: Rate = 0.05,
    out: Out = None,
    tile: Tile = None,
    overlap: Overlap = None,
    reference: Reference = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the thresholds as JSON.")] = False,
    device: Device = "auto",
    weights: Weights = None,
    batch_size: BatchSize = 8,
    workers: Workers = 2,
    max_pixels: MaxPixels = None,
    white: White = None,
) -> None:
    """Choose a category's threshold and store it in the model.

    With good and bad images: the threshold of the largest F1. With good ones alone: the one that a
    wanted share of good parts exceeds. The model then uses it with the same category, tiles and
    references.
    """
    from fuzzyclip.cli.image_lists import list_images
    from fuzzyclip.images.decode import MAX_PIXELS
    from fuzzyclip.model.calibration import calibrate as choose
    from fuzzyclip.model.calibration import match_masks
    from fuzzyclip.model.directory import find_folder
    from fuzzyclip.model.opening import Opener
    from fuzzyclip.model.storing import store

    with Refusal():
        folder = find_folder(model)
        if out is None and folder != Path(model):
            raise typer.BadParameter("a model of MLflow is not changed: give --out")
        tiling = choose_tiling(tile, overlap)
        goods, bads = list_images(good), list_images(bad) if bad else []
        truths = match_masks(bads, list_images(masks)) if masks else []
        detector, references = load_model(str(folder), category, device, weights, reference)
        if both := {*goods} & {*references}:
            raise ValueError(f"{sorted(both)[0]}: a reference image must not calibrate as well")
        done = choose(
            detector, category, goods, bads, truths,
            false_alarm_rate=false_alarms, tiling=tiling, batch_size=batch_size, workers=workers,
            opener=Opener(max_pixels or MAX_PIXELS, white),
        )  # fmt: skip
        store(
            folder, category, done.calibration, out=out,
            memory=detector.memories.get(category),
            references=[str(path) for path in references]
            or detector.list_references(category),
        )  # fmt: skip
    chosen = done.calibration
    if as_json:
        typer.echo(json.dumps(chosen.model_dump()))
    else:
        typer.echo(f"{category}, images: {describe(chosen.image)}")
        typer.echo(f"{category}, pixels: {describe(chosen.pixel)}")
        typer.echo(f"stored in {out or folder}")
    for one in done.unreadable:
        typer.echo(f"not read  {one.error}", err=True)
    if done.unreadable:
        raise typer.Exit(SOME_UNREADABLE)


def describe(threshold: "Threshold") -> str:
    """A threshold in words, with what is known of its errors."""
    parts = [f"{threshold.value:.6g} by {threshold.method}"]
    parts.append(f"from {threshold.good} good, {threshold.bad} bad")
    if threshold.f1 is not None:
        parts.append(f"F1 {100 * threshold.f1:.1f} %")
    for name, rate, interval in (
        ("false alarms", threshold.false_alarm_rate, threshold.false_alarm_interval),
        ("misses", threshold.miss_rate, threshold.miss_interval),
    ):
        if rate is not None:
            words = f"{name} {100 * rate:.2g} % of {threshold.counted}"
            if interval is not None:
                words += f" (95 %: {100 * interval[0]:.2g} to {100 * interval[1]:.2g} %)"
            parts.append(words)
    return "; ".join([*parts, *([threshold.note] if threshold.note else [])])
