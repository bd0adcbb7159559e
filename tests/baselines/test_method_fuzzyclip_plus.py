"""FuzzyCLIP+: each piece of evidence against a slow version of it, and how they are joined."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from drawn_embeds import draw_embeds, hold_images
from hypothesis import given
from hypothesis import strategies as st
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import roc_auc_score

from fuzzyclip.baselines.fuzzyclip_plus import (
    IMAGE_EVIDENCE,
    MAP_EVIDENCE,
    FuzzyClipPlus,
    draw,
    fit_directions,
    measure_layers,
    mix_odds,
)
from fuzzyclip.baselines.fuzzyclip_plus.discriminants import Moments, measure_shares
from fuzzyclip.baselines.fuzzyclip_plus.joining import (
    FITTED,
    Joint,
    average_top,
    fit_joint,
    fit_line,
)
from fuzzyclip.baselines.shared.own_image import LOOKS, Look, Rarity
from fuzzyclip.clip.encoding import normalise
from fuzzyclip.clip.name_encoder import NameEncoder
from fuzzyclip.method.efa import compute_margins
from fuzzyclip.method.fuzzyclip import TrainedParts
from fuzzyclip.method.scorer import score_batch
from fuzzyclip.utils.settings import EfaTest

NAMES = ["metal_nut", "pill", "wood"]
COUNT = 36
SHORT = {"epochs": 1, "batch_size": 8, "prompt_epochs": 1, "mosaic": 0.0, "sigma": 0.0}


@pytest.fixture
def encode(tiny):
    return NameEncoder(tiny, draw_embeds)


@pytest.fixture
def images():
    """Images, half of them with a defect, which moves its patches and its image along a direction.

    Every other patch of an image is one of two kinds.
    """
    generator = torch.Generator().manual_seed(0)
    embeds = 0.3 * torch.randn(COUNT, 32, generator=generator)
    kinds = torch.randn(COUNT, 3, 2, 64, generator=generator)
    tokens = kinds.repeat(1, 1, 8, 1) + 0.2 * torch.randn(COUNT, 3, 16, 64, generator=generator)
    embeds[:, 4:8] += 2
    masks = torch.zeros(COUNT, 32, 32, dtype=torch.bool)
    for row in range(1, COUNT, 2):
        top, left = divmod(row % 9, 3)
        masks[row, 8 * top : 8 * top + 16, 8 * left : 8 * left + 16] = True
        embeds[row, :4] += 2
        for patch in (0, 1, 4, 5):
            tokens[row, :, 4 * top + left + patch, :8] += 2
    return hold_images(embeds, tokens, masks, NAMES * (COUNT // 3))


def compare_slowly(tokens, grid, look):
    """`Rarity` of one image (L, P, W), a patch at a time."""
    rows, columns = grid
    values = np.zeros(rows * columns)
    for block in tokens.numpy().astype(np.float64):
        planes = block.reshape(rows, columns, -1)
        reach = look.side // 2
        pooled = np.array([
            planes[max(0, r - reach) : r + reach + 1, max(0, c - reach) : c + reach + 1]
            .reshape(-1, planes.shape[-1]).mean(axis=0)
            for r in range(rows) for c in range(columns)
        ])  # fmt: skip
        unit = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
        count = round(look.share * rows * columns)
        for patch in range(rows * columns):
            others = [
                other for other in range(rows * columns)
                if max(abs(other // columns - patch // columns),
                       abs(other % columns - patch % columns)) > 1
            ]  # fmt: skip
            cosines = sorted((unit[others] @ unit[patch]).tolist(), reverse=True)
            count = min(max(1, count), len(cosines))
            values[patch] += (1 - np.mean(cosines[:count])) / 2 / len(tokens)
    return values


@pytest.mark.parametrize("look", [*LOOKS, Look(5, 0.9), Look(1, 0.001)])
def test_rarity_is_the_distance_to_the_nearest_in_the_same_image(look):
    tokens = torch.randn(3, 2, 30, 7, generator=torch.Generator().manual_seed(1))
    values = Rarity((5, 6), look)(tokens, torch.zeros(3, 7))
    for image, own in zip(tokens, values, strict=True):
        fewest = 30 - 9  # that are not beside the middle: a look may ask for no more of any patch
        slow = compare_slowly(image, (5, 6), replace(look, share=min(look.share, fewest / 30)))
        np.testing.assert_allclose(own.numpy(), slow, atol=1e-5)


def test_what_is_alone_in_its_image_is_rare_and_what_is_repeated_is_not():
    tokens = torch.zeros(1, 1, 36, 8)
    tokens[..., 0] = 1
    tokens[0, 0, [14, 15, 20, 21]] = torch.eye(8)[3]
    values = Rarity((6, 6), Look(1, 0.05))(tokens, torch.zeros(1, 8))[0]
    assert values[[14, 15, 20, 21]].numpy() == pytest.approx([0.5] * 4)
    assert values.sort().values[:32].max() == pytest.approx(0.0, abs=1e-6)


def test_a_grid_without_anything_to_compare_with_is_refused():
    with pytest.raises(ValueError, match="3 x 3 patches have nothing"):
        Rarity((3, 3), LOOKS[0])


def test_a_discriminant_without_shrinkage_is_fishers():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 300)
    features = rng.normal(size=(300, 6)) @ rng.normal(size=(6, 6))
    features += np.outer(labels, [1.0, 0, 0, 2, 0, 0])
    moments = Moments(1, 6)
    moments.add(torch.from_numpy(features)[None].float(), torch.from_numpy(labels))
    direction = moments.solve(0.0)[0].double().numpy()
    fisher = LinearDiscriminantAnalysis(solver="lsqr").fit(features, labels).coef_[0]
    cosine = direction @ fisher / np.linalg.norm(direction) / np.linalg.norm(fisher)
    assert cosine == pytest.approx(1.0, abs=1e-5)
    apart = features[labels == 1].mean(axis=0) - features[labels == 0].mean(axis=0)
    ball = moments.solve(1.0)[0].double().numpy()
    assert ball == pytest.approx(apart * (ball @ apart) / (apart @ apart), rel=1e-4)


@given(cuts=st.lists(st.integers(1, 39), max_size=4), shrinkage=st.floats(0.05, 1))
def test_moments_do_not_depend_on_how_a_set_is_cut(cuts, shrinkage):
    generator = torch.Generator().manual_seed(2)
    features = torch.randn(2, 40, 5, generator=generator)
    shares = torch.rand(40, generator=generator)
    whole, parts = Moments(2, 5), Moments(2, 5)
    whole.add(features, shares)
    ends = [0, *sorted(set(cuts)), 40]
    for first, stop in itertools.pairwise(ends):
        parts.add(features[:, first:stop], shares[first:stop])
    torch.testing.assert_close(parts.solve(shrinkage), whole.solve(shrinkage), rtol=1e-3, atol=1e-4)


def test_a_patch_is_as_anomalous_as_much_of_it_is_masked():
    masks = torch.zeros(1, 8, 8, dtype=torch.bool)
    masks[0, :3, :2] = True
    shares = measure_shares(masks, (2, 2))[0]
    assert shares.tolist() == [6 / 16, 0, 0, 0]


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_nothing_is_learned_from_one_side_alone(share):
    moments = Moments(1, 3)
    moments.add(torch.randn(1, 5, 3), torch.full((5,), share))
    with pytest.raises(ValueError, match="normal and anomalous"):
        moments.solve(0.5)
    with pytest.raises(ValueError, match="normal and anomalous"):
        fit_line(np.arange(5.0), np.full(5, share), 0)


def test_a_line_makes_the_log_odds_of_what_is_counted():
    sums = np.repeat([0.0, 1.0], 400)
    shares = np.repeat([0.1, 0.7], 400)
    slope, offset = fit_line(sums, shares, 0)
    assert offset == pytest.approx(np.log(0.1 / 0.9), abs=1e-3)
    assert offset + slope == pytest.approx(np.log(0.7 / 0.3), abs=1e-3)
    assert fit_line(-sums, shares, 0)[0] > 0  # evidence the wrong way round changes no order
    many = np.tile(sums, FITTED // 400)
    assert fit_line(many, np.tile(shares, FITTED // 400), 0)[0] == pytest.approx(slope, rel=0.05)


def test_evidence_counts_in_deviations_of_its_own():
    generator = torch.Generator().manual_seed(3)
    evidence = torch.randn(2, 500, generator=generator) * torch.tensor([[1.0], [1000.0]]) + 7
    shares = (evidence[0] > 8).float()
    joint = fit_joint(evidence, shares, 0)
    joined = joint.join(evidence.double())
    units = (evidence - evidence.mean(dim=1, keepdim=True)) / evidence.std(dim=1, keepdim=True)
    expected = joint.slope * units.sum(dim=0) + joint.offset
    np.testing.assert_allclose(joined, expected, rtol=1e-4, atol=1e-4)
    again = Joint.unpack(joint.pack(), 2)
    np.testing.assert_allclose(again.join(evidence.double()), joined, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(joint.join(evidence.view(2, 20, 25)).flatten(), joined, atol=1e-4)
    with pytest.raises(ValueError, match="3 pieces of evidence"):
        Joint.unpack(joint.pack(), 3)
    with pytest.raises(ValueError, match="2 pieces of evidence"):
        Joint.unpack(joint.pack() * torch.nan, 2)


def test_the_top_of_a_map_is_the_mean_of_its_highest_values():
    maps = torch.arange(200.0).view(2, 10, 10)
    assert average_top(maps, 0.03).tolist() == [98, 198]
    assert average_top(maps, 0.0001).tolist() == [99, 199]


def test_layers_count_with_the_mean_of_the_blocks_log_odds(tiny, encode, images):
    method = FuzzyClipPlus(**SHORT)
    learned = method.fit_parts(encode, images, 0)
    parts = TrainedParts(encode, learned, EfaTest())
    tokens, embeds = images.load_tokens([0, 1]), normalise(images.image_embed[:2])
    values = measure_layers(parts, "gear")(tokens, embeds)
    weights = parts.build_scorer("gear").compute_weights(embeds)
    expected = torch.zeros(2, 16, dtype=torch.float64)
    for block in range(3):
        sides = torch.zeros(2, 2, 16, dtype=torch.float64)
        for cluster, names in enumerate(parts.clusters):
            mapped = parts.heads[cluster].layers[block](tokens[:, block])
            margins = compute_margins(mapped, encode(names, "gear", "")).double().detach()
            sides += weights[:, cluster, None] * torch.stack([margins, -margins]).sigmoid()
        expected += (sides[0] / sides[1]).log() / 3
    np.testing.assert_allclose(values.detach(), expected, rtol=1e-3, atol=1e-3)


def test_odds_are_mixed_as_probabilities_are_and_far_beyond_them():
    generator = torch.Generator().manual_seed(5)
    margins = 8 * torch.randn(2, 3, 9, generator=generator)
    weights = torch.rand(2, 3, generator=generator).softmax(dim=1)
    mixed = (weights[..., None].double() * margins.double().sigmoid()).sum(dim=1)
    np.testing.assert_allclose(
        mix_odds(margins, weights.log()), torch.logit(mixed), rtol=1e-4, atol=1e-5
    )
    far = torch.tensor([[[150.0, -150.0, 200.0]]])
    assert mix_odds(far, torch.zeros(1, 1)).tolist() == [[150, -150, 200]]


@pytest.mark.parametrize("text", [True, False])
def test_what_it_learns_finds_defects_of_a_category_it_has_not_seen(text, tiny, encode, images):
    method = FuzzyClipPlus(text=text, **SHORT)
    known = images.select([row for row in range(COUNT) if images.names[row] != "wood"])
    learned = method.fit(encode, known, seed=0)
    pieces = len(method.for_maps) + 1, len(method.for_images)  # two looks at the own image
    assert learned.tensors["map_joint"].shape == (pieces[0] + 1, 2)
    assert learned.tensors["image_joint"].shape == (pieces[1] + 1, 2)
    assert ("text_embed" in learned.tensors) == bool(learned.curve) == text == method.reads_text
    rows = [row for row in range(COUNT) if images.names[row] == "wood"]
    scores = score_batch(
        method.build(encode, "wood", learned),
        images.load_tokens(rows),
        images.image_embed[rows],
        tiny,
    )
    masks = images.load_masks(rows).numpy()
    assert roc_auc_score(masks.ravel(), scores.maps.ravel()) > 0.85  # patches are 8 pixels wide
    assert roc_auc_score(images.labels[rows], scores.image_scores) > 0.95


def test_log_odds_are_those_of_the_auxiliary_set(tiny, encode, images):
    method = FuzzyClipPlus(text=False, **SHORT)
    learned = method.fit(encode, images, seed=0)
    scores = score_batch(
        method.build(encode, "", learned), images.load_tokens(range(COUNT)), images.image_embed,
        tiny,
    )  # fmt: skip
    shares = float(images.load_masks(range(COUNT)).float().mean())
    assert scores.shown.mean() == pytest.approx(shares, abs=0.03)
    likely = 1 / (1 + np.exp(-scores.image_scores.astype(np.float64)))
    assert likely.mean() == pytest.approx(0.5, abs=0.02)


def test_without_text_a_name_plays_no_part_and_any_evidence_will_do(tiny, encode, images):
    for for_maps in (("discriminants",), ("own_image",), MAP_EVIDENCE):
        method = FuzzyClipPlus(text=False, map_evidence=for_maps, **SHORT)
        learned = method.fit(encode, images, seed=0)
        first, second = (method.build(encode, name, learned) for name in ("nut", "x" * 999))
        tokens, embeds = images.load_tokens([0, 1]), images.image_embed[:2]
        assert np.array_equal(
            score_batch(first, tokens, embeds, tiny).maps,
            score_batch(second, tokens, embeds, tiny).maps,
        )


def test_a_piece_of_evidence_less_is_what_is_left(tiny, encode, images):
    method = FuzzyClipPlus(text=False, **SHORT)
    learned = method.fit(encode, images, seed=0)
    alone = replace(method, map_evidence=("discriminants",), image_evidence=("discriminant",))
    scorer = alone.build(encode, "", alone.fit(encode, images, seed=0))
    tokens, embeds = images.load_tokens([3, 4]), normalise(images.image_embed[3:5])
    directions, shares = fit_directions(images, tiny, method.shrinkage)
    assert torch.equal(shares, measure_shares(images.load_masks(range(COUNT)), tiny.grid))
    assert torch.equal(directions["token_direction"], learned.tensors["token_direction"])
    values = torch.einsum("blpw,lw->bp", normalise(tokens), directions["token_direction"])
    maps = draw(Joint(torch.zeros(1), torch.ones(1), 1.0, 0.0), values[None], tiny)
    own = scorer.compute_map(tokens, embeds)
    line = np.polyfit(maps.flatten(), own.flatten(), 1)
    np.testing.assert_allclose(np.polyval(line, maps.flatten()), own.flatten(), atol=1e-4)
    ordered = (embeds @ directions["class_direction"]).argsort()
    assert torch.equal(scorer.compute_score(embeds, own).argsort(), ordered)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"map_evidence": []}, "map_evidence must be some of layers, discriminants, own_image"),
        ({"map_evidence": ["layers", "layers"]}, "each once"),
        ({"image_evidence": ["peak"]}, r"image_evidence must be some of prompts, .* \['peak'\]"),
        ({"image_evidence": ["prompts"], "text": False}, "without text nothing is left of image"),
        ({"map_evidence": ["layers"], "text": False}, "without text nothing is left of map"),
        ({"shrinkage": 1.5}, "shrinkage must be from 0 to 1"),
    ],
)
def test_evidence_that_there_is_not_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        FuzzyClipPlus(**settings)


def test_a_set_of_one_label_and_tensors_of_another_tower_are_refused(encode, images):
    method = FuzzyClipPlus(text=False, **SHORT)
    with pytest.raises(ValueError, match="all of the auxiliary set have one label"):
        method.fit(encode, images.select(range(0, COUNT, 2)), seed=0)
    learned = method.fit(encode, images, seed=0)
    for name, value in learned.tensors.items():
        broken = replace(learned, tensors={**learned.tensors, name: value[..., :1]})
        if name == "class_direction":
            continue  # a vector: its width is met by the first image
        with pytest.raises(ValueError, match=r"fit this backbone|pieces of evidence"):
            method.build(encode, "nut", broken)


def test_evidence_is_named_in_its_order_whatever_the_settings_order():
    method = FuzzyClipPlus(map_evidence=("own_image", "layers"), image_evidence=("map", "prompts"))
    assert method.for_maps == ("layers", "own_image")
    assert method.for_images == ("prompts", "map")
    assert FuzzyClipPlus(text=False).for_images == IMAGE_EVIDENCE[1:]
