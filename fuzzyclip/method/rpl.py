"""RPL, regulating prompt learning: two prompts learned for classification, held near CSP's.

The prompts start from a template sentence with the stacked names in it (paper, section 2.4 and
Table 9). Their first words are learnable, and learnable tokens are attached inside the text tower
(section 3.1.2); everything else stays frozen. The loss is cross entropy plus the squared distance
to the untrained stacked prompt's features (eq. 12).

Shapes: N images, B rows, V text width, D embedding width, T tokens, E learnable words,
L deep tokens, M depth.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fuzzyclip.clip.backbone import Backbone
from fuzzyclip.clip.encoding import (
    count_tokens,
    embed_tokens,
    normalise,
    run_text_tower,
    tokenize,
)
from fuzzyclip.clip.name_encoder import NameEncoder
from fuzzyclip.clip.prompt_tower import can_skip, run_prompts, run_start
from fuzzyclip.method.training import CurveRow, train
from fuzzyclip.utils.settings import PromptShape, RplSettings

#: Sentence pairs of Table 9, (normal, anomalous); {} is [cluster], the stacked names. `o` rows of
#: the table are the same sentences with "object" for the names.
TEMPLATES = {
    "c1": ("a photo of a good {}", "a photo of a damaged {}"),
    "c2": ("This is a good photo of {}", "This is a damaged photo of {}"),
    "c3": ("It is a photo of a {} without damage", "It is a photo of a {} with damage"),
    "c4": (
        "There is not a damaged {} in the photo",
        "There is a damaged {} in the photo",
    ),
    "c5": (
        "It is a good, perfect and pristine picture of {}",
        "It is a damaged, flawed, and broken picture of {}",
    ),
}
#: The sentences that follow random words in the `prepend` layout.
PREPENDED = ("{}.", "damaged {}.")
#: Standard deviation of random learnable tokens.
INIT_STD = 0.02


class PromptLearner(nn.Module):
    """Two learnable prompts, normal and anomalous, through the frozen text tower.

    Trainable are `ctx` (the learnable words of each side) and `deep` (M - 1 tensors); the
    sentences around them are buffers. The frozen tower is passed to `forward`, not held.
    """

    sentence: Tensor
    end: Tensor
    start: Tensor | None

    def __init__(self, backbone: Backbone, stack: str, shape: PromptShape, seed: int = 0) -> None:
        """Tokenise the two sentences and initialise the learnable tokens.

        Raises:
            PromptTooLongError: a sentence exceeds the text tower's context.
        """
        super().__init__()
        self.shape = shape
        generator = torch.Generator().manual_seed(seed)
        sentences = write_sentences(stack, shape)
        ids = tokenize(backbone, sentences)
        with torch.no_grad():
            embedded = embed_tokens(backbone, ids).float()  # (2, T, V)
        end = backbone.text_tower.find_ends(ids)  # (2,)
        counts = count_words(backbone, shape, end)
        width = embedded.shape[-1]
        words = [embedded[side, 1 : 1 + count].clone() for side, count in enumerate(counts)]
        if shape.layout == "prepend":
            words = [INIT_STD * torch.randn(word.shape, generator=generator) for word in words]
        self.ctx = nn.ParameterList(nn.Parameter(word.to(backbone.device)) for word in words)
        self.deep_tokens = fit_deep_tokens(shape, end)
        sides = 2 if shape.deep_per_side else 1
        deep = INIT_STD * torch.randn(
            fit_depth(backbone, shape) - 1, sides, self.deep_tokens, width, generator=generator
        )
        self.deep = nn.Parameter(deep.to(backbone.device))  # (M-1, 1 or 2, L, V)
        self.register_buffer("sentence", embedded, persistent=False)
        self.register_buffer("end", end, persistent=False)
        start = run_start(backbone, embedded[0, 0]) if can_skip(backbone) else None
        self.register_buffer("start", start, persistent=False)  # (N, V)

    def forward(self, backbone: Backbone) -> Tensor:
        """Text features of the two prompts, (2, D): normal, anomalous; not normalised."""
        if self.start is None:
            return self.forward_plainly(backbone)
        x, end = self._fill_words()
        deep = self.deep.expand(-1, 2, -1, -1)
        inserted = self.shape.attachment == "insert"
        return run_prompts(backbone, x, end, self.start, deep, inserted)

    def forward_plainly(self, backbone: Backbone) -> Tensor:
        """The same through every position of every block, for towers of another make."""
        x, end = self._fill_words()
        return run_text_tower(backbone, x, end, self._attach)

    def _fill_words(self) -> tuple[Tensor, Tensor]:
        """Embedded prompts (2, T, V), and where they will end in the last block, (2,)."""
        rows = [
            torch.cat((row[:1], ctx, row[1 + len(ctx) :]))
            for row, ctx in zip(self.sentence, self.ctx, strict=True)
        ]
        inserted = self.shape.attachment == "insert" and len(self.deep) > 0
        return torch.stack(rows), self.end + self.deep_tokens if inserted else self.end

    def _attach(self, block: int, x: Tensor) -> Tensor:
        """Put the deep tokens of this block, counted from 0, in place; none in the first."""
        if not 1 <= block <= len(self.deep) or self.deep_tokens == 0:
            return x
        tokens = self.deep[block - 1].expand(2, -1, -1)  # (2, L, V)
        first = self.shape.attachment == "insert" and block == 1
        rest = x[:, 1:] if first else x[:, 1 + self.deep_tokens :]
        return torch.cat((x[:, :1], tokens, rest), dim=1)


def write_sentences(stack: str, shape: PromptShape) -> list[str]:
    """The normal and the anomalous sentence, placeholders for prepended words included."""
    if shape.layout == "prepend":
        placeholders = " ".join(["x"] * shape.words)
        return [f"{placeholders} {sentence.format(stack)}" for sentence in PREPENDED]
    return [sentence.format(stack) for sentence in TEMPLATES[shape.template]]


def count_words(backbone: Backbone, shape: PromptShape, end: Tensor) -> list[int]:
    """Number of learnable words of each side; E is cut to the shortest sentence's tokens.

    The start and the end token stay frozen: a stack of one short name leaves fewer words than E.
    """
    if shape.layout == "template_ctx":
        heads = [sentence.split("{}")[0].strip() for sentence in TEMPLATES[shape.template]]
        return [count_tokens(backbone, head) - 2 for head in heads]
    count = min(shape.words, int(end.min()) - 1)
    return [count, count]


def fit_deep_tokens(shape: PromptShape, end: Tensor) -> int:
    """L, cut where overwriting would destroy a prompt's end token."""
    if shape.attachment == "insert":
        return shape.deep_tokens
    return min(shape.deep_tokens, int(end.min()) - 1)


def fit_depth(backbone: Backbone, shape: PromptShape) -> int:
    """M, cut to the blocks that the text tower has."""
    return min(shape.depth, len(backbone.text_tower.module.transformer.resblocks))


def measure_lengths(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Lengths of learned prompts as they were trained, from the tensors of `fit_prompts`.

    `words` is E of each side, `deep_tokens` L and `depth` M; a short sentence leaves less than the
    settings ask for.
    """
    words = [len(tensors[f"ctx.{side}"]) for side in range(2)]
    deep = tensors["deep"]  # (M-1, 1 or 2, L, V)
    return {"words": words, "deep_tokens": deep.shape[2], "depth": len(deep) + 1}


def compute_image_score(image_embed: Tensor, text_embed: Tensor, temperature: float) -> Tensor:
    """Log-odds that each image is anomalous, (B,): eq. 2 before its softmax.

    Eq. 2's probability is the sigmoid of it, and as a float32 the same number, 1, for all log-odds
    above about 17. Only before the softmax does the temperature change no order of images.

    Args:
        image_embed: (B, D), unit rows.
        text_embed: (2, D), or (B, 2, D), each image's own; unit rows: normal, anomalous.
        temperature: factor on the cosines.
    """
    direction = text_embed[..., 1, :] - text_embed[..., 0, :]  # (D,) or (B, D)
    return temperature * (image_embed * direction).sum(dim=-1)


def fit_prompts(
    encode: NameEncoder,
    image_embed: Tensor,
    labels: Tensor,
    names: Sequence[str],
    settings: RplSettings,
    seed: int,
    *,
    checkpoint: Path | None = None,
    description: str = "RPL",
) -> tuple[dict[str, Tensor], list[CurveRow]]:
    """RPL: the two prompts learned on an auxiliary set, held near its stacked one (eq. 12).

    Args:
        encode: names to text features.
        image_embed: (N, D) class features of the auxiliary images; normalised here.
        labels: (N,) 0 normal or 1 anomalous.
        names: of all auxiliary categories, one stack whatever the partition (section 3.1.2 and
            appendix A.4).
        settings: see `RplSettings`.
        seed: of random tokens and of the order of images.
        checkpoint: a file that a killed training goes on from; the caller removes it.
        description: of the progress bar.

    Returns:
        `text_embed`, the learned text features (2, D) with unit rows, beside the learner's own
        tensors; and the curve with `loss`, `cls` and `text` of each step.
    """
    stacked, backbone = choose_stack(settings, names), encode.backbone
    text_weight, device = settings.weigh_text(backbone.embed_dim), backbone.device
    target = encode(stacked).T.detach().to(device)  # (2, D)
    learner = PromptLearner(backbone, encode.stack(stacked), settings, seed)
    images, truth = normalise(image_embed).to(device), labels.to(device)

    def load(rows: Sequence[int], epoch: int) -> list[int]:
        del epoch  # no augmentation: the class feature of an image never changes
        return list(rows)

    def compute_losses(batch: list[int]) -> dict[str, Tensor]:
        text_embed = normalise(learner(backbone))  # (2, D)
        cls = compute_classification(images[batch], text_embed, truth[batch], settings.temperature)
        text = compute_text_regularisation(text_embed, target)
        return {"loss": cls + text_weight * text, "cls": cls, "text": text}

    curve = train(
        learner,
        load,
        compute_losses,
        count=len(images),
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        seed=seed,
        checkpoint=checkpoint,
        description=description,
    )
    with torch.no_grad():
        text_embed = normalise(learner(backbone))
    return {"text_embed": text_embed} | dict(learner.state_dict()), curve


def choose_stack(settings: RplSettings, names: Sequence[str]) -> list[str]:
    """Names that stand for [cluster] in the learned prompts."""
    return ["object"] if settings.stack == "object" else list(names)


def compute_classification(
    image_embed: Tensor, text_embed: Tensor, label: Tensor, temperature: float
) -> Tensor:
    """Cross entropy of unit image features against the two prompt features (eq. 12, left).

    Args:
        image_embed: (B, D), unit rows.
        text_embed: (2, D), unit rows: normal, anomalous.
        label: (B,) int64.
        temperature: factor on the cosines (the paper is silent; CLIP's own is 100).
    """
    return F.cross_entropy(temperature * image_embed @ text_embed.T, label)


def compute_text_regularisation(text_embed: Tensor, stacked_embed: Tensor) -> Tensor:
    """Mean squared error of the learned prompts to the stacked one, (2, D) each (eq. 12, right).

    With unit rows it is at most 4 / D and its gradient next to nothing; a weight of D makes the
    squared distance of it.
    """
    return F.mse_loss(text_embed, stacked_embed)
