"""A model whose gears are calibrated, and parts to export it with."""

import pytest
from command import draw
from tiny_models import make_model

from fuzzyclip.model.card import Calibration, Threshold
from fuzzyclip.model.storing import store


@pytest.fixture(scope="module")
def model(tmp_path_factory, tiny_config):
    made = make_model(tmp_path_factory.mktemp("made"), tiny_config)[0]
    chosen = [Threshold(value=value, method="f1_max") for value in (0.25, 0.75)]
    store(made, "gear", Calibration(image=chosen[0], pixel=chosen[1]))
    return made


@pytest.fixture
def parts(tmp_path):
    return [draw(tmp_path / "parts" / f"{seed}.png", seed, (32, 32)) for seed in range(3)]
