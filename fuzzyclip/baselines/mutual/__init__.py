"""Mutual scoring as a method of the tables: see `scoring` beside this.

It learns nothing and reads no text, but looks at other tested images of the category, without their
labels: its rows say so, and are to be compared with one another, not with zero-shot rows.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch

from fuzzyclip.baselines.mutual.scoring import (
    NOTE,
    STEP,
    BatchError,
    MutualSettings,
    References,
    build_mutual,
    study,
)
from fuzzyclip.clip.name_encoder import NameEncoder
from fuzzyclip.features.kinds import TOKENS, FeatureKind
from fuzzyclip.method.interface import Learned, MethodUnavailableError, Target, Untrained
from fuzzyclip.method.scorer import Scorer
from fuzzyclip.utils.ranges import SIGMA


@dataclass(frozen=True)
class Mutual(Untrained):
    """Its settings, with the reasons that `MutualSettings` gives.

    Attributes:
        references, studied, neighbourhoods, share, own_image, cut: of `MutualSettings`.
        sigma: Gaussian smoothing of its maps in pixels; the image score is taken before it.
    """

    references: int = MutualSettings.references
    studied: int = MutualSettings.studied
    neighbourhoods: tuple[int, ...] = MutualSettings.neighbourhoods
    share: float = MutualSettings.share
    own_image: float = MutualSettings.own_image
    cut: float = MutualSettings.cut
    sigma: float = 0.0

    name: ClassVar[str] = "mutual"
    title: ClassVar[str] = "Mutual scoring (batch)"
    kind: ClassVar[FeatureKind] = TOKENS
    note: ClassVar[str] = NOTE
    uses_batch: ClassVar[bool] = True
    reads_text: ClassVar[bool] = False

    def __post_init__(self) -> None:
        SIGMA.check(self.name, sigma=self.sigma)
        self.make_settings()

    def make_settings(self) -> MutualSettings:
        """How a batch is compared; a ValueError where a number is out of range."""
        return MutualSettings(
            self.references, self.studied, self.neighbourhoods, self.share, self.own_image, self.cut
        )

    def build(self, encode: NameEncoder, category: str, learned: Learned) -> Scorer:
        """Refused: without a batch there is nothing to compare with."""
        raise ValueError(f"{self.name} needs the batch of {category!r}: use build_variants")

    def build_variants(
        self, encode: NameEncoder, target: Target, learned: Learned
    ) -> dict[str, Scorer]:
        """The scorer of the target's batch, by the method's name.

        Raises:
            MethodUnavailableError: the batch is too small.
        """
        del learned
        backbone, batch = encode.backbone, target.batch
        settings = self.make_settings()
        chosen = range(min(settings.references, batch.count))
        try:
            references = References.take(batch.load(chosen), backbone.grid, settings)
        except BatchError as error:
            raise MethodUnavailableError(f"{target.category}: {error}") from error
        far, rare = [], []
        for part in _divide(min(settings.studied, batch.count)):
            tokens = batch.load(part)
            far.append(references.compare(tokens))  # (B, P)
            rare.append(references.looks.measure(tokens))  # (B, E, P)
        scale = study(references, torch.cat(far), torch.cat(rare), backbone.image_size)
        return {self.name: build_mutual(references, scale, backbone.image_size)}


def _divide(count: int) -> Iterator[range]:
    """Places from 0 on, a few at a time."""
    for first in range(0, count, STEP):
        yield range(first, min(first + STEP, count))


METHOD = Mutual
