"""FuzzyCLIP for use: images in, anomaly maps, scores and decisions out.

    detector = FuzzyCLIP.load("models/visa/fuzzyclip")
    prediction = detector("part.png", category="metal bracket")
    prediction.label, prediction.image_score, prediction.anomaly_map

The other methods of the harness are used in the same way: `FuzzyCLIP.build` makes a detector of one
and a frozen backbone, `load` reads what was packaged.

Shapes: H rows, W columns of an image as it was given, B images of a batch, S model's image size.
"""

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Self, overload

import pandas as pd
import torch
from torch import Tensor

from fuzzyclip.baselines.mutual.scoring import MutualSettings
from fuzzyclip.baselines.nearest import TiledMemory, are_copies
from fuzzyclip.clip.backbone import Backbone
from fuzzyclip.clip.encoding import encode_text, preprocess
from fuzzyclip.clip.name_encoder import NameEncoder
from fuzzyclip.clip.prompts import PromptTooLongError
from fuzzyclip.clip.text_cache import TextCache
from fuzzyclip.engines.choice import EngineError, choose_engine
from fuzzyclip.features.kinds import TOKENS
from fuzzyclip.method import OWN
from fuzzyclip.method.fuzzyclip import TrainedParts
from fuzzyclip.method.interface import Learned
from fuzzyclip.method.scorer import NormalMemory, Scorer, remember
from fuzzyclip.model.batch import VALUES, BatchModel, check_batch_alone, study_batch
from fuzzyclip.model.card import (
    Card,
    DataCard,
    MethodCard,
    ModelError,
    Threshold,
    Tiling,
    read_card,
)
from fuzzyclip.model.choices import (
    ANY_CATEGORY,
    offer_threshold,
    pick_category,
    pick_thresholds,
)
from fuzzyclip.model.directory import (
    EFA,
    LEARNED,
    RPL,
    describe_backbone,
    find_folder,
    list_versions,
    load_own_backbone,
    read_parts,
    write_method,
)
from fuzzyclip.model.inference import (
    CategoryModel,
    Finding,
    ImageLike,
    OneOrMore,
    Opener,
    detect_images,
    is_image,
    list_given,
    name_image,
)
from fuzzyclip.model.prediction import Prediction, Unreadable, resize_map
from fuzzyclip.model.score_kinds import DEFAULT, ScoreKind, check_kind
from fuzzyclip.model.scoring import PLAIN, MethodScoring, OwnScoring, Scoring, make_scoring
from fuzzyclip.model.signing import check_signature
from fuzzyclip.model.storing import read_memories
from fuzzyclip.model.tiles import choose_tiling, cut_tiles, detect_tiled
from fuzzyclip.utils.devices import check_device
from fuzzyclip.utils.files import show_name
from fuzzyclip.utils.ranges import COUNT, FEW
from fuzzyclip.utils.settings import Runtime, TextSettings

log = logging.getLogger(__name__)

#: Categories whose text features are kept; a server may be asked for any number of them.
KEPT_CATEGORIES = 64
#: Characters of a category that an error repeats.
LONGEST_SHOWN = 40
#: Settings that a method's cards of before lack, with what they stood for: calibrated thresholds
#: are of those scores.
LACKING: Mapping[str, Mapping[str, Any]] = {PLAIN: {"own_image": 0.0}}


class FuzzyCLIP:
    """A loaded model. It does not change: what alters it gives a new one."""

    def __init__(
        self,
        card: Card,
        backbone: Backbone,
        scoring: Scoring,
        memories: dict[str, NormalMemory],
    ) -> None:
        """Put together what `load` reads; memories are by category."""
        self.card, self.backbone, self.memories = card, backbone, memories
        self.scoring = scoring
        self.build_scorer = lru_cache(maxsize=KEPT_CATEGORIES)(self._build_scorer)

    def __repr__(self) -> str:
        """One line: name, training, device and what is calibrated."""
        known = ", ".join(self.card.calibrations) or "nothing"
        data, method = self.card.data, self.card.method
        training = "without training" if data is None else f"trained on {data.auxiliary}"
        named = f"{self.card.name!r}" if method is None else f"{self.card.name!r}: {method.name}"
        return f"<FuzzyCLIP {named}, {training}, on {self.backbone.device}; calibrated: {known}>"

    def __reduce__(self) -> tuple[Any, ...]:
        """For pickling, to processes that share the work: all but the categories that are kept."""
        return type(self), (self.card, self.backbone, self.scoring, self.memories)

    @classmethod
    def build(
        cls,
        backbone: Backbone,
        method: str = PLAIN,
        *,
        settings: Mapping[str, Any] | None = None,
        text: TextSettings | None = None,
        tensors: Mapping[str, Tensor] | None = None,
        facts: Mapping[str, Any] | None = None,
        data: DataCard | None = None,
        text_cache: Path | None = None,
        name: str | None = None,
        fast: str | None = None,
    ) -> Self:
        """A detector of a method and a frozen backbone, which no directory holds yet; see `save`.

        Args:
            backbone: of `fuzzyclip.clip.backbone.load_backbone`.
            method: of the harness; by default images are compared with the good parts that
                `remember` or `detect` is given, and with nothing else.
            settings: of the method, those that differ from the defaults.
            text: how names become prompts, where the method reads any.
            tensors, facts: what it has learned, where it has a training.
            data: what it was trained on.
            text_cache: as `load` takes it.
            name: of the model; None takes the method's.
            fast: what the backbone's fast setting changed, see `fuzzyclip.towers.fast`.

        Raises:
            MethodRefusedError: the method can not be a detector, or not so; says what can be done.
            NoTextError: it reads text, and the backbone does not.
            ValueError: there is no such method or setting.
        """
        chosen = text or TextSettings()
        encode = _bind_text(backbone, chosen, text_cache)
        scoring = make_scoring(method, encode, settings=settings, tensors=tensors, facts=facts)
        card = Card(
            name=name or method,
            versions=list_versions(),
            method=_describe_method(scoring, data),
            backbone=describe_backbone(backbone),
            text=chosen,
            files={},
            fast=fast,
        )
        return cls(card, backbone, scoring, {})

    def save(self, out: Path, *, copy: bool = True) -> Card:
        """Write a detector of `build` as a directory that `load` reads.

        What was remembered or calibrated is not in it: `fuzzyclip calibrate` adds that.

        Args:
            out: the directory; must not exist yet or be empty.
            copy: whether the weights' file goes into it.

        Raises:
            ModelError: `out` is taken, or this is FuzzyCLIP itself, which the pipeline packages.
            MethodRefusedError: no category could be judged; says what can be done.
        """
        if not isinstance(self.scoring, MethodScoring) or self.card.method is None:
            raise ModelError("FuzzyCLIP's own parts are packaged by the pipeline")
        self.scoring.check()
        return write_method(
            out,
            name=self.card.name,
            backbone=self.backbone,
            copy=copy,
            method=self.card.method,
            tensors=self.scoring.learned.tensors,
            text=self.card.text,
            fast=self.card.fast,
        )

    @classmethod
    def load(
        cls,
        source: str | Path,
        *,
        device: str = "auto",
        weights: Path | None = None,
        text_cache: Path | None = None,
        verify_key: Path | None = None,
        signature: Path | None = None,
        runtime: Runtime = "torch",
    ) -> Self:
        """Load a model.

        Args:
            source: its directory, or an address of MLflow (`models:/...`, `runs:/...`).
            device: `auto` (CUDA, then MPS, then CPU), or torch's own name.
            weights: file of the frozen CLIP's weights, where the model does not hold them.
            text_cache: folder that keeps text features from one process to the next; None for none.
            verify_key: public key whose owner must have signed the directory; nothing of it is
                parsed before that is sure. None asks for no signature.
            signature: its file, where it does not lie in the directory as `model.sig`.
            runtime: what runs the image tower on a CPU, see `run_by`.

        Raises:
            ModelError: the directory is missing, broken, of another version, or not as signed.
            WeightsError: the weights are missing or others.
            ValueError: the device is not there.
        """
        check_device(device)
        folder = find_folder(source)
        check_signature(folder, verify_key, signature)
        card = read_card(folder)
        tensors = read_parts(folder, card)
        backbone = load_own_backbone(folder, card, weights=weights, device=device)
        names = _bind_text(backbone, card.text, text_cache)
        memories = read_memories(folder, card, backbone)
        detector = cls(card, backbone, _read_scoring(folder, card, tensors, names), memories)
        return detector.run_by(runtime)

    def run_by(self, runtime: Runtime, images: int | None = None) -> Self:
        """This model with its image tower run by PyTorch, ONNX Runtime or OpenVINO.

        Features and scores are the same but for last digits.

        Args:
            runtime: `torch`, `onnx`, `openvino`, or `auto`: the fastest that gives the same
                features, as was measured on this machine.
            images: how many are ahead; with `auto` and enough of them it is measured now.

        Raises:
            EngineError: the tower, or the method, can not run so; says why.
            MissingExtraError: the runtime is not installed.
        """
        if self.scoring.kind != TOKENS and runtime != "torch":  # it looks into PyTorch's tower
            if runtime == "auto":
                return self
            raise EngineError(
                f"runtime {runtime}: the method {self.card.name} reads more than the image tower's "
                "tokens; take auto or torch"
            )
        backbone = choose_engine(self.backbone, runtime, images)
        if backbone is self.backbone:
            return self
        return type(self)(self.card, backbone, self.scoring, self.memories)

    def evaluate(
        self,
        folder: str | Path,
        *,
        layout: str = "auto",
        workers: int = 1,
        score: ScoreKind | None = None,
    ) -> pd.DataFrame:
        """Metrics on a folder of labelled images, each category looked at by its own name.

        Args:
            folder: `good` and a folder a defect, or as MVTec AD has them; masks in `ground_truth`.
            layout: `auto`, `good_bad` or `mvtec_like`.
            score: what decides an image, as `detect` takes it.

        Returns:
            A line a category: numbers of images, metrics in percent, absent where undefined.

        Raises:
            DatasetError: the folder has no such layout, or images that can not be used.
            ValueError: there is no such score.
        """
        from fuzzyclip.evaluation.folder import evaluate_folder

        if score is not None:
            check_kind(score)  # before all images are looked at
        return evaluate_folder(
            folder,
            lambda category: self.build_category_model(category, score).judging,
            self.backbone,
            name=OWN if self.card.method is None else self.card.method.name,
            kind=self.scoring.kind,
            sigma=self.scoring.sigma,
            layout=layout,
            workers=workers,
        )

    @overload
    def __call__(  # type: ignore[overload-overlap]  # a string is a sequence of strings
        self, images: ImageLike, category: str | None = ..., *, batch_size: int = ...,
        tile: int | None = ..., overlap: int | None = ..., references: OneOrMore = ...,
        tiling: Tiling | None = ..., threshold: float | None = ...,
        score: ScoreKind | None = ..., opener: Opener | None = ...,
        batch: BatchModel | None = ...,
    ) -> Prediction: ...  # fmt: skip
    @overload
    def __call__(
        self, images: Sequence[ImageLike], category: str | None = ..., *, batch_size: int = ...,
        tile: int | None = ..., overlap: int | None = ..., references: OneOrMore = ...,
        tiling: Tiling | None = ..., threshold: float | None = ...,
        score: ScoreKind | None = ..., opener: Opener | None = ...,
        batch: BatchModel | None = ...,
    ) -> list[Prediction]: ...  # fmt: skip
    def __call__(
        self,
        images: OneOrMore,
        category: str | None = None,
        *,
        batch_size: int = 8,
        tile: int | None = None,
        overlap: int | None = None,
        references: OneOrMore = (),
        tiling: Tiling | None = None,
        threshold: float | None = None,
        score: ScoreKind | None = None,
        opener: Opener | None = None,
        batch: BatchModel | None = None,
    ) -> Prediction | list[Prediction]:
        """The prediction of one image, or those of several, with their pictures.

        Arguments and errors are those of `detect`.

        Raises:
            OSError: an image can not be read; names it. `detect` tells it and goes on.
        """
        predictions = []
        for prediction in self.detect(
            list_given(images), category, batch_size=batch_size, tile=tile, overlap=overlap,
            references=references, tiling=tiling, threshold=threshold, score=score,
            opener=opener, batch=batch, keep_pictures=True,
        ):  # fmt: skip
            if isinstance(prediction, Unreadable):
                raise OSError(prediction.error)
            predictions.append(prediction)
        return predictions[0] if is_image(images) else predictions

    def detect(
        self,
        images: Iterable[ImageLike],
        category: str | None = None,
        *,
        batch_size: int = 8,
        workers: int = 1,
        tile: int | None = None,
        overlap: int | None = None,
        references: OneOrMore = (),
        tiling: Tiling | None = None,
        threshold: float | None = None,
        score: ScoreKind | None = None,
        opener: Opener | None = None,
        batch: BatchModel | None = None,
        keep_pictures: bool = False,
    ) -> Iterator[Prediction | Unreadable]:
        """Predictions of images, one after the other, however many there are.

        Args:
            images: files, their bytes, open files, PIL images or arrays. A PIL image is turned as
                its EXIF orientation says, as its file would be.
            category: what they show, in words, as it stands in the prompts; see `choose_category`.
            batch_size: images, or tiles, in a pass of the frozen CLIP.
            workers: threads that read and decode.
            tile, overlap: look at overlapping tiles of this side in pixels instead of the whole
                image squashed to a square; neighbours share `overlap`, None for a quarter.
            references: normal parts to compare with, as `remember` takes them; they are encoded in
                each call.
            tiling: `tile` and `overlap` as one.
            threshold: of image scores, in place of the calibrated one.
            score: what decides an image, `class`, `map` or `both`; see `choose_score`.
            opener: limits of what is opened, references too.
            batch: what `study` gave of the batch that the images are of: they are compared with
                one another, and neither text nor training nor calibration takes part.
            keep_pictures: whether predictions have the picture; two batches of them are then held.

        Raises:
            ValueError: no category, one that was not calibrated where others were, a name that does
                not fit a prompt, a threshold that was calibrated under another way of looking or
                for another score, or a number out of range; or what does not go with a batch.
        """
        COUNT.check("detect", batch_size=batch_size)
        FEW.check("detect", workers=workers)
        if is_image(images):
            raise ValueError("detect takes several images: a list of one, or call the detector")
        given = list_given(references)
        if batch is not None:
            check_batch_alone(tile or overlap or tiling, given, score)
            chosen = self.choose_category(category, required=False)
            findings = detect_images(
                images, opener or Opener(), batch, batch_size=batch_size, workers=workers,
                keep_pictures=keep_pictures,
            )  # fmt: skip
            limits = batch.choose_thresholds(threshold)
            return (_conclude(finding, chosen, "", *limits, values=VALUES) for finding in findings)
        with offer_threshold():
            chosen = self.choose_category(category, required=threshold is None)
        if tile is not None or overlap is not None:
            if tiling is not None:
                raise ValueError("give tile and overlap, or tiling, not both")
            tiling = choose_tiling(tile, overlap)
        own = self.remember(given, chosen, opener, tiling) if given else self
        with offer_threshold():
            thresholds = own.choose_thresholds(chosen, tiling, threshold, score)
        category_model, open_image = own.build_category_model(chosen, score), opener or Opener()
        if tiling is None:
            findings = detect_images(
                images, open_image, category_model, batch_size=batch_size, workers=workers,
                keep_pictures=keep_pictures,
            )  # fmt: skip
        else:
            findings = (
                detect_tiled(image, open_image, category_model, tiling, batch_size, keep_pictures)
                for image in images
            )
        prompt = category_model.scorer.prompt
        return (_conclude(finding, chosen, prompt, *thresholds) for finding in findings)

    def choose_category(self, category: str | None = None, *, required: bool = True) -> str:
        """The category that is meant: a known one, whatever its upper case and spaces are.

        Known are those that were calibrated or remembered. Without a name it is the only calibrated
        one, or `ANY_CATEGORY` where none is.

        Args:
            category: as it was given.
            required: whether it must be calibrated where others are: scores of one mean nothing
                without its threshold. Not so where a threshold is given or looked for.

        Raises:
            ValueError: it is not calibrated, or there are several and none is named; names them.
        """
        return pick_category(category, self.card.calibrations, self.memories, required)

    def choose_score(self, category: str, score: ScoreKind | None = None) -> ScoreKind:
        """What decides an image of a category: what is asked for, else as calibrated, else `class`.

        Raises:
            ValueError: there is no such score; says which there are.
        """
        if score is not None:
            return check_kind(score)
        own = self.card.calibrations.get(category)
        return own.score if own else DEFAULT

    def choose_thresholds(
        self,
        category: str,
        tiling: Tiling | None = None,
        threshold: float | None = None,
        score: ScoreKind | None = None,
    ) -> tuple[Threshold, Threshold]:
        """Thresholds of image scores, where `threshold` replaces the calibrated one, and of pixels.

        Raises:
            ValueError: those of the category were chosen under another way of looking, or for
                another score.
        """
        memory = self.memories.get(category)
        chosen = pick_thresholds(
            category,
            self.card.calibrations.get(category),
            tiling=tiling,
            score=self.choose_score(category, score),
            memory=memory,
            given=threshold,
        )
        note = {"note": self.scoring.explain_natural(memory)}
        image, pixel = (
            each.model_copy(update=note) if each.method == "natural" else each for each in chosen
        )
        return image, pixel

    def remember(
        self,
        images: OneOrMore,
        category: str,
        opener: Opener | None = None,
        tiling: Tiling | None = None,
    ) -> "FuzzyCLIP":
        """This model with normal parts of a category in mind; no longer zero-shot there.

        They must be opened, and looked at by tiles or not, as those that they are compared with,
        see `detect`. Copies of one part count once, and the log says so.

        Raises:
            OSError: an image can not be read.
            ValueError: no images.
        """
        open_image, encode = opener or Opener(), self.scoring.kind.encode
        parts: list[Tensor] = []
        for image in list_given(images):
            views = cut_tiles(open_image(image).picture, tiling)
            pixels = [preprocess(view, self.backbone)[None] for view in views]
            part = torch.cat([encode(self.backbone, each)[1] for each in pixels])  # (tiles, ...)
            if any(are_copies(part, known) for known in parts):
                log.warning("%s shows what another good part does: not counted", name_image(image))
            else:
                parts.append(part)
        stacked = torch.cat(parts) if parts else torch.empty(0)
        memory = remember(stacked, self.backbone.grid, self.backbone.image_size)
        if tiling is not None:
            memory = TiledMemory(
                memory.tokens, memory.grid, memory.image_size, tuple(map(len, parts))
            )
        known = self.memories | {category: memory}
        return FuzzyCLIP(self.card, self.backbone, self.scoring, known)

    def study(
        self,
        images: Sequence[ImageLike],
        *,
        settings: MutualSettings | None = None,
        seed: int = 0,
        opener: Opener | None = None,
        batch_size: int = 8,
        workers: int = 1,
    ) -> BatchModel:
        """Look at some of a batch's images, to judge all of them by one another.

        `detect(images, batch=...)` takes the result, whose `scale.warning` says what a user should
        know. Arguments and errors are those of `fuzzyclip.model.batch.study_batch`.
        """
        return study_batch(
            images, self.backbone, settings=settings, seed=seed, opener=opener,
            batch_size=batch_size, workers=workers,
        )  # fmt: skip

    def list_references(self, category: str) -> list[str]:
        """Names of the stored reference images of a category."""
        entry = self.card.memories.get(category)
        return entry.images if entry else []

    def build_category_model(self, category: str, score: ScoreKind | None = None) -> CategoryModel:
        """What turns pixels into maps and scores of a category; `score` as `choose_score` has it.

        Raises:
            PromptTooLongError: the name does not fit a prompt.
            ValueError: no name, or no such score.
        """
        kind, scoring = self.choose_score(category, score), self.scoring
        scorer = self.build_scorer(category)
        return CategoryModel(self.backbone, scorer, scoring.sigma, kind, scoring.kind)

    def _build_scorer(self, category: str) -> Scorer:
        """The scorer of a category, whose name must fit a prompt; kept for the next call."""
        if not category.strip():
            raise ValueError(f"category: say what the image shows, or {ANY_CATEGORY!r}")
        try:
            return self.scoring.build_scorer(category, self.memories.get(category))
        except PromptTooLongError as error:
            shown = category if len(category) <= LONGEST_SHOWN else f"{category[:LONGEST_SHOWN]}..."
            raise PromptTooLongError(
                f"category {shown!r} is too long for a prompt; say in a few words what the image "
                "shows"
            ) from error


def _bind_text(backbone: Backbone, text: TextSettings, cache: Path | None) -> NameEncoder:
    """Names to text features, which a folder may keep."""
    encode = TextCache(cache, backbone).encode if cache else partial(encode_text, backbone)
    return NameEncoder(backbone, encode, text)


def _describe_method(scoring: MethodScoring, data: DataCard | None) -> MethodCard:
    """A method as a card has it: plain data, in which lists stand for tuples."""
    plain = json.loads(json.dumps({**scoring.settings, "facts": dict(scoring.learned.facts)}))
    name, settings, facts = plain["method"], plain["settings"], plain["facts"]
    return MethodCard(name=name, settings=settings, facts=facts, data=data)


def _read_scoring(
    folder: Path, card: Card, tensors: Mapping[str, dict[str, Tensor]], names: NameEncoder
) -> Scoring:
    """What the tensors of a model's directory are, by its card.

    Raises:
        ModelError: they are of no method that this version can make a detector of.
    """
    if card.method is not None:
        own = card.method
        try:
            return make_scoring(
                own.name,
                names,
                settings={**LACKING.get(own.name, {}), **own.settings},
                tensors=tensors.get(LEARNED),
                facts=own.facts,
            )
        except ValueError as error:
            raise ModelError(f"{folder}: {error}") from error
    if card.training is None or card.test is None:  # which the card itself refuses
        raise ModelError(f"{folder}: neither FuzzyCLIP's parts nor another method")
    learned = Learned(
        tensors[EFA] | {"text_embed": tensors[RPL]["text_embed"]},
        {"clusters": card.clusters, "temperature": card.training.rpl["temperature"]},
    )
    return OwnScoring(TrainedParts(names, learned, card.test))


def _conclude(
    finding: Finding[ImageLike],
    category: str,
    prompt: str,
    threshold: Threshold,
    pixel_threshold: Threshold,
    values: str = "",
) -> Prediction | Unreadable:
    """What is said of an image, by the thresholds; `values` as `Prediction` has it."""
    name = name_image(finding.item)
    if finding.map is None or finding.size is None or finding.score is None:
        return Unreadable(name, show_name(finding.error))
    return Prediction(
        name=name,
        category=category,
        prompt=prompt,
        anomaly_map=resize_map(finding.map, finding.size),
        image_score=finding.score,
        threshold=threshold,
        pixel_threshold=pixel_threshold,
        sha256=finding.sha256,
        picture=finding.picture,
        values=values,
    )
