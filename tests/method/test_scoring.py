"""Table rows from patch tokens and class features, against the same by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from references import join_margins
from torch.nn import functional as F

from fuzzyclip.method import Scale
from fuzzyclip.method.efa import Heads
from fuzzyclip.method.scorer import (
    TEST_PROMPTS,
    Scores,
    build_trained,
    build_untrained,
    describe_test_prompt,
    join_scores,
    score_batch,
)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def batches():
    """Patch tokens (B, L, P, W) and class features (B, D) of five images, in two batches."""
    tokens, embeds = draw(5, 3, 16, 64), 4 * draw(5, 32, seed=1)
    return [(tokens[:3], embeds[:3]), (tokens[3:], embeds[3:])]


@pytest.fixture
def text_embed():
    """Unit columns (D, 2): normal, anomalous."""
    return F.normalize(draw(32, 2, seed=2), dim=0)


def compare_by_hand(mapped, text_embed, size=32):
    """One image's margins (L, S, S) from mapped tokens (L, P, D), block by block."""
    margins = []
    for block in mapped:
        unit = block / block.norm(dim=-1, keepdim=True)
        planes = (100 * unit @ text_embed).T.reshape(1, 2, 4, 4)
        pixels = F.interpolate(planes, (size, size), mode="bilinear", align_corners=True)[0]
        margins.append(pixels[1] - pixels[0])
    return torch.stack(margins)


def score_by_hand(embed, text_embed, temperature=100):
    unit = embed / embed.norm()
    return temperature * (unit @ text_embed[:, 1] - unit @ text_embed[:, 0])


def score_category(scorer, batches, backbone, sigma=0.0):
    """All batches of a category."""
    return join_scores([score_batch(scorer, *batch, backbone, sigma) for batch in batches])


def test_a_row_without_training_is_clips_own_projection(tiny, batches, text_embed):
    scorer = build_untrained(tiny, "bottle", text_embed)
    scores = score_category(scorer, batches, tiny)
    assert scorer.prompt == "bottle"
    assert scores.maps.shape == (5, 32, 32)
    assert scores.weights is None
    tokens, embeds = (torch.cat(parts) for parts in zip(*batches, strict=True))
    visual = tiny.model.visual
    for image in range(5):
        mapped = visual.ln_post(tokens[image]) @ visual.proj
        margins = compare_by_hand(mapped, text_embed)
        expected = join_margins(margins)
        assert torch.allclose(torch.from_numpy(scores.maps[image]), expected, atol=1e-4)
        shown = torch.sigmoid(margins).mean(dim=0)
        assert torch.allclose(torch.from_numpy(scores.shown[image]), shown, atol=3e-5)
        score = float(score_by_hand(embeds[image], text_embed))
        assert scores.image_scores[image] == pytest.approx(score, abs=1e-4)


def make_trained(tiny, clusters, anchors="eq11", temperature=100.0, **more):
    """FuzzyCLIP's scorer with untrained layers, and what it was built from."""
    torch.manual_seed(0)
    heads = [Heads(3, 64, 32) for _ in range(clusters)]
    tests = F.normalize(draw(clusters, 32, 2, seed=3), dim=1)
    learned = F.normalize(draw(2, 32, seed=4), dim=1)
    where = tests[:, :, 0] if anchors == "eq11" else None
    return (
        build_trained(tiny, "x", heads, tests, where, temperature, learned, **more),
        heads,
        tests,
        learned,
    )


def test_a_trained_row_weighs_its_clusters_per_image(tiny, batches):
    scorer, heads, tests, learned = make_trained(tiny, clusters=2, temperature=3.0)
    scores = score_category(scorer, batches, tiny)
    assert scores.weights.shape == (5, 2)
    assert scores.weights.sum(axis=1) == pytest.approx([1.0] * 5)
    tokens, embeds = (torch.cat(parts) for parts in zip(*batches, strict=True))
    for image in range(5):
        unit = embeds[image] / embeds[image].norm()
        raw = [torch.exp(3.0 * (unit @ tests[k, :, 0])) for k in range(2)]
        weights = [float(share / sum(raw)) for share in raw]
        assert scores.weights[image] == pytest.approx(weights, abs=1e-5)
        with torch.no_grad():
            slow = [compare_by_hand(heads[k](tokens[None, image])[0], tests[k]) for k in range(2)]
        expected = join_margins(torch.cat(slow), torch.tensor(weights).repeat_interleave(3))
        assert torch.allclose(torch.from_numpy(scores.maps[image]), expected, atol=1e-4)
        shown = weights[0] * slow[0].sigmoid().mean(dim=0)
        shown += weights[1] * slow[1].sigmoid().mean(dim=0)
        assert torch.allclose(torch.from_numpy(scores.shown[image]), shown, atol=3e-5)
        score = float(score_by_hand(embeds[image], learned.T))
        assert scores.image_scores[image] == pytest.approx(score, abs=1e-4)
    assert scores.weights.min() > 0.01


def test_image_scores_have_the_temperature_of_their_training(tiny, batches):
    scorer, *_, learned = make_trained(tiny, clusters=1, image_temperature=1 / 0.07)
    scores = score_category(scorer, batches, tiny)
    for image, embed in enumerate(torch.cat([embeds for _, embeds in batches])):
        expected = float(score_by_hand(embed, learned.T, 1 / 0.07))
        assert scores.image_scores[image] == pytest.approx(expected, abs=1e-5)


def test_no_anchor_weighs_all_alike(tiny, batches):
    scorer, *_ = make_trained(tiny, clusters=3, anchors="uniform")
    scores = score_category(scorer, batches, tiny)
    assert scores.weights == pytest.approx(1 / 3)


def test_batches_and_smoothing_do_not_mix_images(tiny, batches, text_embed):
    scorer = build_untrained(tiny, "bottle", text_embed)
    whole = [tuple(torch.cat(parts) for parts in zip(*batches, strict=True))]
    for sigma in (0.0, 2.0):
        split = score_category(scorer, batches, tiny, sigma)
        joint = score_category(scorer, whole, tiny, sigma)
        assert split.maps == pytest.approx(joint.maps, abs=1e-5)
        assert split.image_scores == pytest.approx(joint.image_scores, abs=1e-6)
    assert split.maps.std() < score_category(scorer, batches, tiny).maps.std()


def test_peaks_are_the_largest_values_of_the_smoothed_maps(tiny, batches, text_embed):
    scorer = build_untrained(tiny, "bottle", text_embed)
    scores = score_category(scorer, batches, tiny, 2.0)
    assert scores.peaks.dtype == scores.maps.dtype == np.float64
    assert scores.peaks.tolist() == [anomaly_map.max() for anomaly_map in scores.maps]
    assert (scores.peaks < score_category(scorer, batches, tiny).peaks).all()


def test_a_batch_is_not_judged_as_a_whole_category(tiny, batches, text_embed):
    scorer = build_untrained(tiny, "bottle", text_embed)
    assert scorer.combine is None
    joint = replace(scorer, combine=lambda scores, peaks: pytest.fail("a batch is no category"))
    alone, together = (score_category(each, batches, tiny) for each in (scorer, joint))
    assert alone.image_scores.tolist() == together.image_scores.tolist()


@pytest.mark.parametrize("place", ["token", "class feature", "text"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_refused_and_not_scored(tiny, batches, text_embed, place, value):
    tokens, embeds = (part.clone() for part in batches[0])
    text = text_embed.clone()
    broken = {"token": tokens, "class feature": embeds, "text": text}[place]
    broken.view(-1)[7] = value
    scorer = build_untrained(tiny, "bottle", text)
    for sigma in (0.0, 2.0):
        with pytest.raises(ValueError, match="'bottle': maps or image scores are not finite"):
            score_batch(scorer, tokens, embeds, tiny, sigma)


def test_plain_maps_are_shown_as_they_are_and_log_odds_as_probabilities():
    maps = np.array([[[-80.0, -2.0], [0.0, 40.0]]])
    parts = {"peaks": maps.max(axis=(1, 2)), "image_scores": np.zeros(1, np.float32)}
    plain, odds = (Scores(maps=maps, weights=None, scale=scale, **parts) for scale in Scale)
    assert (plain.scale, odds.scale) == (Scale.PLAIN, Scale.LOG_ODDS)
    assert plain.shown.dtype == odds.shown.dtype == np.float32
    assert plain.shown.tolist() == maps.tolist()
    assert odds.shown == pytest.approx(1 / (1 + np.exp(-maps)), rel=1e-6)
    assert join_scores([odds, odds]).scale is Scale.LOG_ODDS


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("test", ("pill", False, "")),
        ("cluster", ("", True, "")),
        ("test+cluster", ("pill", True, "")),
        ("test+cluster+test", ("pill", True, "pill")),
        ("object", ("object", False, "")),
    ],
)
def test_the_four_test_prompts_of_table_8_and_the_abstract_one_of_table_4(kind, expected):
    assert len(TEST_PROMPTS) == 5
    assert describe_test_prompt(kind, "pill") == expected
