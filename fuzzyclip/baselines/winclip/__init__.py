"""WinCLIP: CLIP on windows of patches against a compositional prompt ensemble, without training.

"WinCLIP: Zero-/Few-Shot Anomaly Classification and Segmentation" (CVPR 2023), its zero-shot form.
Every window gets the anomaly score that an image would get; a patch gets the harmonic mean of the
windows that cover it, and the map is the harmonic mean over both window sizes and the whole image.
Harmonic means lean towards the lower score, that is to say, towards normal.

Shapes: B images, N windows, D embedding width, S image size.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from fuzzyclip.baselines.shared.prompt_mean import average_prompts
from fuzzyclip.baselines.winclip.windows import SIDES, WINDOWS, list_windows
from fuzzyclip.clip.encoding import normalise
from fuzzyclip.clip.name_encoder import NameEncoder
from fuzzyclip.clip.prompts import NORMAL_STATES, stack_names
from fuzzyclip.features.kinds import FeatureKind
from fuzzyclip.method.interface import Learned, Untrained
from fuzzyclip.method.scales import Scale
from fuzzyclip.method.scorer import Scorer
from fuzzyclip.utils.ranges import POSITIVE, SIGMA

#: WinCLIP's seven normal states are those that its successors kept.
ABNORMAL_STATES = ("damaged {}", "{} with flaw", "{} with defect", "{} with damage")
#: Eleven sentences, each with both articles.
TEMPLATES = tuple(
    sentence.format(article)
    for sentence in (
        "a cropped photo of {} {{}}.",
        "a close-up photo of {} {{}}.",
        "a bright photo of {} {{}}.",
        "a dark photo of {} {{}}.",
        "a jpeg corrupted photo of {} {{}}.",
        "a blurry photo of {} {{}}.",
        "a photo of {} {{}}.",
        "a photo of {} small {{}}.",
        "a photo of {} large {{}}.",
        "a photo of {} {{}} for visual inspection.",
        "a photo of {} {{}} for anomaly detection.",
    )
    for article in ("a", "the")
)
#: Of the 22, what the re-implementations lack, and what they have twice.
LACKING = ("a cropped photo of a {}.", "a jpeg corrupted photo of a {}.")
DOUBLED = "a jpeg corrupted photo of the {}."


@dataclass(frozen=True)
class WinClip(Untrained):
    """WinCLIP's settings, with the defaults and their reasons.

    Attributes:
        temperature: cosines are divided by it before the softmax. It moves the map's order, since
            harmonic means are not linear. 0.07 is CLIP's value before training, as in both
            re-implementations that come near the paper's numbers (anomalib's and zqhang's).
        underscore: see `stack_names`; `space`, since WinCLIP's names are words.
        unit_prompts: whether each prompt's feature has unit length before the mean. The paper
            speaks of the mean of the features; the re-implementations take it as it is.
        published_templates: the 21 templates of the re-implementations, a fault: they lack two of
            the paper's 22 and have another twice. For comparison with their numbers only.
        sigma: Gaussian smoothing of its maps in pixels; WinCLIP has none.
    """

    temperature: float = 0.07
    underscore: str = "space"
    unit_prompts: bool = False
    published_templates: bool = False
    sigma: float = 0.0

    name: ClassVar[str] = "winclip"
    title: ClassVar[str] = "WinCLIP"
    kind: ClassVar[FeatureKind] = WINDOWS

    def __post_init__(self) -> None:
        POSITIVE.check(self.name, temperature=self.temperature)
        SIGMA.check(self.name, sigma=self.sigma)
        stack_names((), underscore=self.underscore)  # refuses what is unknown

    def build(self, encode: NameEncoder, category: str, learned: Learned) -> Scorer:
        """The scorer of one category, on features of `encode_windows`.

        Raises:
            PromptTooLongError: the name does not fit a prompt.
        """
        del learned
        backbone = encode.backbone
        name = stack_names([category], underscore=self.underscore)
        prompts = write_prompts(name, self.published_templates)
        text_embed = average_prompts(encode.encode, prompts, self.unit_prompts)  # (D, 2)
        direction = (text_embed[:, 1] - text_embed[:, 0]).to(backbone.device)

        def compute_margins(embeds: Tensor) -> Tensor:
            return normalise(embeds) @ direction / self.temperature

        def compute_map(window_embeds: Tensor, image_embed: Tensor) -> Tensor:
            margins = compute_margins(window_embeds[:, 0])  # (B, N)
            scores = join_scales(margins, compute_margins(image_embed), backbone.grid)
            size = (backbone.image_size, backbone.image_size)
            return F.interpolate(scores[:, None], size=size, mode="bilinear")[:, 0]

        return Scorer(
            prompt=name,
            compute_map=compute_map,
            compute_score=lambda image_embed, _: compute_margins(image_embed),
            scale=Scale.PLAIN,
        )


def write_prompts(name: str, published_templates: bool = False) -> list[list[str]]:
    """All prompts of both sides: 7 normal and 4 abnormal states, each in every template."""
    templates = list(TEMPLATES)
    if published_templates:
        templates = [one for one in TEMPLATES if one not in LACKING] + [DOUBLED]
    return [
        [template.format(state.format(name)) for state in states for template in templates]
        for states in (NORMAL_STATES, ABNORMAL_STATES)
    ]


def join_scales(margins: Tensor, image_margins: Tensor, grid: tuple[int, int]) -> Tensor:
    """Scores of all patches: harmonic means over windows, then over the scales, (B, rows, columns).

    A score is the sigmoid of a margin, so that its reciprocal is 1 + exp(-margin), and the
    reciprocal of a harmonic mean is the mean of reciprocals.

    Args:
        margins: (B, N) abnormal minus normal logit of each window, as `encode_windows` orders them.
        image_margins: (B,), of the whole images.
        grid: patches down and across.
    """
    whole = 1 + torch.exp(-image_margins)
    planes = [whole[:, None, None].expand(-1, *grid)]
    counts = [len(list_windows(grid, side)) for side in SIDES]
    for side, own in zip(SIDES, torch.split(margins, counts, dim=1), strict=True):
        planes.append(average_over_windows(1 + torch.exp(-own), grid, side))
    return 1 / torch.stack(planes).mean(dim=0)


def average_over_windows(values: Tensor, grid: tuple[int, int], side: int) -> Tensor:
    """Mean over the windows that cover each patch, one in a corner, side * side amid the image.

    Args:
        values: (B, n), of the windows as in `list_windows`.
        grid: patches down and across.
        side: of the windows in patches.

    Returns:
        (B, rows, columns).
    """
    planes = values.view(len(values), 1, grid[0] - side + 1, grid[1] - side + 1)
    spread = values.new_ones(1, 1, side, side)
    total = F.conv_transpose2d(planes, spread)
    covering = F.conv_transpose2d(torch.ones_like(planes[:1]), spread)
    return (total / covering)[:, 0]


METHOD = WinClip
