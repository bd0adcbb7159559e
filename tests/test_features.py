"""The feature store: what comes back, what is refused, and what a kill leaves behind."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from fuzzyclip.encoding import encode_images, preprocess
from fuzzyclip.features import (
    FeatureMismatchError,
    compute_identity,
    open_category,
    write_category,
)

COUNT, SHARD = 8, 3


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Eight noise images of different sizes, and their index rows."""
    root, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for number in range(COUNT):
        noise = rng.integers(0, 256, (30 + number, 40, 3), dtype=np.uint8)
        Image.fromarray(noise).save(root / f"{number}.png")
    return root, pd.DataFrame({"image_path": [f"{number}.png" for number in range(COUNT)]})


@pytest.fixture(scope="module")
def expected(images, tiny):
    """Class features and patch tokens of all images in one pass."""
    root, rows = images
    opened = [Image.open(root / name).convert("RGB") for name in rows["image_path"]]
    return encode_images(tiny, torch.stack([preprocess(image, tiny) for image in opened]))


def write(folder, images, tiny, **changes):
    """A store of the eight images in shards of three."""
    root, rows = images
    settings = {"dtype": "float32", "shard_size": SHARD, "batch_size": 2} | changes
    write_category(folder, rows, root, tiny, **settings)
    return compute_identity(tiny, list(rows["image_path"]))


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
    first, second, third = sorted(tmp_path.iterdir())
    second.write_bytes(whole[second.name][:-100])  # a disk that filled up
    third.unlink()
    stamp = first.stat().st_mtime_ns
    write(tmp_path, images, tiny)
    assert read_bytes(tmp_path) == whole
    assert first.stat().st_mtime_ns == stamp


def test_a_broken_shard_is_refused_by_name(images, tiny, tmp_path):
    identity = write(tmp_path, images, tiny)
    (tmp_path / "00001.safetensors").write_bytes(b"")
    with pytest.raises(FeatureMismatchError, match=r"00001.*run the features stage again"):
        open_category(tmp_path, identity)


def test_other_settings_write_anew(images, tiny, load_tiny, tmp_path):
    write(tmp_path, images, tiny)
    before = read_bytes(tmp_path)
    other = load_tiny(seed=1)
    identity = write(tmp_path, images, other)
    after = read_bytes(tmp_path)
    assert all(before[name] != after[name] for name in before)
    assert open_category(tmp_path, identity).image_embed.shape == (COUNT, 32)


def test_other_weights_and_images_are_refused(images, tiny, load_tiny, tmp_path):
    identity = write(tmp_path, images, tiny)
    names = list(images[1]["image_path"])
    with pytest.raises(FeatureMismatchError, match="made with another backbone;"):
        open_category(tmp_path, compute_identity(load_tiny(seed=1), names))
    for others in (names[:-1], names[::-1], [*names, "9.png"]):
        with pytest.raises(FeatureMismatchError, match="made with another images"):
            open_category(tmp_path, compute_identity(tiny, others))
    with pytest.raises(FeatureMismatchError, match="made with another format"):
        open_category(tmp_path, identity | {"format": 0})
    with pytest.raises(FeatureMismatchError, match="no features; run the features stage"):
        open_category(tmp_path / "absent", identity)


def test_a_missing_middle_shard_is_refused(images, tiny, tmp_path):
    identity = write(tmp_path, images, tiny)
    (tmp_path / "00001.safetensors").unlink()
    with pytest.raises(FeatureMismatchError, match="another set of shards"):
        open_category(tmp_path, identity)


def test_class_features_alone(images, tiny, expected, tmp_path):
    features = open_category(tmp_path, write(tmp_path, images, tiny, tokens=False))
    assert not features.has_tokens
    assert torch.allclose(features.image_embed, expected[0], atol=1e-6)


def test_a_kill_leaves_no_half_shard(images, tiny, tmp_path, monkeypatch):
    def die(*arguments, **keywords):
        raise KeyboardInterrupt

    monkeypatch.setattr("fuzzyclip.tensor_files.save_file", die)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, images, tiny)
    assert not list(tmp_path.iterdir())


def test_a_store_without_its_last_shard_is_refused(images, tiny, tmp_path):
    identity = write(tmp_path, images, tiny)
    max(tmp_path.iterdir()).unlink()
    with pytest.raises(FeatureMismatchError, match="holds 6 of 8 images"):
        open_category(tmp_path, identity)


def test_shards_of_an_attempt_with_another_size_do_not_stay(images, tiny, tmp_path):
    write(tmp_path, images, tiny, shard_size=2)
    identity = write(tmp_path, images, tiny)
    assert len(list(tmp_path.iterdir())) == 3
    assert len(open_category(tmp_path, identity).image_embed) == COUNT
