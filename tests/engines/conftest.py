"""A cache of its own for each test, in which the tiny CLIP's tower lies already."""

import shutil

import pytest
from backbones import load_clip

from fuzzyclip.engines import tower_files


@pytest.fixture(scope="session")
def made(tmp_path_factory, tiny):
    """A cache with the file of the tiny CLIP's tower. Copy it before you change it."""
    cache = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        tower_files.keep_tower(tiny)
    return cache


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def kept(made, cache):
    """The cache with the tiny CLIP's file in it."""
    shutil.copytree(made, cache)
    return cache


@pytest.fixture(scope="session")
def alone():
    """timm's smallest ViT, an image tower without a text."""
    return load_clip("timm/test_vit", image_size=64, blocks=(1, 3))
