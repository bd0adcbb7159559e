"""ViT-L/14@336 at 518 px with random weights: the paper's shapes, and one pass image to score."""

from functools import partial

import numpy as np
import pytest
import torch
from backbones import load_clip
from PIL import Image
from scipy.special import expit
from torch.nn import functional as F

from fuzzyclip.clip.encoding import count_tokens, encode_images, encode_text, normalise, preprocess
from fuzzyclip.clip.prompts import encode_name, encode_stack, stack_names
from fuzzyclip.datasets import get_dataset
from fuzzyclip.method.efa import Heads
from fuzzyclip.method.efa_training import compute_alignment_losses
from fuzzyclip.method.rpl import PromptLearner
from fuzzyclip.method.scorer import build_trained, build_untrained, score_batch
from fuzzyclip.utils.settings import PromptShape

STACKS = ["candle capsules", "pcb1 pcb2"]


@pytest.fixture(scope="module")
def large():
    """The paper's backbone, with random weights."""
    return load_clip("ViT-L-14-336", image_size=518, blocks=(6, 12, 18, 24), activation="gelu")


@pytest.fixture(scope="module")
def features(large):
    """Class feature (1, D) and patch tokens (1, L, P, W) of a noise image."""
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    pixels = preprocess(Image.fromarray(noise), large)
    assert pixels.shape == (3, 518, 518)
    return encode_images(large, pixels[None])


@pytest.fixture(scope="module")
def text_embeds(large):
    """T of two short stacks (K, D, 2); one template keeps it quick."""
    encode = partial(encode_text, large)
    return torch.stack([encode_name(stack, encode, "single") for stack in STACKS])


def test_shapes_of_the_features(large, features):
    image_embed, patch_tokens = features
    assert large.grid == (37, 37)
    assert (large.embed_dim, large.vision_width, large.context_length) == (768, 1024, 77)
    assert image_embed.shape == (1, 768)
    assert patch_tokens.shape == (1, 4, 1369, 1024)
    assert bool(patch_tokens.isfinite().all())


def test_shapes_of_the_text_features(large, text_embeds):
    assert text_embeds.shape == (2, 768, 2)
    assert torch.allclose(text_embeds.norm(dim=1), torch.ones(2, 2), atol=1e-5)
    counter = partial(count_tokens, large)
    stacked = encode_stack(
        ["pcb1", "pcb2"], partial(encode_text, large), counter, ensemble="single"
    )
    assert torch.allclose(stacked, text_embeds[1], atol=1e-5)


def test_one_pass_from_image_to_map_and_score(large, features, text_embeds):
    torch.manual_seed(0)
    heads = [Heads(4, 1024, 768) for _ in STACKS]
    learned = F.normalize(torch.randn(2, 768), dim=1)
    trained = build_trained(large, "x", heads, text_embeds, text_embeds[:, :, 0], 100.0, learned)
    untrained = build_untrained(large, "x", text_embeds[0])
    for scorer in (trained, untrained):
        scores = score_batch(scorer, features[1], features[0], large)
        assert scores.maps.shape == (1, 518, 518)
        assert 0 < scores.shown.min() <= scores.shown.max() < 1  # the mean of four softmax maps
        assert np.allclose(scores.shown, expit(scores.maps), atol=1e-6)
        assert scores.image_scores.shape == (1,)
        assert 0 < abs(scores.image_scores[0]) <= 200  # a difference of cosines, times 100
        if scorer is trained:
            assert scores.weights.shape == (1, 2)
            assert scores.weights.sum() == pytest.approx(1.0)


def test_the_layers_learn_and_the_towers_stay_frozen(large, features, text_embeds):
    heads = Heads(4, 1024, 768)
    assert sum(parameter.numel() for parameter in heads.parameters()) == 3_148_800
    mapped = heads(features[1])
    assert mapped.shape == (1, 4, 1369, 768)
    mask = torch.zeros(1, 518, 518)
    mask[0, 100:200, 100:200] = 1
    losses = compute_alignment_losses(heads, features[1], mask, text_embeds[0], large.grid)
    losses["loss"].backward()
    assert all(bool(parameter.grad.any()) for parameter in heads.parameters())
    assert all(parameter.grad is None for parameter in large.model.parameters())
    assert not any(parameter.requires_grad for parameter in large.model.parameters())


def test_the_prompts_learn_and_the_towers_stay_frozen(large, text_embeds):
    stack = stack_names(list(get_dataset("visa").categories))
    learner = PromptLearner(large, stack, PromptShape())
    assert sum(parameter.numel() for parameter in learner.parameters()) == 141_312
    assert [word.shape for word in learner.ctx] == [(12, 768)] * 2
    text_embed = normalise(learner(large))
    assert text_embed.shape == (2, 768)
    F.mse_loss(text_embed, text_embeds[0].T).backward()
    assert all(bool(parameter.grad.any()) for parameter in learner.parameters())
    assert all(parameter.grad is None for parameter in large.model.parameters())
