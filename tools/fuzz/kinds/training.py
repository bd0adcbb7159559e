"""What a killed training goes on from, layers that are kept on the way, and files of weights."""

import io
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from fuzzyclip.clip.weights import read_state_dict, verify_weights
from fuzzyclip.method import training
from fuzzyclip.method.training import train
from fuzzyclip.utils.files import compute_sha256, read_summed, write_summed
from fuzzyclip.utils.tensor_files import read_tensors, write_tensors
from tools.fuzz.kind import Kind
from tools.fuzz.kinds.tensors import mutate_tensor_file
from tools.fuzz.mutate import draw_value, mutate_bytes

CHECKPOINT, KEPT, SAFE, PLAIN = "efa.pt", "epoch1.safetensors", "weights.safetensors", "weights.pt"
STEPS = 4


class Checkpoints(Kind):
    """One of four files. Where a checkpoint is not whole its training begins anew, to the same end.

    A quarter of the checkpoints have a check sum that fits, which no disk makes: there the training
    may end otherwise, but must end. Weights are read with the digest that they must have, or
    without.
    """

    def prepare(self, folder: Path) -> None:
        self.folder = folder
        path = folder / CHECKPOINT
        kept: list[bytes] = []

        def keep(epoch: float) -> None:
            del epoch
            kept.append(path.read_bytes() if path.exists() else b"")

        with patch.object(training, "CHECKPOINT_SECONDS", -1.0):  # after each step
            self.trained = self._train(path, keep)
        self.checkpoint = kept[-1]  # of the step before the last
        self.tensors = {"weight": torch.randn(4, 3), "bias": torch.randn(4)}
        write_tensors(folder / KEPT, self.tensors, {"epoch": 1})
        save_file(self.tensors, folder / SAFE)
        torch.save(self.tensors, folder / PLAIN)
        self.contents = {name: (folder / name).read_bytes() for name in (KEPT, SAFE, PLAIN)}
        self.digests = {name: compute_sha256(folder / name) for name in (SAFE, PLAIN)}

    def _train(
        self, checkpoint: Path, after_epoch: Callable[[float], None] | None = None
    ) -> dict[str, Tensor]:
        """Four steps of a small regression; the layer at their end."""
        generator = torch.Generator().manual_seed(1)
        inputs, targets = (
            torch.randn(8, 3, generator=generator),
            torch.randn(8, 2, generator=generator),
        )
        torch.manual_seed(0)
        layer = nn.Linear(3, 2)
        train(
            layer,
            lambda rows, epoch: (inputs[list(rows)], targets[list(rows)]),
            lambda batch: {"loss": (layer(batch[0]) - batch[1]).square().mean()},
            count=8,
            epochs=STEPS // 2,
            batch_size=4,
            learning_rate=0.01,
            seed=0,
            checkpoint=checkpoint,
            after_epoch=after_epoch,
        )
        return {name: value.detach().clone() for name, value in layer.state_dict().items()}

    def mutate(self, rng: random.Random, place: Path) -> None:
        name = rng.choice((CHECKPOINT, CHECKPOINT, KEPT, SAFE, PLAIN))
        path = place / name
        if name != CHECKPOINT:
            change = mutate_bytes if name == PLAIN else mutate_tensor_file
            path.write_bytes(change(rng, self.contents[name]))
        elif rng.random() < 0.5:
            path.write_bytes(mutate_bytes(rng, self.checkpoint))
        else:
            path.write_bytes(self.checkpoint)
            content = bytes(read_summed(path))
            if rng.random() < 0.5:
                content = mutate_bytes(rng, content)
            else:
                state = torch.load(io.BytesIO(content), weights_only=True)
                _change_state(rng, state)
                stream = io.BytesIO()
                torch.save(state, stream)
                content = stream.getvalue()
            write_summed(path, content)
            (place / "sealed").touch()

    def read(self, place: Path) -> dict[str, Tensor]:
        if (place / CHECKPOINT).exists():
            return self._train(place / CHECKPOINT)
        if (place / KEPT).exists():
            return read_tensors(place / KEPT)[0]
        name = next(name for name in (SAFE, PLAIN) if (place / name).exists())
        state = read_state_dict(place / name)
        if compute_sha256(place / name) == self.digests[name]:
            return state
        verify_weights(place / name, self.digests[name], allow_unverified=True)
        raise AssertionError("other weights were verified")

    def list_names(self, place: Path) -> list[str]:
        """Also the training, which stops where sealed numbers lead it beyond finite ones."""
        return [*super().list_names(place), "training: epoch"]

    def find_fault(self, place: Path, content: dict[str, Tensor]) -> str:
        """The same numbers, whether it went on or began anew."""
        checkpoint = any((place / name).exists() for name in (CHECKPOINT, "sealed"))
        wanted = self.tensors if not checkpoint and not _is_training(content) else self.trained
        if wild := [name for name, tensor in content.items() if not tensor.isfinite().all()]:
            return f"{wild[0]} is not finite"
        if (place / "sealed").exists():
            return ""
        if content.keys() != wanted.keys():
            return "other tensors"
        differing = [name for name in wanted if not torch.equal(content[name], wanted[name])]
        return f"{differing[0]} differs" if differing else ""


def _is_training(content: dict[str, Tensor]) -> bool:
    return content["weight"].shape == (2, 3)


def _change_state(rng: random.Random, state: dict[str, Any]) -> None:
    """One entry of a checkpoint's state becomes something else."""
    optimizer = state["optimizer"]
    inner = (
        state["module"],
        state["curve"][0],
        optimizer["param_groups"][0],
        optimizer["state"][0],
    )
    place = rng.choice((state, optimizer, *inner))
    key = rng.choice([*place])
    if rng.random() < 0.3:
        del place[key]
    elif rng.random() < 0.4:
        place[key] = torch.full((2, 2), rng.choice((0.0, torch.nan, 1e30)))
    else:
        place[key] = draw_value(rng)
