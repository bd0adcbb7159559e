"""`fuzzyclip calibrate`: the threshold between normal and anomalous, from a user's own images."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fuzzyclip.cli import options

if TYPE_CHECKING:
    from fuzzyclip.model.card import Threshold

Good = Annotated[
    list[str],
    typer.Option(help="Normal images, none of them a reference: file, folder, pattern; repeats."),
]
Bad = Annotated[
    list[str] | None,
    typer.Option(help="Images with defects: file, folder, pattern; may repeat."),
]
Masks = Annotated[
    list[str] | None,
    typer.Option(
        help="Ground truth of the images with defects, by the same name or NAME_mask (_gt)."
    ),
]
Rate = Annotated[
    float,
    typer.Option(
        parser=options.read_share,
        metavar="SHARE",
        callback=options.check_rate,
        help="Wanted share of normal images that are called anomalous, between 0 and 1, where no "
        "--bad or no --masks decide.",
    ),
]
Out = Annotated[
    Path | None, typer.Option(help="Write a changed copy of the model here. (default: change it)")
]


def calibrate(
    model: options.Model,
    good: Good,
    category: options.Category = None,
    bad: Bad = None,
    masks: Masks = None,
    false_alarms: Rate = 0.05,
    out: Out = None,
    tile: options.Tile = None,
    overlap: options.Overlap = None,
    reference: options.Reference = None,
    score: options.Score = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the thresholds as JSON.")] = False,
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
    """Choose a category's threshold and store it in the model.

    With normal and anomalous images: the threshold of the largest F1. With normal ones alone: the
    one that a wanted share of normal parts exceeds. The model then uses it with the same category,
    tiles, references and score. Prints the scores as a histogram and how well they tell the two
    apart.
    """
    from fuzzyclip.cli.image_lists import list_images
    from fuzzyclip.images.decode import MAX_PIXELS
    from fuzzyclip.model.calibration import calibrate as choose_thresholds
    from fuzzyclip.model.calibration import match_masks
    from fuzzyclip.model.directory import find_folder
    from fuzzyclip.model.inference import Opener
    from fuzzyclip.model.separation import draw_histogram, to_percent
    from fuzzyclip.model.signing import SIGNATURE
    from fuzzyclip.model.storing import store
    from fuzzyclip.utils.files import compute_sha256, require_writable, show_line

    folder = find_folder(model)
    if out is None and folder != Path(model):
        raise typer.BadParameter("a model of MLflow is not changed: give --out")
    require_writable(out.parent if out else folder, "name a place for a copy with --out")
    if out is not None and out.exists():  # before the images are looked at, not after
        raise FileExistsError(f"{out} exists already; name another place or remove it")
    tiling = options.choose_tiling(tile, overlap)
    opener = Opener(max_pixels or MAX_PIXELS, white)
    refuse_mixed(good)
    normal, anomalous = list_images(good), list_images(bad) if bad else []
    truths = match_masks(anomalous, list_images(masks)) if masks else []
    detector, chosen, references = options.load_model(
        str(folder), category, device, weights, reference, opener=opener, tiling=tiling,
        calibrated=False, verify_key=verify_key, signature=signature,
        runtime=runtime, images=len(normal) + len(anomalous),
    )  # fmt: skip
    places = {os.path.realpath(path) for path in references}
    contents = {compute_sha256(path) for path in references}
    for path in [*normal, *anomalous]:
        copied = bool(contents) and path.is_file() and compute_sha256(path) in contents
        if copied or os.path.realpath(path) in places:
            raise ValueError(f"{path}: a reference image must not calibrate as well")
    calibrated = choose_thresholds(
        detector, chosen, normal, anomalous, truths,
        false_alarm_rate=false_alarms, tiling=tiling, score=score, batch_size=batch_size,
        workers=workers, opener=opener,
    )  # fmt: skip
    signed = signature is not None or (folder / SIGNATURE).is_file()
    store(
        folder, chosen, calibrated.calibration, out=out,
        memory=detector.memories.get(chosen),
        references=[str(path) for path in references]
        or detector.list_references(chosen),
    )  # fmt: skip
    calibration, separation = calibrated.calibration, calibrated.separation
    if as_json:
        options.echo_json(calibration.model_dump() | {"auroc": separation.auroc})
    else:
        typer.echo("\n".join(draw_histogram(separation, calibration.image.value)))
        words = detector.scoring.explain(calibration.score)
        typer.echo(f"{chosen}, score: {words} ({calibration.score})")
        if separation.auroc is not None:
            doubt = f": {separation.doubt}" if separation.doubt else ""
            typer.echo(f"{chosen}, separation: AUROC {to_percent(separation.auroc)}{doubt}")
        typer.echo(f"{chosen}, images: {describe(calibration.image)}")
        typer.echo(f"{chosen}, pixels: {describe(calibration.pixel, outlines=True)}")
        typer.echo(f"stored in {out or folder}")
    if signed:
        again = f"fuzzyclip sign {out or folder} --key PRIVATE.pem"
        typer.echo(f"it is not signed: the old signature is of other thresholds; {again}", err=True)
    for unreadable in calibrated.unreadable:
        typer.echo(f"not read  {show_line(unreadable.error)}", err=True)
    if calibrated.unreadable:
        raise typer.Exit(options.SOME_UNREADABLE)


def describe(threshold: "Threshold", outlines: bool = False) -> str:
    """A threshold in words, of image scores or of outlines, with what is known of its errors."""
    from fuzzyclip.model.separation import to_percent

    value, kind = threshold.value, threshold.counted
    chosen = "of the largest F1" if threshold.method == "f1_max" else "by the false alarm rate"
    parts = [
        f"outlined from {value:.4g} on" if outlines else f"anomalous from {value:+.4f} on",
        f"{chosen}, from {threshold.normal} normal and {threshold.anomalous} anomalous",
    ]
    if threshold.f1 is not None:
        parts.append(f"F1 {to_percent(threshold.f1)}")
    for name, label, total, rate, interval in (
        ("false alarms", "normal", threshold.normal, threshold.false_alarm_rate,
         threshold.false_alarm_interval),
        ("misses", "anomalous", threshold.anomalous, threshold.miss_rate, threshold.miss_interval),
    ):  # fmt: skip
        if rate is None:
            continue
        words = f"{name} {to_percent(rate)} of {label} {kind}"
        if threshold.method == "f1_max" and kind == "images":
            words = f"{name} {round(rate * total)} of {total} ({to_percent(rate)})"
        if interval is not None:
            low, high = (to_percent(end).removesuffix(" %") for end in _round_outwards(interval))
            words += f", among new ones between {low} and {high} %, with 95 % confidence"
        parts.append(words)
    return "; ".join([*parts, *([threshold.note] if threshold.note else [])])


def refuse_mixed(names: list[str]) -> None:
    """Refuse a folder given as normal that has one of normal parts beside others, at any depth.

    Raises:
        ValueError: names it, and the folder that is meant.
    """
    from fuzzyclip.datasets.base.folder_names import is_normal
    from fuzzyclip.images.names import describe_names, is_image_name, is_visible
    from fuzzyclip.utils.files import show_line

    for folder in (path for path in map(Path, names) if path.is_dir()):
        normal: list[str] = []
        others: list[str] = []
        mixed: set[Path] = {folder}  # of folders that lie there, only those of normal parts count
        for top, folders, files in os.walk(folder):
            place = Path(top)
            folders[:] = sorted(filter(is_visible, folders))
            inside = [name for name in folders if is_normal(name)]
            normal += [(place / name).relative_to(folder).as_posix() for name in inside]
            beside = place.parent in mixed and not is_normal(place.name)
            if inside or beside:
                mixed.add(place)
            if beside and any(map(is_image_name, files)):
                others.append(place.relative_to(folder).as_posix())
        if normal and others:
            wanted = describe_names([show_line(str(folder / name)) for name in normal])
            raise ValueError(
                f"{show_line(f'{folder}: {normal[0]}')} stands beside "
                f"{describe_names([*map(show_line, others)])}, which would count "
                f"as normal parts; give {wanted}"
            )


def _round_outwards(interval: tuple[float, float]) -> tuple[float, float]:
    """An interval of shares, where an end next to 0 or 1 is taken for it."""
    low, high = interval
    return low if low >= 0.001 else 0.0, high if high <= 0.999 else 1.0
