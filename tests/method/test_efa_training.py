"""Training EFA's layers on a few drawn images: batches, mosaics, losses, and resuming."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from damage import DAMAGES, damage
from hypothesis import given
from PIL import Image
from properties import try_examples
from torch.nn import functional as F

from fuzzyclip.clip.encoding import encode_images, preprocess
from fuzzyclip.datasets import get_dataset
from fuzzyclip.features.auxiliary import AuxiliarySet
from fuzzyclip.features.encode import write_category
from fuzzyclip.features.kinds import TOKENS, FeatureKind
from fuzzyclip.features.shards import DTYPES, compute_identity
from fuzzyclip.features.store import open_category
from fuzzyclip.method import efa_training, training
from fuzzyclip.method.csp import partition_as_paper
from fuzzyclip.method.efa import Heads
from fuzzyclip.method.efa_training import (
    FEW_STEPS,
    compute_alignment_losses,
    find_short_clusters,
    read_batch,
    train_clusters,
    train_heads,
)
from fuzzyclip.method.interface import refuse_mosaics
from fuzzyclip.method.training import plan_batches
from fuzzyclip.method.training_set import (
    KeptMosaics,
    build_mosaic,
    build_mosaic_mask,
    make_training_set,
    plan_mosaics,
    select_mosaics,
    split_in_four,
)
from fuzzyclip.utils.files import compute_sha256
from fuzzyclip.utils.settings import EfaTraining

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
                "image_path": str(root / f"{number}.png"),
                "mask_path": str(root / f"{number}_mask.png") if mask.any() else "",
                "mask_above": 0,
                "label": int(mask.any()),
                "sha256": compute_sha256(root / f"{number}.png"),
            }
        )
    return root, pd.DataFrame(lines)


@pytest.fixture(scope="module")
def gather(folder, tiny, tmp_path_factory):
    """The images as a training set of two members, with stored patch tokens or without."""
    _, rows = folder

    def build(tokens=True, mosaics=None, dtype="float32", kind=TOKENS):
        features, parts = {}, []
        for member, part in (("parts/nut", rows.iloc[:6]), ("parts/bolt", rows.iloc[6:])):
            store = tmp_path_factory.mktemp("store")
            kept = "float32" if tokens else None
            write_category(store, part, tiny, dtype=kept, shard_size=4)
            identity = compute_identity(tiny, list(part["sha256"]))
            features[member] = open_category(store, identity)
            name = member.removeprefix("parts/")
            parts.append(part.assign(member=member, name=name, place=range(len(part))))
        auxiliary = AuxiliarySet(["nut", "bolt"], pd.concat(parts, ignore_index=True), features)
        return make_training_set(auxiliary, tiny, kind, mosaics=mosaics, dtype=dtype)

    return build


@pytest.fixture
def fit(tiny, text_embed):
    """`train_heads` with the settings of these tests; keyword arguments change them."""
    return lambda images, text=text_embed, **changes: train_heads(
        tiny, images, text, **SETTINGS | changes
    )


@pytest.fixture
def text_embed():
    """Two unit columns (D, 2)."""
    return F.normalize(torch.randn(32, 2, generator=torch.Generator().manual_seed(2)), dim=0)


def encode_pictures(images, tiny):
    """Patch tokens of PIL images, (B, L, P, W)."""
    return encode_images(tiny, torch.stack([preprocess(image, tiny) for image in images]))[1]


def assert_equal(tensors, others):
    """The same tensors by the same names, to the bit."""
    assert tensors.keys() == others.keys()
    assert all(torch.equal(tensor, others[name]) for name, tensor in tensors.items())


def test_a_batch_holds_tokens_and_masks_of_its_rows(gather, folder, tiny):
    root, _ = folder
    rows = [3, 0, 7]  # of both members
    expected = encode_pictures(
        [Image.open(root / f"{row}.png").convert("RGB") for row in rows], tiny
    )
    for tokens in (True, False):
        patch_tokens, masks, order = read_batch(gather(tokens), {}, rows, epoch=1)
        assert order == rows
        assert torch.allclose(patch_tokens, expected, atol=1e-5)
        assert masks.shape == (3, 32, 32)
        assert masks.dtype == torch.bool
        for mask, row in zip(masks, rows, strict=True):
            path = root / f"{row}_mask.png"
            full = np.asarray(Image.open(path)) > 0 if path.is_file() else np.zeros((64, 64))
            covered = full.reshape(32, 2, 32, 2).mean(axis=(1, 3))
            assert not mask.numpy()[covered == 0].any()
            assert mask.numpy()[covered == 1].all()


def test_a_set_knows_its_images_and_can_be_cut_down(gather):
    images = gather()
    assert len(images) == 10
    assert images.labels.tolist() == [0, 1] * 5
    assert images.members == ["parts/nut"] * 6 + ["parts/bolt"] * 4
    rows = [7, 2, 6]
    part = images.select(rows)
    assert part.names == ["bolt", "nut", "bolt"]
    assert part.members == [images.members[row] for row in rows]
    assert torch.equal(part.image_embed, images.image_embed[rows])
    assert part.labels.tolist() == [1, 0, 0]
    assert torch.equal(part.load_tokens([2, 0]), images.load_tokens([6, 7]))
    assert torch.equal(part.load_masks([0, 1]), images.load_masks([7, 2]))
    own, whole = part.load_mosaics([(0, 1, 2, 0)]), images.load_mosaics([(7, 2, 6, 7)])
    assert all(map(torch.equal, own, whole))
    plan = {(1, 7): (6, 7, 7, 6), (2, 3): (0, 1, 2, 3), (3, 6): (7, 6, 6, 6)}
    chosen = select_mosaics(plan, [6, 7])
    assert chosen == {(1, 1): (0, 1, 1, 0), (3, 0): (1, 0, 0, 0)}


def test_a_set_that_is_not_of_files_has_no_mosaics(gather):
    with pytest.raises(ValueError, match="2 mosaics of a training set that is not made of image"):
        replace(gather(), load_mosaics=refuse_mosaics).load_mosaics([(0, 0, 0, 0)] * 2)


def test_a_mosaic_takes_the_place_of_its_row(gather, folder, tiny):
    root, _ = folder
    images, plan = gather(), {(2, 3): (1, 0, 5, 2)}
    plain, _, _ = read_batch(images, plan, [3], epoch=1)
    mixed, masks, order = read_batch(images, plan, [3, 4], epoch=2)
    assert order == [4, 3]  # plain rows of a batch come first; the loss is a mean over the batch
    parts = [Image.open(root / f"{row}.png").convert("RGB") for row in (1, 0, 5, 2)]
    expected = encode_pictures([build_mosaic(parts, 32)], tiny)[0]
    assert torch.allclose(mixed[1], expected, atol=1e-5)
    assert not torch.allclose(mixed[1], plain[0], atol=1e-3)
    quarters = masks[1].reshape(2, 16, 2, 16).sum(dim=(1, 3)).bool().flatten().tolist()
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


def test_training_on_stored_tokens_is_training_on_the_images_to_the_bit(gather, fit):
    mosaics = plan_mosaics(["pill"] * 10, 2, 0.3, seed=5)
    stored, curve = fit(gather(), mosaics=mosaics)
    encoded, same = fit(gather(tokens=False), mosaics=mosaics)
    assert curve == same
    assert_equal(encoded.state_dict(), stored.state_dict())


def test_the_loss_falls_and_the_backbone_stays_as_it_is(gather, tiny, fit, text_embed):
    before = {name: value.clone() for name, value in tiny.model.state_dict().items()}
    heads, curve = fit(gather(), epochs=8)
    assert curve[0].keys() == {"epoch", "step", "loss", "focal", "dice"}
    first, last = (sum(row["loss"] for row in part) for part in (curve[:3], curve[-3:]))
    assert last < 0.8 * first
    assert all(weight.grad is not None and weight.grad.any() for weight in heads.parameters())
    assert all(weight.grad is None for weight in tiny.model.parameters())
    assert_equal(tiny.model.state_dict(), before)
    assert text_embed.grad is None


def test_a_killed_training_ends_with_the_same_bits(gather, fit, tmp_path, monkeypatch):
    images, mosaics = gather(), plan_mosaics(["pill"] * 10, 2, 0.3, seed=5)
    expected, curve = fit(images, mosaics=mosaics)
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", -1.0)
    whole, checkpoint = training.plan_batches, tmp_path / "efa.pt"
    monkeypatch.setattr(training, "plan_batches", lambda *plan, **how: whole(*plan, **how)[:1])
    fit(images, mosaics=mosaics, checkpoint=checkpoint)  # half of the epochs, then gone
    monkeypatch.setattr(training, "plan_batches", whole)
    resumed, same = fit(images, mosaics=mosaics, checkpoint=checkpoint)
    assert same == curve
    assert_equal(resumed.state_dict(), expected.state_dict())


def test_another_seed_gives_other_layers(gather, fit):
    first, second = (fit(gather(), epochs=1, seed=seed)[0].state_dict() for seed in (1, 2))
    assert not any(torch.equal(tensor, second[name]) for name, tensor in first.items())


@pytest.mark.parametrize("mosaics", [{}, {(1, 3): (1, 0, 5, 2), (1, 8): (7, 6, 8, 9)}])
def test_each_image_may_have_a_prompt_of_its_own(gather, fit, monkeypatch, mosaics):
    """Table 4's precise prompts: an image or the mosaic in its place meets its own features."""
    own = F.normalize(torch.randn(10, 32, 2, generator=torch.Generator().manual_seed(4)), dim=1)
    seen = []

    def spy(heads, tokens, masks, text, grid):
        seen.append((text.clone(), tokens.clone()))
        return compute_alignment_losses(heads, tokens, masks, text, grid)

    monkeypatch.setattr(efa_training, "compute_alignment_losses", spy)
    images = gather()
    fit(images, own, epochs=1, mosaics=mosaics)
    plan = training.plan_batches(10, 1, SETTINGS["batch_size"], SETTINGS["seed"])[0]
    assert len(seen) == len(plan)
    for (text, tokens), rows in zip(seen, plan, strict=True):
        for row in rows:
            quad = mosaics.get((1, row))
            wanted = images.load_mosaics([quad])[0] if quad else images.load_tokens([row])
            place = (tokens - wanted).abs().flatten(1).amax(dim=1).argmin()
            assert torch.allclose(tokens[place], wanted[0], atol=1e-5)
            assert torch.equal(text[place], own[row])


def test_a_mosaic_is_encoded_once_for_every_training(gather, tmp_path):
    passes = []

    def count(backbone, pixels):
        passes.append(len(pixels))
        return encode_images(backbone, pixels)

    counting = FeatureKind("tokens", count)
    first, other = (1, 0, 5, 2), (0, 1, 5, 2)
    fresh = gather().load_mosaics([first])[0]
    assert torch.equal(gather(mosaics=tmp_path, kind=counting).load_mosaics([first])[0], fresh)
    assert passes == [1]
    again = gather(mosaics=tmp_path, kind=counting)
    assert torch.equal(again.load_mosaics([first])[0], fresh)
    assert passes == [1]
    again.load_mosaics([other])  # another order of the images is another mosaic
    assert passes == [1, 1]
    assert len(list(tmp_path.iterdir())) == 2
    next(tmp_path.iterdir()).write_bytes(b"broken")
    assert torch.equal(again.load_mosaics([first, other])[0][:1], fresh)
    assert passes == [1, 1, 1]


def test_kept_mosaics_are_rounded_as_they_will_be_read(gather, tmp_path):
    half, quads = gather(mosaics=tmp_path, dtype="float16"), [(1, 0, 5, 2)]
    first, second = (half.load_mosaics(quads)[0] for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(first, gather().load_mosaics(quads)[0].half().float())


def test_layers_can_be_kept_after_every_epoch(gather, fit):
    kept = {}

    def keep(epoch, heads):
        kept[epoch] = {name: value.clone() for name, value in heads.state_dict().items()}

    final, _ = fit(gather(), epochs=3, after_epoch=keep)
    assert list(kept) == [1, 2, 3]
    for epochs in (1, 2, 3):  # a shorter training ends where a longer one was then
        assert_equal(fit(gather(), epochs=epochs)[0].state_dict(), kept[epochs])
    assert_equal(final.state_dict(), kept[3])


DRAWN = torch.randn(2, 9, 8, generator=torch.Generator().manual_seed(0))
DIGESTS = ["a", "b", "c", "d"]


@pytest.mark.parametrize("dtype", DTYPES)
@given(DAMAGES)
@try_examples(40)
def test_a_damaged_mosaic_counts_as_none(tiny, tmp_path_factory, dtype, how):
    mosaics = KeptMosaics(tmp_path_factory.mktemp("mosaics"), tiny, dtype)
    assert mosaics.read(DIGESTS) is None
    kept = mosaics.write(DIGESTS, DRAWN)
    assert torch.equal(mosaics.read(DIGESTS), kept)
    damage(mosaics.locate(DIGESTS), how)
    tokens = mosaics.read(DIGESTS)
    assert tokens is None or torch.equal(tokens, kept)
    assert torch.equal(mosaics.write(DIGESTS, DRAWN), kept)
    assert torch.equal(mosaics.read(DIGESTS), kept)


def test_a_broken_mosaic_is_named_and_one_that_was_never_made_is_not(tiny, tmp_path, caplog):
    mosaics = KeptMosaics(tmp_path, tiny, "float32")
    mosaics.read(DIGESTS)
    assert not caplog.text
    mosaics.write(DIGESTS, DRAWN)
    path = mosaics.locate(DIGESTS)
    assert damage(path, ("flip", 0.99, 4))
    assert mosaics.read(DIGESTS) is None
    assert f"{path} is broken" in caplog.text


def test_a_file_of_a_mosaic_is_named_by_all_that_decides_it(tiny, load_tiny, tmp_path):
    own = KeptMosaics(tmp_path, tiny, "float16")
    others = [
        KeptMosaics(tmp_path, load_tiny(blocks=(1, 4)), "float16").locate(DIGESTS),
        KeptMosaics(tmp_path, tiny, "int8").locate(DIGESTS),
        KeptMosaics(tmp_path, tiny, "float16", FeatureKind("other", encode_images)).locate(DIGESTS),
        own.locate(DIGESTS[::-1]),
    ]
    assert len({own.locate(DIGESTS), *others}) == 5
    assert own.locate(DIGESTS) == KeptMosaics(tmp_path, tiny, "float16").locate(list(DIGESTS))


FLIP = ("flip", 0.99, 1)
KEPT = EfaTraining(epochs=3, batch_size=4, learning_rate=0.01, mosaic=0, keep="all")


@pytest.fixture
def trainings(monkeypatch):
    """Trainings without images: what they went on from; a checkpoint stands for two epochs."""
    begun = []

    def train_heads(backbone, images, text, *, checkpoint, after_epoch, shares, **settings):
        heads = Heads(1, 4, 3)
        begun.append(checkpoint.exists())
        for epoch in (3,) if checkpoint.exists() else (*shares, 1, 2, 3):
            torch.manual_seed(round(100 * epoch))
            heads = Heads(1, 4, 3)
            after_epoch(epoch, heads)
        checkpoint.touch()
        return heads, [{"loss": 1.0}]

    monkeypatch.setattr(efa_training, "train_heads", train_heads)
    return begun


@pytest.fixture
def train_epochs(gather, encode):
    images = gather()

    def train(folder):
        folder.mkdir(exist_ok=True)
        checkpoints = [folder / "efa-visa-0.pt"]
        return train_clusters(encode, images, [["nut"]], KEPT, 0, checkpoints=checkpoints)[0]

    return train


@pytest.mark.parametrize("moment", ["0.5", "1"])
@pytest.mark.parametrize("how", [FLIP, ("cut", 0.5, 1), ("zero", 0.9, 200), None])
def test_layers_of_an_epoch_that_are_broken_or_gone_are_trained_again(
    tmp_path, trainings, train_epochs, caplog, how, moment
):
    expected = train_epochs(tmp_path / "whole")
    train_epochs(tmp_path / "killed")
    path = tmp_path / "killed" / f"efa-visa-0-epoch{moment}.safetensors"
    path.unlink() if how is None else damage(path, how)
    trained = train_epochs(tmp_path / "killed")
    assert trainings == [False, False, True, False]
    assert f"{path}" in caplog.text
    kept = {name.split("cluster0.")[0] for name in trained}
    assert kept == {"", "epoch0.25.", "epoch0.5.", "epoch0.75.", "epoch1.", "epoch2."}
    assert_equal(trained, expected)


def test_whole_layers_of_epochs_that_a_killed_run_left_are_taken(tmp_path, trainings, train_epochs):
    expected = train_epochs(tmp_path)
    trained = train_epochs(tmp_path)
    assert trainings == [False, True]
    assert_equal(trained, expected)


@pytest.mark.parametrize(
    ("epochs", "batch_size", "images"), [(2, 16, 192), (2, 16, 193), (5, 7, 28)]
)
def test_a_cluster_is_short_by_the_steps_of_its_training(epochs, batch_size, images):
    settings = EfaTraining(epochs=epochs, batch_size=batch_size)
    owners = ["nut"] * (images - 3) + ["bolt"] * 3 + ["gear"] * 1000
    steps = sum(map(len, plan_batches(images, epochs, batch_size, seed=0)))
    short = find_short_clusters(owners, [["gear"], ["nut", "bolt"]], settings)
    expected = [{"names": ["nut", "bolt"], "steps": steps}]
    assert short == (expected if steps < FEW_STEPS else [])
    assert (steps < FEW_STEPS) == (images != 193)


def test_a_short_training_is_said_before_it_begins(gather, encode, caplog):
    settings = EfaTraining(epochs=1, batch_size=4, learning_rate=0.01, mosaic=0)
    _, curve = train_clusters(encode, gather(), [["nut"], ["bolt"]], settings, 0)
    for number, (name, steps) in enumerate((("nut", 2), ("bolt", 1))):
        assert f"{{{name}}} has too few images for its training: {steps} steps" in caplog.text
        assert sum(step["cluster"] == number for step in curve) == steps


def test_the_papers_smallest_cluster_is_long_enough():
    """Its two of VisA, and MVTec AD as a whole: images as published, all trained as by default."""
    owners = [
        name
        for dataset, protocol in (("visa", "1cls"), ("mvtec", "official"))
        for name, counts in get_dataset(dataset).protocols[protocol].counts.items()
        for _ in range(counts.test_normal + counts.test_anomalous)
    ]
    visa, mvtec = (get_dataset(name).categories for name in ("visa", "mvtec"))
    rest, boards = partition_as_paper(visa)
    for cluster, steps in ((boards, 102), (rest, 170), (mvtec, 216)):
        images, settings = sum(owner in cluster for owner in owners), EfaTraining()
        assert sum(map(len, plan_batches(images, settings.epochs, settings.batch_size, 0))) == steps
        assert find_short_clusters(owners, [cluster], settings) == []


def test_a_training_that_is_killed_within_the_first_epoch_keeps_the_same_layers(
    gather, encode, tmp_path, monkeypatch
):
    """Killed before the last step of the first epoch: three moments are on the disk by then."""
    images, settings = gather(), KEPT.model_copy(update={"epochs": 2, "batch_size": 2})
    steps = -(-len(images) // 2)
    assert steps >= 4

    def train(folder=None):
        paths = folder and [folder / "efa-visa-0.pt"]
        names = dict.fromkeys(images.names)
        return train_clusters(encode, images, [[*names]], settings, 0, checkpoints=paths)[0]

    whole, compute, seen = train(), efa_training.compute_alignment_losses, []

    def compute_or_die(*arguments):
        seen.append(None)
        if len(seen) == steps:
            raise KeyboardInterrupt
        return compute(*arguments)

    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", -1.0)
    monkeypatch.setattr(efa_training, "compute_alignment_losses", compute_or_die)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path)
    left = {path.name for path in tmp_path.glob("*.safetensors")}
    assert left == {f"efa-visa-0-epoch{share}.safetensors" for share in ("0.25", "0.5", "0.75")}
    assert_equal(train(tmp_path), whole)
    assert len(seen) == 2 * steps + 1  # the rest alone was trained
    early, half, late = (
        whole[f"epoch{share}.cluster0.layers.0.weight"] for share in ("0.25", "0.5", "0.75")
    )
    assert not torch.equal(early, half)
    assert not torch.equal(half, late)
