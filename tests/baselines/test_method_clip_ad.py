"""CLIP-AD: text of dense groups, staged maps against loops, training of SDP+."""

import math
from dataclasses import replace
from functools import cache, partial

import numpy as np
import pytest
import torch
from drawn_embeds import hold_images
from hypothesis import given
from hypothesis import strategies as st
from references import compute_dice, compute_focal, compute_maps
from scipy.ndimage import gaussian_filter
from scipy.special import expit, logit
from torch.nn import functional as F

from fuzzyclip.baselines.registry import build_method, list_settings
from fuzzyclip.baselines.sdp import Sdp
from fuzzyclip.baselines.sdp_plus import SdpPlus
from fuzzyclip.baselines.shared import clip_ad
from fuzzyclip.baselines.shared.clip_ad import (
    ANOMALOUS_STATES,
    DENSITIES,
    NORMAL_STATES,
    TEMPLATES,
    Density,
    encode_representatives,
    find_representative,
    plan_staged,
)
from fuzzyclip.baselines.shared.vv import Stream, run_paths
from fuzzyclip.clip.encoding import encode_images, encode_text, project_tokens
from fuzzyclip.clip.name_encoder import NameEncoder
from fuzzyclip.method.efa import Heads
from fuzzyclip.method.interface import Learned
from fuzzyclip.method.scorer import join_scores, score_batch
from fuzzyclip.method.training import plan_batches
from fuzzyclip.utils.settings import TextSettings

QUICK = {"epochs": 12, "batch_size": 4, "learning_rate": 1e-2}


@pytest.fixture(scope="module")
def encode(tiny):
    """Names to text; a prompt's feature is drawn from its letters, so it is quick and repeats."""

    @cache
    def draw(prompt):
        generator = torch.Generator().manual_seed(sum(prompt.encode()))
        side = 1.0 if " without " in prompt or "perfect" in prompt else -1.0
        return torch.full((32,), side / 4) + 0.3 * torch.randn(32, generator=generator)

    def encode_drawn(prompts):
        return torch.stack([draw(prompt) for prompt in prompts])

    return NameEncoder(tiny, encode_drawn, TextSettings(underscore="space"))


@pytest.fixture(scope="module")
def features(tiny):
    drawn = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return clip_ad.make_sdp_kind().encode(tiny, drawn)


@pytest.fixture
def images(features):
    """Six training images of two categories; every other one has a defect in a corner."""
    masks = torch.zeros(6, 32, 32, dtype=torch.bool)
    masks[::2, :12, 16:] = True
    return hold_images(*features, masks, ["nut", "nut", "cable", "nut", "cable", "cable"])


@pytest.mark.parametrize(
    ("depth", "taps", "restarts"),
    [
        (12, (3, 6, 9, 12), (1, 4, 7, 10)),
        (24, (6, 12, 18, 24), (1, 7, 13, 19)),
        (8, (2, 4, 6, 8), (1, 3, 5, 7)),
        (10, (3, 5, 8, 10), (1, 4, 6, 9)),
        (2, (1, 2), (1, 2)),
    ],
)
def test_a_tower_is_cut_into_four_stages(depth, taps, restarts):
    assert plan_staged(depth) == Stream(1, taps, restarts)


@given(st.integers(1, 60), st.integers(1, 12))
def test_stages_cover_the_tower(depth, stages):
    stream = plan_staged(depth, stages)
    assert len(stream.taps) == len(stream.restarts) == min(depth, stages)
    assert stream.taps[-1] == depth
    lengths = np.diff((0, *stream.taps))
    assert lengths.max() - lengths.min() <= 1


def test_the_kind_has_both_paths_with_the_original_class_token(tiny):
    drawn = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    image_embed, tokens = clip_ad.make_sdp_kind().encode(tiny, drawn)
    own_embed, own_tokens = encode_images(tiny, drawn)  # blocks 1, 2 and 4
    assert tokens.shape == (2, 8, 17, 64)
    torch.testing.assert_close(image_embed, own_embed)
    torch.testing.assert_close(tokens[:, [4, 5, 7], 1:], own_tokens)
    assert torch.equal(tokens[:, :4, 0], tokens[:, 4:, 0])
    torch.testing.assert_close(project_tokens(tiny, tokens[:, 7, 0]), own_embed)
    paths = run_paths(tiny, drawn, [Stream(1, (1, 2, 3, 4), (1, 2, 3, 4))])
    assert torch.equal(tokens[:, :4], torch.stack(paths.streams, dim=1))
    late = clip_ad.make_sdp_kind(late_taps=True)
    assert late.name == "sdp-late"
    shifted = late.encode(tiny, drawn)[1]
    assert torch.equal(shifted[:, 7], tokens[:, 7])
    assert not torch.allclose(shifted[:, 4], tokens[:, 4], atol=1e-3)


def test_kinds_of_the_same_settings_are_equal():
    assert SdpPlus(as_="mended").kind == Sdp(as_="mended").kind == clip_ad.make_sdp_kind(4)
    assert SdpPlus().kind == Sdp().kind == clip_ad.make_sdp_kind(4, late_taps=True)
    assert SdpPlus(as_="mended", stages=2).kind.name == "sdp-2"


def test_prompts_are_9_normal_and_10_anomalous_states_in_22_templates():
    assert (len(NORMAL_STATES), len(ANOMALOUS_STATES), len(TEMPLATES)) == (9, 10, 22)
    assert len({*NORMAL_STATES, *ANOMALOUS_STATES}) == 19
    assert len(set(TEMPLATES)) == 22
    assert {"a jpeg corrupted photo of a {}.", "a photo of the small {}."} < set(TEMPLATES)
    assert all(text.format("nut").count("nut") == 1 for text in (*NORMAL_STATES, *TEMPLATES))


def draw_groups():
    """Unit rows: 30 and 20 about two axes, 10 far from all; and where each belongs."""
    generator = torch.Generator().manual_seed(0)
    axes = torch.eye(16)
    big = axes[0] + 0.05 * torch.randn(30, 16, generator=generator)
    small = axes[1] + 0.05 * torch.randn(20, 16, generator=generator)
    return F.normalize(torch.cat((small, axes[2:12], big)), dim=1), slice(30, 60)


def test_the_largest_dense_group_decides():
    embeds, big = draw_groups()
    representative = find_representative(7 * embeds, Density(0.5, 15))
    torch.testing.assert_close(representative, F.normalize(embeds[big].mean(dim=0), dim=0))
    everything = find_representative(embeds, DENSITIES["wide"])
    torch.testing.assert_close(everything, F.normalize(embeds.mean(dim=0), dim=0))


def test_without_a_dense_group_it_is_the_mean_of_all():
    embeds, _ = draw_groups()
    representative = find_representative(embeds, Density(0.001, 15))
    torch.testing.assert_close(representative, F.normalize(embeds.mean(dim=0), dim=0))


def test_text_of_a_category_is_that_of_its_two_sides(encode):
    density = Density(1.5, 15)
    text = encode_representatives(encode, "metal_nut", density)
    assert text.shape == (32, 2)
    for column, states in enumerate((NORMAL_STATES, ANOMALOUS_STATES)):
        prompts = [t.format(s.format("metal nut")) for s in states for t in TEMPLATES]
        expected = find_representative(encode.encode(prompts), density)
        torch.testing.assert_close(text[:, column], expected)


def test_a_real_text_tower_gives_two_different_sides(tiny):
    text = encode_representatives(NameEncoder(tiny, partial(encode_text, tiny)), "nut", Density())
    torch.testing.assert_close(text.norm(dim=0), torch.ones(2))
    assert not torch.allclose(text[:, 0], text[:, 1], atol=1e-4)


def map_slowly(backbone, levels, text):
    """SDP's map of one image before upsampling: loops over stages, patches and both texts."""
    total = torch.zeros(16)
    for level in levels:
        tokens = F.normalize(project_tokens(backbone, level), dim=-1)
        weights = torch.softmax(tokens[0] @ text, dim=0)
        weights = weights / weights.mean()
        for patch, token in enumerate(tokens[1:]):
            products = [token * text[:, side] * weights[side] for side in (0, 1)]
            total[patch] += (products[1] - sum(products) / 2).sum()
    return total.reshape(4, 4)


def test_sdps_map_sums_the_surgery_of_the_stages(tiny, encode, features):
    image_embed, tokens = features
    scorer = Sdp().build(encode, "nut", Learned())
    unit = F.normalize(image_embed, dim=-1)
    maps = scorer.compute_map(tokens, unit)
    text = encode_representatives(encode, "nut", Density())
    for row in range(2):
        plane = map_slowly(tiny, tokens[row, :4], text)[None, None]
        expected = F.interpolate(plane, size=(32, 32), mode="bilinear")[0, 0]
        torch.testing.assert_close(maps[row], expected, atol=1e-6, rtol=1e-4)
    normal, anomalous = (100 * unit @ text).unbind(dim=1)
    scores = scorer.compute_score(unit, maps)
    torch.testing.assert_close(scores, anomalous - normal, atol=1e-4, rtol=0)


def test_sdp_plus_adds_the_maps_of_its_layers_on_the_original_path(tiny, encode, features):
    image_embed, tokens = features
    torch.manual_seed(1)
    heads = Heads(4, 64, 32)
    plus = SdpPlus().build(encode, "nut", Learned(heads.state_dict()))
    base = Sdp().build(encode, "nut", Learned())
    unit = F.normalize(image_embed, dim=-1)
    text = encode_representatives(encode, "nut", Density())
    added = torch.zeros(6, 32, 32)
    for stage, layer in enumerate(heads.layers):
        mapped = F.normalize(layer(tokens[:, 4 + stage, 1:]), dim=-1)
        planes = (100 * mapped @ text).transpose(1, 2).reshape(6, 2, 4, 4)
        planes = F.interpolate(planes, size=(32, 32), mode="bilinear", align_corners=True)
        added += planes.softmax(dim=1)[:, 1].detach()
    maps = plus.compute_map(tokens, unit)
    torch.testing.assert_close(maps, base.compute_map(tokens, unit) + added, atol=1e-5, rtol=1e-5)
    assert not maps.requires_grad


def measure(encode, images, learned):
    """Mean squared difference between the trained layers' part of the maps and the masks."""
    rows = range(len(images.names))
    tokens = images.load_tokens(rows)
    total = 0.0
    for row in rows:
        name = images.names[row]
        image = tokens[row : row + 1]
        plus, base = (
            method.build(encode, name, learned).compute_map(image, image[:, 0, 0])
            for method in (SdpPlus(), Sdp())
        )
        total += float(((plus - base) / 4 - images.load_masks([row]).float()).square().mean())
    return total / len(images.names)


def test_training_brings_the_maps_nearer_to_the_masks(encode, images):
    torch.manual_seed(0)
    untrained = Learned(Heads(4, 64, 32).state_dict())
    trained = SdpPlus(**QUICK).fit(encode, images, 0)
    assert measure(encode, images, trained) < 0.7 * measure(encode, images, untrained)


def test_training_sees_neither_the_streams_nor_the_class_token(encode, images, features):
    method = SdpPlus(**QUICK | {"epochs": 1})
    changed = features[1].clone()
    changed[:, :4] = 0
    changed[:, :, 0] = 0
    blind = replace(images, load_tokens=lambda rows: changed[list(rows)])
    expected, learned = (method.fit(encode, among, 0).tensors for among in (images, blind))
    assert all(torch.equal(expected[name], learned[name]) for name in expected)


def test_training_uses_each_images_own_text(encode, images):
    method = SdpPlus(**QUICK | {"epochs": 1})
    renamed = replace(images, names=["nut"] * 6)
    own, other = (method.fit(encode, among, 0).tensors for among in (images, renamed))
    assert not any(torch.equal(own[name], other[name]) for name in own)


def test_the_published_score_joins_text_and_peak_over_the_test_set():
    peaks = np.array([1, 2, 5], dtype=np.float32)
    scores = logit(np.array([0.4, 0.2, 0.3])).astype(np.float32)  # probabilities are stretched
    joined = clip_ad.combine_over_test_set(scores, peaks)
    assert joined.dtype == np.float32
    assert joined == pytest.approx([1.0, 0.25, 1.5])
    assert clip_ad.combine_over_test_set(scores[:1], peaks[:1]) == [0]


@pytest.mark.parametrize("name", ["sdp", "sdp_plus"])
def test_a_published_scorer_joins_a_category(name, tiny, encode, features):
    image_embed, tokens = features
    layers = Learned(Heads(4, 64, 32).state_dict())
    method = build_method(name, {"sigma": 2.0})
    assert "whole test set" in method.note
    scorer = method.build(encode, "nut", layers)
    parts = [slice(0, 4), slice(4, 6)]
    whole = join_scores(
        [score_batch(scorer, tokens[p], image_embed[p], tiny, method.sigma) for p in parts]
    )
    side = encode_representatives(encode, "nut", DENSITIES["usual"])
    margins = (100 * F.normalize(image_embed, dim=1) @ side).diff(dim=1)[:, 0].numpy()
    assert whole.image_scores == pytest.approx(margins, abs=1e-4)  # not yet joined
    text, peaks = expit(whole.image_scores), whole.maps.reshape(6, -1).max(axis=1)
    expected = (text - text.min()) / np.ptp(text) + (peaks - peaks.min()) / np.ptp(peaks)
    assert scorer.combine(whole.image_scores, whole.peaks) == pytest.approx(expected, abs=1e-6)


def read_slowly(name, peak):
    """Probability at a peak: by weighted cosines at factor 100, or of the layers' mean."""
    if name == "sdp":
        return 1 / (1 + math.exp(-100 * 2 * peak / 4))
    return min(max(peak / 4, 0.0), 1.0)


@pytest.mark.parametrize("name", ["sdp", "sdp_plus"])
def test_a_mended_score_is_of_text_and_smoothed_peak_of_the_image_alone(
    name, tiny, encode, features
):
    image_embed, tokens = features
    torch.manual_seed(0)
    method = build_method(name, {"as": "mended", "sigma": 2.0})
    assert not method.note
    scorer = method.build(encode, "nut", Learned(Heads(4, 64, 32).state_dict()))
    assert scorer.combine is None
    scores = score_batch(scorer, tokens, image_embed, tiny, method.sigma)
    side = encode_representatives(encode, "nut", DENSITIES["usual"])
    margins = (100 * F.normalize(image_embed, dim=1) @ side).diff(dim=1)[:, 0].tolist()
    for row, margin in enumerate(margins):
        peak = float(gaussian_filter(raw_map(scorer, tokens, image_embed, row), 2.0).max())
        mean = (1 / (1 + math.exp(-margin)) + read_slowly(name, peak)) / 2
        assert scores.image_scores[row] == pytest.approx(math.log(mean / (1 - mean)), abs=1e-3)
        alone = score_batch(scorer, tokens[row : row + 1], image_embed[row : row + 1], tiny, 2.0)
        assert alone.image_scores == pytest.approx(scores.image_scores[row : row + 1], abs=1e-4)


def raw_map(scorer, tokens, image_embed, row):
    return scorer.compute_map(tokens[row : row + 1], image_embed[row : row + 1])[0].numpy()


@given(st.floats(-180, 180), st.floats(0, 1), st.floats(1e-3, 0.5))
def test_a_higher_peak_or_a_higher_margin_is_never_a_lower_score(margin, peak, step):
    def score(margin, peak):
        return clip_ad.join_peaks(np.float32([margin]), np.float64([peak]))[0]

    assert score(margin, min(peak + step, 1.0)) >= score(margin, peak)
    assert score(margin + step, peak) >= score(margin, peak)
    assert abs(score(margin, peak)) < 181


def test_scores_near_both_ends_stay_apart():
    """Where probabilities in float32 are 1, log-odds tell images apart; peaks of 1 do no harm."""
    margins = np.arange(18, 60, dtype=np.float32)
    for peak in (0.0, 1.0):
        for sign in (1, -1):
            joined = clip_ad.join_peaks(sign * margins, np.full(42, peak))
            decided = (peak == 1.0) == (sign == 1)
            assert (len(np.unique(joined)) == 42) == decided  # else the mean is one half
            assert decided or joined == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("form", ["published", "mended"])
def test_training_steps_are_those_of_pytorchs_adam_in_the_forms_order(encode, images, form):
    """As published rows come as they are numbered, and betas are PyTorch's own."""
    seed = 3
    method = SdpPlus(as_=form, epochs=3, batch_size=4, learning_rate=1e-3)
    learned = method.fit(encode, images, seed)
    torch.manual_seed(seed)
    heads = Heads(4, 64, 32)
    optimizer = torch.optim.Adam(heads.parameters(), lr=1e-3, betas=(0.9, 0.999))
    own = {name: encode_representatives(encode, name, DENSITIES["wide"]) for name in images.names}
    plan = [[[0, 1, 2, 3], [4, 5]]] * 3 if form == "published" else plan_batches(6, 3, 4, seed)
    steps = [rows for epoch in plan for rows in epoch]
    for step, rows in enumerate(steps):
        tokens, masks = images.load_tokens(rows)[:, 4:, 1:], images.load_masks(rows).float()
        text = torch.stack([own[images.names[row]] for row in rows])
        maps = compute_maps(heads(tokens), text, (4, 4), (32, 32))  # (B, L, 2, S, S)
        loss = sum(
            compute_focal(level, masks) + compute_dice(level[:, 1], masks)
            for level in maps.unbind(1)
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert learned.curve[step]["loss"] == pytest.approx(loss.item(), rel=1e-3)
    for name, value in heads.state_dict().items():
        agrees = (learned.tensors[name] - value).abs() < 1e-4
        assert agrees.float().mean() > 0.98


def test_missing_or_foreign_layers_are_refused(encode):
    for tensors in ({}, Heads(4, 64, 31).state_dict(), Heads(3, 64, 32).state_dict()):
        with pytest.raises(ValueError, match=r"SDP\+ has no trained layers for this model"):
            SdpPlus().build(encode, "nut", Learned(tensors))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"as_": "late"}, "sdp_plus: as must be published or mended, not 'late'"),
        ({"test_density": "dense"}, r"test_density: a density is usual or wide, .* not 'dense'"),
        ({"train_density": (0.5,)}, r"sdp_plus: train_density: a density .* not \(0.5,\)"),
        ({"train_density": (0.5, 1.5)}, "a density is usual or wide"),
        ({"train_density": None}, "a density is usual or wide"),
        ({"test_density": (-1.0, 15)}, "sdp_plus: test_density: eps must be from"),
        ({"train_density": (0.5, 0)}, "sdp_plus: train_density: min_samples must be from"),
    ],
)
def test_impossible_settings_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        SdpPlus(**wrong)


def test_densities_are_set_by_name_or_by_numbers(encode, images):
    assert (DENSITIES["usual"], DENSITIES["wide"]) == (Density(0.5, 15), Density(1.5, 25))
    assert Sdp(test_density=(0.25, 3)).read_density("test_density") == Density(0.25, 3)
    values = ("wide", [1.5, 25], [0.95, 5])
    maps = [
        build_method("sdp", {"test_density": value})
        .build(encode, "nut", Learned())
        .compute_map(images.load_tokens([0]), images.image_embed[:1])
        for value in values
    ]
    assert torch.equal(maps[0], maps[1])
    assert not torch.allclose(maps[0], maps[2], atol=1e-4)
    wide, same, other = (
        build_method("sdp_plus", {"epochs": 3, "train_density": value})
        .fit(encode, images, 0)
        .tensors
        for value in values
    )
    assert all(torch.equal(wide[name], same[name]) for name in wide)
    assert not any(torch.equal(wide[name], other[name]) for name in wide)


def test_sdp_has_no_settings_of_a_training():
    settings = {"as", "test_density", "stages", "sigma"}
    assert list_settings("sdp").keys() == settings
    training = {"train_density", "epochs", "batch_size", "learning_rate"}
    assert list_settings("sdp_plus").keys() == settings | training
