"""Rows of a result table: ways to turn features into an anomaly map and an image score.

Every row reads the same cached features; they differ in the text features and in whether trained
layers stand between tokens and text.

Shapes: B images of a batch, N of a category, K clusters, D embedding width, S image size.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fuzzyclip.backbone import Backbone
from fuzzyclip.efa import (
    LOGIT_SCALE,
    Heads,
    compute_ensemble_map,
    compute_maps,
    compute_weights,
    smooth,
    sum_maps,
)
from fuzzyclip.encoding import normalise, project_tokens
from fuzzyclip.rpl import compute_image_score

#: Variants of Table 8: what stands in the class part of the test prompt.
TEST_PROMPTS = {
    "test": ("{test}", False, ""),
    "cluster": ("", True, ""),
    "test+cluster": ("{test}", True, ""),
    "test+cluster+test": ("{test}", True, "{test}"),
    "object": ("object", False, ""),  # Table 4's abstract prompt
}


@dataclass(frozen=True)
class Scorer:
    """One row of a table for one category.

    Attributes:
        prompt: the class part of its prompts, for the record.
        compute_map: (B, L, P, W) patch tokens and (B, D) unit class features to (B, S, S).
        compute_score: (B, D) unit class features to (B,).
        compute_weights: (B, D) unit class features to cluster weights (B, K), where there are any.
    """

    prompt: str
    compute_map: Callable[[Tensor, Tensor], Tensor]
    compute_score: Callable[[Tensor], Tensor]
    compute_weights: Callable[[Tensor], Tensor] | None = None


@dataclass(frozen=True)
class Scores:
    """What a scorer gives for a category: maps (N, S, S), image scores (N,), weights (N, K)."""

    maps: NDArray[np.float32]
    image_scores: NDArray[np.float32]
    weights: NDArray[np.float32] | None


def build_untrained(backbone: Backbone, prompt: str, text_embed: Tensor) -> Scorer:
    """A row without training: CLIP's own projection of the tokens against a text feature (D, 2)."""
    size = (backbone.image_size, backbone.image_size)
    text = text_embed.to(backbone.device)

    def compute_map(patch_tokens: Tensor, image_embed: Tensor) -> Tensor:
        del image_embed
        return sum_maps(
            compute_maps(project_tokens(backbone, patch_tokens), text, backbone.grid, size)
        )

    return Scorer(
        prompt=prompt,
        compute_map=compute_map,
        compute_score=lambda image_embed: compute_image_score(image_embed, text.T, LOGIT_SCALE),
    )


def build_trained(
    backbone: Backbone,
    prompt: str,
    heads: Sequence[Heads],
    test_embeds: Tensor,
    anchors: Tensor | None,
    temperature: float,
    learned_embed: Tensor,
) -> Scorer:
    """FuzzyCLIP's own row: the weighted maps of all clusters, and RPL's learned prompts.

    Args:
        backbone: the frozen CLIP.
        prompt: for the record.
        heads: K sets of layers.
        test_embeds: (K, D, 2), the test prompt with each cluster's names (eq. 9).
        anchors: (K, D) unit rows to weigh the clusters by, see `fuzzyclip.efa.WEIGHTS`; None weighs
            all alike.
        temperature: of the weights.
        learned_embed: (2, D), RPL's text features.
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
        compute_score=lambda image_embed: compute_image_score(image_embed, learned, LOGIT_SCALE),
        compute_weights=weigh,
    )


@torch.no_grad()
def score_category(
    scorer: Scorer,
    batches: Iterable[tuple[Tensor, Tensor]],
    backbone: Backbone,
    sigma: float = 0.0,
) -> Scores:
    """Run one scorer over a category.

    Args:
        scorer: the row.
        batches: patch tokens (B, L, P, W) and class features (B, D), in index order.
        backbone: the frozen CLIP.
        sigma: Gaussian smoothing of the maps in pixels.
    """
    maps, scores, weights = [], [], []
    for tokens, embeds in batches:
        image_embed = normalise(embeds.to(backbone.device))
        patch_maps = scorer.compute_map(tokens.to(backbone.device), image_embed)
        maps.append(smooth(patch_maps.cpu().numpy(), sigma))
        scores.append(scorer.compute_score(image_embed).cpu().numpy())
        if scorer.compute_weights is not None:
            weights.append(scorer.compute_weights(image_embed).cpu().numpy())
    return Scores(
        maps=np.concatenate(maps),
        image_scores=np.concatenate(scores),
        weights=np.concatenate(weights) if weights else None,
    )


def describe_test_prompt(kind: str, category: str) -> tuple[str, bool, str]:
    """Prefix, whether the cluster's names follow, and suffix of a test prompt (Table 8).

    Args:
        kind: key of `TEST_PROMPTS`; the paper's best is `test+cluster`.
        category: the tested category's prompt name.
    """
    if kind not in TEST_PROMPTS:
        raise ValueError(f"test prompt must be one of {', '.join(TEST_PROMPTS)}, not {kind!r}")
    prefix, cluster, suffix = TEST_PROMPTS[kind]
    return prefix.format(test=category), cluster, suffix.format(test=category)
