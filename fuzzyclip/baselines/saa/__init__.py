"""SAA+: boxes that words find, masks of what stands in them, weighed by how much they stick out.

Training-free (Cao et al., "Segment Any Anomaly without Training via Hybrid Prompt Regularization",
arXiv 2305.10724). GroundingDINO looks for defects by captions, SAM turns its boxes into masks, and
each mask's score grows with the saliency inside it. CLIP is not used: the images are taken from its
input, S x S pixels, where the published code has them at full size, so a backbone of large images
helps.

Knowledge of a category enters by `saa.categories`: words for its defects, how large they get and
how many there may be. The published numbers rest on such tables, written by hand for MVTec AD and
VisA; that is less than zero-shot.

Shapes: B images, n boxes or masks, S image size.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from fuzzyclip.baselines.saa.categories import CATEGORIES
from fuzzyclip.baselines.saa.models import CHUNK, Encoded, Models, load_models
from fuzzyclip.baselines.saa.parts import (
    combine_masks,
    compute_features,
    compute_group_saliency,
    compute_self_saliency,
    measure_boxes,
    rescore,
    select_boxes,
)
from fuzzyclip.baselines.saa.prompts import CategoryPrompts, Wording, read_prompts, word_prompts
from fuzzyclip.baselines.saa.tiny import build_tiny_models
from fuzzyclip.baselines.shared.forms import TwoForms
from fuzzyclip.clip.backbone import Backbone
from fuzzyclip.clip.name_encoder import NameEncoder
from fuzzyclip.features.kinds import FeatureKind
from fuzzyclip.method import Scale
from fuzzyclip.method.interface import Learned, MethodUnavailableError, Untrained
from fuzzyclip.method.scorer import Scorer
from fuzzyclip.utils.prefetch import send
from fuzzyclip.utils.ranges import COUNT, FACTOR, SIDE, SIGMA, Range

#: Thresholds at most: nothing is more certain than certain, and what is found lies above them.
SUREST = 0.999


@torch.no_grad()
def keep_pixels(backbone: Backbone, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """The image itself, for methods that look at it with models of their own.

    Nothing is computed, so the kind is not stored: images are read anew instead. The backbone says
    how the pixels (B, 3, S, S) were normalised; its towers are not run.

    Returns:
        Class features (B, D) of zeros, as there is none (zeros stay zeros when normalised), and one
        level of three rows, red, green and blue, of all pixels row by row, (B, 1, 3, S * S), from 0
        to 1. Both float32, on the backbone's device.
    """
    sent = send(pixels, backbone.device).float()
    mean, std = (sent.new_tensor(values).view(3, 1, 1) for values in (backbone.mean, backbone.std))
    image = (sent * std + mean).clamp(0, 1)  # rounding leaves 0..1 by a last digit
    return sent.new_zeros(len(sent), backbone.embed_dim), image.flatten(2)[:, None]


#: What SAA+ reads of an image: its pixels, without a pass of the tower.
PIXELS = FeatureKind("pixels", keep_pixels, stored=False)


@dataclass(frozen=True)
class Saa(TwoForms, Untrained):
    """SAA+ with its settings.

    The published form has two faults. Underscores of a category stay in its captions and most times
    a comma ends that of the object; the tokenizer parts `metal_nut` into three, so that no phrase
    ever equals the name and boxes of the object itself are not dropped. And SAM and the saliency
    network, both trained on RGB, are given OpenCV's BGR (the detector is not). The mended form
    writes names as the tokenizer does, and gives RGB to all.

    Attributes:
        detector_folder: GroundingDINO's weights and processor, see `saa.models.DETECTOR`.
        segmenter_folder: SAM's, see `saa.models.SEGMENTER`.
        saliency_weights: file of WideResNet-50-2's ImageNet weights.
        tiny_seed: seed of tiny random models in place of the three; they find nothing, and show
            that everything runs.
        prompts: fields of `CategoryPrompts` by category, in place of `saa.categories.CATEGORIES`,
            the published ones; names with blanks or underscores. Categories that are not in it have
            the defaults.
        box_threshold: a box stays if a token of the caption answers by more than this.
        text_threshold: tokens above make up a box's phrase.
        saliency_side: pixels to which an image of one object is resized for saliency.
        group_side: pixels to which one of several objects is resized.
        largest: distances that count for the saliency of one object.
        strength: on saliency, in the exponent of a mask's weight.
        sigma: Gaussian smoothing in pixels; none is published.
    """

    detector_folder: str | None = None
    segmenter_folder: str | None = None
    saliency_weights: str | None = None
    tiny_seed: int | None = None
    prompts: Mapping[str, CategoryPrompts | Mapping[str, Any]] | None = None
    box_threshold: float = 0.1
    text_threshold: float = 0.1
    saliency_side: int = 256
    group_side: int = 1024
    largest: int = 400
    strength: float = 3.0
    sigma: float = 0.0

    name: ClassVar[str] = "saa"
    title: ClassVar[str] = "SAA+"
    kind: ClassVar[FeatureKind] = PIXELS

    def __post_init__(self) -> None:
        self.check_form(self.name)
        Range(0, SUREST).check(
            self.name, box_threshold=self.box_threshold, text_threshold=self.text_threshold
        )
        Range(16, SIDE.most).check(
            self.name, saliency_side=self.saliency_side, group_side=self.group_side
        )
        COUNT.check(self.name, largest=self.largest)
        FACTOR.check(self.name, strength=self.strength)
        SIGMA.check(self.name, sigma=self.sigma)
        self.read_categories()  # refuses unknown fields
        if self.tiny_seed is None:
            return
        if type(self.tiny_seed) is not int or not 0 <= self.tiny_seed < 2**63:
            raise ValueError(
                f"{self.name}: tiny_seed must be a whole number of 0 or more, not "
                f"{self.tiny_seed!r}"
            )
        if given := self._list_models():
            raise ValueError(
                f"{self.name}: tiny_seed puts random models in place of all three: leave out "
                f"{' and '.join(given)}, or tiny_seed"
            )

    def read_categories(self) -> dict[str, CategoryPrompts]:
        """What is known of categories, by names with blanks."""
        return CATEGORIES if self.prompts is None else read_prompts(self.prompts)

    def _list_models(self) -> list[str]:
        """Settings that say where a model lies and are set."""
        names = ("detector_folder", "segmenter_folder", "saliency_weights")
        return [name for name in names if getattr(self, name)]

    @property
    def random_weights(self) -> bool:
        """True with models that have learned nothing."""
        return self.tiny_seed is not None

    @property
    def note(self) -> str:
        """Text that tables give with its results; empty but with tiny models."""
        if self.tiny_seed is None:
            return ""
        return "tiny random models in place of its own; it runs, and its numbers say nothing"

    def build(self, encode: NameEncoder, category: str, learned: Learned) -> Scorer:
        """The scorer of one category; an image's score is its map's largest value.

        Raises:
            MethodUnavailableError: neither models nor `tiny_seed` are set.
            SaaModelError: a model is missing or of another kind, or `transformers` is missing.
        """
        del learned
        size = encode.backbone.image_size
        known = self.read_categories().get(category.replace("_", " "), CategoryPrompts())
        wording = word_prompts(category, known, self.published)
        models = self._take_models(encode.backbone.device)

        def compute_map(patch_tokens: Tensor, image_embed: Tensor) -> Tensor:
            del image_embed
            if patch_tokens.shape[1:] != (1, 3, size * size):
                raise ValueError(
                    f"{self.title} reads images of kind {PIXELS.name!r}, (B, 1, 3, {size * size}), "
                    f"not features of shape {tuple(patch_tokens.shape)}"
                )
            maps = patch_tokens.new_zeros(len(patch_tokens), size, size)
            for row, image in enumerate(patch_tokens.reshape(-1, 3, size, size)):
                maps[row] = _Look(self, models, known, wording, image).compute_map()
            return maps

        prompt = wording.name if self.tiny_seed is None else f"random tiny models: {wording.name}"
        return Scorer(
            prompt, compute_map, lambda image_embed, maps: maps.amax(dim=(1, 2)), Scale.PLAIN
        )

    def _take_models(self, device: torch.device) -> Models:
        """The tiny ones, or those on disk."""
        if self.tiny_seed is not None:
            return build_tiny_models(self.tiny_seed, device)
        if not self._list_models():
            raise MethodUnavailableError(
                f"{self.title} needs GroundingDINO, SAM and a WideResNet from local folders: "
                f"methods.{self.name}.detector_folder, segmenter_folder and saliency_weights; how "
                "to get them: docs/methods.md"
            )
        return load_models(
            self.detector_folder, self.segmenter_folder, self.saliency_weights, device
        )


@dataclass(frozen=True)
class _Look:
    """One image, (3, S, S) from 0 to 1, and all that it is looked at with."""

    settings: Saa
    models: Models
    known: CategoryPrompts
    wording: Wording
    image: Tensor

    @torch.no_grad()
    def compute_map(self) -> Tensor:
        """The map (S, S); all 0 where no box is left."""
        known = self.known
        objects, _ = self._find([(self.wording.thing, "")], 1 / known.objects)
        largest = measure_boxes(objects).max().item() if len(objects) else 1.0
        places, scores = self._find(self.wording.defects, largest * known.area)
        masks = self.image.new_zeros(0, *self.image.shape[1:], dtype=torch.bool)
        if not len(places):
            return combine_masks(masks, scores)
        saliency = self._compute_saliency(objects)
        weighed = scores[:0]
        parts = self.models.segmenter.refine(self._encoded, places)
        for refined, part in zip(parts, torch.split(scores, CHUNK), strict=True):
            joined = torch.cat([weighed, rescore(refined, part, saliency, self.settings.strength)])
            best = joined.argsort(descending=True, stable=True)[: known.masks]
            masks, weighed = torch.cat([masks, refined])[best], joined[best]
        return combine_masks(masks, weighed)

    @property
    def seen(self) -> Tensor:
        """The image as SAM and the saliency network get it."""
        return self.image.flip(0) if self.settings.published else self.image

    @cached_property
    def _encoded(self) -> Encoded:
        """The image as SAM encodes it; it goes through its large tower once."""
        return self.models.segmenter.encode(self.seen)

    def _find(self, captions: Sequence[tuple[str, str]], limit: float) -> tuple[Tensor, Tensor]:
        """Places (n, 4) and scores (n,) of all captions' boxes that `select_boxes` leaves."""
        settings, detector = self.settings, self.models.detector
        candidates = detector.find(
            self.image,
            [caption for caption, _ in captions],
            settings.box_threshold,
            settings.text_threshold,
        )
        kept = []
        for boxes, (_, name) in zip(candidates, captions, strict=True):
            object_name = name if settings.published else detector.respell(name)
            kept.append(select_boxes(boxes, limit, object_name))
        places, scores = zip(*kept, strict=True)
        return torch.cat(places), torch.cat(scores)

    def _compute_saliency(self, objects: Tensor) -> Tensor:
        """Saliency (S, S), 0 to 1, given the objects' boxes (n, 4).

        Of fewer than two objects the image is compared with itself; the published code fails there.
        """
        settings, size = self.settings, self.image.shape[1:]
        saliency = None
        if self.known.objects > 1 and len(objects) > 1:
            features = compute_features(self.models.network, self.seen, settings.group_side)
            masks = torch.cat(
                [
                    F.interpolate(part[None].float(), size=features.shape[1:])[0] > 0
                    for part in self.models.segmenter.refine(self._encoded, objects)
                ]
            )  # (n, h, w)
            masks = masks[masks.any(dim=(1, 2))]
            if len(masks) > 1:
                saliency = compute_group_saliency(features, masks)
        if saliency is None:
            features = compute_features(self.models.network, self.seen, settings.saliency_side)
            saliency = compute_self_saliency(features, settings.largest)
        return F.interpolate(saliency[None, None], size=size, mode="bilinear")[0, 0]


METHOD = Saa
