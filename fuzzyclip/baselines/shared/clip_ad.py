"""CLIP-AD: what `sdp`, staged V-V streams, and `sdp_plus`, trained layers beside them, share.

Chen et al., "CLIP-AD: a language-guided staged dual-path model for zero-shot anomaly detection",
arXiv 2311.00453. The V-V stream starts anew in every stage of the tower, and feature surgery of all
stages is summed. SDP+ adds the maps of linear layers on the original path, trained like EFA's, to
SDP's. The text of a side is the mean of the densest group of its prompts: where they mean different
things, the mean of all lies between them; DBSCAN finds the group that most agree with
("representative vector selection").

The kind `sdp` (`make_sdp_kind`) keeps of an image, besides CLIP's own class feature,
(B, 2 * T, N, W), before ln_post and projection, as layers are trained on the vision width. Levels 0
to T - 1 are the V-V stream after each stage, levels T to 2 * T - 1 the original path after the same
blocks. Row 0 of every level is the original path's class token after that block; rows 1 to P are
the patches.

Shapes: n prompts, B images, T stages, P patches, N = 1 + P tokens, W vision width, D embedding
width, S image size.
"""

from dataclasses import InitVar, dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.cluster import DBSCAN
from torch import Tensor

from fuzzyclip.baselines.shared.forms import TwoForms
from fuzzyclip.baselines.shared.vv import Stream, compute_surgery, run_paths, upsample_patches
from fuzzyclip.clip.backbone import Backbone
from fuzzyclip.clip.encoding import normalise, project_tokens
from fuzzyclip.clip.name_encoder import NameEncoder
from fuzzyclip.features.kinds import FeatureKind
from fuzzyclip.method import Scale
from fuzzyclip.method.efa import LOGIT_SCALE, Heads, compute_plane
from fuzzyclip.method.scorer import Scorer, compare_class
from fuzzyclip.utils.ranges import COUNT, FEW, POSITIVE, SIGMA

#: Parts that the tower is cut into.
STAGES = 4
FLAWS = ("flaw", "defect", "damage", "scratch", "crack", "contamination")
#: The states of both sides, 9 and 10, and 22 templates.
NORMAL_STATES = (
    *("flawless {}", "perfect {}", "unblemished {}"),
    *(f"{{}} without {flaw}" for flaw in FLAWS),
)
ANOMALOUS_STATES = (
    *("damaged {}", "imperfect {}", "blemished {}", "broken {}"),
    *(f"{{}} with {flaw}" for flaw in FLAWS),
)
LOOKS = ("cropped ", "close-up ", "bright ", "dark ", "jpeg corrupted ", "blurry ", "")
ENDS = ("large {}.", "small {}.", "{} for visual inspection.", "{} for anomaly detection.")
TEMPLATES = tuple(
    f"a {look}photo of {article} {end}"
    for look, end in (*((look, "{}.") for look in LOOKS), *(("", end) for end in ENDS))
    for article in ("the", "a")
)


@dataclass(frozen=True)
class Density:
    """A dense place among unit text features, as DBSCAN has it.

    Attributes:
        eps: distance within which two features are neighbours; none are further apart than 2.
        min_samples: neighbours that make a place dense, itself included.
        owner: whose it is, for the message of a number that is refused.
    """

    eps: float = 0.5
    min_samples: int = 15
    owner: InitVar[str] = "density"

    def __post_init__(self, owner: str) -> None:
        POSITIVE.check(owner, eps=self.eps)
        COUNT.check(owner, min_samples=self.min_samples)


#: The published code's choices: for MVTec AD and all others but VisA, and for VisA, which joins all
#: prompts.
DENSITIES = {"usual": Density(), "wide": Density(1.5, 25)}


@dataclass(frozen=True)
class ClipAd(TwoForms):
    """Settings that SDP and SDP+ share, and the scorer of a category.

    The published form takes the original path with the next block's attention added, a fault; the
    mended one takes tokens and class token after the block that is named. An image's score joins
    its text and its map's peak. The published form stretches both over the whole test set
    (`combine_over_test_set`), so that an image's score changes with the other images; the mended
    one judges an image alone (`join_peaks`).

    Attributes:
        test_density: of the tested set's prompts: a key of `DENSITIES`, or eps and min_samples.
            Published per tested set, which is a choice made on test data; the default is the one
            that the code has for unnamed sets.
        stages: parts that the tower is cut into, see `plan_staged`.
        sigma: Gaussian smoothing in pixels. 8 of 240 as published; SDP+ has 2 on VisA, chosen per
            tested set like the densities.
    """

    test_density: str | tuple[float, int] = "usual"
    stages: int = STAGES
    sigma: float = 8.0

    name: ClassVar[str]
    title: ClassVar[str]

    def __post_init__(self) -> None:
        self.check_form(self.name)
        SIGMA.check(self.name, sigma=self.sigma)
        make_sdp_kind(self.stages)  # refuses stages that do not exist
        self.read_density("test_density")

    @property
    def kind(self) -> FeatureKind:
        return make_sdp_kind(self.stages, late_taps=self.published)

    @property
    def note(self) -> str:
        """Text that tables give with the results; empty where an image is judged alone."""
        if not self.published:
            return ""
        return "as published, an image's score uses the whole test set of its category"

    def count_stages(self, backbone: Backbone) -> int:
        """Stages that the tower is cut into: T."""
        return len(plan_staged(backbone.image_tower.depth, self.stages).taps)

    def read_density(self, setting: str) -> Density:
        """One of the settings that are densities.

        Raises:
            ValueError: its value is none; names it.
        """
        value = getattr(self, setting)
        if isinstance(value, str) and value in DENSITIES:
            return DENSITIES[value]
        if isinstance(value, tuple) and tuple(map(type, value)) in ((float, int), (int, int)):
            eps, min_samples = value
            return Density(eps, min_samples, f"{self.name}: {setting}")
        raise ValueError(
            f"{self.name}: {setting}: a density is {' or '.join(DENSITIES)}, or a list of eps and "
            f"min_samples such as [0.5, 15], not {value!r}"
        )

    def build_scorer(self, encode: NameEncoder, category: str, heads: Heads | None) -> Scorer:
        """The scorer of one category; image scores are log-odds of 100 cosines with SDP's text.

        `heads` has a layer for each stage, whose maps are added; SDP has none.

        Raises:
            PromptTooLongError: the name does not fit a prompt.
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

        stages, read = self.count_stages(backbone), read_layers_peak if heads else read_surgery_peak

        def join(
            image_scores: NDArray[np.float32], peaks: NDArray[np.floating]
        ) -> NDArray[np.float32]:
            return join_peaks(image_scores, read(peaks, stages))

        return Scorer(
            prompt=encode.stack([category]),
            compute_map=compute_map,
            compute_score=compare_class(text.T),
            scale=Scale.PLAIN,
            join=None if self.published else join,
            combine=combine_over_test_set if self.published else None,
        )


def plan_staged(depth: int, stages: int = STAGES) -> Stream:
    """CLIP-AD's staged stream: all blocks, starts anew in every stage, tapped after every stage.

    The ends of stages are rounded up: 12 blocks restart in 1, 4, 7 and 10. A tower of fewer blocks
    than stages has one stage a block.

    Raises:
        ValueError: there is no stage.
    """
    FEW.check("a staged V-V stream", stages=stages)
    ends = sorted({-(-depth * stage // stages) for stage in range(1, stages + 1)})
    return Stream(start=1, taps=tuple(ends), restarts=(1, *(end + 1 for end in ends[:-1])))


def make_sdp_kind(stages: int = STAGES, late_taps: bool = False) -> FeatureKind:
    """CLIP-AD's kind, of the module's layout; other settings make another kind.

    `late_taps` takes the original path as CLIP-AD's code does, see `run_paths`.

    Raises:
        ValueError: there is no stage.
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
    stage's own class token. `vv` is (B, T, N, W), `text_embed` (D, 2) with unit columns.
    """
    total = vv.new_zeros(len(vv), vv.shape[2] - 1)
    for level in vv.unbind(dim=1):
        tokens = normalise(project_tokens(backbone, level))  # (B, N, D)
        total += compute_surgery(tokens[:, 1:], tokens[:, 0], text_embed, factor=1.0)
    return upsample_patches(total, backbone.grid, (backbone.image_size, backbone.image_size))


def read_surgery_peak(peaks: NDArray[np.floating], stages: int) -> NDArray[np.float64]:
    """Probability (N,) at the peak of SDP's map: on the text's own scale, mean over stages.

    Surgery of two texts is half the difference of their weighted cosines.
    """
    return np.asarray(expit(2 * LOGIT_SCALE * peaks.astype(np.float64) / stages))


def read_layers_peak(peaks: NDArray[np.floating], stages: int) -> NDArray[np.float64]:
    """Probability (N,) at the peak of SDP+'s map, which is mostly a sum of the layers'."""
    return np.clip(peaks.astype(np.float64) / stages, 0, 1)


def join_peaks(
    image_scores: NDArray[np.float32], peaks: NDArray[np.float64]
) -> NDArray[np.float32]:
    """The mended image scores (N,): log-odds of the mean of the text's and the peak's probability.

    It is the published sum, with probabilities in place of what is stretched over a test set. As
    everywhere, anomalous and normal sides are summed apart, so that nothing ties near the ends. The
    text's log-odds and the peaks' probabilities are (N,).
    """
    text = image_scores.astype(np.float64)
    odds = np.log(expit(text) + peaks) - np.log(expit(-text) + (1 - peaks))
    return np.asarray(odds, dtype=np.float32)


def combine_over_test_set(
    image_scores: NDArray[np.float32], peaks: NDArray[np.floating]
) -> NDArray[np.float32]:
    """The published image scores of one category, (N,): text plus the map's peak, each stretched.

    The text's log-odds are given, but stretched are its probabilities, as published.
    """
    sides = _stretch(expit(image_scores.astype(np.float64))), _stretch(peaks.astype(np.float64))
    return (sides[0] + sides[1]).astype(np.float32)


def _stretch(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """From smallest to largest, 0 to 1; all 0 where they are equal."""
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high > low else np.zeros_like(values)


def encode_representatives(encode: NameEncoder, name: str, density: Density) -> Tensor:
    """SDP's text of a category, (D, 2), unit columns: normal, anomalous."""
    columns = []
    for states in (NORMAL_STATES, ANOMALOUS_STATES):
        filled = [state.format(encode.stack([name])) for state in states]
        prompts = [template.format(state) for state in filled for template in TEMPLATES]
        columns.append(find_representative(encode.encode(prompts), density))
    return torch.stack(columns, dim=1).to(encode.backbone.device)


def find_representative(embeds: Tensor, density: Density) -> Tensor:
    """Mean of the largest group that DBSCAN finds among features (n, D), as a unit vector (D,).

    Where no place is dense enough there is no group, and it is the mean of all; the published code
    fails there. Of groups of one size it is the one found first.
    """
    unit = normalise(embeds.float())  # (n, D)
    groups = DBSCAN(eps=density.eps, min_samples=density.min_samples).fit(unit.cpu().numpy())
    labels = torch.from_numpy(groups.labels_).to(unit.device)  # (n,), -1 is no group
    grouped = labels[labels >= 0]
    if len(grouped):
        unit = unit[labels == grouped.bincount().argmax()]
    return normalise(unit.mean(dim=0))
