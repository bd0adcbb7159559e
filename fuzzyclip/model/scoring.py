"""What a detector makes of an image's features: FuzzyCLIP's trained parts, or another method.

Both give the scorer of a category, with normal parts in mind where there are any.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from torch import Tensor

from fuzzyclip.baselines.nearest import Nearest, count_parts
from fuzzyclip.baselines.registry import build_method, read_settings
from fuzzyclip.clip.name_encoder import NameEncoder
from fuzzyclip.features.kinds import TOKENS, FeatureKind
from fuzzyclip.method import Scale
from fuzzyclip.method.fuzzyclip import FuzzyClip, TrainedParts
from fuzzyclip.method.interface import Learned, Method
from fuzzyclip.method.scorer import NormalMemory, Scorer
from fuzzyclip.model.card import NATURAL
from fuzzyclip.model.choices import ANY_CATEGORY
from fuzzyclip.model.score_kinds import SCORE_KINDS, ScoreKind

#: What a detector does where nothing else is asked for: compare with good parts.
PLAIN = Nearest.name


class MethodRefusedError(ValueError):
    """A method that can not be a detector, or not as it is set up; says what can be done."""


class Scoring(Protocol):
    """What turns features into scores, for any category."""

    @property
    def kind(self) -> FeatureKind:
        """What is read of an image."""

    @property
    def sigma(self) -> float:
        """Gaussian smoothing of maps in pixels."""

    @property
    def settings(self) -> dict[str, Any]:
        """All that decides results besides the frozen CLIP and what was learned, as plain data."""

    @property
    def reads_text(self) -> bool:
        """Whether a category's name plays a part."""

    def explain(self, score: ScoreKind) -> str:
        """What an image's score of a kind is, in words."""

    def explain_natural(self, memory: NormalMemory | None) -> str:
        """Where the threshold lies that nobody chose, in words."""

    def build_scorer(self, category: str, memory: NormalMemory | None) -> Scorer:
        """The scorer of a category.

        Raises:
            PromptTooLongError: the name does not fit a prompt.
            MethodRefusedError: good parts are needed, or have no part in it.
        """


@dataclass(frozen=True)
class OwnScoring:
    """FuzzyCLIP itself."""

    parts: TrainedParts
    kind: FeatureKind = TOKENS
    reads_text: bool = True

    @property
    def sigma(self) -> float:
        """Of `EfaTest`."""
        return self.parts.test.sigma

    @property
    def settings(self) -> dict[str, Any]:
        """How the trained parts are used, and the temperature of image scores."""
        temperature = self.parts.learned.facts["temperature"]
        return {"temperature": temperature, "test": self.parts.test.model_dump()}

    def explain(self, score: ScoreKind) -> str:
        """See `fuzzyclip.model.score_kinds`."""
        return SCORE_KINDS[score]

    def explain_natural(self, memory: NormalMemory | None) -> str:
        """Scores and maps are log-odds."""
        return NATURAL.note

    def build_scorer(self, category: str, memory: NormalMemory | None) -> Scorer:
        """The scorer of a category; a memory stands beside the text."""
        return replace(self.parts.build_scorer(category), memory=memory)


@dataclass(frozen=True)
class MethodScoring:
    """Another method of the harness, with what it has learned."""

    method: Method
    encode: NameEncoder
    learned: Learned

    @property
    def kind(self) -> FeatureKind:
        """The method's."""
        return self.method.kind

    @property
    def sigma(self) -> float:
        """The method's."""
        return self.method.sigma

    @property
    def reads_text(self) -> bool:
        """The method's."""
        return self.method.reads_text

    @property
    def settings(self) -> dict[str, Any]:
        """The method's name and settings."""
        return {"method": self.method.name, "settings": read_settings(self.method)}

    def explain(self, score: ScoreKind) -> str:
        """The method's own score, the map's, or both."""
        own = f"{self.method.title}'s own"
        words = {"class": own, "both": f"the mean of {own} and the map's highest value"}
        return words.get(score, SCORE_KINDS[score])

    def explain_natural(self, memory: NormalMemory | None) -> str:
        """Where the method draws the line."""
        return "not calibrated: where the method takes both for equally likely"

    def check(self) -> None:
        """Refuse, as `build_scorer` does, what could judge no category at all."""
        self.build_scorer(ANY_CATEGORY, None)

    def build_scorer(self, category: str, memory: NormalMemory | None) -> Scorer:
        """The scorer of a category; a memory stands beside the method's own log-odds.

        Raises:
            MethodRefusedError: see `Scoring`; or an image is judged by the others of a test set.
        """
        try:
            scorer = self.method.build(self.encode, category, self.learned)
        except (KeyError, RuntimeError) as error:
            reason = str(error).split("\n")[0]
            raise MethodRefusedError(
                f"what {self.method.title} has learned does not fit it ({reason}): package it again"
            ) from error
        if scorer.combine is not None:
            raise MethodRefusedError(
                f"{self.method.title} as published judges an image by the whole test set, which a "
                "detector does not have: package its mended form (fuzzyclip package --set "
                "as=mended)"
            )
        if memory is None:
            return scorer
        if scorer.scale is not Scale.LOG_ODDS or scorer.join is not None:
            raise MethodRefusedError(
                f"{self.method.title} gives no log-odds that good parts could be joined with: "
                f"leave them out, or compare with them alone (--method {PLAIN})"
            )
        return replace(scorer, memory=memory)


@dataclass(frozen=True)
class PartsScoring(MethodScoring):
    """Comparison with good parts alone: the memory is all there is, and score and map are one."""

    method: Nearest

    def explain(self, score: ScoreKind) -> str:
        """One and the same for every kind."""
        del score
        return "the highest value of the map: 0 at the threshold, -4 at a usual place"

    def explain_natural(self, memory: NormalMemory | None) -> str:
        """By what is usual among the good parts."""
        if memory is None or count_parts(memory) < 2:
            return "not calibrated, and one good part does not tell what is usual"
        cut = f"{self.method.cut:g} deviations above what is usual among the good parts"
        return f"not calibrated: {cut}"

    def check(self) -> None:
        """Nothing is known before there are good parts."""

    def build_scorer(self, category: str, memory: NormalMemory | None) -> Scorer:
        """The scorer of what is compared with good parts; a MethodRefusedError without any."""
        if memory is None:
            raise MethodRefusedError(
                f"nothing is known of {category!r}: give good parts to compare with "
                "(--reference), or compare the images with one another (--batch), or choose a "
                "method that reads text (--method)"
            )
        return self.method.build_from(memory)


def make_scoring(
    name: str,
    encode: NameEncoder,
    *,
    settings: Mapping[str, Any] | None = None,
    tensors: Mapping[str, Tensor] | None = None,
    facts: Mapping[str, Any] | None = None,
) -> MethodScoring:
    """A method of the harness, ready to judge single images.

    Args:
        name: of the method, as `fuzzyclip.baselines.registry.build_method` knows it.
        encode: names to text features; its backbone is the frozen CLIP.
        settings: those that differ from the defaults.
        tensors: what it has learned; None where it learns nothing.
        facts: plain data beside these.

    Raises:
        MethodRefusedError: it can not be a detector, needs a training, or text that is not there.
        ValueError: there is no such method or setting.
    """
    method = build_method(name, settings)
    if isinstance(method, FuzzyClip):
        raise MethodRefusedError(
            "FuzzyCLIP itself is packaged by the pipeline: models/<auxiliary set>/fuzzyclip"
        )
    if getattr(method, "uses_batch", False):
        raise MethodRefusedError(
            f"{method.title} compares the images of a batch: predict --batch does that with any "
            "model or backbone"
        )
    if not method.kind.stored:
        raise MethodRefusedError(
            f"{method.title} looks at images through further models, which no detector holds: it "
            "runs in the pipeline alone"
        )
    if method.trains and tensors is None:
        raise MethodRefusedError(
            f"{method.title} has a training: give what `dvc repro baselines` made of it, "
            f"baselines/{name}/<auxiliary set>.safetensors (fuzzyclip package --learned)"
        )
    if method.reads_text:
        encode.backbone.require_text()
    known = {
        key: tensor.float() if tensor.is_floating_point() else tensor
        for key, tensor in (tensors or {}).items()
    }
    learned = Learned(known, dict(facts or {}))
    if isinstance(method, Nearest):
        return PartsScoring(method, encode, learned)
    return MethodScoring(method, encode, learned)
