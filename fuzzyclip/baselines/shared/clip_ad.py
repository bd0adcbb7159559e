"""CLIP-AD: what `sdp`, staged V-V streams, and `sdp_plus`, trained layers beside them, share.

Chen et al., "CLIP-AD: a language-guided staged dual-path model for zero-shot anomaly detection",
arXiv 2311.00453. The V-V stream starts anew in every stage of the tower, and feature surgery of all
stages is summed. The text is in `clip_ad_text`. SDP+ adds the maps of linear layers on the original
path, trained like EFA's, to SDP's.

The kind `sdp` (`make_sdp_kind`) keeps of an image, besides CLIP's own class feature,
(B, 2 * T, N, W), before ln_post and projection, as layers are trained on the vision width. Levels 0
to T - 1 are the V-V stream after each stage, levels T to 2 * T - 1 the original path after the same
blocks. Row 0 of every level is the original path's class token after that block; rows 1 to P are
the patches.

Shapes: B images, T stages, P patches, N = 1 + P tokens, W vision width, D embedding width, S image
size.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit
from torch import Tensor

from fuzzyclip.baselines.clip_surgery import compute_surgery, upsample_patches
from fuzzyclip.baselines.shared.clip_ad_text import Density, encode_representatives, read_density
from fuzzyclip.baselines.shared.vv import Stream, run_paths
from fuzzyclip.clip.backbone import Backbone
from fuzzyclip.clip.encoding import normalise, project_tokens
from fuzzyclip.clip.name_encoder import NameEncoder
from fuzzyclip.features.kinds import FeatureKind
from fuzzyclip.method.efa import Heads, compute_plane
from fuzzyclip.method.scales import Scale
from fuzzyclip.method.scorer import Scorer, compare_class
from fuzzyclip.utils.ranges import FEW, SIGMA

#: Parts that the tower is cut into.
STAGES = 4


@dataclass(frozen=True)
class ClipAd:
    """What SDP and SDP+ share: their settings, and the scorer of a category.

    Attributes:
        test_density: of the tested set's prompts: a key of `DENSITIES`, or eps and min_samples.
            Published per tested set, which is a choice made on test data; the default is the one
            that the code has for unnamed sets.
        stages: see `plan_staged`.
        late_taps: see `vv.run_paths`; the published code's fault. Off: tokens and class
            token are those after the block that is named.
        sigma: Gaussian smoothing in pixels. 8 of 240 as published; SDP+ has 2 on VisA, chosen per
            tested set like the densities.
        combine: `single`: an image's score is the text's log-odds, all that an image alone
            gives. `test_set`: as published, scores are `combine_over_test_set` of a category's. It
            needs the whole test set, so an image's score changes with the other images.
    """

    test_density: str | tuple[float, int] = "usual"
    stages: int = STAGES
    late_taps: bool = False
    sigma: float = 8.0
    combine: str = "single"

    name: ClassVar[str]
    title: ClassVar[str]

    def __post_init__(self) -> None:
        if self.combine not in ("single", "test_set"):
            raise ValueError(
                f"{self.name}: combine must be 'single' or 'test_set', not {self.combine!r}"
            )
        SIGMA.check(self.name, sigma=self.sigma)
        make_sdp_kind(self.stages, self.late_taps)  # refuses stages that do not exist
        self.read_density("test_density")

    @property
    def kind(self) -> FeatureKind:
        return make_sdp_kind(self.stages, self.late_taps)

    def read_density(self, setting: str) -> Density:
        """One of the settings that are densities.

        Raises:
            ValueError: its value is none; names it.
        """
        try:
            return read_density(getattr(self, setting))
        except ValueError as error:
            raise ValueError(f"{self.name}: {setting}: {error}") from error

    def build_scorer(self, encode: NameEncoder, category: str, heads: Heads | None) -> Scorer:
        """The scorer of one category; image scores are log-odds of 100 cosines with SDP's text.

        Args:
            encode: names to text features.
            category: its name in prompts.
            heads: a layer for each stage, whose maps are added; SDP has none.
        """
        backbone = encode.backbone
        text = encode_representatives(encode, category, self.read_density("test_density"))

        @torch.no_grad()
        def compute_map(patch_tokens: Tensor, image_embed: Tensor) -> Tensor:
            del image_embed  # each stage has its own class token
            vv, original = patch_tokens.chunk(2, dim=1)  # (B, T, N, W) each
            total = compute_staged_map(backbone, vv, text)  # (B, S, S)
            size = (total.shape[-2], total.shape[-1])
            for stage, layer in enumerate(heads.layers if heads else ()):
                mapped = layer(original[:, stage, 1:])  # (B, P, D)
                total += compute_plane(mapped, text, backbone.grid, size).sigmoid_()
            return total

        return Scorer(
            prompt=encode.stack([category]),
            compute_map=compute_map,
            compute_score=compare_class(text.T),
            scale=Scale.PLAIN,
            combine=combine_over_test_set if self.combine == "test_set" else None,
        )


def plan_staged(depth: int, stages: int = STAGES) -> Stream:
    """CLIP-AD's staged stream: all blocks, starts anew in every stage, tapped after every stage.

    Args:
        depth: blocks of the tower; the ends of stages are rounded up. 12 blocks restart in 1, 4, 7
            and 10.
        stages: how many; a tower of fewer blocks has one stage a block.

    Raises:
        ValueError: there is no stage.
    """
    FEW.check("a staged V-V stream", stages=stages)
    ends = sorted({-(-depth * stage // stages) for stage in range(1, stages + 1)})
    return Stream(start=1, taps=tuple(ends), restarts=(1, *(end + 1 for end in ends[:-1])))


def make_sdp_kind(stages: int = STAGES, late_taps: bool = False) -> FeatureKind:
    """CLIP-AD's kind; see the module for its layout.

    Args:
        stages: see `plan_staged`; other than the default makes another kind.
        late_taps: take the original path as CLIP-AD's code does, see `run_paths`; another kind.

    Raises:
        ValueError: see `plan_staged`.
    """
    plan_staged(STAGES, stages)
    name = "sdp" if stages == STAGES else f"sdp-{stages}"
    return FeatureKind(f"{name}-late" if late_taps else name, _EncodeSDP(stages, late_taps))


@dataclass(frozen=True)
class _EncodeSDP:
    """`Encode` of the kind `sdp`: as a value, so that kinds of the same settings are equal."""

    stages: int
    late_taps: bool

    def __call__(self, backbone: Backbone, pixels: Tensor) -> tuple[Tensor, Tensor]:
        stream = plan_staged(backbone.image_tower.depth, self.stages)
        paths = run_paths(backbone, pixels, (stream,), self.late_taps)
        levels = [*paths.streams, *paths.originals]
        return project_tokens(backbone, paths.last), torch.stack(levels, dim=1)  # (B, 2 * T, N, W)


def compute_staged_map(backbone: Backbone, vv: Tensor, text_embed: Tensor) -> Tensor:
    """SDP's map: feature surgery of every stage, summed and upsampled, (B, S, S).

    The weights have no factor 2 before their softmax, unlike CLIP Surgery's, and come from the
    stage's own class token.

    Args:
        backbone: the frozen CLIP.
        vv: (B, T, N, W).
        text_embed: (D, 2), unit columns.
    """
    total = vv.new_zeros(len(vv), vv.shape[2] - 1)
    for level in vv.unbind(dim=1):
        tokens = normalise(project_tokens(backbone, level))  # (B, N, D)
        total += compute_surgery(tokens[:, 1:], tokens[:, 0], text_embed, factor=1.0)
    return upsample_patches(total, backbone.grid, (backbone.image_size, backbone.image_size))


def combine_over_test_set(
    image_scores: NDArray[np.float32], peaks: NDArray[np.floating]
) -> NDArray[np.float32]:
    """The published image scores of one category, (N,): text plus the map's peak, each stretched.

    Args:
        image_scores: (N,), the text's log-odds; as published its probabilities are stretched.
        peaks: (N,), the largest value of each smoothed map.
    """
    sides = _stretch(expit(image_scores.astype(np.float64))), _stretch(peaks.astype(np.float64))
    return (sides[0] + sides[1]).astype(np.float32)


def _stretch(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """From smallest to largest, 0 to 1; all 0 where they are equal."""
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high > low else np.zeros_like(values)
