"""`fuzzyclip` as typed, in this process, and images to give it."""

import numpy as np
from PIL import Image
from tiny_models import make_model
from typer.testing import CliRunner

from fuzzyclip.cli import app
from fuzzyclip.model.card import Calibration
from fuzzyclip.model.storing import store
from fuzzyclip.model.threshold import Threshold


def draw(path, seed, size=(40, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).save(path)
    return path


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def make_calibrated(folder, tiny_config):
    """A tiny model whose gears are calibrated."""
    made = make_model(folder, tiny_config)[0]
    chosen = [Threshold(value=value, method="f1_max") for value in (0.25, 0.75)]
    store(made, "gear", Calibration(image=chosen[0], pixel=chosen[1]))
    return made


def export(model, *arguments):
    return run("export", "--model", model, "--category", "gear", *arguments)
