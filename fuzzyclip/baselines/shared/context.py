"""Words that CoOp and CoCoOp learn, before "good [class]" and "damaged [class]", by cross entropy.

Both learn words for classification. Appendix A.1 of the FuzzyCLIP paper brings them to anomaly
detection by making the class part of the prompt two (it says so of CoCoOp):

    [v_1] ... [v_E] good [class].        [v_1] ... [v_E] damaged [class].

The words are the same in both and for all categories, so that they serve categories that training
has not seen. An image is told apart by the two prompts of its own category. No code of the
adaptation is published; AnomalyCLIP's table has one with "normal" and "anomalous".

Shapes: B images, n names, E learnable words, T tokens, V text width, N text blocks, D embedding
width, P patches, S image size.
"""

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fuzzyclip.clip.backbone import Backbone
from fuzzyclip.clip.encoding import (
    count_tokens,
    embed_tokens,
    normalise,
    project_tokens,
    run_text_tower,
    tokenize,
)
from fuzzyclip.clip.name_encoder import NameEncoder
from fuzzyclip.clip.prompt_tower import can_skip, run_prompts, run_start
from fuzzyclip.features.kinds import TOKENS, FeatureKind
from fuzzyclip.method import Scale
from fuzzyclip.method.efa import LOGIT_SCALE, compute_plane
from fuzzyclip.method.interface import Learned, Trained, TrainingSet, check_training
from fuzzyclip.method.rpl import compute_image_score
from fuzzyclip.method.scorer import Scorer
from fuzzyclip.method.training import train
from fuzzyclip.utils.ranges import FEW

#: What follows the learnable words, normal and anomalous (appendix A.1). CoOp's full stop is kept.
SENTENCES = ("good {}.", "damaged {}.")
#: Standard deviation of random words.
INIT_STD = 0.02
#: CoOp's descent: momentum, weight decay, and the first epoch's learning rate, which lets no large
#: first gradient throw the words away.
MOMENTUM, WEIGHT_DECAY, WARM_UP = 0.9, 5e-4, 1e-5


@dataclass(frozen=True)
class Sentences:
    """Two embedded sentences for each of n names, with room for E words after the start token.

    Attributes:
        embedded: (n, 2, T, V), normal and anomalous; no gradient.
        end: (n, 2), position of each end token.
        start: (N, V) from `run_start`; None where the tower has to be run plainly.
    """

    embedded: Tensor
    end: Tensor
    start: Tensor | None

    def encode(self, backbone: Backbone, places: Tensor, words: Tensor) -> Tensor:
        """Unit text features with the words put in, (B, 2, D); keeps gradients.

        Args:
            places: (B,), number of the name for each row.
            words: (E, V) for all rows, or (B, E, V).
        """
        frame = self.embedded[places]  # (B, 2, T, V)
        count = words.shape[-2]
        inside = words.expand(len(frame), -1, -1)[:, None].expand(-1, 2, -1, -1)  # (B, 2, E, V)
        x = torch.cat((frame[:, :, :1], inside, frame[:, :, 1 + count :]), dim=2).flatten(0, 1)
        end = self.end[places].flatten()  # (B * 2,)
        if self.start is None:
            out = run_text_tower(backbone, x, end)
        else:
            no_deep = x.new_zeros(0, len(x), 0, x.shape[-1])
            out = run_prompts(backbone, x, end, self.start, no_deep, inserted=False)
        return normalise(out).unflatten(0, (-1, 2))  # type: ignore[no-untyped-call, no-any-return]


@torch.no_grad()
def embed_sentences(encode: NameEncoder, names: Sequence[str], count: int) -> Sentences:
    """The sentences of n names with placeholders for `count` words.

    Names are written as in all prompts of a run (`NameEncoder.stack`); CoOp's own code writes
    spaces for underscores, which is the run's setting `underscore`.

    Raises:
        PromptTooLongError: words and name exceed the text tower's context.
        ValueError: the text tower reads no prompt's end.
    """
    backbone, placeholders = encode.backbone, " ".join(["x"] * count)
    prompts = [
        f"{placeholders} {sentence.format(encode.stack([name]))}"
        for name in names
        for sentence in SENTENCES
    ]
    ids = tokenize(backbone, prompts)  # (n * 2, T)
    embedded = embed_tokens(backbone, ids).float()  # (n * 2, T, V)
    start = run_start(backbone, embedded[0, 0]) if can_skip(backbone) else None
    return Sentences(
        embedded=embedded.unflatten(0, (-1, 2)),  # type: ignore[no-untyped-call]
        end=backbone.text_tower.find_ends(ids).view(-1, 2),
        start=start,
    )


def build_scorer(
    backbone: Backbone, prompt: str, compute_text: Callable[[Tensor], Tensor]
) -> Scorer:
    """Maps and scores of prompts whose text features may depend on the image.

    Neither method has a map of its own. As AnomalyCLIP's table has them, the last taken block's
    tokens go through the tower's own last layers and are compared with the text. `compute_text`
    takes unit class features (B, D) to unit text features (B, 2, D) or (1, 2, D).
    """
    size = (backbone.image_size, backbone.image_size)

    def compute_map(patch_tokens: Tensor, image_embed: Tensor) -> Tensor:
        mapped = project_tokens(backbone, patch_tokens[:, -1].contiguous())  # (B, P, D)
        text = compute_text(image_embed).transpose(1, 2)  # (B or 1, D, 2)
        return compute_plane(mapped, text, backbone.grid, size)

    def compute_score(image_embed: Tensor, maps: Tensor) -> Tensor:
        del maps
        return compute_image_score(image_embed, compute_text(image_embed), LOGIT_SCALE)

    return Scorer(prompt, compute_map, compute_score, Scale.LOG_ODDS)


class LearnedWords(nn.Module):
    """E learnable words."""

    def __init__(self, words: Tensor) -> None:
        """Start from words (E, V)."""
        super().__init__()
        self.words = nn.Parameter(words)

    def encode(
        self, backbone: Backbone, sentences: Sentences, places: Tensor, image_embed: Tensor
    ) -> Tensor:
        """Unit text features (B, 2, D) of images with unit class features (B, D); keeps gradients.

        `places` (B,) numbers each image's name in `sentences`.
        """
        del image_embed
        # a name is encoded once, however many of the images bear it
        present, back = torch.unique(places, return_inverse=True)
        return sentences.encode(backbone, present, self.words)[back]


@dataclass(frozen=True)
class ContextMethod(Trained):
    """Settings of learned words and their training; CoOp and CoCoOp differ in the values.

    Attributes:
        init: what the words start from, such as "a photo of a"; empty draws them at random.
        words: E where they are drawn; otherwise E is the number of `init`'s tokens.
        epochs: passes over the auxiliary images. The first is a warm-up at 1e-5.
        batch_size: images a step.
        learning_rate: of the second epoch; falls along a cosine.
        sigma: Gaussian smoothing of the maps in pixels; neither method has any.
    """

    init: str
    words: int
    epochs: int
    batch_size: int
    learning_rate: float = 0.002
    sigma: float = 0.0

    title: ClassVar[str]
    kind: ClassVar[FeatureKind] = TOKENS

    def __post_init__(self) -> None:
        if not isinstance(self.init, str):
            raise ValueError(f"init must be a text, empty for random words, not {self.init!r}")
        FEW.check("learned prompts", words=self.words)
        check_training("learned prompts", self)

    def start_words(self, backbone: Backbone) -> Tensor:
        """The words before training, (E, V); draws from torch's global generator."""
        ids = tokenize(backbone, [self.init or "x"])
        embedded = embed_tokens(backbone, ids)[0].detach().float()  # (T, V)
        if self.init:
            return embedded[1 : count_tokens(backbone, self.init) - 1].clone()  # (E, V)
        drawn = INIT_STD * torch.randn(self.words, embedded.shape[-1])
        return drawn.to(backbone.device)

    @abstractmethod
    def make_words(self, backbone: Backbone) -> LearnedWords:
        """The words before training; drawn from torch's global generator."""

    def fit(
        self, encode: NameEncoder, images: TrainingSet, seed: int, checkpoint: Path | None = None
    ) -> Learned:
        """The state of `make_words`, trained, and the curve with the `loss` of each step.

        Raises:
            ValueError: there is no image, or the text tower reads no prompt's end.
            PromptTooLongError: words and a name exceed the text tower's context.
        """
        torch.manual_seed(seed)
        learned = self.make_words(encode.backbone)
        compute_loss = make_loss(learned, encode, images)
        curve = train(
            learned,
            lambda rows, epoch: list(rows),  # class features are in memory
            lambda rows: {"loss": compute_loss(rows)},
            count=len(images),
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            seed=seed,
            make_optimizer=make_sgd,
            rate=self.compute_rate,
            checkpoint=checkpoint,
            description=self.title,
        )
        tensors = {name: value.cpu() for name, value in learned.state_dict().items()}
        return Learned(tensors, curve=curve)

    def compute_rate(self, epoch: int) -> float:
        """Learning rate of an epoch, from 1: a warm-up, then a cosine that begins in epoch 2.

        As in CoOp's code the cosine would reach 0 one epoch after the last.
        """
        if epoch == 1:
            return WARM_UP
        return self.learning_rate * (1 + math.cos(math.pi * (epoch - 2) / self.epochs)) / 2

    def read_words(
        self, encode: NameEncoder, category: str, learned: Learned
    ) -> tuple[Tensor, Sentences]:
        """The trained words, (E, V), and the category's sentences for them.

        Raises:
            ValueError: there are no words, or they are of another text tower.
        """
        backbone, words = encode.backbone, learned.tensors.get("words")
        width = backbone.text_tower.module.token_embedding.embedding_dim
        if words is None or words.dim() != 2 or words.shape[1] != width:
            given = "no words" if words is None else f"words of shape {tuple(words.shape)}"
            raise ValueError(
                f"{self.title}: found {given} where this text tower needs (E, {width}); train it "
                "anew"
            )
        return words.to(backbone.device), embed_sentences(encode, [category], len(words))


def make_sgd(parameters: Iterator[nn.Parameter], learning_rate: float) -> torch.optim.Optimizer:
    """Stochastic descent as in CoOp."""
    return torch.optim.SGD(
        parameters, lr=learning_rate, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
    )


def make_loss(
    learned: LearnedWords, encode: NameEncoder, images: TrainingSet
) -> Callable[[Sequence[int]], Tensor]:
    """A function from row numbers of a batch to its cross entropy; see `ContextMethod.fit`."""
    if not images.names:
        raise ValueError("learned prompts need at least one training image")
    backbone, names = encode.backbone, sorted(set(images.names))
    sentences = embed_sentences(encode, names, len(learned.words))
    places = torch.tensor([names.index(name) for name in images.names]).to(backbone.device)  # (N,)
    embeds = normalise(images.image_embed.to(backbone.device))
    labels = images.labels.to(backbone.device)

    def compute_loss(rows: Sequence[int]) -> Tensor:
        text_embed = learned.encode(backbone, sentences, places[rows], embeds[rows])  # (B, 2, D)
        logits = LOGIT_SCALE * (text_embed @ embeds[rows][..., None]).squeeze(-1)  # (B, 2)
        return F.cross_entropy(logits, labels[rows])

    return compute_loss
