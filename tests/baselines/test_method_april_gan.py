"""APRIL-GAN: its training on each image's own name, and its row against the same by hand."""

from dataclasses import replace

import pytest
import torch
from drawn_embeds import draw_embeds, hold_images
from references import compute_dice, compute_focal, compute_maps, join_margins
from scipy.special import expit
from torch.nn import functional as F

from fuzzyclip.baselines.april_gan import AprilGan
from fuzzyclip.clip.name_encoder import NameEncoder
from fuzzyclip.clip.prompts import encode_name
from fuzzyclip.method.efa import Heads
from fuzzyclip.method.scorer import score_batch
from fuzzyclip.method.training_set import plan_mosaics
from fuzzyclip.utils.settings import TextSettings

NAMES = ["metal_nut", "pill", "wood"]


@pytest.fixture
def encode(tiny):
    return NameEncoder(tiny, draw_embeds, TextSettings(ensemble="single"))


@pytest.fixture
def images():
    """Twelve images of three categories; a defect moves its patches along one direction."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(12, 3, 16, 64, generator=generator)
    masks = torch.zeros(12, 32, 32, dtype=torch.bool)
    for row in range(1, 12, 2):
        place = row % 9  # never in the last column or row of the 4 x 4 patches
        top, left = divmod(place, 3)
        masks[row, 8 * top : 8 * top + 16, 8 * left : 8 * left + 16] = True
        for patch in (0, 1, 4, 5):
            tokens[row, :, 4 * top + left + patch, :8] += 4
    return hold_images(torch.randn(12, 32, generator=generator), tokens, masks, NAMES * 4)


def measure_all(heads, images, encode):
    """Focal plus dice, block by block, as two softmax channels against each image's own text."""
    tokens, masks = images.load_tokens(range(12)), images.load_masks(range(12)).float()
    text = torch.stack([encode([name]) for name in images.names])
    maps = compute_maps(heads(tokens), text, (4, 4), (32, 32))  # (B, L, 2, S, S)
    return sum(
        compute_focal(block, masks) + compute_dice(block[:, 1], masks) for block in maps.unbind(1)
    )


def load(tensors):
    heads = Heads(3, 64, 32)
    heads.load_state_dict({name.removeprefix("heads."): t for name, t in tensors.items()})
    return heads


def test_training_lowers_the_loss(encode, images):
    method = AprilGan(epochs=6, batch_size=4, learning_rate=0.01)
    learned = method.fit(encode, images, seed=3)
    layers, curve = learned.tensors, learned.curve
    assert len(curve) == 6 * 3
    assert curve[-1]["loss"] < 0.6 * curve[0]["loss"]
    torch.manual_seed(3)
    before = Heads(3, 64, 32)
    with torch.no_grad():
        after = measure_all(load(layers), images, encode)
        assert after < 0.6 * measure_all(before, images, encode)


def test_one_step_is_adams_on_every_images_own_prompt(encode, images):
    torch.manual_seed(5)
    heads = Heads(3, 64, 32)
    optimizer = torch.optim.Adam(heads.parameters(), lr=0.01, betas=(0.5, 0.999))
    loss = measure_all(heads, images, encode)
    loss.backward()
    optimizer.step()
    method = AprilGan(epochs=1, batch_size=12, learning_rate=0.01)
    learned = method.fit(encode, images, seed=5)
    layers, curve = learned.tensors, learned.curve
    assert curve[0]["loss"] == pytest.approx(loss.item(), rel=1e-4)
    for name, value in heads.state_dict().items():
        # Adam's first step is +-lr wherever the slope is not next to nothing.
        agrees = (layers[f"heads.{name}"] - value).abs() < 1e-4
        assert agrees.float().mean() > 0.99


def draw_mosaics(images):
    """A function from quads to tokens and masks: a quarter of each image, and a list of quads."""
    asked = []
    quarter = torch.arange(16).view(2, 2, 2, 2).permute(0, 2, 1, 3).reshape(4, 4)  # patches

    def load(quads):
        asked.extend(quads)
        tokens, masks = [], []
        for quad in quads:
            parts, own = images.load_tokens(quad), images.load_masks(quad)
            mosaic, mask = torch.empty_like(parts[0]), torch.zeros(32, 32, dtype=torch.bool)
            for place, patches in enumerate(quarter):
                mosaic[:, patches] = parts[place][:, patches]
                down, across = (slice(16 * side, 16 * side + 16) for side in divmod(place, 2))
                mask[down, across] = own[place][down, across]
            tokens.append(mosaic)
            masks.append(mask)
        return torch.stack(tokens), torch.stack(masks)

    return load, asked


def test_mosaics_take_the_places_of_images_of_their_own_category(encode, images):
    """Against a loop that puts each mosaic where the plan has it, and steps by PyTorch's Adam."""
    load_mosaics, asked = draw_mosaics(images)
    method = AprilGan(epochs=3, batch_size=12, mosaic=0.4)
    learned = method.fit(encode, replace(images, load_mosaics=load_mosaics), seed=5)
    plan = plan_mosaics(images.members, 3, 0.4, 5)
    assert sorted(asked) == sorted(plan.values())
    assert 5 < len(asked) < 25  # of 36
    for quad in asked:
        assert len({images.names[row] for row in quad}) == 1
    torch.manual_seed(5)
    heads = Heads(3, 64, 32)
    optimizer = torch.optim.Adam(heads.parameters(), lr=1e-3, betas=(0.5, 0.999))
    for epoch in (1, 2, 3):
        tokens, masks = images.load_tokens(range(12)).clone(), images.load_masks(range(12)).clone()
        for row in range(12):
            if (epoch, row) in plan:
                (tokens[row],), (masks[row],) = draw_mosaics(images)[0]([plan[epoch, row]])
        mixed = hold_images(images.image_embed, tokens, masks, images.names)
        optimizer.zero_grad()
        loss = measure_all(heads, mixed, encode)
        loss.backward()
        optimizer.step()
        assert learned.curve[epoch - 1]["loss"] == pytest.approx(loss.item(), rel=1e-4)
    for name, value in heads.state_dict().items():
        agrees = (learned.tensors[f"heads.{name}"] - value).abs() < 1e-4
        assert agrees.float().mean() > 0.99


def test_without_a_share_there_are_no_mosaics(encode, images):
    load_mosaics, asked = draw_mosaics(images)
    AprilGan(epochs=2).fit(encode, replace(images, load_mosaics=load_mosaics), seed=5)
    assert not asked


def test_names_decide_what_is_learned(encode, images):
    method = AprilGan(epochs=1, batch_size=12, learning_rate=0.01)
    turned = replace(images, names=[*images.names[1:], images.names[0]])
    learned, other = (method.fit(encode, among, seed=1).tensors for among in (images, turned))
    assert any(not torch.allclose(learned[name], other[name], atol=1e-3) for name in learned)


def test_a_map_is_the_mean_over_blocks_and_a_score_is_clips_own(tiny, encode, images):
    learned = AprilGan(epochs=1, batch_size=6).fit(encode, images, seed=0)
    scorer = AprilGan().build(encode, "metal_nut", learned)
    assert scorer.prompt == "metal_nut"
    tokens = images.load_tokens([0, 1, 2])
    scores = score_batch(scorer, tokens, images.image_embed[:3], tiny)
    assert scores.weights is None
    heads, text = load(learned.tensors), encode_name("metal_nut", draw_embeds, "single")
    for image in range(3):
        margins = []
        with torch.no_grad():
            for block, layer in enumerate(heads.layers):
                unit = F.normalize(layer(tokens[image, block]), dim=-1)
                planes = (100 * unit @ text).T.view(1, 2, 4, 4)
                planes = F.interpolate(planes, (32, 32), mode="bilinear", align_corners=True)
                margins.append(planes[0, 1] - planes[0, 0])
        expected = join_margins(torch.stack(margins)).numpy()
        assert scores.maps[image] == pytest.approx(expected, abs=1e-4)
        shown = sum(expit(margin.numpy()) for margin in margins) / 3
        assert scores.shown[image] == pytest.approx(shown, abs=3e-5)
        normal, anomalous = 100 * F.normalize(images.image_embed[image], dim=0) @ text
        assert scores.image_scores[image] == pytest.approx(float(anomalous - normal), abs=1e-4)


def test_layers_of_another_model_are_refused(encode, load_tiny, images):
    learned = AprilGan(epochs=1).fit(encode, images, seed=0)
    other = NameEncoder(load_tiny(blocks=(1, 4)), draw_embeds)
    with pytest.raises(ValueError, match="do not fit this backbone"):
        AprilGan().build(other, "pill", learned)


def test_a_set_without_a_defect_is_refused(encode, images):
    good = replace(images, labels=torch.zeros(12, dtype=torch.int64))
    with pytest.raises(ValueError, match="no image of the auxiliary set is anomalous"):
        AprilGan().fit(encode, good, seed=0)
