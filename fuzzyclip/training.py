"""One training loop for all that is trained: seeded, resumable, quiet off a terminal."""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from tqdm import tqdm

from fuzzyclip.files import replace_file
from fuzzyclip.prefetch import prefetch

Batch = TypeVar("Batch")
#: `load(rows, epoch)` gives one batch; it is called in a thread, while the step before it runs.
Load = Callable[[Sequence[int], int], Batch]
#: `compute_losses(batch)` gives named losses; "loss" is what is minimised.
ComputeLosses = Callable[[Batch], dict[str, Tensor]]
#: `make_optimizer(parameters, learning_rate)`.
MakeOptimizer = Callable[[Iterator[nn.Parameter], float], torch.optim.Optimizer]
#: One step of a training curve: epoch and step from 1, and the losses.
CurveRow = dict[str, float]

#: Adam's momenta as in the code the paper builds on.
BETAS = (0.5, 0.999)
#: Seconds between two checkpoints.
CHECKPOINT_SECONDS = 60.0


def plan_batches(count: int, epochs: int, batch_size: int, seed: int) -> list[list[list[int]]]:
    """Row numbers of every batch of every epoch; each epoch sees each row once."""
    generator = torch.Generator().manual_seed(seed)
    plan = []
    for _ in range(epochs):
        order = torch.randperm(count, generator=generator).tolist()
        plan.append([order[i : i + batch_size] for i in range(0, count, batch_size)])
    return plan


def make_adam(parameters: Iterator[nn.Parameter], learning_rate: float) -> torch.optim.Optimizer:
    """Adam without weight decay."""
    return torch.optim.Adam(parameters, lr=learning_rate, betas=BETAS)


def train(
    module: nn.Module,
    load: Load[Batch],
    compute_losses: ComputeLosses[Batch],
    *,
    count: int,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    make_optimizer: MakeOptimizer = make_adam,
    rate: Callable[[int], float] | None = None,
    checkpoint: Path | None = None,
    after_epoch: Callable[[int], None] | None = None,
    description: str = "training",
) -> list[CurveRow]:
    """Train `module` in place and return its curve.

    Args:
        module: its parameters that require a gradient are trained.
        load: see `Load`. Two batches are in memory: the step's own and the next one.
        compute_losses: see `ComputeLosses`.
        count: number of training rows.
        epochs: passes over them; the last state is kept, none is chosen on test data.
        batch_size: rows a step; the last batch of an epoch may be smaller.
        learning_rate: of the optimizer.
        seed: of the order of rows.
        make_optimizer: see `MakeOptimizer`.
        rate: number of an epoch, from 1, to its learning rate; None keeps `learning_rate`.
        checkpoint: written about once a minute and read first, so that a killed run goes on where
            it was, with the same result. Its name must change with everything that changes the
            result. The caller removes it.
        after_epoch: called with the number of each epoch, from 1, when it has ended.
        description: of the progress bar.
    """
    optimizer = make_optimizer(module.parameters(), learning_rate)
    curve: list[CurveRow] = []
    if checkpoint is not None and checkpoint.is_file():
        curve = _restore(checkpoint, module, optimizer)
    plan = plan_batches(count, epochs, batch_size, seed)
    steps = [(epoch, rows) for epoch, batches in enumerate(plan, 1) for rows in batches]
    saved = time.monotonic()
    left = steps[len(curve) :]
    batches = prefetch(lambda step: load(step[1], step[0]), left, ahead=1)
    progress = tqdm(left, desc=description, unit="step", disable=None)
    for step, ((epoch, _), batch) in enumerate(zip(progress, batches, strict=True), len(curve) + 1):
        if rate is not None:
            for group in optimizer.param_groups:
                group["lr"] = rate(epoch)
        losses = compute_losses(batch)
        optimizer.zero_grad()
        losses["loss"].backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        values = torch.stack([loss.detach() for loss in losses.values()]).tolist()  # waits once
        curve.append({"epoch": epoch, "step": step} | dict(zip(losses, values, strict=True)))
        if after_epoch is not None and (step == len(steps) or steps[step][0] != epoch):
            after_epoch(epoch)
        if checkpoint is not None and time.monotonic() - saved > CHECKPOINT_SECONDS:
            _save(checkpoint, module, optimizer, curve)
            saved = time.monotonic()
    return curve


def _save(
    path: Path, module: nn.Module, optimizer: torch.optim.Optimizer, curve: list[CurveRow]
) -> None:
    state: dict[str, Any] = {
        "module": module.state_dict(),
        "optimizer": optimizer.state_dict(),
        "curve": curve,
    }
    with replace_file(path) as temporary:
        torch.save(state, temporary)


def _restore(path: Path, module: nn.Module, optimizer: torch.optim.Optimizer) -> list[CurveRow]:
    state = torch.load(path, map_location="cpu", weights_only=True)
    module.load_state_dict(state["module"])
    optimizer.load_state_dict(state["optimizer"])
    curve: list[CurveRow] = state["curve"]
    return curve
