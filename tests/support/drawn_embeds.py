"""Features drawn from a seed, where no tower is needed to make them."""

import hashlib

import numpy as np
import pytest
import torch

from fuzzyclip.method.interface import TrainingSet


def draw_embeds(prompts):
    """Features (n, 32) of uneven length that depend on nothing but each prompt's words."""
    rows = []
    for prompt in prompts:
        seed = int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:4], "big")
        row = np.random.default_rng(seed).standard_normal(32)
        rows.append(torch.from_numpy(row * (1 + seed % 5)).float())
    return torch.stack(rows)


def draw_class_images(labels, names, seed=0):
    """Training images of class features alone, in which a direction tells normal from anomalous."""
    generator = torch.Generator().manual_seed(seed)
    direction = torch.randn(32, generator=generator)
    noise = torch.randn(len(labels), 32, generator=generator)
    return TrainingSet(
        image_embed=noise + (2 * labels[:, None] - 1) * direction,
        load_tokens=lambda rows: pytest.fail("only class features are read"),
        load_masks=lambda rows: pytest.fail("only class features are read"),
        labels=labels,
        names=names,
        members=names,
    )


def hold_images(image_embed, tokens, masks, names):
    """A training set of what is in memory; an image is anomalous where its mask shows something."""
    return TrainingSet(
        image_embed=image_embed,
        load_tokens=lambda rows: tokens[list(rows)],
        load_masks=lambda rows: masks[list(rows)],
        labels=masks.any(dim=(1, 2)).long(),
        names=names,
        members=names,
    )
