"""CLIP-AD: staged V-V streams (SDP), and trained layers on the original path beside them (SDP+).

Chen et al., "CLIP-AD: a language-guided staged dual-path model for zero-shot anomaly detection",
arXiv 2311.00453. The V-V stream starts anew in every stage of the tower, and feature surgery of all
stages is summed. The text is in `clip_ad_text`. SDP+ adds the maps of linear layers, trained like
EFA's, to SDP's.

The kind `sdp` (`make_sdp_kind`) keeps of an image, besides CLIP's own class feature,
(B, 2 * T, N, W), before ln_post and projection, as layers are trained on the vision width. Levels 0
to T - 1 are the V-V stream after each stage, levels T to 2 * T - 1 the original path after the same
blocks. Row 0 of every level is the original path's class token after that block; rows 1 to P are
the patches.

Shapes: B images, T stages, P patches, N = 1 + P tokens, W vision width, D embedding width, S image
size.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fuzzyclip.clip.backbone import Backbone
from fuzzyclip.clip.encoding import normalise, project_tokens
from fuzzyclip.clip.name_encoder import NameEncoder
from fuzzyclip.efa import LOGIT_SCALE, Heads, add_map
from fuzzyclip.methods.aligned import align_heads
from fuzzyclip.methods.clip_ad_text import USUAL, Density, encode_representatives
from fuzzyclip.methods.clip_surgery import compute_surgery, upsample_patches
from fuzzyclip.methods.interface import FeatureKind, TrainingSet
from fuzzyclip.methods.vv import Stream, run_paths
from fuzzyclip.rpl import compute_image_score
from fuzzyclip.scoring import Scorer

#: Parts that the tower is cut into.
STAGES = 4


@dataclass(frozen=True)
class ClipAd:
    """SDP or SDP+ with its settings; see `fuzzyclip.methods.interface.Method`.

    Attributes:
        trained: SDP+ (its defaults are the published ones) or, untrained, SDP.
        train_density: of the auxiliary set's prompts, see `USUAL` and `WIDE`.
        test_density: of the tested set's prompts. Published per tested set, which is a choice made
            on test data; the default is the one that the code has for unnamed sets.
        stages: see `plan_staged`.
        late_taps: see `fuzzyclip.methods.vv.run_paths`; the published code's fault. Off: tokens
            and class token are those after the block that is named.
        sigma: Gaussian smoothing in pixels. 8 of 240 as published; SDP+ has 2 on VisA, chosen per
            tested set like the densities.
        epochs: published.
        batch_size: published.
        learning_rate: published. Adam's momenta are `fuzzyclip.training`'s, and each epoch is in a
            new order.
        combine: `single`: an image's score is the text's probability, all that an image alone
            gives. `test_set`: as published, `combine_over_test_set` is to be applied afterwards to
            all scores and maps of a category. It needs the whole test set, so an image's score
            changes with the other images; scorers are the same.
    """

    trained: bool = True
    train_density: Density = USUAL
    test_density: Density = USUAL
    stages: int = STAGES
    late_taps: bool = False
    sigma: float = 8.0
    epochs: int = 5
    batch_size: int = 8
    learning_rate: float = 1e-4
    combine: Literal["single", "test_set"] = "single"

    def __post_init__(self) -> None:
        if self.combine not in ("single", "test_set"):
            raise ValueError(
                f"{self.name}: combine must be 'single' or 'test_set', not {self.combine!r}"
            )
        if min(self.epochs, self.batch_size) < 1 or self.learning_rate <= 0 or self.sigma < 0:
            raise ValueError(
                f"{self.name}: epochs, batch_size and learning_rate must be positive and sigma not "
                "negative"
            )
        make_sdp_kind(self.stages, self.late_taps)  # refuses stages that do not exist

    @property
    def name(self) -> str:
        return "sdp_plus" if self.trained else "sdp"

    @property
    def title(self) -> str:
        return "SDP+" if self.trained else "SDP"

    @property
    def kind(self) -> FeatureKind:
        return make_sdp_kind(self.stages, self.late_taps)

    @property
    def trains(self) -> bool:
        return self.trained

    def fit(self, encode: NameEncoder, images: TrainingSet, seed: int) -> Mapping[str, Tensor]:
        """Train a linear layer for each stage, focal plus dice; SDP trains nothing."""
        if not self.trained:
            return {}
        backbone = encode.backbone
        texts = {
            name: encode_representatives(encode, name, self.train_density)
            for name in dict.fromkeys(images.names)
        }
        torch.manual_seed(seed)
        heads = self._make_heads(backbone)

        align_heads(
            backbone,
            heads,
            images,
            lambda rows: images.load_tokens(rows).chunk(2, dim=1)[1][:, :, 1:],  # (B, T, P, W)
            lambda rows: torch.stack([texts[images.names[row]] for row in rows]),  # (B, D, 2)
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            seed=seed,
            description=self.title,
        )
        return {name: tensor.detach().cpu() for name, tensor in heads.state_dict().items()}

    def build(self, encode: NameEncoder, category: str, tensors: Mapping[str, Tensor]) -> Scorer:
        """See `Method`; the image score is softmax(100 cosines) with SDP's own text.

        Raises:
            ValueError: SDP+ without tensors of its layers, or with those of another model.
        """
        backbone = encode.backbone
        text = encode_representatives(encode, category, self.test_density)
        heads = self._fill_heads(backbone, tensors) if self.trained else None

        @torch.no_grad()
        def compute_map(patch_tokens: Tensor, image_embed: Tensor) -> Tensor:
            del image_embed  # each stage has its own class token
            vv, original = patch_tokens.chunk(2, dim=1)  # (B, T, N, W) each
            total = compute_staged_map(backbone, vv, text)[:, None]  # (B, 1, S, S)
            for stage, layer in enumerate(heads.layers if heads else ()):
                add_map(total, layer(original[:, stage, 1:]), text, 1.0, backbone.grid)
            return total[:, 0]

        return Scorer(
            prompt=encode.stack([category]),
            compute_map=compute_map,
            compute_score=lambda image_embed: compute_image_score(image_embed, text.T, LOGIT_SCALE),
        )

    def _make_heads(self, backbone: Backbone) -> Heads:
        stages = len(plan_staged(backbone.image_tower.depth, self.stages).taps)
        return Heads(stages, backbone.vision_width, backbone.embed_dim).to(backbone.device)

    def _fill_heads(self, backbone: Backbone, tensors: Mapping[str, Tensor]) -> Heads:
        heads = self._make_heads(backbone)
        try:
            heads.load_state_dict(dict(tensors))
        except RuntimeError as error:
            raise ValueError(
                f"SDP+ has no trained layers for this model and these settings ({error}): train it "
                "with them"
            ) from error
        return heads


def plan_staged(depth: int, stages: int = STAGES) -> Stream:
    """CLIP-AD's staged stream: all blocks, starts anew in every stage, tapped after every stage.

    Args:
        depth: blocks of the tower; the ends of stages are rounded up. 12 blocks restart in 1, 4, 7
            and 10.
        stages: how many; a tower of fewer blocks has one stage a block.

    Raises:
        ValueError: there is no stage.
    """
    if stages < 1:
        raise ValueError(f"a staged V-V stream needs at least one stage, not {stages}")
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
    image_scores: NDArray[np.float32], maps: NDArray[np.float32]
) -> NDArray[np.float32]:
    """The published image scores of one category, (N,): text plus the map's peak, each stretched.

    Args:
        image_scores: (N,), the text's probabilities.
        maps: (N, S, S), smoothed.
    """
    peaks = maps.max(axis=(1, 2))
    return _stretch(image_scores) + _stretch(peaks)


def _stretch(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """From smallest to largest, 0 to 1; all 0 where they are equal."""
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high > low else np.zeros_like(values)
