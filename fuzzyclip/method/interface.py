"""What a method is: features once, perhaps a training, then a scorer for each category.

All methods run on the same images, features, metrics and tables. A method says which kind of
features it reads; methods of one kind share them, so that an image goes through the frozen towers
once for each kind.

Shapes: B images, D embedding width, S image size, N training images; L x P x W is what a kind keeps
of an image besides its class feature.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from torch import Tensor

from fuzzyclip.clip.name_encoder import NameEncoder
from fuzzyclip.features.kinds import FeatureKind
from fuzzyclip.method.scorer import Scorer
from fuzzyclip.method.training import CurveRow
from fuzzyclip.utils.ranges import COUNT, POSITIVE, SIGMA


class MethodUnavailableError(ValueError):
    """A method can not run as it is set up: it needs models that are not on every machine."""


@dataclass(frozen=True)
class TrainingSet:
    """The test images of an auxiliary set, masks and all: what methods are trained on.

    Attributes:
        image_embed: (N, D), not normalised.
        load_tokens: row numbers to (n, L, P, W), on the backbone's device.
        load_masks: row numbers to (n, S, S), bool; all false where there is no defect.
        labels: (N,), 0 normal, 1 anomalous.
        names: prompt name of each image's category, N of them.
    """

    image_embed: Tensor
    load_tokens: Callable[[Sequence[int]], Tensor]
    load_masks: Callable[[Sequence[int]], Tensor]
    labels: Tensor
    names: Sequence[str]


class Untrained:
    """What methods without a training inherit: `Method`'s members about it."""

    trains: ClassVar[bool] = False

    def fit(
        self,
        encode: NameEncoder,
        images: TrainingSet,
        seed: int,
        checkpoint: Path | None = None,
    ) -> Mapping[str, Tensor]:
        """Nothing is trained."""
        del encode, images, seed, checkpoint
        return {}


class Trained(ABC):
    """What methods with a training inherit: a `learn` that also gives the losses of its steps."""

    trains: ClassVar[bool] = True

    def fit(
        self,
        encode: NameEncoder,
        images: TrainingSet,
        seed: int,
        checkpoint: Path | None = None,
    ) -> Mapping[str, Tensor]:
        """See `Method.fit`."""
        return self.learn(encode, images, seed, checkpoint)[0]

    @abstractmethod
    def learn(
        self,
        encode: NameEncoder,
        images: TrainingSet,
        seed: int,
        checkpoint: Path | None = None,
    ) -> tuple[dict[str, Tensor], list[CurveRow]]:
        """What `fit` gives, and the curve of its losses."""


class TrainingSettings(Protocol):
    """What all methods with a training are set by."""

    @property
    def epochs(self) -> int: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def sigma(self) -> float: ...


def check_training(owner: str, settings: TrainingSettings) -> None:
    """Refuse numbers that no training can have.

    Args:
        owner: whose they are, for the message.
        settings: of it.

    Raises:
        ValueError: names the setting.
    """
    COUNT.check(owner, epochs=settings.epochs, batch_size=settings.batch_size)
    POSITIVE.check(owner, learning_rate=settings.learning_rate)
    SIGMA.check(owner, sigma=settings.sigma)


class Method(Protocol):
    """A method with its settings; modules of this package make them.

    Attributes:
        name: of the method, as in params.yaml.
        title: as in tables.
        kind: what it reads.
        trains: whether `fit` has anything to do.
        sigma: Gaussian smoothing of its maps in pixels.

    A method may have `note`, a text that tables give with its results.
    """

    @property
    def name(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def kind(self) -> FeatureKind: ...
    @property
    def trains(self) -> bool: ...
    @property
    def sigma(self) -> float: ...

    def fit(
        self,
        encode: NameEncoder,
        images: TrainingSet,
        seed: int,
        checkpoint: Path | None = None,
    ) -> Mapping[str, Tensor]:
        """Train on an auxiliary set.

        Args:
            encode: names to text features; `encode.backbone` is the frozen CLIP.
            images: what is trained on.
            seed: of all that is drawn.
            checkpoint: see `fuzzyclip.method.training.train`.

        Returns:
            Tensors that `build` needs, to be stored; empty where nothing is trained.
        """
        ...

    def build(self, encode: NameEncoder, category: str, tensors: Mapping[str, Tensor]) -> Scorer:
        """The scorer of one category: (B, L, P, W) and unit class features to maps and scores.

        Args:
            encode: names to text features.
            category: its name in prompts.
            tensors: from `fit`.

        Raises:
            MethodUnavailableError: it needs what is not set up here.
        """
        ...
