"""AnomalyCLIP's prompts, losses and maps against two softmax channels and slow forward passes."""

from dataclasses import replace

import pytest
import torch
from drawn_embeds import hold_images
from references import compute_dice, compute_focal, encode_words
from torch.nn import functional as F

from fuzzyclip.baselines.anomaly_clip import AnomalyClip, compute_probs
from fuzzyclip.clip.encoding import encode_text
from fuzzyclip.clip.name_encoder import NameEncoder
from fuzzyclip.method.interface import Learned
from fuzzyclip.method.rpl import PromptLearner
from fuzzyclip.method.scorer import score_batch

SMALL = AnomalyClip(as_="mended", epochs=6, batch_size=4, learning_rate=0.02)
SIZE = (32, 32)


@pytest.fixture(scope="module")
def encode(tiny):
    return NameEncoder(tiny, lambda prompts: encode_text(tiny, prompts))


def draw_images(count=12, taps=1):
    """Features in which a direction marks anomalous images, another their patches upper left.

    The two class features of an image differ: the published form reads the second.
    """
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 2
    image, patch = torch.randn(2, 32, generator=generator)
    sign = 2.0 * labels[:, None] - 1
    tokens = torch.randn(count, 1 + taps, 16, 32, generator=generator)
    corner = torch.zeros(4, 4)
    corner[:2, :2] = 1
    anomalous = corner.flatten() * labels[:, None]  # (N, P)
    tokens += ((2 * anomalous - 1)[..., None] * patch)[:, None]
    masks = (corner.repeat_interleave(8, 0).repeat_interleave(8, 1) * labels[:, None, None]).bool()
    image_embed = torch.randn(count, 64, generator=generator) + (sign * image).repeat(1, 2)
    return hold_images(image_embed, tokens, masks, ["nut"] * count)


def halve(image_embed, published):
    """The class feature with the final norm, or the one behind it without."""
    return image_embed[:, 32:] if published else image_embed[:, :32]


def slow_features(backbone, learner):
    """The two prompts as published, through open_clip's blocks, (2, D) unit rows."""
    deep = {number: learner.deep[number - 2, 0] for number in range(2, 10)}  # in blocks 2 to 9
    sentences = zip(learner.ctx, ("object.", "damaged object."), strict=True)
    return torch.stack([encode_words(backbone, words, text, deep) for words, text in sentences])


def slow_maps(tokens, text_embed, temperature, size=SIZE):
    """Softmax of each patch over two texts, then pixels, (B, L, 2, S, S)."""
    cosines = F.normalize(tokens, dim=-1) @ text_embed.T / temperature
    probs = cosines.softmax(-1).permute(0, 1, 3, 2)  # (B, L, 2, P)
    planes = probs.reshape(-1, 2, 4, 4)
    pixels = F.interpolate(planes, size=size, mode="bilinear")
    return pixels.view(*tokens.shape[:2], 2, *size)


def test_taps_make_another_kind_and_forms_share_one():
    assert SMALL.kind == AnomalyClip(as_="published").kind != replace(SMALL, taps=(6, 24)).kind


def test_the_prompts_are_the_published_ones(tiny):
    learner = PromptLearner(tiny, "object", SMALL.shape, seed=3)
    assert sum(parameter.numel() for parameter in learner.parameters()) == (2 * 12 + 8 * 4) * 32
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter += 0.1 * torch.randn(
                parameter.shape, generator=torch.Generator().manual_seed(0)
            )
        text_embed = F.normalize(learner(tiny), dim=1)
        assert torch.allclose(text_embed, slow_features(tiny, learner), atol=1e-5)


@pytest.mark.parametrize("taps", [1, 4])
@pytest.mark.parametrize("published", [False, True])
def test_maps_and_scores_equal_their_formulas(tiny, encode, taps, published):
    generator = torch.Generator().manual_seed(5)
    text_embed = F.normalize(torch.randn(2, 32, generator=generator), dim=1)
    tokens = torch.randn(3, 1 + taps, 16, 32, generator=generator)
    image_embed = torch.randn(3, 64, generator=generator)
    method = AnomalyClip(as_="published" if published else "mended")
    scorer = method.build(encode, "never read", Learned({"text_embed": text_embed}))
    scores = score_batch(scorer, tokens, image_embed, tiny)
    logits = F.normalize(halve(image_embed, published), dim=1) @ text_embed.T / 0.07
    gaps = logits[:, 1] - logits[:, 0]
    assert torch.allclose(torch.from_numpy(scores.image_scores), gaps, atol=1e-5)
    pixels = slow_maps(tokens[:, 1:], text_embed, 0.07)  # level 0 is CLIP Surgery's
    expected = ((pixels[:, :, 1] + 1 - pixels[:, :, 0]) / 2).sum(dim=1)
    if published:  # the one map is collected four times
        expected = 4 * expected
    assert torch.allclose(torch.from_numpy(scores.maps), expected, atol=1e-5)
    assert scorer.prompt == "object"


@pytest.mark.parametrize("taps", [1, 3])
@pytest.mark.parametrize("published", [False, True])
def test_the_first_loss_equals_the_published_formula(tiny, encode, taps, published):
    images = draw_images(taps=taps)
    form = "published" if published else "mended"
    method = replace(SMALL, epochs=1, batch_size=12, as_=form)
    curve = method.fit(encode, images, seed=4).curve
    rows = list(range(12))
    with torch.no_grad():
        text_embed = slow_features(tiny, PromptLearner(tiny, "object", SMALL.shape, 4))
        masks = images.load_masks(rows).float()
        pixels = slow_maps(images.load_tokens(rows)[:, 1:], text_embed, 0.07)
        focal = sum(compute_focal(pixels[:, tap], masks) for tap in range(taps))
        dice = sum(
            compute_dice(pixels[:, tap, 1], masks) + compute_dice(pixels[:, tap, 0], 1 - masks)
            for tap in range(taps)
        )
        chosen = halve(images.image_embed, published)
        logits = F.normalize(chosen, dim=1) @ text_embed.T / 0.07
        cls = F.cross_entropy(logits, images.labels)
    assert curve[0]["focal"] == pytest.approx(float(focal), rel=1e-4)
    assert curve[0]["dice"] == pytest.approx(float(dice), rel=1e-4)
    assert curve[0]["cls"] == pytest.approx(float(cls), rel=1e-4)
    factor = 16 if published else 4
    assert curve[0]["loss"] == pytest.approx(float(cls + factor * (focal + dice)), rel=1e-4)


def test_training_tells_images_and_patches_apart(tiny, encode):
    images = draw_images()
    learned = SMALL.fit(encode, images, seed=1)
    curve = learned.curve
    assert len(curve) == 6 * 3
    for part in ("loss", "cls", "focal", "dice"):
        first, last = (sum(row[part] for row in rows) for rows in (curve[:3], curve[-3:]))
        assert last < 0.9 * first, part
    (text_embed,) = learned.tensors.values()
    assert torch.allclose(text_embed.norm(dim=1), torch.ones(2), atol=1e-6)
    scorer = SMALL.build(encode, "nut", learned)
    scores = score_batch(scorer, images.load_tokens(range(12)), images.image_embed, tiny)
    masks = images.load_masks(range(12)).numpy()
    assert scores.maps[masks].mean() > scores.maps[~masks].mean() + 0.1


def test_probabilities_need_no_square_grid():
    tokens, text_embed = torch.randn(1, 1, 6, 32), F.normalize(torch.randn(2, 32), dim=1)
    probs = compute_probs(tokens, text_embed, 0.07, (2, 3), (2, 3))
    cosines = F.normalize(tokens[0, 0], dim=1) @ text_embed.T / 0.07
    assert torch.allclose(probs[0, 0].flatten(), cosines.softmax(1)[:, 1], atol=1e-5)


def test_identical_maps_are_of_no_tap_but_the_last():
    with pytest.raises(ValueError, match=r"taps must be \[24\], not \[12, 24\]; .* `as: mended`"):
        AnomalyClip(taps=(12, 24))


@pytest.mark.parametrize("tensors", [{}, {"text_embed": torch.zeros(2, 16)}])
def test_prompts_of_another_method_or_model_are_refused(encode, tensors):
    with pytest.raises(ValueError, match=r"needs text_embed of shape \(2, 32\)"):
        SMALL.build(encode, "pill", Learned(tensors))
