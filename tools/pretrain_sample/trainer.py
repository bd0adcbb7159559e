"""Pretraining: its losses, model, optimisers, one update, checkpoint, export.

Contrast alone learns the categories and not the defects, so the state has a loss of its own, and
so have the patch tokens. Shapes: B images, n captions, m names, D embedding width, P patches.
"""

import hashlib
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fuzzyclip.clip.weights import EMBEDDING, load_sample_state_dict, save_sample_weights
from fuzzyclip.utils.files import read_summed, write_summed
from tools.pretrain_sample.batches import KINDS, PairBatch
from tools.pretrain_sample.captions import Vocabulary
from tools.pretrain_sample.kinds import belonging_loss, kinds_loss
from tools.pretrain_sample.towers import DenseHeads, build_clip, encode_captions, split_parameters

DEFECT_WEIGHT = 6.0  # against the many more sound patches
NAME_TEMPERATURE = 0.1
#: Weights of the losses at first: damaged or not, in general.
EARLY_WEIGHTS = {
    "contrastive": 0.5, "state": 2.0, "state_pair": 2.0, "kind": 0.0, "kind_pair": 0.0,
    "dense": 2.0, "name": 0.1, "things": 2.0,
    "belonging": 0.5,
}  # fmt: skip
#: And in the end: which defect it is, so that the class token carries more than one direction.
LATE_WEIGHTS = {
    "contrastive": 1.0, "state": 0.25, "state_pair": 0.0, "kind": 1.0, "kind_pair": 2.0,
    "dense": 4.0, "name": 0.1, "things": 2.0,
    "belonging": 0.5,
}  # fmt: skip
CLIP_NORM = 2.0

EncodeImages = Callable[[Any, Tensor, Tensor], tuple[Tensor, list[Tensor]]]


def contrastive_loss(logits: Tensor, positive: Tensor) -> Tensor:
    """CLIP's symmetric loss where an image may match several captions and the reverse.

    Args:
        logits: scaled cosines (B, n).
        positive: bool (B, n), True where category and state agree.
    """
    target = positive.float()
    by_image = -(target * logits.log_softmax(dim=1)).sum(dim=1) / target.sum(dim=1).clamp(min=1)
    by_text = -(target * logits.log_softmax(dim=0)).sum(dim=0) / target.sum(dim=0).clamp(min=1)
    return (by_image.mean() + by_text.mean()) / 2


def state_loss(image: Tensor, text: Tensor, scale: Tensor, states: Tensor) -> Tensor:
    """Cross entropy of the state that an image shows, with the captions of every name.

    Args:
        image: features (B, D).
        text: features (m, s, D) of the captions of s states of m names.
        scale: factor of the cosines.
        states: (B,) number of the image's state.
    """
    logits = scale * torch.einsum("bd,msd->bms", image, text)  # (B, m, s)
    return F.cross_entropy(logits.flatten(0, 1), states.repeat_interleave(text.shape[0]))


def pair_loss(image: Tensor, text: Tensor, scale: Tensor, states: Tensor) -> Tensor:
    """Loss of parts that show a defect no more with it than without, whatever part it is.

    Args:
        image: features (B, D), in pairs of the same part: normal, damaged.
        text: features (m, s, D) of the captions of s states of m names; state 0 is normal.
        scale: factor of the cosines.
        states: (B,) number of the image's state.
    """
    towards = text[:, states[1::2]] - text[:, :1]  # (m, B / 2, D)
    change = image[1::2] - image[0::2]  # (B / 2, D)
    return F.softplus(-scale * (towards * change).sum(dim=-1)).mean()


def name_loss(text: Tensor) -> Tensor:
    """Loss that keeps names apart, whatever the state: two captions of a name find each other.

    Args:
        text: features (m, 2, D) of the normal and the anomalous caption of m names.
    """
    names = F.normalize(text - text.mean(dim=0, keepdim=True), dim=-1)  # the state taken out
    logits = names[:, 0] @ names[:, 1].T / NAME_TEMPERATURE  # (m, m)
    own = torch.arange(len(logits))
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def dense_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy of the patch read-outs: logits (blocks, B, P, 10), targets (B, P, 10)."""
    weight = torch.tensor(DEFECT_WEIGHT)
    each = F.binary_cross_entropy_with_logits(
        logits, targets.expand_as(logits), pos_weight=weight, reduction="none"
    )
    return each[..., 0].mean() + each[..., 1:].mean()


@dataclass
class Trainer:
    """Everything that a checkpoint holds."""

    clip: Any  # open_clip's CLIP
    heads: DenseHeads
    optimizers: tuple[torch.optim.Optimizer, ...]
    step: int = 0
    seconds: float = 0.0

    def save(self, path: Path) -> None:
        """Write a checkpoint; it appears only when complete."""
        state = {
            "clip": self.clip.state_dict(),
            "heads": self.heads.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": self.step,
            "seconds": self.seconds,
        }
        content = io.BytesIO()
        torch.save(state, content)
        write_summed(path, content.getbuffer())

    def load(self, path: Path) -> None:
        """Go on from a checkpoint; a BrokenFileError if it does not hold what was written."""
        state = torch.load(io.BytesIO(read_summed(path)), weights_only=True)
        self.clip.load_state_dict(state["clip"])
        self.heads.load_state_dict(state["heads"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step, self.seconds = state["step"], state["seconds"]


def build_trainer(vocabulary: Vocabulary, seed: int, start: Path | None = None) -> Trainer:
    """A model with fresh optimisers: Muon for the blocks' matrices, AdamW for the rest.

    Args:
        vocabulary: whose rows the token embedding has.
        seed: of the initialisation.
        start: weights of an earlier run, exported; None begins anew.
    """
    torch.manual_seed(seed)
    clip = build_clip(len(vocabulary))
    if start is not None:
        state = load_sample_state_dict(start)
        unknown = state[EMBEDDING][vocabulary.unknown_id]
        rows = state[EMBEDDING][vocabulary.token_ids]
        clip.load_state_dict(
            state | {EMBEDDING: torch.cat([unknown[None], rows])}, strict=False
        )  # the attention mask is not stored
    heads = DenseHeads(clip.visual.transformer.width)
    matrices, others = split_parameters(clip, heads)
    optimizers = (
        torch.optim.Muon(matrices, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, betas=(0.9, 0.98), weight_decay=0.01),
    )
    return Trainer(clip, heads, optimizers)


def compute_losses(
    trainer: Trainer, batch: PairBatch, vocabulary: Vocabulary, encode: EncodeImages
) -> dict[str, Tensor]:
    """The losses of a batch by name, the scale of the cosines and the accuracy of the state."""
    with torch.autocast("cpu", torch.bfloat16):
        image, tokens = encode(trainer.clip.visual, batch.images, batch.positions)  # (B, D)
        own = encode_captions(trainer.clip, vocabulary.encode(batch.captions))  # (n, D)
        general = encode_captions(trainer.clip, vocabulary.encode(batch.name_captions))
        specific = encode_captions(trainer.clip, vocabulary.encode(batch.kind_captions))
        things = encode_captions(trainer.clip, vocabulary.encode(batch.thing_captions))
    of_state = things.view(-1, 2, things.shape[1]).transpose(0, 1)[batch.labels]  # (B, t, D)
    names = general.view(-1, 2, general.shape[1])  # (m, 2, D)
    kinds = specific.view(-1, KINDS, specific.shape[1])  # (m, 7, D)
    scale = trainer.clip.logit_scale.exp().clamp(max=100)
    margin = scale * image @ (names[:, 1] - names[:, 0]).T  # (B, m)
    return {
        "contrastive": contrastive_loss(scale * image @ own.T, batch.positive),
        "state": state_loss(image, names, scale, batch.labels),
        "state_pair": pair_loss(image, names, scale, batch.labels),
        "kind": state_loss(image, kinds, scale, batch.kinds),
        "kind_pair": pair_loss(image, kinds, scale, batch.kinds),
        "dense": dense_loss(trainer.heads(tokens), batch.targets),
        "name": name_loss(names),
        "belonging": belonging_loss(image, of_state, scale, batch.category_kinds, batch.things),
        "things": kinds_loss(things[0::2], batch.things) + kinds_loss(things[1::2], batch.things),
        "logit_scale": scale.detach(),
        "state_accuracy": ((margin > 0) == (batch.labels[:, None] > 0)).float().mean(),
    }


def train_step(
    trainer: Trainer,
    batch: PairBatch,
    vocabulary: Vocabulary,
    encode: EncodeImages,
    rate: float,
    weights: Mapping[str, float] = EARLY_WEIGHTS,
) -> dict[str, float]:
    """One update at a learning rate; returns what `compute_losses` does, as numbers."""
    losses = compute_losses(trainer, batch, vocabulary, encode)
    total = torch.stack([weight * losses[name] for name, weight in weights.items()]).sum()
    torch.autograd.backward(total)
    nn.utils.clip_grad_norm_([*trainer.clip.parameters(), *trainer.heads.parameters()], CLIP_NORM)
    for optimizer in trainer.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    trainer.step += 1
    return {name: value.item() for name, value in losses.items()}


def export_weights(trainer: Trainer, vocabulary: Vocabulary, path: Path) -> str:
    """Write the weights file and return its SHA-256."""
    state = dict(trainer.clip.state_dict())
    table = state[EMBEDDING]
    state[EMBEDDING] = table[1:]  # row 0 is the unknown word's
    save_sample_weights(path, state, vocabulary.token_ids, table[0])
    return hashlib.sha256(path.read_bytes()).hexdigest()
