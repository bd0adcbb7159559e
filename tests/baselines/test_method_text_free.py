"""Text-free pairs: their training, and their rows against the same by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from drawn_embeds import draw_embeds, hold_images
from references import compute_dice, compute_focal, join_margins
from sklearn.metrics import roc_auc_score
from torch.nn import functional as F

from fuzzyclip.baselines.text_free import Pairs, TextFree, compute_losses
from fuzzyclip.clip.name_encoder import NameEncoder
from fuzzyclip.method.scorer import score_batch

NAMES = ["metal_nut", "pill", "wood"]
COUNT = 36


@pytest.fixture
def encode(tiny):
    return NameEncoder(tiny, draw_embeds)


@pytest.fixture
def images():
    """Images, half of them with a defect, which moves its patches and its image along a direction.

    Features of a frozen tower have much in common, whatever they show.
    """
    generator = torch.Generator().manual_seed(0)
    embeds = 0.3 * torch.randn(COUNT, 32, generator=generator)
    tokens = torch.randn(COUNT, 3, 16, 64, generator=generator)
    embeds[:, 4:8] += 2
    masks = torch.zeros(COUNT, 32, 32, dtype=torch.bool)
    for row in range(1, COUNT, 2):
        top, left = divmod(row % 9, 3)
        masks[row, 8 * top : 8 * top + 16, 8 * left : 8 * left + 16] = True
        embeds[row, :4] += 2
        for patch in (0, 1, 4, 5):
            tokens[row, :, 4 * top + left + patch, :8] += 4
    return hold_images(embeds, tokens, masks, NAMES * (COUNT // 3))


def draw_planes(pairs, tokens):
    """Cosines times 100 with both directions, as pixels: (B, L, 2, 32, 32)."""
    blocks = []
    for block in range(3):
        unit, pair = F.normalize(tokens[:, block], dim=-1), F.normalize(pairs[block], dim=0)
        planes = (100 * unit @ pair).transpose(1, 2).reshape(-1, 2, 4, 4)
        blocks.append(F.interpolate(planes, (32, 32), mode="bilinear", align_corners=True))
    return torch.stack(blocks, dim=1)


def test_what_it_learns_finds_defects_of_a_category_it_has_not_seen(tiny, encode, images):
    learned = TextFree(epochs=30, batch_size=4).fit(
        encode, images.select([row for row in range(COUNT) if images.names[row] != "wood"]), seed=0
    )
    assert {name: tuple(value.shape) for name, value in learned.tensors.items()} == {
        "pixel": (3, 64, 2),
        "image": (2, 32),
    }
    assert learned.tensors["pixel"].norm(dim=1).numpy() == pytest.approx(np.ones((3, 2)), abs=1e-5)
    assert learned.tensors["image"].norm(dim=1).numpy() == pytest.approx(np.ones(2), abs=1e-5)
    rows = [row for row in range(COUNT) if images.names[row] == "wood"]
    scorer = TextFree().build(encode, "wood", learned)
    scores = score_batch(scorer, images.load_tokens(rows), images.image_embed[rows], tiny)
    masks = images.load_masks(rows).numpy()
    assert roc_auc_score(masks.ravel(), scores.maps.ravel()) > 0.85  # patches are 8 pixels wide
    assert roc_auc_score(images.labels[rows], scores.image_scores) == 1


def test_a_loss_is_focal_and_dice_of_two_channels_and_cross_entropy(tiny, images):
    torch.manual_seed(2)
    pairs = Pairs(3, 64, 32)
    with torch.no_grad():
        pairs.pixel *= torch.rand(3, 1, 2) + 0.5  # lengths count for nothing
        pairs.image *= 7
    tokens, masks = images.load_tokens(range(COUNT)), images.load_masks(range(COUNT)).float()
    unit = F.normalize(images.image_embed, dim=-1)
    batch = (tokens, masks, unit, images.labels.float())
    losses = {name: value.item() for name, value in compute_losses(pairs, batch, tiny).items()}
    with torch.no_grad():
        maps = draw_planes(pairs.pixel, tokens).softmax(dim=2).unbind(dim=1)
        focal = sum(float(compute_focal(each, masks)) for each in maps)
        dice = sum(float(compute_dice(each[:, 1], masks)) for each in maps)
        both = (100 * unit @ F.normalize(pairs.image, dim=1).T).double()
        entropy = float(-both.log_softmax(dim=1)[range(COUNT), images.labels].mean())
    assert losses["focal"] == pytest.approx(focal, rel=1e-4)
    assert losses["dice"] == pytest.approx(dice, rel=1e-4)
    assert losses["image"] == pytest.approx(entropy, rel=1e-4)
    assert losses["loss"] == pytest.approx(focal + dice + losses["image"], rel=1e-4)


def test_maps_and_scores_are_those_of_two_directions(tiny, encode, images):
    learned = TextFree(epochs=1).fit(encode, images, seed=1)
    tokens = images.load_tokens(range(3))
    scorer = TextFree().build(encode, "pill", learned)
    scores = score_batch(scorer, tokens, images.image_embed[:3], tiny)
    planes = draw_planes(learned.tensors["pixel"], tokens)
    for image in range(3):
        margins = planes[image, :, 1] - planes[image, :, 0]
        expected = join_margins(margins).numpy()
        assert scores.maps[image] == pytest.approx(expected, abs=1e-3)
    pair = learned.tensors["image"]
    both = 100 * F.normalize(images.image_embed[:3], dim=-1) @ pair.T
    assert scores.image_scores == pytest.approx((both[:, 1] - both[:, 0]).numpy(), abs=1e-4)


def test_neither_names_nor_text_play_a_part(tiny, images):
    def refuse(prompts):
        raise AssertionError(f"asked for the text of {prompts}")

    silent = NameEncoder(tiny, refuse)
    turned = replace(images, names=[*images.names[1:], images.names[0]])
    learned, other = (TextFree(epochs=2).fit(silent, each, seed=1) for each in (images, turned))
    for name, value in learned.tensors.items():
        assert torch.equal(value, other.tensors[name])
    tokens = images.load_tokens(range(3))
    maps = [
        score_batch(
            TextFree().build(silent, category, learned), tokens, images.image_embed[:3], tiny
        ).maps
        for category in ("pill", "wood")
    ]
    assert np.array_equal(*maps)


def test_pairs_of_another_model_are_refused(encode, load_tiny, images):
    learned = TextFree(epochs=1).fit(encode, images, seed=0)
    other = NameEncoder(load_tiny(blocks=(1, 4)), draw_embeds)
    with pytest.raises(ValueError, match="do not fit this backbone"):
        TextFree().build(other, "pill", learned)


@pytest.mark.parametrize("label", [0, 1])
def test_a_set_of_one_label_is_refused(encode, images, label):
    same = replace(images, labels=torch.full((COUNT,), label))
    with pytest.raises(ValueError, match="one label"):
        TextFree().fit(encode, same, seed=0)
