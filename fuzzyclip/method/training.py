"""One training loop for all that is trained: seeded, resumable, quiet off a terminal."""

import io
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from itertools import accumulate
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from tqdm import tqdm

from fuzzyclip.utils.faults import UnreadableFileError, naming
from fuzzyclip.utils.files import BrokenFileError, read_summed, write_summed
from fuzzyclip.utils.prefetch import prefetch
from fuzzyclip.utils.ranges import COUNT, POSITIVE

log = logging.getLogger(__name__)

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


def plan_batches(
    count: int, epochs: int, batch_size: int, seed: int, *, shuffled: bool = True
) -> list[list[list[int]]]:
    """Row numbers of every batch of every epoch; each epoch sees each row once."""
    generator = torch.Generator().manual_seed(seed)
    plan = []
    for _ in range(epochs):
        order = torch.randperm(count, generator=generator) if shuffled else torch.arange(count)
        plan.append([order[i : i + batch_size].tolist() for i in range(0, count, batch_size)])
    return plan


def plan_moments(steps: Sequence[int], shares: Sequence[float] = ()) -> dict[int, list[float]]:
    """Moments of a training by their step, from 1: shares of the first epoch, then whole epochs.

    A share ends with the first step that reaches it: of an epoch of one step, all end with it.
    `steps` are those of each epoch.
    """
    moments: dict[int, list[float]] = {}
    for share in shares:
        moments.setdefault(math.ceil(share * steps[0]), []).append(share)
    for epoch, step in enumerate(accumulate(steps), 1):
        moments.setdefault(step, []).append(epoch)
    return moments


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
    shuffled: bool = True,
    rate: Callable[[int], float] | None = None,
    checkpoint: Path | None = None,
    after_epoch: Callable[[float], None] | None = None,
    shares: Sequence[float] = (),
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
        shuffled: whether each epoch is in an order of its own; else rows come as they are numbered.
        rate: number of an epoch, from 1, to its learning rate; None keeps `learning_rate`.
        checkpoint: written about once a minute and read first, so that a killed run goes on where
            it was, with the same result. Its name must change with everything that changes the
            result. One that is broken is named and removed, and the run begins anew. The caller
            removes it.
        after_epoch: called with the number of each epoch, from 1, when it has ended.
        shares: of the first epoch, in (0, 1), after which `after_epoch` is called too, with the
            share.
        description: of the progress bar, and in errors.

    Raises:
        TrainingError: a loss, a parameter or the optimizer's state is not finite. No checkpoint
            holds such numbers.
    """
    POSITIVE.check(description, learning_rate=learning_rate)
    COUNT.check(description, epochs=epochs, batch_size=batch_size)
    optimizer = make_optimizer(module.parameters(), learning_rate)
    curve: list[CurveRow] = []
    if checkpoint is not None and checkpoint.is_file():
        curve = _restore(checkpoint, module, optimizer)
    plan = plan_batches(count, epochs, batch_size, seed, shuffled=shuffled)
    steps = [(epoch, rows) for epoch, batches in enumerate(plan, 1) for rows in batches]
    moments = plan_moments([*map(len, plan)], shares)
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
        where = f"{description}: epoch {epoch}, step {step}"
        named = dict(zip(losses, values, strict=True))
        _check_losses(named, where)
        curve.append({"epoch": epoch, "step": step} | named)
        ended = moments.get(step, [])
        due = checkpoint is not None and time.monotonic() - saved > CHECKPOINT_SECONDS
        if ended or due:  # before anything is kept
            _check_state(module, optimizer, where)
        if after_epoch is not None:
            for moment in ended:
                after_epoch(moment)
        if checkpoint is not None and due:
            _save(checkpoint, module, optimizer, curve)
            saved = time.monotonic()
    return curve


class TrainingError(ValueError):
    """Training has left the finite numbers."""

    def __init__(self, where: str, parts: Sequence[str]) -> None:
        """Say where, what, and what mends it."""
        super().__init__(
            f"{where}: {', '.join(parts)} {'is' if len(parts) == 1 else 'are'} not finite; choose "
            "a lower learning rate, or look at the images and features that it is trained on"
        )


def _check_losses(losses: dict[str, float], where: str) -> None:
    if wild := [name for name, value in losses.items() if not math.isfinite(value)]:
        raise TrainingError(where, wild)


def _check_state(module: nn.Module, optimizer: torch.optim.Optimizer, where: str) -> None:
    """Refuse parameters and momenta that are not finite: the last step's loss was before them."""
    parts = [
        (f"parameter {name}", parameter)
        for name, parameter in module.named_parameters()
        if parameter.requires_grad
    ] + [
        (f"the optimizer's {name}", value)
        for state in optimizer.state.values()
        for name, value in state.items()
        if isinstance(value, Tensor)
    ]
    if wild := [name for name, values in parts if not values.isfinite().all()]:
        raise TrainingError(where, list(dict.fromkeys(wild)))


def _save(
    path: Path, module: nn.Module, optimizer: torch.optim.Optimizer, curve: list[CurveRow]
) -> None:
    state: dict[str, Any] = {
        "module": module.state_dict(),
        "optimizer": optimizer.state_dict(),
        "curve": curve,
    }
    content = io.BytesIO()
    torch.save(state, content)
    write_summed(path, content.getbuffer())


def _restore(path: Path, module: nn.Module, optimizer: torch.optim.Optimizer) -> list[CurveRow]:
    """The curve so far, with module and optimizer as they were; empty where that is broken."""
    fresh = deepcopy([module.state_dict(), optimizer.state_dict()])
    try:
        content = read_summed(path)
        with naming(path, wild=True):
            state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
            module.load_state_dict(state["module"])
            optimizer.load_state_dict(state["optimizer"])
            curve = _check_curve(state["curve"])
            _check_restored(optimizer, fresh[1], len(curve))
            return curve
    except (BrokenFileError, UnreadableFileError) as error:
        log.warning("%s; the training begins anew", error)
        module.load_state_dict(fresh[0])
        optimizer.load_state_dict(fresh[1])
        path.unlink()
        return []


def _check_restored(optimizer: torch.optim.Optimizer, fresh: dict[str, Any], steps: int) -> None:
    """Refuse what a step of this optimizer could not go on from, as a ValueError.

    Its settings must be those it was made with, but for the rate, and each trained parameter must
    have beside it, in finite numbers of its own shape, what so many steps leave.
    """
    names = _list_kept(optimizer)
    for group, made in zip(optimizer.param_groups, fresh["param_groups"], strict=True):
        changing = {"params", "lr"}
        if any(group.get(name) != value for name, value in made.items() if name not in changing):
            raise ValueError("its optimizer has other settings")
        if not isinstance(group["lr"], float) or not math.isfinite(group["lr"]):
            raise ValueError("its learning rate is no number")
        for parameter in filter(attrgetter("requires_grad"), group["params"]):
            state = optimizer.state.get(parameter, {})
            if state.keys() != names or float(state.get("step", steps)) != steps:
                raise ValueError("its optimizer's state is not of as many steps as its curve")
            for value in state.values():
                fits = isinstance(value, Tensor) and value.shape in (parameter.shape, torch.Size())
                if not fits or not value.is_floating_point() or not value.isfinite().all():
                    raise ValueError("its optimizer's state does not fit the parameters")


def _list_kept(optimizer: torch.optim.Optimizer) -> set[str]:
    """Names of what an optimizer keeps of a parameter, seen on one that it moves."""
    probe, weight = deepcopy(optimizer), nn.Parameter(torch.zeros(1))
    weight.grad = torch.zeros(1)
    del probe.param_groups[1:]
    probe.param_groups[0]["params"] = [weight]
    probe.state.clear()
    probe.step()
    return set(probe.state[weight])


def _check_curve(rows: Any) -> list[CurveRow]:
    """The rows of a training curve, numbers by name with the steps from 1 on; else a ValueError."""
    for step, row in enumerate(rows, 1):
        if row["step"] != step or not all(map(math.isfinite, row.values())):
            raise ValueError(f"its curve is broken at step {step}")
    return list(rows)
