"""Mosaics on disk: what is read is what was written, or it is encoded again."""

import pytest
import torch
from damage import DAMAGES, damage
from hypothesis import given
from properties import try_examples

from fuzzyclip.features.packing import DTYPES
from fuzzyclip.method.mosaic_cache import MosaicCache

TOKENS = torch.randn(2, 9, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("dtype", DTYPES)
@given(DAMAGES)
@try_examples(40)
def test_a_damaged_mosaic_counts_as_none(tiny, tmp_path_factory, dtype, how):
    cache = MosaicCache(tmp_path_factory.mktemp("mosaics"), tiny, dtype)
    path = cache.folder / "a.safetensors"
    assert cache.read(path) is None
    kept = cache.write(path, TOKENS)
    assert torch.equal(cache.read(path), kept)
    damage(path, how)
    found = cache.read(path)
    assert found is None or torch.equal(found, kept)
    assert torch.equal(cache.write(path, TOKENS), kept)
    assert torch.equal(cache.read(path), kept)


def test_a_broken_mosaic_is_named_and_one_that_was_never_made_is_not(tiny, tmp_path, caplog):
    cache = MosaicCache(tmp_path, tiny, "float32")
    path = tmp_path / "a.safetensors"
    cache.read(path)
    assert not caplog.text
    cache.write(path, TOKENS)
    assert damage(path, ("flip", 0.99, 4))
    assert cache.read(path) is None
    assert f"{path} is broken" in caplog.text
