"""The tiny detector and its exported files."""

import pytest
from export_cases import LOOSE, ORIGIN, build, draw_images

from fuzzyclip.deploy.export import export_onnx
from fuzzyclip.deploy.parity import FLOAT32


@pytest.fixture(scope="session")
def images():
    return draw_images()


@pytest.fixture(scope="session")
def detector(tiny):
    return build(tiny)


@pytest.fixture(scope="session")
def exported(detector, images, tmp_path_factory):
    """The tiny detector's float32 file."""
    path = tmp_path_factory.mktemp("exported") / "bottle.onnx"
    export_onnx(detector, path, images, ORIGIN)
    return path


@pytest.fixture(scope="session")
def quantised(detector, images, tmp_path_factory):
    """The tiny detector's int8 file."""
    path = tmp_path_factory.mktemp("quantised") / "bottle.onnx"
    apart = export_onnx(detector, path, images, ORIGIN, weights="int8", allowed=LOOSE)
    assert FLOAT32.score < apart.score < 0.02  # it is rounded, and no more
    return path
