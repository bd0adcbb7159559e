"""CLIP Surgery: V-V tokens against text, without what normal and anomalous have in common.

Training-free (Li et al., "CLIP Surgery for better explainability with enhancement in
open-vocabulary tasks", arXiv 2304.05653). The features that all texts share answer everywhere in an
image; feature surgery subtracts them. The text is the project's own prompt ensemble, as the
original knows no anomalies.

Shapes: B images, L levels, P patches, D embedding width, S image size.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fuzzyclip.baselines.shared.forms import TwoForms
from fuzzyclip.baselines.shared.vv import (
    DPAM_DEPTH,
    SURGERY_LEVEL,
    compute_surgery,
    make_vv_kind,
    read_class,
    upsample_patches,
)
from fuzzyclip.clip.name_encoder import NameEncoder
from fuzzyclip.features.kinds import FeatureKind
from fuzzyclip.method import Scale
from fuzzyclip.method.interface import Learned, Untrained
from fuzzyclip.method.scorer import Scorer, compare_class
from fuzzyclip.utils.ranges import FACTOR, SIGMA


@dataclass(frozen=True)
class ClipSurgery(TwoForms, Untrained):
    """CLIP Surgery with its settings.

    The published form stretches every map to 0..1 by its own extremes, as the published
    demonstrations do: every image has a patch of 1, also a normal one, and no threshold means the
    same in two images. The mended one keeps one scale.

    Attributes:
        factor: on the class feature's cosines before the softmax that weighs the two texts, 2 as
            published.
        sigma: Gaussian smoothing in pixels; none is published.
        taps: of AnomalyCLIP's stream in the shared pass, see `make_vv_kind`. They change nothing
            here; give AnomalyCLIP's, so that images go through the tower once for both.
    """

    factor: float = 2.0
    sigma: float = 0.0
    taps: tuple[int, ...] = (DPAM_DEPTH,)

    name: ClassVar[str] = "clip_surgery"
    title: ClassVar[str] = "CLIP Surgery"

    def __post_init__(self) -> None:
        self.check_form(self.name)
        FACTOR.check(self.name, factor=self.factor)
        SIGMA.check(self.name, sigma=self.sigma)
        make_vv_kind(self.taps)  # refuses taps that do not exist

    @property
    def kind(self) -> FeatureKind:
        return make_vv_kind(self.taps)

    def build(self, encode: NameEncoder, category: str, learned: Learned) -> Scorer:
        """The scorer of one category; an image's score is CLIP's own, log-odds of 100 cosines."""
        del learned
        backbone = encode.backbone
        size = (backbone.image_size, backbone.image_size)
        text = encode([category]).to(backbone.device)  # (D, 2)
        compare = compare_class(text.T)

        def compute_map(patch_tokens: Tensor, image_embed: Tensor) -> Tensor:
            patches = compute_surgery(
                patch_tokens[:, SURGERY_LEVEL], read_class(image_embed), text, self.factor
            )  # (B, P)
            if self.published:
                patches = stretch(patches)
            return upsample_patches(patches, backbone.grid, size)

        return Scorer(
            prompt=encode.stack([category]),
            compute_map=compute_map,
            compute_score=lambda image_embed, maps: compare(read_class(image_embed), maps),
            scale=Scale.PLAIN,
        )


def stretch(patches: Tensor) -> Tensor:
    """Each row (B, P) from its smallest to its largest value, 0 to 1; a constant row is all 0."""
    low, high = torch.aminmax(patches, dim=1, keepdim=True)
    span = high - low
    return torch.where(span > 0, (patches - low) / span.where(span > 0, 1), 0)


METHOD = ClipSurgery
