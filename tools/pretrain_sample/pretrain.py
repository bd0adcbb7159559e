"""Pretrain the sample CLIP from scratch on drawn parts: `python -m tools.pretrain_sample.pretrain`.

Every step sees pairs of pictures, the same part without and with a defect, and fresh captions.
The evaluation's categories are held out. The result is for demonstration, not for inspection.

Seeded: step n draws the same batch in every run, also after a resume from the checkpoint.
"""

import argparse
import csv
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from fuzzyclip.clip.prompts import encode_name
from fuzzyclip.clip.weights import SAMPLE_WEIGHTS
from fuzzyclip.evaluation.metrics import compute_image_metrics
from fuzzyclip.sample.evaluation_recipes import EVALUATION
from fuzzyclip.utils.files import BrokenFileError
from tools.pretrain_sample.batches import make_batch, patch_targets
from tools.pretrain_sample.captions import Vocabulary, Words
from tools.pretrain_sample.pictures import Picture, count_cells, draw_held_out, load_pairs
from tools.pretrain_sample.recipes import CATEGORIES, HARD_SHARES
from tools.pretrain_sample.towers import GRID, DenseHeads, encode_captions, encode_images
from tools.pretrain_sample.trainer import (
    EARLY_WEIGHTS,
    LATE_WEIGHTS,
    build_trainer,
    export_weights,
    train_step,
)

log = logging.getLogger(__name__)

BATCH = 80
HELD_OUT_SEED = 20_000
WARM_UP = 100  # steps
LOG_COLUMNS = (
    "step", "window", "seconds", "rate", *EARLY_WEIGHTS, "logit_scale", "state_accuracy",
    "held_out_precise", "held_out_object", "held_out_lowest", "held_out_patches", "name_cosine",
    *EVALUATION,
)  # fmt: skip


def _encode_all(
    clip: nn.Module, heads: DenseHeads, pictures: Picture
) -> tuple[NDArray[np.float64], Tensor]:
    """Image features (N, D) and the last read-out's patch logits (N, P)."""
    features, patches = [], []
    for start in range(0, len(pictures), BATCH):
        batch = torch.from_numpy(pictures[start : start + BATCH])
        positions = torch.arange(GRID * GRID).expand(len(batch), -1)
        image, tokens = encode_images(clip.visual, batch, positions)
        features.append(image)
        patches.append(heads(tokens)[-1, :, :, 0])
    return torch.cat(features).double().numpy(), torch.cat(patches)


def _auroc(scores: NDArray[np.float64], labels: NDArray[np.bool_]) -> float:
    return compute_image_metrics(scores, labels)["image_auroc"]


@torch.inference_mode()
def score_held_out(
    clip: nn.Module,
    heads: DenseHeads,
    vocabulary: Vocabulary,
    held_out: Mapping[str, tuple[Picture, NDArray[np.bool_]]],
) -> dict[str, float]:
    """The held-out columns of the log, with the method's prompts.

    These are the mean and the lowest image AUROC of prompts with the category's raw name, the mean
    with the name "object", the AUROC of the last dense read-out over all patches, the mean cosine
    between the normal features of two categories' names, and each category's image AUROC.

    Args:
        clip: the sample CLIP.
        heads: its dense read-outs.
        vocabulary: turns prompts into token numbers.
        held_out: category to images and masks, from `draw_held_out`.
    """

    def encode_name_string(name: str) -> NDArray[np.float64]:
        def encode(prompts: list[str] | tuple[str, ...]) -> Tensor:
            return encode_captions(clip, vocabulary.encode(prompts))

        return encode_name(name, encode).double().numpy()  # type: ignore[arg-type]

    clip.eval()
    names = {recipe: encode_name_string(recipe.split("/")[1]) for recipe in held_out}
    anything = encode_name_string("object")
    precise: dict[str, float] = {}
    abstract: dict[str, float] = {}
    scores, truths = [], []
    for recipe, (pictures, masks) in held_out.items():
        labels = np.asarray(masks.any(axis=(1, 2)))
        features, patches = _encode_all(clip, heads, pictures)
        for table, text in ((precise, names[recipe]), (abstract, anything)):
            table[recipe] = _auroc(features @ (text[:, 1] - text[:, 0]), labels)
        cells = torch.from_numpy(np.stack([count_cells(mask) for mask in masks]))
        scores.append(patches.flatten().double().numpy())
        truths.append(patch_targets(cells)[..., 0].flatten().numpy() > 0)
    normal = np.stack([text[:, 0] for text in names.values()])
    cosines = (normal @ normal.T)[np.triu_indices(len(normal), 1)]
    clip.train()
    patch_auroc = _auroc(np.concatenate(scores), np.concatenate(truths))
    return {
        "held_out_precise": float(np.mean([*precise.values()])),
        "held_out_object": float(np.mean([*abstract.values()])),
        "held_out_lowest": min(precise.values()),
        "held_out_patches": patch_auroc,
        "name_cosine": float(cosines.mean()),
        **precise,
    }


def learning_rate(step: int, steps: int, peak: float, decay: int) -> float:
    """Linear warm-up, constant, then linear decay over the last `decay` steps."""
    return peak * min(1.0, (step + 1) / WARM_UP, (steps - step) / max(1, decay))


def choose_window(step: int, schedule: Sequence[tuple[int, int]]) -> int:
    """Patches per side that a step sees: the first (size, end) whose end is not reached, or all."""
    return next((size for size, end in schedule if step < end), GRID)


def parse_stage(text: str) -> tuple[int, int]:
    """A stage of the window schedule, "6:600" for windows of 6 patches up to step 600."""
    size, end = text.split(":")
    return int(size), int(end)


def append_row(path: Path, row: Mapping[str, float | int]) -> None:
    """Add a row to the log; rows of steps that a resumed run repeats are dropped first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    if path.exists():
        with path.open(newline="") as file:
            rows = [old for old in csv.DictReader(file) if int(old["step"]) < row["step"]]
    rows.append({name: round(value, 4) for name, value in row.items()})
    partial = path.with_suffix(".partial")
    with partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, LOG_COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    partial.replace(path)


def pretrain(options: argparse.Namespace) -> None:
    """Train to the last step, from the checkpoint if there is one, and export the weights."""
    torch.set_num_threads(options.threads)
    vocabulary = Vocabulary()
    words = Words(CATEGORIES, vocabulary.known_words, vocabulary.strange_words)
    pairs = load_pairs(options.cache, options.seed, options.shards, options.threads)
    held_out = draw_held_out(options.held_out, HELD_OUT_SEED)
    trainer = build_trainer(vocabulary, options.seed, options.start)
    checkpoint = options.cache / "checkpoint.pt"
    if checkpoint.exists():
        try:
            trainer.load(checkpoint)
            log.info("resumed at step %d from %s", trainer.step, checkpoint)
        except BrokenFileError as error:
            log.warning("%s; pretraining begins anew", error)
    encode = torch.compile(encode_images, dynamic=False) if options.compile else encode_images
    bar = tqdm(initial=trainer.step, total=options.steps, unit="step", disable=None)
    recent: list[dict[str, float]] = []
    while trainer.step < options.steps:
        started = time.monotonic()
        rate = learning_rate(trainer.step, options.steps, options.rate, options.decay)
        window = choose_window(trainer.step, options.windows)
        weights = EARLY_WEIGHTS if trainer.step < options.kinds_from else LATE_WEIGHTS
        if trainer.step < options.pair_from:
            weights = weights | {"state_pair": 0.0}
        rng = np.random.default_rng([options.seed, trainer.step])
        shares = HARD_SHARES if trainer.step >= options.hard_from else None
        batch = make_batch(pairs, options.pairs, window, words, rng, shares)
        recent.append(train_step(trainer, batch, vocabulary, encode, rate, weights))
        trainer.seconds += time.monotonic() - started
        bar.update()
        last = trainer.step == options.steps
        if trainer.step % options.log_every and not last:
            continue
        row = {name: float(np.mean([losses[name] for losses in recent])) for name in recent[0]}
        row |= {"step": trainer.step, "window": window, "seconds": trainer.seconds, "rate": rate}
        recent.clear()
        if trainer.step % options.evaluate_every == 0 or last:
            row |= score_held_out(trainer.clip, trainer.heads, vocabulary, held_out)
            trainer.save(checkpoint)
        append_row(options.log, row)
    digest = export_weights(trainer, vocabulary, options.weights)
    log.info("%s: %d bytes, sha256 %s", options.weights, options.weights.stat().st_size, digest)


def parse_options() -> argparse.Namespace:
    """Command-line options; the defaults are those of the committed weights."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--cache", type=Path, default=Path(".cache/sample_clip"), help="drawn pairs, checkpoint")
    add("--weights", type=Path, default=SAMPLE_WEIGHTS, help="file to export")
    add("--log", type=Path, default=SAMPLE_WEIGHTS.with_name("pretraining.csv"), help="CSV log")
    add("--start", type=Path, help="exported weights to go on from, in place of a fresh model")
    add("--steps", type=int, default=2500, help="updates in all")
    add("--pairs", type=int, default=24, help="pairs of pictures in a batch")
    add(
        "--windows", type=parse_stage, nargs="*", default=[(6, 800), (8, 1200)], metavar="SIZE:END",
        help="up to step END, steps see windows of SIZE patches a side; then whole pictures",
    )  # fmt: skip
    add("--pair-from", type=int, default=800, help="step from which pairs are ranked")
    add("--kinds-from", type=int, default=1600, help="step from which defects are told apart")
    add("--hard-from", type=int, default=1400, help="step from which hard categories come often")
    add("--shards", type=int, default=72, help="shards of 256 pairs to draw")
    add("--rate", type=float, default=1.5e-3, help="peak learning rate")
    add("--decay", type=int, default=300, help="last steps, in which the rate falls to zero")
    add("--seed", type=int, default=0, help="seed of drawings, batches and initialisation")
    add("--held-out", type=int, default=18, help="held-out pictures per category and label")
    add("--log-every", type=int, default=50, help="steps between rows of the log")
    add("--evaluate-every", type=int, default=200, help="steps between scores and checkpoints")
    add("--threads", type=int, default=2, help="threads, and processes that draw")
    add("--compile", action=argparse.BooleanOptionalAction, default=True, help="torch.compile")
    return parser.parse_args()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    pretrain(parse_options())
