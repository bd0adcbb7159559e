"""A method: features once, perhaps a training, then a scorer for each category.

FuzzyCLIP and its peers stand behind this one interface: they run on the same images, features,
metrics and tables. A method says which kind of features it reads; methods of one kind share them,
so that an image goes through the frozen towers once for each kind.

Shapes: B images, D embedding width, S image size, N training images, n rows of them; L x P x W is
what a kind keeps of an image besides its class feature.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

from torch import Tensor

from fuzzyclip.clip.name_encoder import NameEncoder
from fuzzyclip.features.kinds import FeatureKind
from fuzzyclip.method.scorer import Scorer
from fuzzyclip.method.training import CurveRow
from fuzzyclip.utils.ranges import COUNT, POSITIVE, SIGMA

#: Rows of a training set whose images make a mosaic: left to right, top to bottom.
Quad = tuple[int, int, int, int]


class MethodUnavailableError(ValueError):
    """A method can not run as it is set up: it needs models that are not on every machine."""


def refuse_mosaics(quads: Sequence[Quad]) -> tuple[Tensor, Tensor]:
    """`TrainingSet.load_mosaics` of a set without image files."""
    raise ValueError(f"{len(quads)} mosaics of a training set that is not made of image files")


@dataclass(frozen=True)
class TrainingSet:
    """The test images of an auxiliary set, masks and all: what methods are trained on.

    Attributes:
        image_embed: (N, D), not normalised.
        load_tokens: row numbers to (n, L, P, W), on the backbone's device.
        load_masks: row numbers to (n, S, S), bool; all false where there is no defect.
        labels: (N,), 0 normal, 1 anomalous.
        names: prompt name of each image's category, N of them.
        members: "dataset/category" of each image, N of them.
        load_mosaics: rows of four images for each of n mosaics to their tokens (n, L, P, W) and
            masks (n, S, S), as the two above give them.
    """

    image_embed: Tensor
    load_tokens: Callable[[Sequence[int]], Tensor]
    load_masks: Callable[[Sequence[int]], Tensor]
    labels: Tensor
    names: Sequence[str]
    members: Sequence[str]
    load_mosaics: Callable[[Sequence[Quad]], tuple[Tensor, Tensor]] = refuse_mosaics

    def __len__(self) -> int:
        return len(self.names)

    def select(self, rows: Sequence[int]) -> "TrainingSet":
        """Some of the images, numbered anew from 0 in the given order."""
        chosen = list(rows)

        def load_mosaics(quads: Sequence[Quad]) -> tuple[Tensor, Tensor]:
            own = [(chosen[a], chosen[b], chosen[c], chosen[d]) for a, b, c, d in quads]
            return self.load_mosaics(own)

        return TrainingSet(
            image_embed=self.image_embed[chosen],
            load_tokens=lambda part: self.load_tokens([chosen[row] for row in part]),
            load_masks=lambda part: self.load_masks([chosen[row] for row in part]),
            labels=self.labels[chosen],
            names=[self.names[row] for row in chosen],
            members=[self.members[row] for row in chosen],
            load_mosaics=load_mosaics,
        )


@dataclass(frozen=True)
class Learned:
    """Results of a training on an auxiliary set.

    Attributes:
        tensors: by name; what `build` needs, to be stored.
        facts: plain data (JSON) beside them, for instance names of clusters.
        curve: losses of the training's steps; empty where nothing was trained.
    """

    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    curve: Sequence[CurveRow] = ()


def refuse_references(count: int) -> Tensor:
    """`Target.load_references` where no training images are to be looked at."""
    raise ValueError(f"{count} normal training images are asked for, and none are given")


def refuse_batch(places: Sequence[int]) -> Tensor:
    """`UnlabelledBatch.load` where no other tested images are to be looked at."""
    raise ValueError(f"{len(places)} images of a batch are asked for, and none are given")


def order_images(keys: Sequence[str], seed: int) -> list[int]:
    """Places of images in an order that their keys and the seed decide, and their own does not.

    The first few are a random choice, from which one image more moves one out at most. Of images
    with one key the first alone is in it.

    Args:
        keys: what an image is told by wherever it stands, its SHA-256 for one.
        seed: another one chooses others.
    """
    places: dict[str, int] = {}
    for place, key in enumerate(keys):
        places.setdefault(key, place)
    ranks = {key: hashlib.sha256(f"{seed} {key}".encode()).digest() for key in places}
    return [places[key] for key in sorted(places, key=ranks.__getitem__)]


@dataclass(frozen=True)
class UnlabelledBatch:
    """All tested images of a category, without labels and masks.

    Attributes:
        count: of those that differ.
        load: places in the order of `order_images` to patch tokens (n, L, P, W).
    """

    count: int = 0
    load: Callable[[Sequence[int]], Tensor] = refuse_batch


@dataclass(frozen=True)
class Target:
    """One tested category, and what else of its dataset a method may look at.

    Attributes:
        category: its name in prompts.
        categories: names of all tested categories of its dataset, in order.
        load_references: a number n to patch tokens (n, L, P, W) of n normal training images of the
            category; a result that used them is not zero-shot.
        batch: its tested images; a result that used them says so.
    """

    category: str
    categories: Sequence[str] = ()
    load_references: Callable[[int], Tensor] = refuse_references
    batch: UnlabelledBatch = UnlabelledBatch()


class OneVariant(ABC):
    """A method that makes one row of the tables, under its own name."""

    name: ClassVar[str]
    reads_text: ClassVar[bool] = True

    @abstractmethod
    def build(self, encode: NameEncoder, category: str, learned: Learned) -> Scorer:
        """The scorer of one category, as `Method.build` says."""

    def build_variants(
        self, encode: NameEncoder, target: Target, learned: Learned
    ) -> dict[str, Scorer]:
        """The one scorer, by the method's name."""
        return {self.name: self.build(encode, target.category, learned)}


class Untrained(OneVariant):
    """Base of methods without a training."""

    trains: ClassVar[bool] = False

    def fit(
        self,
        encode: NameEncoder,
        images: TrainingSet,
        seed: int,
        checkpoint: Path | None = None,
    ) -> Learned:
        """Nothing is trained."""
        del encode, images, seed, checkpoint
        return Learned()


class Trained(OneVariant):
    """Base of methods with a training."""

    trains: ClassVar[bool] = True

    @abstractmethod
    def fit(
        self, encode: NameEncoder, images: TrainingSet, seed: int, checkpoint: Path | None = None
    ) -> Learned:
        """Train on an auxiliary set, as `Method.fit` says."""


class TrainingSettings(Protocol):
    """Settings that all methods with a training have."""

    @property
    def epochs(self) -> int: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def sigma(self) -> float: ...


def check_training(owner: str, settings: TrainingSettings) -> None:
    """Refuse numbers that no training can have; the ValueError names owner and setting."""
    COUNT.check(owner, epochs=settings.epochs, batch_size=settings.batch_size)
    POSITIVE.check(owner, learning_rate=settings.learning_rate)
    SIGMA.check(owner, sigma=settings.sigma)


class Method(Protocol):
    """A method with its settings; `fuzzyclip.baselines.registry` makes them.

    Attributes:
        name: of the method, as in params.yaml.
        title: as in tables.
        kind: what it reads.
        trains: whether `fit` has anything to do.
        sigma: Gaussian smoothing of its maps in pixels.
        reads_text: whether it needs a text tower; others do with an image tower alone.

    A method may have `note`, a text that tables give with its results; `random_weights`, whether it
    looks through models that have learned nothing; and `uses_batch`, whether it looks at other
    tested images. Results of the last two take no rank among those of zero-shot methods.
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
    @property
    def reads_text(self) -> bool: ...

    def fit(
        self,
        encode: NameEncoder,
        images: TrainingSet,
        seed: int,
        checkpoint: Path | None = None,
    ) -> Learned:
        """Train on an auxiliary set; `encode.backbone` is the frozen CLIP.

        Args:
            encode: names to text features.
            images: the set.
            seed: of all that is drawn.
            checkpoint: a file that a killed training goes on from, as
                `fuzzyclip.method.training.train` does; the caller removes it.
        """
        ...

    def build(self, encode: NameEncoder, category: str, learned: Learned) -> Scorer:
        """The scorer of one category, by its name in prompts.

        Raises:
            MethodUnavailableError: it needs what is not set up here.
        """
        ...

    def build_variants(
        self, encode: NameEncoder, target: Target, learned: Learned
    ) -> dict[str, Scorer]:
        """The scorers of one category, by variant; each is a row of the tables.

        Raises:
            MethodUnavailableError: it needs what is not set up here.
        """
        ...
