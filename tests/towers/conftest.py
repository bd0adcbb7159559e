"""Files of a toy tower, made once, and a cache of one's own."""

import huggingface_hub
import pytest


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Nothing that was fetched on this machine before counts."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # where nobody listens
    return tmp_path / "cache/fuzzyclip/towers"


@pytest.fixture(scope="session")
def state():
    from tower_files import draw_state

    return draw_state()


@pytest.fixture(scope="session")
def onnx_file(tmp_path_factory, state):
    from tower_files import save_onnx

    return save_onnx(state, tmp_path_factory.mktemp("onnx") / "toy.onnx")


@pytest.fixture
def wheel(tmp_path, onnx_file, monkeypatch):
    """Path of a wheel that is known to hold the toy."""
    from tower_files import TAGGED, describe_wheel, save_wheel

    from fuzzyclip.towers.known import WHEELS

    (tmp_path / "wheels").mkdir()
    path = save_wheel(tmp_path / "wheels", onnx_file)
    monkeypatch.setitem(WHEELS, TAGGED, describe_wheel(path, onnx_file))
    return path


@pytest.fixture
def hub(state, monkeypatch):
    from tower_files import Hub

    hub = Hub(state)
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    yield hub
    hub.stop()
