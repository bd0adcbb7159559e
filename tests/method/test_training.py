"""The shared training loop: its plan, Adam and others by hand, and resuming to the bit."""

import threading
from unittest.mock import Mock

import pytest
import torch
from damage import DAMAGES, damage
from hypothesis import given
from properties import try_examples
from torch import nn

from fuzzyclip.method import training
from fuzzyclip.utils.files import read_summed, write_summed

ROWS = torch.randn(10, 3, generator=torch.Generator().manual_seed(0))
TARGETS = ROWS @ torch.tensor([[1.0], [-2.0], [0.5]])
SETTINGS = {"count": 10, "epochs": 3, "batch_size": 4, "learning_rate": 0.05, "seed": 3}
#: Learning rates of three epochs.
RATES = {1: 0.001, 2: 0.1, 3: 0.02}


def make_momentum(parameters, learning_rate):
    """An optimizer with a state and a decay."""
    return torch.optim.SGD(parameters, lr=learning_rate, momentum=0.9, weight_decay=0.1)


#: Another optimizer, and a rate that changes.
DESCENT = {"make_optimizer": make_momentum, "rate": RATES.get}


class Killed(RuntimeError):
    """Stands for a kill in the middle of a run."""


def start_module():
    """A linear layer whose start does not depend on what ran before."""
    torch.manual_seed(0)
    return nn.Linear(3, 1)


def make_losses(module, seen=None, kill_after=None):
    """Squared error of a batch; keeps the rows it saw, and may die before a step."""
    seen = [] if seen is None else seen

    def compute_losses(batch):
        rows, epoch = batch
        if len(seen) == kill_after:
            raise Killed
        seen.append((epoch, list(rows)))
        squared = (module(ROWS[rows]) - TARGETS[rows]).pow(2).mean()
        return {"loss": squared, "half": squared / 2}

    return compute_losses


def load(rows, epoch):
    """A batch of the tests is its plan."""
    return rows, epoch


def test_every_epoch_sees_every_row_once():
    plan = training.plan_batches(count=10, epochs=3, batch_size=4, seed=1)
    assert [[len(batch) for batch in epoch] for epoch in plan] == [[4, 4, 2]] * 3
    orders = [[row for batch in epoch for row in batch] for epoch in plan]
    assert all(sorted(order) == list(range(10)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3
    assert plan == training.plan_batches(10, 3, 4, seed=1)
    assert plan != training.plan_batches(10, 3, 4, seed=2)


def test_shares_of_the_first_epoch_end_with_the_step_that_reaches_them():
    """Of an epoch of three steps; the weights at a moment are those that the next step sees."""
    module, before, told = start_module(), [], {}
    compute = make_losses(module)

    def compute_losses(batch):
        before.append(module.weight.detach().clone())
        return compute(batch)

    def note(moment):
        told[moment] = (len(before), module.weight.detach().clone())

    training.train(
        module, load, compute_losses, **SETTINGS, after_epoch=note, shares=(0.25, 0.4, 0.5, 0.9)
    )
    assert {moment: steps for moment, (steps, _) in told.items()} == {
        0.25: 1, 0.4: 2, 0.5: 2, 0.9: 3, 1: 3, 2: 6, 3: 9
    }  # fmt: skip
    assert list(told) == sorted(told)
    for steps, weight in [*told.values()][:-1]:
        assert torch.equal(weight, before[steps])
    assert not torch.equal(told[0.25][1], told[0.5][1])


def test_the_loss_falls_and_every_step_is_in_the_curve():
    module, seen = start_module(), []
    curve = training.train(module, load, make_losses(module, seen), **SETTINGS | {"epochs": 40})
    assert [row["step"] for row in curve] == list(range(1, 121))
    assert [row["epoch"] for row in curve] == [epoch for epoch, _ in seen]
    assert curve[-1]["loss"] < 0.05 * curve[0]["loss"]
    assert all(row["half"] == pytest.approx(row["loss"] / 2) for row in curve)
    assert [rows for _, rows in seen[:3]] == training.plan_batches(10, 1, 4, seed=3)[0]


def flatten(module):
    """Weight and bias, (4,)."""
    return torch.cat((module.weight[0], module.bias)).detach().double()


def derive_by_hand(value, rows):
    """Gradient of the squared error by weight and bias (4,)."""
    inputs = torch.cat((ROWS[rows], torch.ones(len(rows), 1)), dim=1).double()
    error = inputs @ value - TARGETS[rows, 0].double()
    return 2 * (error[:, None] * inputs).mean(dim=0)


def test_steps_are_adams_with_the_inherited_momenta():
    module = start_module()
    training.train(module, load, make_losses(module), **SETTINGS | {"epochs": 1})
    value, mean, square = flatten(start_module()), torch.zeros(4).double(), torch.zeros(4).double()
    for step, rows in enumerate(training.plan_batches(10, 1, 4, seed=3)[0], 1):
        gradient = derive_by_hand(value, rows)
        mean, square = 0.5 * mean + 0.5 * gradient, 0.999 * square + 0.001 * gradient**2
        unbiased = (square / (1 - 0.999**step)).sqrt() + 1e-8
        value -= 0.05 * mean / (1 - 0.5**step) / unbiased
    assert torch.allclose(flatten(module), value, atol=1e-5)


def descend_by_hand(rates):
    """Weight and bias after momentum with decay, at the rates of the steps."""
    value, speed = flatten(start_module()), torch.zeros(4).double()
    batches = [rows for epoch in training.plan_batches(10, 3, 4, seed=3) for rows in epoch]
    for rate, rows in zip(rates, batches, strict=True):
        gradient = derive_by_hand(value, rows) + 0.1 * value
        speed = 0.9 * speed + gradient
        value = value - rate * speed
    return value


@pytest.mark.parametrize("changing", [False, True])
def test_optimizer_and_rates_of_the_epochs_may_be_given(changing):
    module = start_module()
    given = DESCENT if changing else {"make_optimizer": make_momentum}
    training.train(module, load, make_losses(module), **SETTINGS, **given)
    rates = [RATES[epoch] if changing else 0.05 for epoch in (1, 2, 3) for _ in range(3)]
    assert torch.allclose(flatten(module), descend_by_hand(rates), atol=1e-5)


@pytest.mark.parametrize("given", [{}, DESCENT], ids=["adam", "descent"])
@pytest.mark.parametrize("kill_after", [0, 1, 4, 8])
def test_a_killed_run_ends_with_the_same_bits(tmp_path, monkeypatch, kill_after, given):
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", -1.0)  # one after every step
    settings = SETTINGS | given
    whole = start_module()
    expected = training.train(whole, load, make_losses(whole), **settings)

    checkpoint, killed = tmp_path / "run" / "efa.pt", start_module()
    losses = make_losses(killed, kill_after=kill_after)
    with pytest.raises(Killed):
        training.train(killed, load, losses, **settings, checkpoint=checkpoint)
    resumed, seen = nn.Linear(3, 1), []  # another start: the checkpoint must win over it
    if kill_after == 0:
        resumed = start_module()
    curve = training.train(
        resumed, load, make_losses(resumed, seen), **settings, checkpoint=checkpoint
    )
    assert len(seen) == 9 - kill_after
    assert curve == expected
    assert torch.equal(resumed.weight, whole.weight)
    assert torch.equal(resumed.bias, whole.bias)
    assert [path.name for path in checkpoint.parent.iterdir()] == ["efa.pt"]


def test_no_checkpoint_before_its_time_and_no_training_after_a_finished_one(tmp_path, monkeypatch):
    module, seen, settings = start_module(), [], SETTINGS | {"checkpoint": tmp_path / "c.pt"}
    training.train(module, load, make_losses(module), **settings)
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", -1.0)
    finished = training.train(module, load, make_losses(module), **settings)
    assert training.train(module, load, make_losses(module, seen), **settings) == finished
    assert not seen


def test_the_next_batch_is_loaded_while_a_step_runs():
    module, events, second = start_module(), [], threading.Event()

    def note(rows, epoch):
        events.append("load")
        if len(events) == 2:
            second.set()
        return rows, epoch

    losses = make_losses(module)

    def compute_losses(batch):
        assert second.wait(5)  # it comes although this step is not done
        return losses(batch)

    training.train(module, note, compute_losses, **SETTINGS | {"epochs": 1})
    assert events == ["load"] * 3


def test_a_batch_that_cannot_be_loaded_ends_the_training():
    module = start_module()

    def broken(rows, epoch):
        raise OSError("a.png: not a readable image")

    with pytest.raises(OSError, match="not a readable"):
        training.train(module, broken, make_losses(module), **SETTINGS)


@given(DAMAGES)
@try_examples(40)
def test_a_damaged_checkpoint_is_named_and_the_result_is_that_of_an_unbroken_run(
    tmp_path_factory, how
):
    checkpoint = tmp_path_factory.mktemp("run") / "efa.pt"
    whole, killed, resumed = start_module(), start_module(), start_module()
    expected = training.train(whole, load, make_losses(whole), **SETTINGS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "CHECKPOINT_SECONDS", -1.0)
        losses = make_losses(killed, kill_after=5)
        with pytest.raises(Killed):
            training.train(killed, load, losses, **SETTINGS, checkpoint=checkpoint)
    damaged, warnings = damage(checkpoint, how), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.log, "warning", lambda text, *given: warnings.append(text % given))
        losses = make_losses(resumed)
        curve = training.train(resumed, load, losses, **SETTINGS, checkpoint=checkpoint)
    assert curve == expected
    assert torch.equal(resumed.weight, whole.weight)
    assert [str(checkpoint) in warning for warning in warnings] == [True] * damaged
    assert checkpoint.exists() != damaged


def test_a_checkpoint_of_an_earlier_version_is_begun_anew(tmp_path, caplog):
    torch.save({"module": {}}, tmp_path / "c.pt")
    module, seen = start_module(), []
    losses = make_losses(module, seen)
    training.train(module, load, losses, **SETTINGS, checkpoint=tmp_path / "c.pt")
    assert len(seen) == 9
    assert "c.pt is broken" in caplog.text


def test_training_stops_at_the_first_loss_that_is_not_finite(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", -1.0)
    module, seen = start_module(), []
    finite = make_losses(module, seen)

    def compute_losses(batch):
        losses = finite(batch)
        factor = torch.tensor(float("nan") if len(seen) == 5 else 1.0)
        return losses | {"half": losses["half"] * factor}

    message = "RPL visa: epoch 2, step 5: half is not finite; choose a lower learning rate"
    with pytest.raises(training.TrainingError, match=message):
        training.train(
            module, load, compute_losses, **SETTINGS, checkpoint=tmp_path / "c.pt",
            description="RPL visa",
        )  # fmt: skip
    assert len(seen) == 5
    again = start_module()
    curve = training.train(
        again, load, make_losses(again), **SETTINGS, checkpoint=tmp_path / "c.pt"
    )
    whole = start_module()
    assert curve == training.train(whole, load, make_losses(whole), **SETTINGS)
    assert torch.equal(again.weight, whole.weight)


@pytest.mark.parametrize("moment", ["end", "epoch", "checkpoint"])
def test_parameters_are_looked_at_before_anything_is_kept(tmp_path, monkeypatch, moment):
    """The loss of a step is that of before it: the last one sees no parameter it has spoilt."""
    if moment == "checkpoint":
        monkeypatch.setattr(training, "CHECKPOINT_SECONDS", -1.0)
    module, kept = start_module(), []

    def compute_losses(batch):
        loss = module(ROWS[batch[0]]).sum()
        module.weight.register_hook(lambda gradient: gradient * float("nan"))
        return {"loss": loss}

    changes = {"epochs": 1, "batch_size": 10} if moment == "end" else {"batch_size": 10}
    with pytest.raises(training.TrainingError, match=r"epoch 1, step 1: parameter weight"):
        training.train(
            module, load, compute_losses, **SETTINGS | changes, checkpoint=tmp_path / "c.pt",
            after_epoch=kept.append if moment == "epoch" else None,
        )  # fmt: skip
    assert not kept
    assert not list(tmp_path.iterdir())


def test_momenta_that_would_stop_all_learning_are_refused():
    """A gradient whose square is infinite leaves the parameter as it is, for ever."""
    module = start_module()
    with pytest.raises(training.TrainingError, match="step 3: the optimizer's exp_avg_sq is not"):
        training.train(
            module, load, lambda batch: {"loss": module(ROWS[batch[0]]).mean() * 1e25},
            **SETTINGS | {"epochs": 1},
        )  # fmt: skip


def test_a_checkpoint_stays_where_memory_was_short_and_not_its_content_broken(
    tmp_path, monkeypatch
):
    checkpoint, module = tmp_path / "efa.pt", nn.Linear(3, 1)
    write_summed(checkpoint, b"hours of work")
    monkeypatch.setattr(torch, "load", Mock(side_effect=torch.OutOfMemoryError("out of memory")))
    with pytest.raises(torch.OutOfMemoryError):
        training._restore(checkpoint, module, torch.optim.Adam(module.parameters()))
    assert bytes(read_summed(checkpoint)) == b"hours of work"
