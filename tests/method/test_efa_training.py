"""Training EFA's layers on a few drawn images: batches, mosaics, losses, and resuming."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from fuzzyclip.clip.encoding import encode_images, preprocess
from fuzzyclip.features.encode import write_category
from fuzzyclip.features.shards import compute_identity
from fuzzyclip.features.store import open_category
from fuzzyclip.method import efa_training, training
from fuzzyclip.method.efa_loss import compute_alignment_losses
from fuzzyclip.method.efa_training import TrainingImages, train_heads
from fuzzyclip.method.mosaic import build_mosaic, build_mosaic_mask, plan_mosaics, split_in_four
from fuzzyclip.method.mosaic_cache import MosaicCache
from fuzzyclip.utils.files import compute_sha256

SETTINGS = {"epochs": 2, "batch_size": 4, "learning_rate": 0.01, "seed": 5}


def draw_image(rng, anomalous):
    """A gray 64 px square; an anomalous one has a bright patch, and its mask."""
    pixels = rng.integers(90, 110, (64, 64, 3), dtype=np.uint8)
    mask = np.zeros((64, 64), dtype=bool)
    if anomalous:
        y, x = rng.integers(0, 40, 2)
        mask[y : y + 24, x : x + 24] = True
        pixels[mask] = (250, 30, 30)
    return Image.fromarray(pixels), mask


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Ten drawn images, every second anomalous, with their index rows."""
    root, rng, lines = tmp_path_factory.mktemp("images"), np.random.default_rng(0), []
    for number in range(10):
        image, mask = draw_image(rng, anomalous=number % 2 == 1)
        image.save(root / f"{number}.png")
        if mask.any():
            Image.fromarray(mask.astype(np.uint8) * 255).save(root / f"{number}_mask.png")
        lines.append(
            {
                "image_path": f"{root}/{number}.png",
                "mask_path": f"{root}/{number}_mask.png" if mask.any() else "",
                "mask_above": 0,
                "sha256": compute_sha256(root / f"{number}.png"),
            }
        )
    return root, pd.DataFrame(lines)


@pytest.fixture(scope="module")
def gather(folder, tiny, tmp_path_factory):
    """The images as a training set, with stored patch tokens or without."""
    root, rows = folder

    def build(tokens=True, mosaics=None):
        store = tmp_path_factory.mktemp("store")
        dtype = "float32" if tokens else None
        write_category(store, rows, tiny, dtype=dtype, shard_size=4)
        features = open_category(store, compute_identity(tiny, list(rows["sha256"])))
        places = list(range(len(rows)))
        return TrainingImages(rows, root, [features] * 10, places, tiny, mosaics or {})

    return build


@pytest.fixture
def text_embed():
    """Two unit columns (D, 2)."""
    return F.normalize(torch.randn(32, 2, generator=torch.Generator().manual_seed(2)), dim=0)


def encode(images, tiny):
    """Patch tokens of PIL images, (B, L, P, W)."""
    return encode_images(tiny, torch.stack([preprocess(image, tiny) for image in images]))[1]


def test_a_batch_holds_tokens_and_masks_of_its_rows(gather, folder, tiny):
    root, _ = folder
    rows = [3, 0, 7]
    expected = encode([Image.open(root / f"{row}.png").convert("RGB") for row in rows], tiny)
    for tokens in (True, False):
        patch_tokens, masks = gather(tokens).read_batch(rows, epoch=1)
        assert torch.allclose(patch_tokens, expected, atol=1e-5)
        assert masks.shape == (3, 32, 32)
        assert masks.unique().tolist() == [0, 1]
        for mask, row in zip(masks, rows, strict=True):
            path = root / f"{row}_mask.png"
            full = np.asarray(Image.open(path)) > 0 if path.is_file() else np.zeros((64, 64))
            covered = full.reshape(32, 2, 32, 2).mean(axis=(1, 3))
            assert not mask.numpy()[covered == 0].any()
            assert mask.numpy()[covered == 1].all()


def test_a_mosaic_takes_the_place_of_its_row(gather, folder, tiny):
    root, _ = folder
    images = gather(mosaics={(2, 3): (1, 0, 5, 2)})
    plain, _ = images.read_batch([3], epoch=1)
    mixed, masks = images.read_batch([3, 4], epoch=2)
    parts = [Image.open(root / f"{row}.png").convert("RGB") for row in (1, 0, 5, 2)]
    expected = encode([build_mosaic(parts, 32)], tiny)[0]
    place = 1  # plain rows of a batch come first; the loss is a mean over the batch
    assert torch.allclose(mixed[place], expected, atol=1e-5)
    assert not torch.allclose(mixed[place], plain[0], atol=1e-3)
    quarters = masks[place].reshape(2, 16, 2, 16).sum(dim=(1, 3)).bool().flatten().tolist()
    assert quarters == [True, False, True, False]
    assert masks[0].sum() == 0


def test_mosaics_are_planned_once_and_stay_within_a_category():
    categories = ["pill", "wood", "tile"] * 50
    plan = plan_mosaics(categories, epochs=3, probability=0.3, seed=1)
    assert plan == plan_mosaics(categories, epochs=3, probability=0.3, seed=1)
    assert plan != plan_mosaics(categories, epochs=3, probability=0.3, seed=2)
    assert len(plan) == pytest.approx(0.3 * 450, abs=40)
    assert {epoch for epoch, _ in plan} == {1, 2, 3}
    for (_, row), parts in plan.items():
        assert {categories[part] for part in parts} == {categories[row]}
    assert plan_mosaics(categories, 2, 0.0, 1) == {}
    assert len(plan_mosaics(categories, 2, 1.0, 1)) == 300


@pytest.mark.parametrize("size", [32, 37])
def test_four_quarters_cover_a_mosaic_in_reading_order(size):
    covered = np.zeros((size, size), dtype=int)
    for left, top, width, height in split_in_four(size):
        covered[top : top + height, left : left + width] += 1
    assert (covered == 1).all()
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]
    images = [Image.new("RGB", (50, 30), colour) for colour in colours]
    mosaic = build_mosaic(images, size)
    last = size - 1
    corners = [(0, 0), (last, 0), (0, last), (last, last)]
    assert [mosaic.getpixel(corner) for corner in corners] == colours
    for part in range(4):
        masks = [np.full((20, 20), number == part) for number in range(4)]
        mask = build_mosaic_mask(masks, size)
        assert [bool(mask[y, x]) for x, y in corners] == [number == part for number in range(4)]
        left, top, width, height = split_in_four(size)[part]
        assert mask.sum() == width * height
        assert mask[top : top + height, left : left + width].all()


def test_training_on_stored_tokens_is_training_on_the_images_to_the_bit(gather, text_embed):
    mosaics = plan_mosaics(["pill"] * 10, 2, 0.3, seed=5)
    stored, curve = train_heads(gather(mosaics=mosaics), text_embed, **SETTINGS)
    encoded, same = train_heads(gather(tokens=False, mosaics=mosaics), text_embed, **SETTINGS)
    assert curve == same
    for name, value in stored.state_dict().items():
        assert torch.equal(encoded.state_dict()[name], value)


def test_the_loss_falls_and_the_backbone_stays_as_it_is(gather, tiny, text_embed):
    before = {name: value.clone() for name, value in tiny.model.state_dict().items()}
    heads, curve = train_heads(gather(), text_embed, **SETTINGS | {"epochs": 8})
    steps = 8 * 3
    assert [row["step"] for row in curve] == list(range(1, steps + 1))
    assert curve[0].keys() == {"epoch", "step", "loss", "focal", "dice"}
    first, last = (sum(row["loss"] for row in part) for part in (curve[:3], curve[-3:]))
    assert last < 0.8 * first
    assert all(one.grad is not None and one.grad.any() for one in heads.parameters())
    assert all(one.grad is None for one in tiny.model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in tiny.model.state_dict().items())
    assert text_embed.grad is None


def test_a_killed_training_ends_with_the_same_bits(gather, text_embed, tmp_path, monkeypatch):
    images = gather(mosaics=plan_mosaics(["pill"] * 10, 2, 0.3, seed=5))
    expected, curve = train_heads(images, text_embed, **SETTINGS)
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", -1.0)
    steps = iter(range(4))

    def dies(*arguments):
        if next(steps, None) is None:
            raise KeyboardInterrupt
        return compute_alignment_losses(*arguments)

    checkpoint = tmp_path / "efa.pt"
    monkeypatch.setattr(efa_training, "compute_alignment_losses", dies)
    with pytest.raises(KeyboardInterrupt):
        train_heads(images, text_embed, **SETTINGS, checkpoint=checkpoint)
    monkeypatch.setattr(efa_training, "compute_alignment_losses", compute_alignment_losses)
    resumed, same = train_heads(images, text_embed, **SETTINGS, checkpoint=checkpoint)
    assert same == curve
    for name, value in expected.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value)


def test_the_seed_decides_the_layers(gather, text_embed):
    images = gather()
    one, two, other = (
        train_heads(images, text_embed, **SETTINGS | {"seed": seed, "epochs": 1})[0]
        for seed in (1, 1, 2)
    )
    assert torch.equal(one.layers[0].weight, two.layers[0].weight)
    assert not torch.equal(one.layers[0].weight, other.layers[0].weight)


def test_each_image_may_have_a_prompt_of_its_own(gather, tiny, monkeypatch):
    """Table 4's precise prompts: the loss of a batch takes the features of its own rows."""
    own = F.normalize(torch.randn(10, 32, 2, generator=torch.Generator().manual_seed(4)), dim=1)
    seen = []

    def spy(heads, tokens, masks, text, grid):
        seen.append(text.clone())
        return compute_alignment_losses(heads, tokens, masks, text, grid)

    monkeypatch.setattr(efa_training, "compute_alignment_losses", spy)
    train_heads(gather(), own, **SETTINGS | {"epochs": 1})
    plan = training.plan_batches(10, 1, SETTINGS["batch_size"], SETTINGS["seed"])[0]
    assert len(seen) == len(plan)
    for text, rows in zip(seen, plan, strict=True):
        assert torch.equal(text, own[rows])


def test_a_mosaic_is_encoded_once_for_every_training(gather, folder, tiny, tmp_path, monkeypatch):
    images = gather(mosaics={(1, 3): (1, 0, 5, 2), (2, 4): (1, 0, 5, 2), (2, 3): (0, 1, 5, 2)})
    fresh = images.read_batch([3], epoch=1)[0]
    cached = replace(images, cache=MosaicCache(tmp_path, tiny, "float32"))
    passes = []

    def count(backbone, pixels):
        passes.append(len(pixels))
        return encode_images(backbone, pixels)

    monkeypatch.setattr(efa_training, "encode_images", count)
    assert torch.equal(cached.read_batch([3], epoch=1)[0], fresh)
    assert passes == [1]
    again = replace(images, cache=MosaicCache(tmp_path, tiny, "float32"))
    assert torch.equal(again.read_batch([3], epoch=1)[0], fresh)
    assert torch.equal(again.read_batch([4], epoch=2)[0], fresh)  # another row, the same images
    assert passes == [1]
    again.read_batch([3], epoch=2)  # another order of the images is another mosaic
    assert passes == [1, 1]
    assert len(list(tmp_path.iterdir())) == 2
    next(tmp_path.iterdir()).write_bytes(b"broken")
    both = [again.read_batch([3], epoch=epoch)[0] for epoch in (1, 2)]
    assert torch.equal(both[0], fresh)
    assert passes == [1, 1, 1]


def test_kept_mosaics_are_rounded_as_they_will_be_read(gather, tiny, tmp_path):
    images = gather(mosaics={(1, 3): (1, 0, 5, 2)})
    half = replace(images, cache=MosaicCache(tmp_path, tiny, "float16"))
    first, second = (half.read_batch([3], epoch=1)[0] for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(first, images.read_batch([3], epoch=1)[0].half().float())


def test_layers_can_be_kept_after_every_epoch(gather, text_embed):
    kept = {}

    def keep(epoch, heads):
        kept[epoch] = {name: value.clone() for name, value in heads.state_dict().items()}

    final, _ = train_heads(gather(), text_embed, **SETTINGS | {"epochs": 3}, after_epoch=keep)
    assert list(kept) == [1, 2, 3]
    for epochs in (1, 2, 3):  # a shorter training ends where a longer one was then
        short, _ = train_heads(gather(), text_embed, **SETTINGS | {"epochs": epochs})
        for name, value in short.state_dict().items():
            assert torch.equal(value, kept[epochs][name]), epochs
    assert torch.equal(final.layers[0].weight, kept[3]["layers.0.weight"])
