"""Pretrain the sample CLIP from scratch on drawn parts: `python -m fuzzyclip.sample.pretrain`.

Every step sees pairs of pictures, the same part without and with a defect, and fresh captions.
The evaluation's categories are held out. The result is for demonstration, not for inspection.

Seeded: step n draws the same batch in every run, also after a resume from the checkpoint.
"""

import argparse
import csv
import hashlib
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from fuzzyclip.sample.captions import Words, make_caption, make_names
from fuzzyclip.sample.clip import EMBEDDING, SAMPLE_WEIGHTS, save_sample_weights
from fuzzyclip.sample.draw import EVALUATION_RECIPES, PRETRAINING_RECIPES
from fuzzyclip.sample.held_out import HeldOutScores, score_held_out
from fuzzyclip.sample.objectives import (
    contrastive_loss,
    dense_loss,
    name_loss,
    patch_targets,
    state_loss,
)
from fuzzyclip.sample.pictures import Pairs, draw_held_out, load_pairs, turn_over
from fuzzyclip.sample.towers import (
    DenseHeads,
    build_clip,
    encode_captions,
    encode_images,
    split_parameters,
)
from fuzzyclip.sample.vocabulary import Vocabulary

log = logging.getLogger(__name__)

NAMES_PER_STEP = 8
LOSS_WEIGHTS = {"contrastive": 0.5, "state": 2.0, "dense": 2.0, "name": 0.1}
HELD_OUT_SEED = 20_000
LOG_COLUMNS = (
    "step", "images", "seconds", "rate", *LOSS_WEIGHTS, "logit_scale", "state_accuracy",
    "held_out_precise", "held_out_object", "held_out_lowest", "held_out_patches", "name_cosine",
    *EVALUATION_RECIPES,
)  # fmt: skip


@dataclass(frozen=True)
class Batch:
    """One step's input: B images, n captions of pictures, m names."""

    images: Tensor  # uint8 (B, H, W, 3)
    labels: Tensor  # (B,) 0 normal, 1 anomalous
    targets: Tensor  # (B, P, 10)
    positive: Tensor  # bool (B, n)
    captions: list[str]  # n, of the pictures' categories and states; then 2 m of the names


@dataclass
class Trainer:
    """Everything that a checkpoint holds."""

    clip: nn.Module
    heads: DenseHeads
    optimizers: tuple[torch.optim.Optimizer, ...]
    step: int = 0
    seconds: float = 0.0

    def save(self, path: Path) -> None:
        partial = path.with_suffix(".partial")
        state = {
            "clip": self.clip.state_dict(),
            "heads": self.heads.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": self.step,
            "seconds": self.seconds,
        }
        torch.save(state, partial)
        partial.replace(path)

    def load(self, path: Path) -> None:
        state = torch.load(path, weights_only=True)
        self.clip.load_state_dict(state["clip"])
        self.heads.load_state_dict(state["heads"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step, self.seconds = state["step"], state["seconds"]


def build_trainer(vocabulary_size: int, seed: int) -> Trainer:
    """A fresh model with its optimisers: Muon for the blocks' matrices, AdamW for the rest."""
    torch.manual_seed(seed)
    clip = build_clip(vocabulary_size)
    heads = DenseHeads(clip.visual.transformer.width)  # type: ignore[union-attr,arg-type]
    matrices, others = split_parameters(clip, heads)
    optimizers = (
        torch.optim.Muon(matrices, lr=1e-3, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=1e-3, betas=(0.9, 0.98), weight_decay=0.01),
    )
    return Trainer(clip, heads, optimizers)


def learning_rate(step: int, steps: int, peak: float, decay: float) -> float:
    """Linear warm-up over 100 steps, constant, then linear decay over the last share of steps."""
    warm = min(1.0, (step + 1) / 100)
    return peak * warm * min(1.0, (steps - step) / max(1.0, decay * steps))


def make_batch(pairs: Pairs, count: int, words: Words, rng: np.random.Generator) -> Batch:
    """Pictures of `count` random pairs with their captions, and captions of other names."""
    chosen = rng.integers(len(pairs.images), size=count)
    images = pairs.images[chosen].astype(np.float32)  # (count, 2, H, W, 3)
    images *= rng.uniform(0.85, 1.15, (count, 1, 1, 1, 3)).astype(np.float32)
    images += rng.uniform(-16, 16, (count, 1, 1, 1, 1)).astype(np.float32)
    pictures = np.clip(images, 0, 255).astype(np.uint8)
    coverage = np.zeros((count, 2, 36, 36, 1), np.uint8)
    coverage[:, 1, ..., 0] = pairs.coverage[chosen]
    for pair, symmetry in enumerate(rng.integers(8, size=count)):
        pictures[pair] = turn_over(pictures[pair], symmetry)
        coverage[pair] = turn_over(coverage[pair], symmetry)
    category = np.repeat(pairs.category[chosen], 2)  # (B,)
    labels = np.tile([0, 1], count)  # (B,)
    meanings = sorted(set(zip(category.tolist(), labels.tolist(), strict=True)))
    captions = [make_caption(PRETRAINING_RECIPES[c], state, rng) for c, state in meanings]
    names = make_names(NAMES_PER_STEP, words, rng)
    captions += [make_caption(name, state, rng) for name in names for state in (0, 1)]
    caption_category, caption_label = np.array(meanings).T
    positive = (category[:, None] == caption_category) & (labels[:, None] == caption_label)
    return Batch(
        torch.from_numpy(pictures.reshape(-1, *pictures.shape[2:])),
        torch.from_numpy(labels),
        patch_targets(torch.from_numpy(coverage.reshape(-1, 36, 36))),
        torch.from_numpy(positive),
        captions,
    )


def compute_losses(
    trainer: Trainer, batch: Batch, vocabulary: Vocabulary, encode: Any
) -> dict[str, Tensor]:
    """The losses of a batch by name, and the accuracy of the state."""
    with torch.autocast("cpu", torch.bfloat16):
        image, tokens = encode(trainer.clip.visual, batch.images)
        text = encode_captions(trainer.clip, vocabulary.encode(batch.captions))
    logits = trainer.heads(tokens)
    scale = trainer.clip.logit_scale.exp().clamp(max=100)  # type: ignore[operator,union-attr]
    own, others = text[: batch.positive.shape[1]], text[batch.positive.shape[1] :]
    names = others.unflatten(0, (-1, 2))  # (m, 2, D)
    margin = image @ (names[:, 1] - names[:, 0]).T  # (B, m)
    return {
        "contrastive": contrastive_loss(scale * image @ own.T, batch.positive),
        "state": state_loss(image, names, scale, batch.labels),
        "dense": dense_loss(logits, batch.targets),
        "name": name_loss(names),
        "logit_scale": scale.detach(),
        "state_accuracy": ((margin > 0) == (batch.labels[:, None] > 0)).float().mean(),
    }


def train_step(
    trainer: Trainer, batch: Batch, vocabulary: Vocabulary, encode: Any, rate: float
) -> dict[str, float]:
    """One update; returns the losses."""
    for optimizer in trainer.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate
    losses = compute_losses(trainer, batch, vocabulary, encode)
    total = torch.stack([LOSS_WEIGHTS[name] * losses[name] for name in LOSS_WEIGHTS]).sum()
    for optimizer in trainer.optimizers:
        optimizer.zero_grad(set_to_none=True)
    total.backward()
    parameters = [*trainer.clip.parameters(), *trainer.heads.parameters()]
    nn.utils.clip_grad_norm_(parameters, 2.0)
    for optimizer in trainer.optimizers:
        optimizer.step()
    return {name: value.item() for name, value in losses.items()}


def export_weights(trainer: Trainer, vocabulary: Vocabulary, path: Path) -> str:
    """Write the weights file and return its SHA-256."""
    state = dict(trainer.clip.state_dict())
    table = state[EMBEDDING]
    state[EMBEDDING] = table[1:]  # row 0 is the unknown word's
    save_sample_weights(path, state, vocabulary.token_ids, table[0])
    return hashlib.sha256(path.read_bytes()).hexdigest()


def append_row(path: Path, row: dict[str, float | int]) -> None:
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


def describe_held_out(scores: HeldOutScores) -> dict[str, float]:
    """The held-out columns of the log."""
    precise = list(scores.precise.values())
    return {
        "held_out_precise": float(np.mean(precise)),
        "held_out_object": float(np.mean(list(scores.abstract.values()))),
        "held_out_lowest": min(precise),
        "held_out_patches": scores.patches,
        "name_cosine": scores.name_cosine,
        **scores.precise,
    }


def pretrain(options: argparse.Namespace) -> None:
    """Train to the last step, from the checkpoint if there is one, and export the weights."""
    torch.set_num_threads(options.threads)
    vocabulary = Vocabulary()
    words = Words(PRETRAINING_RECIPES, vocabulary.known_words, vocabulary.strange_words)
    pairs = load_pairs(options.cache, options.seed, options.shards, options.threads)
    held_out = draw_held_out(options.held_out, HELD_OUT_SEED)
    trainer = build_trainer(len(vocabulary), options.seed)
    checkpoint = options.cache / "checkpoint.pt"
    if checkpoint.exists():
        trainer.load(checkpoint)
        log.info("resumed at step %d from %s", trainer.step, checkpoint)
    encode = torch.compile(encode_images) if options.compile else encode_images
    bar = tqdm(initial=trainer.step, total=options.steps, unit="step", disable=None)
    sums: dict[str, list[float]] = {}
    while trainer.step < options.steps:
        started = time.monotonic()
        rate = learning_rate(trainer.step, options.steps, options.rate, options.decay)
        rng = np.random.default_rng([options.seed, trainer.step])
        batch = make_batch(pairs, options.pairs, words, rng)
        losses = train_step(trainer, batch, vocabulary, encode, rate)
        trainer.step += 1
        trainer.seconds += time.monotonic() - started
        bar.update()
        for name, value in losses.items():
            sums.setdefault(name, []).append(value)
        last = trainer.step == options.steps
        if trainer.step % options.log_every == 0 or last:
            row = {name: float(np.mean(values)) for name, values in sums.items()}
            row |= {"step": trainer.step, "images": 2 * options.pairs * trainer.step}
            row |= {"seconds": trainer.seconds, "rate": rate}
            if trainer.step % options.evaluate_every == 0 or last:
                scores = score_held_out(trainer.clip, trainer.heads, vocabulary, held_out)
                row |= describe_held_out(scores)
                trainer.save(checkpoint)
            append_row(options.log, row)
            sums.clear()
    digest = export_weights(trainer, vocabulary, options.weights)
    log.info("%s: %d bytes, sha256 %s", options.weights, options.weights.stat().st_size, digest)


def parse_options() -> argparse.Namespace:
    """Command-line options; the defaults are those of the committed weights."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--cache", type=Path, default=Path(".cache/sample_clip"), help="drawn pairs, checkpoint")
    add("--weights", type=Path, default=SAMPLE_WEIGHTS, help="file to export")
    add("--log", type=Path, default=SAMPLE_WEIGHTS.with_name("pretraining.csv"), help="CSV log")
    add("--steps", type=int, default=4000, help="updates in all")
    add("--pairs", type=int, default=24, help="pairs of pictures in a batch")
    add("--shards", type=int, default=72, help="shards of 256 pairs to draw")
    add("--rate", type=float, default=1.5e-3, help="peak learning rate")
    add("--decay", type=float, default=0.25, help="share of the steps in which the rate falls")
    add("--seed", type=int, default=0)
    add("--held-out", type=int, default=18, help="held-out pictures per category and label")
    add("--log-every", type=int, default=50, help="steps between rows of the log")
    add("--evaluate-every", type=int, default=250, help="steps between held-out scores, checkpoints")
    add("--threads", type=int, default=2, help="threads, and processes that draw")
    add("--compile", action=argparse.BooleanOptionalAction, default=True, help="torch.compile")
    return parser.parse_args()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    pretrain(parse_options())
