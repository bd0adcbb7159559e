"""Rows of a result table: ways to turn features into an anomaly map and an image score.

Every row reads the same cached features; they differ in the text features and in whether trained
layers stand between tokens and text.

Shapes: B images of a batch, N of a category, K clusters, D embedding width, S image size; L blocks,
P patches of an image, W vision width, R remembered tokens of a block.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from fuzzyclip.clip.backbone import Backbone
from fuzzyclip.clip.encoding import normalise, project_tokens
from fuzzyclip.method import Scale
from fuzzyclip.method.efa import (
    LOGIT_SCALE,
    Heads,
    choose_sum_type,
    compute_ensemble_map,
    compute_plane,
    compute_weights,
    divide_odds,
    join_planes,
    smooth,
    upsample,
)
from fuzzyclip.method.rpl import compute_image_score

#: Variants of Table 8: what stands in the class part of the test prompt; `test+cluster` is the
#: paper's best.
TEST_PROMPTS = {
    "test": ("{test}", False, ""),
    "cluster": ("", True, ""),
    "test+cluster": ("{test}", True, ""),
    "test+cluster+test": ("{test}", True, "{test}"),
    "object": ("object", False, ""),  # Table 4's abstract prompt
}

#: See `Scorer.join` and `Scorer.combine`.
Combine = Callable[[NDArray[np.float32], NDArray[np.floating]], NDArray[np.float32]]


@dataclass(frozen=True)
class NormalMemory:
    """Unit tokens of a few normal images, (L, R, W), as an option beside the text.

    A patch is as anomalous as its nearest remembered token is far. This is the field's usual
    extension (WinCLIP+, APRIL-GAN's few-shot form), not part of the FuzzyCLIP paper; results with
    it are not zero-shot. Its grid is that of patches, down and across.
    """

    tokens: Tensor
    grid: tuple[int, int]
    image_size: int

    def compute_map(self, patch_tokens: Tensor) -> Tensor:
        """(B, L, P, W) to (B, S, S): half the distance to the nearest token, mean over blocks.

        (1 - cosine) / 2 lies in [0, 1] like a probability.
        """
        # A graph to be exported knows no number of images.
        together = torch.compiler.is_exporting()
        return (
            self._compute_together(patch_tokens) if together else self._compute_each(patch_tokens)
        )

    def _compute_together(self, patch_tokens: Tensor) -> Tensor:
        """See `compute_map`; holds B x P x R numbers."""
        far = torch.stack(
            [
                (1 - (normalise(patch_tokens[:, block]) @ known.T).amax(dim=-1)) / 2  # (B, P)
                for block, known in enumerate(self.tokens)
            ],
            dim=1,
        )  # (B, L, P)
        return upsample(far, self.grid, (self.image_size, self.image_size)).mean(dim=1)

    @torch.no_grad()
    def _compute_each(self, patch_tokens: Tensor) -> Tensor:
        """See `compute_map`; an image and a block at a time, so that it holds P x R numbers."""
        size = (self.image_size, self.image_size)
        maps = []
        for image in patch_tokens:
            far = torch.stack(
                [
                    (1 - (normalise(tokens) @ known.T).amax(dim=-1)) / 2
                    for tokens, known in zip(image, self.tokens, strict=True)
                ]
            )  # (L, P)
            maps.append(upsample(far[None], self.grid, size).mean(dim=1))  # (1, S, S)
        return torch.cat(maps)


@dataclass(frozen=True)
class Scorer:
    """One row of a table for one category.

    Attributes:
        prompt: the class part of its prompts, for the record.
        compute_map: (B, L, P, W) patch tokens and (B, D) unit class features to (B, S, S),
            precise enough to tell apart what the method does: log-odds, where it is a probability.
        compute_score: (B, D) unit class features and maps (B, S, S), as `compute_map` gave them,
            to (B,), as precise; see `compare_class`. A method may judge an image by its map.
        scale: of the maps.
        compute_weights: (B, D) unit class features to cluster weights (B, K), where there are any.
        memory: tokens of normal images, where there are any; maps and scores must be log-odds.
        join: image scores (N,) and peaks (N,), see `Scores`, of images to their scores (N,), each
            by itself: for methods that judge an image by its smoothed map too.
        combine: the same of all images of a category at once. It is applied by whoever holds all of
            them, not by `score_batch`; None where an image is judged alone.
    """

    prompt: str
    compute_map: Callable[[Tensor, Tensor], Tensor]
    compute_score: Callable[[Tensor, Tensor], Tensor]
    scale: Scale
    compute_weights: Callable[[Tensor], Tensor] | None = None
    memory: NormalMemory | None = None
    join: Combine | None = None
    combine: Combine | None = None


class NotFiniteError(ValueError):
    """A map or a score is no finite number, and so no answer.

    Attributes:
        rows: places of the images in their batch.
    """

    def __init__(self, prompt: str, rows: list[int]) -> None:
        """Say of which prompt."""
        super().__init__(
            f"{prompt!r}: maps or image scores are not finite numbers: the image, its features or "
            "what the model has learned are beyond what its precision holds, or broken"
        )
        self.rows = rows


@dataclass(frozen=True)
class Scores:
    """Maps and scores of N images by a scorer.

    Attributes:
        maps: (N, S, S), smoothed, on the scorer's scale.
        peaks: (N,), the largest value of each map.
        image_scores: (N,).
        weights: (N, K), where there are any.
        scale: of the maps.
    """

    maps: NDArray[np.floating]
    peaks: NDArray[np.floating]
    image_scores: NDArray[np.float32]
    weights: NDArray[np.float32] | None
    scale: Scale

    @property
    def shown(self) -> NDArray[np.float32]:
        """The maps for people: probabilities in place of log-odds, and float32."""
        from scipy.special import expit  # half a second, which training does without

        plain = self.maps if self.scale is Scale.PLAIN else expit(self.maps)
        return np.asarray(plain, dtype=np.float32)


def share_projection(backbone: Backbone) -> Callable[[Tensor], Tensor]:
    """`project_tokens` for several untrained rows: a batch that all of them see is projected once.

    It remembers the last batch, by identity.
    """
    last: list[Tensor] = []

    def project(patch_tokens: Tensor) -> Tensor:
        if not last or last[0] is not patch_tokens:
            last[:] = [patch_tokens, project_tokens(backbone, patch_tokens)]
        return last[1]

    return project


def compare_class(
    text_embed: Tensor, temperature: float = LOGIT_SCALE
) -> Callable[[Tensor, Tensor], Tensor]:
    """`Scorer.compute_score` by the class feature alone, log-odds against text features (2, D)."""

    def compute_score(image_embed: Tensor, maps: Tensor) -> Tensor:
        del maps
        return compute_image_score(image_embed, text_embed, temperature)

    return compute_score


def build_untrained(
    backbone: Backbone,
    prompt: str,
    text_embed: Tensor,
    project: Callable[[Tensor], Tensor] | None = None,
) -> Scorer:
    """A row without training: CLIP's own projection of the tokens against a text feature (D, 2).

    With `project`, from `share_projection`, it is shared with other rows.
    """
    size = (backbone.image_size, backbone.image_size)
    text = text_embed.to(backbone.device)
    projection = project or share_projection(backbone)

    def compute_map(patch_tokens: Tensor, image_embed: Tensor) -> Tensor:
        del image_embed
        blocks = projection(patch_tokens).unbind(dim=1)  # (B, P, D) each
        planes = (compute_plane(mapped, text, backbone.grid, size) for mapped in blocks)
        return join_planes((plane, None) for plane in planes)

    return Scorer(
        prompt=prompt,
        compute_map=compute_map,
        compute_score=compare_class(text.T),
        scale=Scale.LOG_ODDS,
    )


def build_trained(
    backbone: Backbone,
    prompt: str,
    heads: Sequence[Heads],
    test_embeds: Tensor,
    anchors: Tensor | None,
    temperature: float,
    learned_embed: Tensor,
    image_temperature: float = LOGIT_SCALE,
) -> Scorer:
    """FuzzyCLIP's own row: the weighted maps of all clusters, and RPL's learned prompts.

    Args:
        backbone: the frozen CLIP.
        prompt: for the record.
        heads: K sets of layers.
        test_embeds: (K, D, 2), the test prompt with each cluster's names (eq. 9).
        anchors: (K, D) unit rows to weigh the clusters by, see `efa.WEIGHTS`; None: all alike.
        temperature: of the weights.
        learned_embed: (2, D), RPL's text features.
        image_temperature: factor on the cosines with them.
    """
    size = (backbone.image_size, backbone.image_size)
    tests, learned = test_embeds.to(backbone.device), learned_embed.to(backbone.device)

    def weigh(image_embed: Tensor) -> Tensor:
        if anchors is None:
            return image_embed.new_full((len(image_embed), len(heads)), 1 / len(heads))
        return compute_weights(image_embed, anchors.to(image_embed.device), temperature)

    def compute_map(patch_tokens: Tensor, image_embed: Tensor) -> Tensor:
        weights = weigh(image_embed)
        return compute_ensemble_map(heads, patch_tokens, tests, weights, backbone.grid, size)

    return Scorer(
        prompt=prompt,
        compute_map=compute_map,
        compute_score=compare_class(learned, image_temperature),
        scale=Scale.LOG_ODDS,
        compute_weights=weigh,
    )


@torch.no_grad()
def score_batch(
    scorer: Scorer, patch_tokens: Tensor, image_embed: Tensor, backbone: Backbone, sigma: float = 0
) -> Scores:
    """Maps and scores of a batch, by one scorer.

    Args:
        scorer: the row.
        patch_tokens: (B, L, P, W), on the backbone's device.
        image_embed: (B, D), not normalised.
        backbone: the frozen CLIP.
        sigma: Gaussian smoothing of the maps in pixels.

    Raises:
        NotFiniteError: a map or a score is not finite.
    """
    embeds = normalise(image_embed.to(backbone.device))
    maps = scorer.compute_map(patch_tokens, embeds)
    image_scores = scorer.compute_score(embeds, maps)
    if scorer.memory is not None:
        far = scorer.memory.compute_map(patch_tokens)  # (B, S, S)
        maps, image_scores = join_memory(maps, image_scores, far)
    weigh = scorer.compute_weights
    smoothed = smooth(maps.cpu().numpy(), sigma, scorer.scale)
    peaks, scored = smoothed.max(axis=(1, 2)), image_scores.cpu().numpy()
    if scorer.join is not None:
        scored = scorer.join(scored, peaks)
    finite = np.isfinite(smoothed).all(axis=(1, 2)) & np.isfinite(scored)
    if not finite.all():
        raise NotFiniteError(scorer.prompt, np.flatnonzero(~finite).tolist())
    return Scores(
        maps=smoothed,
        peaks=peaks,
        image_scores=scored,
        weights=None if weigh is None else weigh(embeds).cpu().numpy(),
        scale=scorer.scale,
    )


def join_memory(maps: Tensor, image_scores: Tensor, far: Tensor) -> tuple[Tensor, Tensor]:
    """Maps (B, S, S) and scores (B,) of the text joined with the memory's maps, all as log-odds.

    The text's probabilities and the memory's maps are averaged, and an image's probability with the
    largest value of its memory's map. The published few-shot forms stretch that value over the
    whole test set; here an image is scored alone.
    """
    return _average(maps, far), _average(image_scores, far.amax(dim=(1, 2)))


def _average(log_odds: Tensor, shares: Tensor) -> Tensor:
    """Log-odds of the mean of a probability, given as log-odds, and a share in [0, 1]."""
    fine = log_odds.to(choose_sum_type(log_odds.device))
    odds = divide_odds(fine.sigmoid() + shares, fine.neg().sigmoid() + (1 - shares.to(fine.dtype)))
    return odds.to(log_odds.dtype)


def remember(patch_tokens: Tensor, grid: tuple[int, int], image_size: int) -> NormalMemory:
    """A memory of normal images' patch tokens (B, L, P, W); a ValueError where there are none."""
    if not len(patch_tokens):
        raise ValueError("a normal memory needs at least one image")
    tokens = F.normalize(patch_tokens.transpose(0, 1).flatten(1, 2), dim=-1)  # (L, B * P, W)
    return NormalMemory(tokens.contiguous(), grid, image_size)


def join_scores(batches: Sequence[Scores]) -> Scores:
    """Scores of batches as those of all images."""
    weights = [scores.weights for scores in batches if scores.weights is not None]
    return Scores(
        maps=np.concatenate([scores.maps for scores in batches]),
        peaks=np.concatenate([scores.peaks for scores in batches]),
        image_scores=np.concatenate([scores.image_scores for scores in batches]),
        weights=np.concatenate(weights) if weights else None,
        scale=batches[0].scale,
    )


def describe_test_prompt(kind: str, category: str) -> tuple[str, bool, str]:
    """Prefix, whether the cluster's names follow, and suffix of a test prompt (Table 8)."""
    prefix, cluster, suffix = TEST_PROMPTS[kind]
    return prefix.format(test=category), cluster, suffix.format(test=category)
