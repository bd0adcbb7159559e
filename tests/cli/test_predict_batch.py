"""`fuzzyclip predict --batch` as typed: its label everywhere, going on after a kill, refusals."""

import csv
import json
import re

import numpy as np
import pytest
from command import run
from PIL import Image
from tiny_models import make_model

from fuzzyclip import FuzzyCLIP
from fuzzyclip.model import batch as batch_module

LABEL = "uses the unlabelled batch"
COUNT = 24
ODD = "07.png"


@pytest.fixture(scope="module")
def model(tmp_path_factory, tiny_config):
    return make_model(tmp_path_factory.mktemp("made"), tiny_config)[0]


@pytest.fixture
def parts(tmp_path):
    folder = tmp_path / "parts"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(COUNT):
        picture = 120 + rng.normal(0, 3, (32, 32, 3))
        name = f"{number:02}.png"
        if name == ODD:
            picture[8:20, 8:20] = (250, 0, 0)
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(folder / name)
    return folder


def predict(model, *arguments):
    return run("predict", "--model", model, "--device", "cpu", "--batch", *arguments)


def read_table(out):
    with (out / "scores.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_result_says_that_it_uses_the_batch(model, parts, tmp_path):
    out = tmp_path / "out"
    done = predict(model, parts, "--out", out, "--report")
    assert done.exit_code == 0, done.output
    label = rf"{LABEL}: compared with 24 of these 24 images, by what is usual among 24"
    assert re.search(label, done.stderr)
    assert "looked at as" not in done.stderr
    rows = read_table(out)
    assert {row["threshold_method"] for row in rows} == {"batch"}
    highest = max(rows, key=lambda row: float(row["image_score"]))
    assert highest["image"].endswith(ODD)
    assert highest["decision"] == "anomalous"
    settings = json.loads((out / "settings.json").read_text())
    studied = FuzzyCLIP.load(model, device="cpu").study(sorted(parts.iterdir()))
    assert settings["batch"] == studied.digest
    assert settings["threshold"]["note"].startswith(LABEL)
    page = (out / "report.html").read_text()
    assert LABEL in page
    assert "compared with one another" in page
    assert "learned prompts" not in page
    assert "its frozen image tower alone, without a name or a text" in page
    assert "looking at the images as" not in page


def test_a_killed_run_goes_on_and_a_batch_with_other_images_is_another(
    model, parts, tmp_path, monkeypatch
):
    out, calls, encode = tmp_path / "out", [], batch_module.encode_images

    def die(backbone, pixels):
        calls.append(len(pixels))
        if len(calls) > 3:
            raise KeyboardInterrupt
        return encode(backbone, pixels)

    small = ["--batch-size", "4", "--save", "none"]
    with monkeypatch.context() as patch:
        patch.setattr(batch_module, "encode_images", die)
        killed = predict(model, parts, "--out", out, *small)
    assert killed.exit_code != 0
    done = predict(model, parts, "--out", out, *small)
    assert done.exit_code == 0, done.output
    whole = tmp_path / "whole"
    assert predict(model, parts, "--out", whole, *small).exit_code == 0
    assert [row["image_score"] for row in read_table(out)] == [
        row["image_score"] for row in read_table(whole)
    ]
    (parts / "01.png").unlink()
    other = predict(model, parts, "--out", out, *small)
    assert other.exit_code != 0
    assert "other settings" in str(other.output) + str(other.exception)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--tile", "32"], "batch goes without tiles"),
        (["--reference"], "batch goes without references"),
        (["--score", "map"], "batch goes without score"),
    ],
)
def test_what_does_not_go_with_a_batch_is_refused(model, parts, more, message):
    own = [*more, parts / ODD] if more == ["--reference"] else more
    done = predict(model, parts, *own)
    assert done.exit_code != 0
    assert message in str(done.output) + str(done.exception)


def test_a_few_images_are_too_few_and_some_more_are_said_to_be_few(model, parts):
    few = predict(model, *sorted(parts.iterdir())[:3])
    assert few.exit_code != 0
    assert "a batch of 3 images: 4 or more" in str(few.output) + str(few.exception)
    some = predict(model, *sorted(parts.iterdir())[:6])
    assert some.exit_code == 0
    assert "note: 6 images tell little of what is usual" in some.stderr


def test_a_category_is_a_name_alone_however_long(model, parts, tmp_path):
    """Nothing of it is encoded: one that fits no prompt will do."""
    name = "metal bracket of the left door " * 20
    done = predict(model, parts, "--category", name, "--json", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert {row["category"] for row in rows} == {name}
    assert json.loads((tmp_path / "out/settings.json").read_text())["prompt"] == ""
