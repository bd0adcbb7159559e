"""WinCLIP: CLIP on windows of patches against a compositional prompt ensemble, without training.

"WinCLIP: Zero-/Few-Shot Anomaly Classification and Segmentation" (CVPR 2023), its zero-shot form.
Every window gets the anomaly score that an image would get; a patch gets the harmonic mean of the
windows that cover it, and the map is the harmonic mean over both window sizes and the whole image.
Harmonic means lean towards the lower score, that is to say, towards normal.

Windows are small squares of patches, each seen by the image tower without the rest: the class token
and a window's patches, as they enter the first block with their position embeddings, run through
the whole tower as a sequence of their own; the class token's output is the window's feature
(section 4.2). An image of 15 x 15 patches has 365 windows.

Shapes: B images, N windows, P patches, W vision width, D embedding width, S image size.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from open_clip.timm_model import TimmModel
from torch import Tensor
from torch.nn import functional as F

from fuzzyclip.baselines.shared.forms import TwoForms
from fuzzyclip.clip.backbone import Backbone
from fuzzyclip.clip.encoding import normalise
from fuzzyclip.clip.name_encoder import NameEncoder
from fuzzyclip.clip.prompts import NORMAL_STATES, average_prompts, stack_names
from fuzzyclip.clip.towers import ImageTower
from fuzzyclip.features.kinds import FeatureKind
from fuzzyclip.method import Scale
from fuzzyclip.method.interface import Learned, Untrained
from fuzzyclip.method.scorer import Scorer
from fuzzyclip.utils.prefetch import send
from fuzzyclip.utils.ranges import POSITIVE, SIGMA

#: WinCLIP's seven normal states are those that its successors kept.
ANOMALOUS_STATES = ("damaged {}", "{} with flaw", "{} with defect", "{} with damage")
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
#: Sides of the windows in patches: WinCLIP's small and middle scale.
SIDES = (2, 3)
#: Sequences in a pass of the tower: bounds the memory, and what CUDA's attention takes at once.
PASS_SEQUENCES = 512


def list_windows(grid: tuple[int, int], side: int) -> Tensor:
    """Patches of every window of one size, stride 1, row by row, (n, side * side).

    Raises:
        ValueError: the grid is smaller than a window.
    """
    if min(grid) < side:
        raise ValueError(
            f"WinCLIP looks at windows of {side} x {side} patches, but an image has only "
            f"{grid[0]} x {grid[1]}: take a larger image_size or smaller patches"
        )
    numbers = torch.arange(grid[0] * grid[1]).view(grid)
    return numbers.unfold(0, side, 1).unfold(1, side, 1).reshape(-1, side * side)


@torch.no_grad()
def encode_windows(backbone: Backbone, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Class features of a batch (B, 3, S, S) and of all its windows, by the frozen image tower.

    Returns:
        image_embed (B, D), the same as from `encode_images`, and the windows' features (B, 1, N, D)
        size by size as in `SIDES`, each size as in `list_windows`. Neither is normalised; both are
        float32, on the backbone's device.

    Raises:
        ValueError: the image tower has no class token that is read, or the grid is too small.
    """
    tower = backbone.image_tower
    backbone.require_plain("WinCLIP")
    _check_class_token(tower)
    windows = [list_windows(tower.grid, side).to(backbone.device) for side in SIDES]
    lowered = backbone.precision != torch.float32
    with torch.autocast(backbone.device.type, backbone.precision, enabled=lowered):
        tokens = _embed_patches(tower.visual, send(pixels, backbone.device))
        image_embed = _read_class_token(tower, tokens)
        embeds = [_encode_size(tower, tokens, chosen) for chosen in windows]
    return image_embed.float(), torch.cat(embeds, dim=1)[:, None].float()


def _check_class_token(tower: ImageTower) -> None:
    visual = tower.visual
    if isinstance(visual, TimmModel) or visual.attn_pool is not None or visual.pool_type != "tok":
        raise ValueError(
            "WinCLIP reads a window by its class token; this model's image tower is timm's or "
            "pools its tokens in another way. Take an open_clip ViT with a class token, such as "
            "ViT-B-16-plus-240, or leave WinCLIP out"
        )


def _embed_patches(visual: Any, pixels: Tensor) -> Tensor:
    """Tokens that enter the first block, the class token first, (B, 1 + P, W)."""
    patches = visual.conv1(pixels).flatten(2).transpose(1, 2)  # (B, P, W)
    first = visual.class_embedding.to(patches.dtype).expand(len(patches), 1, -1)
    embedded = torch.cat((first, patches), dim=1) + visual.positional_embedding.to(patches.dtype)
    entering: Tensor = visual.ln_pre(embedded)
    return entering


def _encode_size(tower: ImageTower, tokens: Tensor, windows: Tensor) -> Tensor:
    """Features of all windows of one size, (B, n, D), some windows of all images at a time."""
    first, patches = tokens[:, :1], tokens[:, 1:]
    embeds = []
    for chosen in torch.split(windows, max(1, PASS_SEQUENCES // len(tokens))):
        inside = patches[:, chosen]  # (B, n, side * side, W)
        sequences = torch.cat((first[:, None].expand(-1, len(chosen), -1, -1), inside), dim=2)
        read = _read_class_token(tower, sequences.flatten(0, 1))
        embeds.append(read.view(len(tokens), len(chosen), -1))
    return torch.cat(embeds, dim=1)


def _read_class_token(tower: ImageTower, tokens: Tensor) -> Tensor:
    """The class token of sequences (m, T, W) after all blocks, in the joint space, (m, D)."""
    return tower.project(tower.visual.transformer(tokens)[:, 0])


#: What WinCLIP reads of an image.
WINDOWS = FeatureKind("windows", encode_windows)


@dataclass(frozen=True)
class WinClip(TwoForms, Untrained):
    """WinCLIP's settings, with the defaults and their reasons.

    Its authors published no code. The published form is that of the re-implementations that later
    tables were made with: 21 templates, which lack two of the paper's 22 and have another twice.
    The mended one has all 22.

    Attributes:
        temperature: cosines are divided by it before the softmax. It moves the map's order, since
            harmonic means are not linear. 0.07 is CLIP's value before training, as in both
            re-implementations that come near the paper's numbers (anomalib's and zqhang's).
        underscore: what becomes of underscores in names, as in `stack_names`; `space`, since
            WinCLIP's names are words.
        unit_prompts: whether each prompt's feature has unit length before the mean. The paper
            speaks of the mean of the features; the re-implementations take it as it is.
        sigma: Gaussian smoothing of its maps in pixels; WinCLIP has none.
    """

    temperature: float = 0.07
    underscore: str = "space"
    unit_prompts: bool = False
    sigma: float = 0.0

    name: ClassVar[str] = "winclip"
    title: ClassVar[str] = "WinCLIP"
    kind: ClassVar[FeatureKind] = WINDOWS

    def __post_init__(self) -> None:
        self.check_form(self.name)
        POSITIVE.check(self.name, temperature=self.temperature)
        SIGMA.check(self.name, sigma=self.sigma)
        stack_names((), underscore=self.underscore)  # refuses what is unknown

    def build(self, encode: NameEncoder, category: str, learned: Learned) -> Scorer:
        """The scorer of one category, on features of `encode_windows`."""
        del learned
        backbone = encode.backbone
        name = stack_names([category], underscore=self.underscore)
        prompts = write_prompts(name, self.published)
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


def write_prompts(name: str, published: bool) -> list[list[str]]:
    """All prompts of both sides: 7 normal and 4 anomalous states, each in every template."""
    templates = list(TEMPLATES)
    if published:
        templates = [text for text in TEMPLATES if text not in LACKING] + [DOUBLED]
    return [
        [template.format(state.format(name)) for state in states for template in templates]
        for states in (NORMAL_STATES, ANOMALOUS_STATES)
    ]


def join_scales(margins: Tensor, image_margins: Tensor, grid: tuple[int, int]) -> Tensor:
    """Scores of all patches: harmonic means over windows, then over the scales, (B, rows, columns).

    A score is the sigmoid of a margin, so that its reciprocal is 1 + exp(-margin), and the
    reciprocal of a harmonic mean is the mean of reciprocals.

    Args:
        margins: (B, N), anomalous minus normal logit of each window in `encode_windows`'s order.
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
    """Mean over the windows that cover each patch, (B, rows, columns), of `list_windows`' values.

    One window covers a corner, side * side cover a patch amid the image.
    """
    planes = values.view(len(values), 1, grid[0] - side + 1, grid[1] - side + 1)
    spread = values.new_ones(1, 1, side, side)
    total = F.conv_transpose2d(planes, spread)
    covering = F.conv_transpose2d(torch.ones_like(planes[:1]), spread)
    return (total / covering)[:, 0]


METHOD = WinClip
