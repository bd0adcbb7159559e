"""The tiny model as a folder, loaded, and as MLflow keeps it."""

import mlflow
import pytest
from serving_cases import TILED
from threads import use_one_thread
from tiny_models import make_model

from fuzzyclip import FuzzyCLIP
from fuzzyclip.deploy.mlflow_model import describe_model
from fuzzyclip.model.card import Calibration, Threshold
from fuzzyclip.model.storing import store


@pytest.fixture(scope="module", autouse=True)
def one_thread_also_here():
    """The tiny model here and the one in the server would wait for each other's threads."""
    with use_one_thread():
        yield


@pytest.fixture(scope="session")
def folder(tmp_path_factory, tiny_config):
    """The tiny model, with one category calibrated on whole images and one on tiles."""
    made = make_model(tmp_path_factory.mktemp("packaged"), tiny_config)[0]
    for category, tiling, value in (("gear", None, 0.25), ("strip", TILED, 0.75)):
        threshold = Threshold(value=value, method="quantile")
        store(made, category, Calibration(image=threshold, pixel=threshold, tiling=tiling))
    return made


@pytest.fixture(scope="session")
def detector(folder):
    return FuzzyCLIP.load(folder, device="cpu")


@pytest.fixture(scope="session")
def model(folder, tmp_path_factory):
    """The logged model's directory."""
    out = tmp_path_factory.mktemp("logged") / "model"
    with describe_model(folder) as described:
        mlflow.pyfunc.save_model(str(out), **described)
    return out
