"""`fuzzyclip predict`: images in, decisions, scores and pictures out."""

import sys
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from fuzzyclip.cli import options

if TYPE_CHECKING:
    from fuzzyclip.model.batch import BatchModel
    from fuzzyclip.model.card import Threshold, Tiling
    from fuzzyclip.model.inference import Opener
    from fuzzyclip.model.loaded import FuzzyCLIP
    from fuzzyclip.model.outputs import PredictionFolder
    from fuzzyclip.model.score_kinds import ScoreKind

Images = Annotated[
    list[str], typer.Argument(help="Image files, folders, or patterns in quotes ('parts/*.png').")
]
Out = Annotated[
    Path | None,
    typer.Option(help="Folder for overlays, maps, masks, scores.csv and scores.jsonl."),
]


class Kind(StrEnum):
    """Files of an image; see `fuzzyclip.model.outputs`."""

    OVERLAY = "overlay"
    MAP = "map"
    NPY = "npy"
    MASK = "mask"
    NONE = "none"


Save = Annotated[
    list[Kind] | None,
    typer.Option(
        help="What to write an image (may be repeated): overlay, map (16-bit PNG), npy (float32), "
        "mask; none: the tables alone. (default: overlay, map, mask)"
    ),
]
ScaleOption = Annotated[
    Literal["fixed", "image"],
    typer.Option(
        help="Colours: one fixed scale, or each image's own (a normal one looks hot too)."
    ),
]
Report = Annotated[
    bool,
    typer.Option("--report", help="Write report.html into --out: all images on a page to print."),
]
Batch = Annotated[
    bool,
    typer.Option(
        "--batch",
        help="Compare the images with one another in place of the text: most of them must be "
        "normal, and of one kind of part. Neither training nor calibration takes part.",
    ),
]
Given = Annotated[
    float | None,
    typer.Option(
        parser=options.read_score,
        metavar="NUMBER",
        callback=options.check_number,
        help="Image scores (log-odds) from here on are anomalous; else as calibrated, or 0.",
    ),
]


def predict(
    images: Images,
    model: options.OptionalModel = None,
    category: options.Category = None,
    out: Out = None,
    threshold: Given = None,
    tile: options.Tile = None,
    overlap: options.Overlap = None,
    reference: options.Reference = None,
    score: options.Score = None,
    batch: Batch = False,
    backbone: options.Backbone = None,
    method: options.Method = None,
    image_size: options.ImageSize = None,
    fast: options.Fast = False,
    save: Save = None,
    scale: ScaleOption = "fixed",
    report: Report = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a line of JSON an image.")] = False,
    device: options.Device = "auto",
    runtime: options.Runtime = "auto",
    weights: options.Weights = None,
    batch_size: options.BatchSize = 8,
    workers: options.Workers = 2,
    max_pixels: options.MaxPixels = None,
    white: options.White = None,
    verify_key: options.VerifyKey = None,
    signature: options.Signature = None,
) -> None:
    """Normal or anomalous, a score and a heatmap for each image.

    An image that can not be read is listed, the others are done, and the exit code is 3. A run that
    was killed goes on where it stopped when the same command is given again.
    """
    from scipy.special import expit

    from fuzzyclip.cli.image_lists import list_images
    from fuzzyclip.images.decode import MAX_PIXELS
    from fuzzyclip.model.batch import check_batch_alone
    from fuzzyclip.model.choices import offer_threshold
    from fuzzyclip.model.inference import Opener
    from fuzzyclip.model.outputs import PredictionFolder
    from fuzzyclip.utils.endings import GOES_ON, keeping

    with offer_threshold(), keeping("" if out is None else GOES_ON):
        if report and out is None:
            raise typer.BadParameter(
                "it is written into --out: give a folder", param_hint="--report"
            )
        if threshold is not None:
            meaning = f"log-odds, a probability of {expit(threshold):.4g} (0 is one of 0.5)"
            typer.echo(f"the threshold {threshold:g} is in {meaning}", err=True)
        tiling, kinds = options.choose_tiling(tile, overlap), _choose_kinds(save)
        files = list_images(images, without=out)
        opener = Opener(max_pixels or MAX_PIXELS, white)
        detector, chosen, references = options.load_model(
            model, category, device, weights, reference,
            opener=opener, tiling=tiling, calibrated=threshold is None and not batch,
            verify_key=verify_key, signature=signature,
            alone=options.Alone(backbone, method, image_size, fast),
            runtime=runtime, images=len(files),
        )  # fmt: skip
        studied = None
        if batch and method is not None:
            raise typer.BadParameter(
                "--batch compares the images with one another, by no other method",
                param_hint="--method",
            )
        if batch:
            check_batch_alone(tiling, references, score)
            studied = detector.study(files, opener=opener, batch_size=batch_size, workers=workers)
            _tell_batch(studied, len(files))
        kind, folder = detector.choose_score(chosen, score), None
        if out is not None:
            settings = _describe(
                detector, chosen, tiling, threshold, kind, references, opener, studied
            )
            engine = detector.backbone.engine
            runs = None if engine is None else engine.label
            folder = PredictionFolder(
                out, files, settings, kinds=kinds, scale=scale, runtime=runs,
                fast=detector.card.fast,
            )  # fmt: skip
        todo = [path for path in files if folder is None or not folder.is_done(path)]
        predictions = detector.detect(
            todo, chosen, batch_size=batch_size, workers=workers,
            tiling=tiling, threshold=threshold, score=None if batch else kind, opener=opener,
            batch=studied, keep_pictures=folder is not None and Kind.OVERLAY in folder.kinds,
        )  # fmt: skip
        rows = []
        for path, prediction in zip(todo, _show_progress(predictions, len(todo)), strict=True):
            rows.append(prediction.to_row() if folder is None else folder.add(path, prediction))
            _print_row(rows[-1], as_json)
        if folder is not None:
            folder.finish(files)
        thresholds = _choose_thresholds(detector, chosen, tiling, threshold, kind, studied)
        if folder is not None and report:
            _write_report(folder, detector, chosen, thresholds, tiling, kind, studied)
        named = category is not None or batch or detector.card.calibrations
        if detector.scoring.reads_text and not named:
            typer.echo(f"no --category: looked at as {chosen!r}", err=True)
    _conclude(rows, len(files) - len(todo), thresholds[0], out)


def _choose_kinds(save: list[Kind] | None) -> list[str]:
    """What `--save` asks for."""
    if save and Kind.NONE in save:
        if set(save) != {Kind.NONE}:
            raise typer.BadParameter("none goes with nothing else", param_hint="--save")
        return []
    return [kind.value for kind in save or (Kind.OVERLAY, Kind.MAP, Kind.MASK)]


def _describe(
    detector: "FuzzyCLIP",
    category: str,
    tiling: "Tiling | None",
    threshold: float | None,
    score: "ScoreKind",
    references: list[Path],
    opener: "Opener",
    batch: "BatchModel | None",
) -> dict[str, Any]:
    """All that decides the results of a run."""
    from fuzzyclip.utils.files import compute_sha256, show_name

    image, pixel = _choose_thresholds(detector, category, tiling, threshold, score, batch)
    prompt = "" if batch else detector.build_category_model(category).scorer.prompt
    own = {"batch": batch.digest} if batch else {}
    own |= {"fast": detector.card.fast} if detector.card.fast else {}
    return {
        "model": detector.card.name,
        "model_files": dict(detector.card.files),
        "backbone": detector.backbone.fingerprint,
        "category": category,
        "scores": "log-odds",  # not to go on with a folder of the time when they were probabilities
        **detector.scoring.settings,
        "text": detector.card.text.model_dump(),
        "prompt": prompt,
        "threshold": image.model_dump(),
        "pixel_threshold": pixel.model_dump(),
        "tiling": tiling.model_dump() if tiling else None,
        "score": score,
        "references": {show_name(path): compute_sha256(path) for path in references},
        "max_pixels": opener.max_pixels,
        "white": opener.white,
    } | own


def _choose_thresholds(
    detector: "FuzzyCLIP",
    category: str,
    tiling: "Tiling | None",
    threshold: float | None,
    score: "ScoreKind",
    batch: "BatchModel | None",
) -> "tuple[Threshold, Threshold]":
    """Of image scores and of pixels: the batch's own, where there is one, else the model's."""
    if batch is not None:
        return batch.choose_thresholds(threshold)
    return detector.choose_thresholds(category, tiling, threshold, score)


def _tell_batch(batch: "BatchModel", images: int) -> None:
    """What a batch's results are, and what is wrong with it."""
    from fuzzyclip.baselines.mutual.scoring import NOTE

    compared = f"compared with {len(batch.references)} of these {images} images"
    typer.echo(f"{NOTE}: {compared}, by what is usual among {batch.scale.images}", err=True)
    if batch.scale.warning:
        typer.echo(f"note: {batch.scale.warning}", err=True)


def _write_report(
    folder: "PredictionFolder",
    detector: "FuzzyCLIP",
    category: str,
    thresholds: "tuple[Threshold, Threshold]",
    tiling: "Tiling | None",
    score: "ScoreKind",
    batch: "BatchModel | None",
) -> None:
    """report.html of all images of a folder."""
    from fuzzyclip.model.outputs import PAGE
    from fuzzyclip.model.results_page import render_results
    from fuzzyclip.utils.files import write_text

    notes = [f"An image's score is {detector.scoring.explain(score)} (--score {score})"]
    if batch is not None:
        notes = ["Images were compared with one another: an image's score is the highest value of "
                 "its map, in deviations from the threshold"]  # fmt: skip
        notes += filter(None, [batch.scale.warning.capitalize()])
    elif score == "class" and detector.card.method is None:
        notes.append("Outlines are of the map, which has no part in this score: an outlined image "
                     "may be normal (--score map decides by the map)")  # fmt: skip
    if tiling is not None:
        notes.append(f"Looked at by tiles of {tiling.side} pixels, overlap {tiling.overlap}")
    if category in detector.memories and batch is None:
        notes.append("Compared with remembered normal parts: not zero-shot")
    if runtimes := sorted({row["runtime"] for row in folder.rows.values() if "runtime" in row}):
        notes.append(f"The frozen image tower was run by {' and '.join(runtimes)}")
    if detector.card.fast:
        notes.append(f"With the fast setting: {detector.card.fast}")
    if detector.card.is_sample:
        notes.append("The model was trained on drawn samples: for trying, not for inspection")
    page = render_results(
        [*folder.rows.values()],
        model=detector.card.name,
        category=category,
        threshold=thresholds[0],
        pixel_threshold=thresholds[1],
        notes=notes,
        named=batch is None and detector.scoring.reads_text,
    )
    write_text(folder.out / PAGE, page)


def _show_progress(predictions: Iterable[Any], total: int) -> Iterator[Any]:
    """A bar on the terminal, nothing elsewhere."""
    from tqdm import tqdm

    hidden = not sys.stderr.isatty() or total < 2
    yield from tqdm(predictions, total=total, unit="image", disable=hidden)


def _print_row(row: dict[str, Any], as_json: bool) -> None:
    """A line an image, whatever is in its name."""
    from fuzzyclip.utils.files import show_line

    if as_json:
        options.echo_json(row)
    elif row["error"]:
        typer.echo(f"not read  {show_line(row['error'])}", err=True)
    else:
        verdict = f"{row['decision']:9}  {row['image_score']:+.4f}  {row['probability']:6.1%}"
        typer.echo(f"{verdict}  {show_line(row['image'])}")


def _conclude(
    rows: list[dict[str, Any]], before: int, threshold: "Threshold", out: Path | None
) -> None:
    """A line on what was done, and the exit code."""
    from fuzzyclip.model.card import NATURAL
    from fuzzyclip.model.prediction import DECISIONS

    unreadable = sum(bool(row["error"]) for row in rows)
    anomalous = sum(row.get("decision") == DECISIONS[1] for row in rows)
    if threshold.method == "natural":
        own = "not calibrated" if threshold.note == NATURAL.note else threshold.note
        typer.echo(f"the threshold 0 is {own}: see fuzzyclip calibrate", err=True)
    elif threshold.note:
        typer.echo(f"the threshold {threshold.value:+.4f}: {threshold.note}", err=True)
    already = f", {before} done before" if before else ""
    where = f" -> {out}" if out else ""
    normal = len(rows) - anomalous - unreadable
    counts = f"{normal} normal, {anomalous} anomalous, {unreadable} could not be read"
    typer.echo(f"{counts}{already}{where}", err=True)
    if unreadable:
        raise typer.Exit(options.SOME_UNREADABLE)
