"""The feature store: what comes back, what is refused, and what a kill leaves behind."""

import hashlib
from itertools import count

import numpy as np
import pandas as pd
import pytest
import torch
from backbones import load_sample
from damage import DAMAGES, damage
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from properties import try_examples

from fuzzyclip.clip.encoding import encode_images, preprocess
from fuzzyclip.features import encode as caching
from fuzzyclip.features import store as features
from fuzzyclip.features.encode import encode_shards, write_category
from fuzzyclip.features.kinds import TOKENS, FeatureKind
from fuzzyclip.features.shards import CODE, LEVELS, compute_identity, count_image_bytes, pack
from fuzzyclip.features.store import (
    ROWS,
    FeatureMismatchError,
    adopt_shards,
    check_space,
    open_category,
    plan_category,
)
from fuzzyclip.utils.files import BrokenFileError

COUNT, SHARD = 8, 3
#: What version 1 of the code gives, see the last test.
KEPT_EMBED = [-1.380056, -0.979295, 0.498772, 0.80239]
KEPT_TOKENS = [1.832273, 2.13758, 0.972967, 1.638153]


def list_images(root, names):
    """Index rows of files."""
    digests = [hashlib.sha256((root / name).read_bytes()).hexdigest() for name in names]
    paths = [(root / name).as_posix() for name in names]
    return pd.DataFrame({"image_path": paths, "sha256": digests})


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Eight noise images of different sizes, and their index rows."""
    root, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for number in range(COUNT):
        noise = rng.integers(0, 256, (30 + number, 40, 3), dtype=np.uint8)
        Image.fromarray(noise).save(root / f"{number}.png")
    return list_images(root, [f"{number}.png" for number in range(COUNT)])


@pytest.fixture(scope="module")
def expected(images, tiny):
    """Class features and patch tokens of all images in one pass."""
    opened = [Image.open(name).convert("RGB") for name in images["image_path"]]
    return encode_images(tiny, torch.stack([preprocess(image, tiny) for image in opened]))


def write(folder, images, tiny, **changes):
    """A store of the eight images in shards of three."""
    settings = {"dtype": "float32", "shard_size": SHARD, "batch_size": 2} | changes
    write_category(folder, images, tiny, **settings)
    return compute_identity(tiny, list(images["sha256"]))


def list_shards(folder):
    return sorted(folder.glob("*.safetensors"))


def read_bytes(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_what_is_written_comes_back(images, tiny, expected, tmp_path):
    features = open_category(tmp_path, write(tmp_path, images, tiny))
    assert [(shard.first, shard.count) for shard in features.shards] == [(0, 3), (3, 3), (6, 2)]
    assert features.has_tokens
    assert torch.allclose(features.image_embed, expected[0], atol=1e-6)
    assert torch.allclose(features.read_tokens(range(COUNT)), expected[1], atol=1e-5)


@pytest.mark.parametrize("rows", [[5], [7, 0, 3], [2, 3, 4], [4, 4, 4], [6, 7, 0, 1, 2, 3], [1, 0]])
def test_rows_in_any_order_and_repeated(images, tiny, expected, tmp_path, rows):
    features = open_category(tmp_path, write(tmp_path, images, tiny))
    assert torch.allclose(features.read_tokens(rows), expected[1][rows], atol=1e-5)


@pytest.mark.parametrize(("dtype", "error"), [("float16", 2e-3), ("bfloat16", 2e-2)])
def test_tokens_in_half_the_space(images, tiny, expected, tmp_path, dtype, error):
    features = open_category(tmp_path, write(tmp_path, images, tiny, dtype=dtype))
    tokens = features.read_tokens(range(COUNT))
    assert tokens.dtype == features.image_embed.dtype == torch.float32
    assert torch.equal(tokens, tokens.to(getattr(torch, dtype)).float())
    assert torch.allclose(tokens, expected[1], atol=error * float(expected[1].abs().max()))


def test_equal_work_gives_equal_bytes(images, tiny, tmp_path):
    for name, workers in (("one", 1), ("two", 3)):
        write(tmp_path / name, images, tiny, workers=workers)
    assert read_bytes(tmp_path / "one") == read_bytes(tmp_path / "two")


def test_finished_shards_are_kept_and_broken_ones_mended(images, tiny, tmp_path):
    write(tmp_path, images, tiny)
    whole = read_bytes(tmp_path)
    first, second, third = list_shards(tmp_path)
    second.write_bytes(whole[second.name][:-100])  # a disk that filled up
    third.unlink()
    stamp = first.stat().st_mtime_ns
    write(tmp_path, images, tiny)
    assert read_bytes(tmp_path) == whole
    assert first.stat().st_mtime_ns == stamp


def test_a_broken_shard_is_refused_by_name(images, tiny, tmp_path):
    identity = write(tmp_path, images, tiny)
    (tmp_path / "00001.safetensors").write_bytes(b"")
    with pytest.raises(BrokenFileError, match=r"00001\.safetensors is broken") as caught:
        open_category(tmp_path, identity)
    assert caught.value.path == tmp_path / "00001.safetensors"


@given(st.integers(0, 2), DAMAGES)
@try_examples(40)
def test_damage_in_a_shard_is_mended_and_never_read(images, tiny, tmp_path_factory, number, how):
    folder = tmp_path_factory.mktemp("damaged")
    identity = write(folder, images, tiny)
    stored = open_category(folder, identity)
    expected = stored.image_embed, stored.read_tokens(range(COUNT))
    damage(list_shards(folder)[number], how)
    for mended in (False, True):
        if mended:
            write(folder, images, tiny)
        try:
            found = open_category(folder, identity)
            read = found.image_embed, found.read_tokens(range(COUNT))
        except BrokenFileError:
            assert not mended
            continue
        assert all(map(torch.equal, read, expected))


def test_a_flipped_bit_is_named_and_its_images_alone_are_encoded_again(
    images, tiny, tmp_path, caplog
):
    write(tmp_path, images, tiny)
    whole, stamps = read_bytes(tmp_path), [p.stat().st_mtime_ns for p in list_shards(tmp_path)]
    damage(tmp_path / "00001.safetensors", ("flip", 0.9, 1))
    write(tmp_path, images, tiny)
    assert f"{tmp_path / '00001.safetensors'} is broken: patch_tokens" in caplog.text
    assert read_bytes(tmp_path) == whole
    now = [path.stat().st_mtime_ns for path in list_shards(tmp_path)]
    assert [a == b for a, b in zip(stamps, now, strict=True)] == [True, False, True]


def test_broken_shards_of_an_earlier_store_are_not_taken_over(images, tiny, tmp_path, caplog):
    write(tmp_path / "old", images, tiny)
    first = list_shards(tmp_path / "old")[0]
    damage(first, ("zero", 0.8, 200))
    shards = plan_category(tmp_path / "new", images, tiny, dtype="float32", shard_size=SHARD)
    assert adopt_shards(shards, list_shards(tmp_path / "old")) == [first]
    assert [shard.is_written() for shard in shards] == [False, True, True]
    assert f"{first} is broken" in caplog.text


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int8"])
@pytest.mark.parametrize("bad", [float("nan"), 1e38, None])
def test_an_image_whose_features_can_not_be_kept_is_named(images, tiny, tmp_path, dtype, bad):
    """The fifth: the second one of a batch of the second shard."""
    pairs = count()

    def encode(backbone, pixels):
        embeds, tokens = (one.clone() for one in encode_images(backbone, pixels))
        if len(pixels) == 2 and next(pairs) == 1:  # images 0 and 1, 2, 3 and 4
            (embeds if bad is None else tokens)[1] = float("inf") if bad is None else bad
        return embeds, tokens

    kind = FeatureKind("bad", encode)
    if bad == 1e38 and dtype != "float16":
        write(tmp_path, images, tiny, dtype=dtype, kind=kind)
        return
    said = {None: "its class feature is not finite", 1e38: "exceed float16's range; set features"}
    with pytest.raises(ValueError, match=rf"4\.png: .*{said.get(bad, 'not finite')}"):
        write(tmp_path, images, tiny, dtype=dtype, kind=kind)


def test_other_settings_write_anew(images, tiny, load_tiny, tmp_path):
    write(tmp_path, images, tiny)
    before = read_bytes(tmp_path)
    other = load_tiny(seed=1)
    identity = write(tmp_path, images, other)
    after = read_bytes(tmp_path)
    assert all(before[name] != after[name] for name in before if name != ROWS)
    assert open_category(tmp_path, identity).image_embed.shape == (COUNT, 32)


def test_other_weights_and_images_are_refused(images, tiny, load_tiny, tmp_path):
    identity = write(tmp_path, images, tiny)
    digests = list(images["sha256"])
    with pytest.raises(FeatureMismatchError, match=r"another backbone \(weights_sha256\);"):
        open_category(tmp_path, compute_identity(load_tiny(seed=1), digests))
    with pytest.raises(FeatureMismatchError, match=r"another backbone \(image_size, blocks\);"):
        open_category(tmp_path, compute_identity(load_tiny(image_size=64, blocks=[1]), digests))
    for others in (digests[:-1], digests[::-1], ["0" * 64, *digests[1:]]):
        with pytest.raises(FeatureMismatchError, match="made with another images"):
            open_category(tmp_path, compute_identity(tiny, others))
    for part in ("format", "code"):
        with pytest.raises(FeatureMismatchError, match=f"made with another {part}"):
            open_category(tmp_path, identity | {part: 0})
    with pytest.raises(FeatureMismatchError, match="no features; run the features stage"):
        open_category(tmp_path / "absent", identity)


def test_a_missing_middle_shard_is_refused(images, tiny, tmp_path):
    identity = write(tmp_path, images, tiny)
    (tmp_path / "00001.safetensors").unlink()
    with pytest.raises(FeatureMismatchError, match="another images"):
        open_category(tmp_path, identity)


def test_class_features_alone(images, tiny, expected, tmp_path):
    features = open_category(tmp_path, write(tmp_path, images, tiny, dtype=None))
    assert not features.has_tokens
    assert torch.allclose(features.image_embed, expected[0], atol=1e-6)


@pytest.mark.parametrize("batches", [0, 1, 2, 3, 4])
def test_a_kill_at_any_batch_resumes_to_the_same_bytes(
    images, tiny, tmp_path, monkeypatch, batches
):
    write(tmp_path / "whole", images, tiny)
    done = 0

    def pack_some(tokens, dtype):
        nonlocal done
        if done == batches:
            raise KeyboardInterrupt
        done += 1
        return pack(tokens, dtype)

    with monkeypatch.context() as patch:
        patch.setattr(caching, "pack", pack_some)
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path / "killed", images, tiny)
    left = {path.name: path.read_bytes() for path in (tmp_path / "killed").glob("*")}
    whole = read_bytes(tmp_path / "whole")
    assert len(left) == batches // 2  # shards of two batches each; nothing half
    assert left.items() <= whole.items()
    write(tmp_path / "killed", images, tiny)
    assert read_bytes(tmp_path / "killed") == whole


def encode_twice(backbone, pixels):
    """Another way to look at an image: three numbers for each of five places, twice."""
    image_embed = encode_images(backbone, pixels)[0]
    seen = pixels.flatten(1)[:, :15].view(-1, 1, 5, 3)
    return -image_embed, torch.cat((seen, 2 * seen), dim=1)  # (B, D), (B, 2, 5, 3)


@pytest.mark.parametrize("dtype", ["float32", "int8", None])
def test_another_kind_is_kept_in_its_own_shape_and_never_taken_for_patch_tokens(
    images, expected, tiny, tmp_path, dtype
):
    digests, kind = list(images["sha256"]), FeatureKind("twice", encode_twice)
    write_category(tmp_path, images, tiny, dtype=dtype, shard_size=4, batch_size=3, kind=kind)
    stored = open_category(tmp_path, compute_identity(tiny, digests, kind))
    assert torch.allclose(stored.image_embed, -expected[0], atol=1e-6)
    assert stored.has_tokens == (dtype is not None)
    if dtype is not None:
        opened = [Image.open(path).convert("RGB") for path in images["image_path"]]
        pixels = torch.stack([preprocess(image, tiny) for image in opened])
        tokens = encode_twice(tiny, pixels)[1]
        atol = 0 if dtype == "float32" else tokens.abs().max().item() / 254
        assert torch.allclose(stored.read_tokens(range(COUNT)), tokens, atol=atol, rtol=0)
        size = sum(path.stat().st_size for path in list_shards(tmp_path))
        said = COUNT * count_image_bytes(tiny, dtype, kind)
        assert said < size < said + 5000 * len(list_shards(tmp_path))
    for other in (TOKENS, FeatureKind("twice", encode_twice, version=2)):
        with pytest.raises(FeatureMismatchError, match="another kind"):
            open_category(tmp_path, compute_identity(tiny, digests, other))


def test_a_store_without_its_last_shard_is_refused(images, tiny, tmp_path):
    identity = write(tmp_path, images, tiny)
    max(list_shards(tmp_path)).unlink()
    with pytest.raises(FeatureMismatchError, match="holds 6 of 8 images"):
        open_category(tmp_path, identity)


def test_shards_of_an_attempt_with_another_size_do_not_stay(images, tiny, tmp_path):
    write(tmp_path, images, tiny, shard_size=2)
    identity = write(tmp_path, images, tiny)
    assert len(list_shards(tmp_path)) == 3
    assert len(open_category(tmp_path, identity).image_embed) == COUNT


def test_int8_keeps_each_entry_within_half_a_step(images, tiny, expected, tmp_path):
    features = open_category(tmp_path, write(tmp_path, images, tiny, dtype="int8"))
    tokens = features.read_tokens(range(COUNT))
    step = expected[1].abs().amax(dim=-1, keepdim=True) / LEVELS
    assert ((tokens - expected[1]).abs() <= step / 2 * 1.001).all()
    half = write(tmp_path / "half", images, tiny, dtype="float16")
    assert open_category(tmp_path / "half", half).has_tokens
    sizes = [sum(p.stat().st_size for p in list_shards(f)) for f in (tmp_path, tmp_path / "half")]
    assert sizes[0] < 0.7 * sizes[1]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int8", None])
def test_the_space_that_is_asked_for_is_what_the_tensors_take(images, tiny, tmp_path, dtype):
    write(tmp_path, images, tiny, dtype=dtype)
    headers = 0
    for path in list_shards(tmp_path):
        headers += 8 + int.from_bytes(path.read_bytes()[:8], "little")
    stored = sum(path.stat().st_size for path in list_shards(tmp_path)) - headers
    assert stored == COUNT * count_image_bytes(tiny, dtype)


def test_a_full_disk_is_refused_before_anything_is_encoded(images, tiny, tmp_path, monkeypatch):
    shards = plan_category(tmp_path / "new", images, tiny, dtype="float32")
    assert check_space(shards, tmp_path / "new", tiny).startswith("8 images to encode, 0.00 GB of ")
    needed = features.SPARE_BYTES + COUNT * count_image_bytes(tiny, "float32")
    for free, fits in ((needed, True), (needed - 1, False)):
        usage = type("Usage", (), {"free": free})
        monkeypatch.setattr("shutil.disk_usage", lambda folder, usage=usage: usage)
        if fits:
            check_space(shards, tmp_path / "new", tiny)
            continue
        with pytest.raises(OSError, match="not enough room for features in"):
            write(tmp_path / "new", images, tiny)
    assert not (tmp_path / "new").exists()


def test_an_image_that_changed_since_it_was_indexed_is_named(images, tiny, tmp_path):
    rows = images.assign(sha256=[*images["sha256"][:-1], "0" * 64])
    with pytest.raises(OSError, match=r"7\.png: not the file that was indexed"):
        write(tmp_path, rows, tiny)
    assert [path.name for path in tmp_path.iterdir()] == [
        "00000.safetensors",
        "00001.safetensors",
    ]  # what was done stays


def test_the_index_of_rows_says_where_each_image_lies(images, tiny, tmp_path):
    write(tmp_path, images, tiny)
    table = pd.read_csv(tmp_path / ROWS)
    assert list(table["image_path"]) == list(images["image_path"])
    assert list(table["sha256"]) == list(images["sha256"])
    assert list(zip(table["shard"], table["row"], strict=True)) == [
        (f"{number // SHARD:05d}.safetensors", number % SHARD) for number in range(COUNT)
    ]


def test_only_shards_of_changed_images_are_encoded_again(images, tiny, tmp_path, monkeypatch):
    write(tmp_path / "old", images, tiny)
    changed = images.copy()
    changed.loc[4, ["image_path", "sha256"]] = images.loc[0, ["image_path", "sha256"]]
    shards = plan_category(tmp_path / "new", changed, tiny, dtype="float32", shard_size=SHARD)
    adopt_shards(shards, list_shards(tmp_path / "old"))
    assert [shard.is_written() for shard in shards] == [True, False, True]
    encode_shards([shards[1]], tiny, batch_size=2)
    write(tmp_path / "anew", changed, tiny)
    for shard in shards:
        assert shard.path.read_bytes() == (tmp_path / "anew" / shard.path.name).read_bytes()


def test_renamed_images_are_still_the_same(images, tiny, tmp_path):
    write(tmp_path, images, tiny)
    renamed = images.assign(image_path=[f"/elsewhere/{n}.png" for n in range(COUNT)])
    elsewhere = plan_category(tmp_path, renamed, tiny, dtype="float32", shard_size=SHARD)
    assert all(shard.is_written() for shard in elsewhere)


def test_numbers_of_this_version_of_the_code():
    """If this fails, what is stored is no longer what would be computed: raise `shards.CODE`."""
    backbone = load_sample()
    ramp = np.add.outer(np.arange(300), np.arange(200))
    picture = np.stack([ramp % 256, ramp * 2 % 256, ramp * 3 % 256], axis=-1).astype(np.uint8)
    pixels = preprocess(Image.fromarray(picture), backbone)
    image_embed, tokens = encode_images(backbone, pixels[None])
    assert CODE == 2
    assert image_embed[0, :4].tolist() == pytest.approx(KEPT_EMBED, rel=1e-3)
    assert tokens[0, :, 40, 7].tolist() == pytest.approx(KEPT_TOKENS, rel=1e-3)
