"""`fuzzyclip` as typed, in this process, and images to give it."""

import numpy as np
from PIL import Image
from typer.testing import CliRunner

from fuzzyclip.cli import app


def draw(path, seed, size=(40, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).save(path)
    return path


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def export(model, *arguments):
    return run("export", "--model", model, "--category", "gear", *arguments)
