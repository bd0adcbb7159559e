"""Methods and backbones as typed: predict, package, calibrate, export, without a training."""

import csv
import json
import shutil

import pytest
from backbones import load_clip, save_weights
from command import draw, run
from tiny_models import make_model

from fuzzyclip import FuzzyCLIP
from fuzzyclip.clip.model_configs import describe_timm
from fuzzyclip.towers.folder import CARD


@pytest.fixture(scope="module")
def model(tmp_path_factory, tiny_config):
    """FuzzyCLIP's own directory, whose frozen CLIP serves other methods."""
    return make_model(tmp_path_factory.mktemp("made"), tiny_config)[0]


@pytest.fixture(scope="module")
def tower(tmp_path_factory):
    """A tower's folder as `fuzzyclip fetch` leaves it, of a small tower without text."""
    folder = tmp_path_factory.mktemp("towers") / "small"
    folder.mkdir()
    backbone = load_clip("timm/test_vit", image_size=64, blocks=(1, 2))
    digest = save_weights(backbone, folder / "model.safetensors")
    channels = {"mean": [0.5] * 3, "std": [0.5] * 3}
    content = {"model_cfg": describe_timm("test_vit"), "preprocess_cfg": channels}
    (folder / "model.json").write_text(json.dumps(content))
    card = {
        "name": "timm/test_vit", "model": "model.json", "weights": "model.safetensors",
        "sha256": digest, "source": "drawn", "origin_sha256": digest, "verified": True,
        "licence": None, "image_size": 64, "blocks": [1, 2],
    }  # fmt: skip
    (folder / CARD).write_text(json.dumps(card))
    return folder


@pytest.fixture
def parts(tmp_path):
    """Six images, and beside them three good ones."""
    for number in range(6):
        draw(tmp_path / "parts" / f"{number}.png", number)
    for number in range(3):
        draw(tmp_path / "good" / f"{number}.png", 10 + number)
    return tmp_path / "parts"


def read_scores(out):
    with (out / "scores.csv").open(newline="") as file:
        return {row["image"].rsplit("/")[-1]: float(row["image_score"])
                for row in csv.DictReader(file)}  # fmt: skip


def predict(parts, out, *arguments):
    done = run("predict", parts, "--out", out, "--device", "cpu", *arguments)
    assert done.exit_code == 0, done.output
    return done


def test_a_method_looks_through_the_clip_of_a_model(model, parts, tmp_path):
    done = predict(parts, tmp_path / "out", "--backbone", model, "--method", "winclip",
                   "--category", "gear", "--report")  # fmt: skip
    assert "drawn samples" not in done.stderr  # its training takes no part
    settings = json.loads((tmp_path / "out/settings.json").read_text())
    assert settings["method"] == "winclip"
    assert settings["settings"]["temperature"] == 0.07
    assert (settings["model"], settings["prompt"]) == ("winclip", "gear")
    backbone = FuzzyCLIP.load(model, device="cpu").backbone
    own = FuzzyCLIP.build(backbone, "winclip")
    files = sorted(parts.iterdir())
    expected = [each.image_score for each in own(files, category="gear")]
    assert [*read_scores(tmp_path / "out").values()] == pytest.approx(expected, abs=1e-5)


def test_a_tower_compares_with_good_parts_and_with_the_batch(tower, parts, tmp_path):
    good = parts.parent / "good"
    done = predict(parts, tmp_path / "near", "--backbone", tower, "--reference", good, "--report")
    assert "looked at as" not in done.stderr  # no name plays a part
    near = read_scores(tmp_path / "near")
    again = predict(good, tmp_path / "own", "--backbone", tower, "--reference", good)
    assert "0 anomalous" in again.stderr
    assert min(near.values()) > max(read_scores(tmp_path / "own").values())
    page = (tmp_path / "near/report.html").read_text()
    assert "not zero-shot" in page
    assert "not calibrated: 2 deviations above what is usual among the good parts" in page
    assert "without a name or a text" in page
    assert "learned prompts" not in page
    assert "Inspection: object" not in page
    one = predict(parts, tmp_path / "one", "--backbone", tower, "--reference", good / "0.png")
    assert "one good part does not tell what is usual" in one.stderr
    done = predict(parts, tmp_path / "batch", "--backbone", tower, "--batch")
    assert "uses the unlabelled batch" in done.stderr
    assert len(read_scores(tmp_path / "batch")) == 6


def test_a_package_predicts_what_its_parts_do_and_is_calibrated_and_exported(
    tower, parts, tmp_path
):
    good, made = parts.parent / "good", tmp_path / "made"
    done = run("package", "--backbone", tower, "--set", "cut=2.5", "--out", made)
    assert done.exit_code == 0, done.output
    assert "nearest, no training, reads no text" in done.output
    assert {path.name for path in made.iterdir()} == {
        "model.json", "backbone.json", "backbone.safetensors"
    }  # fmt: skip
    copied = tmp_path / "copied" / "other.png"
    copied.parent.mkdir()
    copied.write_bytes((good / "0.png").read_bytes())
    done = run("calibrate", "--model", made, "--good", copied.parent, "--reference", good,
               "--category", "gear", "--device", "cpu")  # fmt: skip
    assert "must not calibrate as well" in done.output
    normal = [draw(tmp_path / "normal" / f"{n}.png", 20 + n) for n in range(4)]
    done = run("calibrate", "--model", made, "--good", normal[0].parent, "--reference", good,
               "--category", "gear", "--device", "cpu")  # fmt: skip
    assert done.exit_code == 0, done.output
    predict(parts, tmp_path / "out", "--model", made)
    scores = read_scores(tmp_path / "out")
    detector = FuzzyCLIP.load(made, device="cpu")
    assert detector.scoring.settings["settings"]["cut"] == 2.5
    assert [*detector.memories] == ["gear"]
    out = tmp_path / "gear.onnx"
    done = run("export", "--model", made, "--category", "gear", "--out", out, "--check", parts)
    assert done.exit_code == 0, done.output
    from fuzzyclip.deploy.facts import read_facts

    facts = read_facts(out)
    assert facts["remembered_tokens"] == 3 * 16
    assert facts["thresholds"]["image_score"] == pytest.approx(
        detector.card.calibrations["gear"].image.value
    )
    assert len(scores) == 6


def test_a_package_from_before_the_image_itself_counted_keeps_its_scores(tower, parts, tmp_path):
    good, scores = parts.parent / "good", {}
    for name, settings in {"new": [], "alone": ["--set", "own_image=0"], "old": []}.items():
        made = tmp_path / name
        assert run("package", "--backbone", tower, *settings, "--out", made).exit_code == 0
        if name == "old":
            card = json.loads((made / "model.json").read_text())
            assert card["method"]["settings"].pop("own_image") == 0.5
            (made / "model.json").write_text(json.dumps(card))
        predict(parts, tmp_path / f"{name}-out", "--model", made, "--reference", good)
        scores[name] = read_scores(tmp_path / f"{name}-out")
    assert scores["old"] == scores["alone"]
    assert scores["old"] != scores["new"]


def test_the_fast_setting_is_named_by_results_cards_and_pages(tower, parts, tmp_path):
    good, made, words = parts.parent / "good", tmp_path / "made", "input of 48 px in place of 64"
    done = run("package", "--backbone", tower, "--fast", "--out", made)
    assert done.exit_code == 0, done.output
    assert f"fast ({words})" in done.output
    card = json.loads((made / "model.json").read_text())
    assert (card["fast"], card["backbone"]["image_size"]) == (words, 48)
    run("calibrate", "--model", made, "--good", parts, "--reference", good,
        "--category", "gear", "--device", "cpu")  # fmt: skip
    kept = json.loads((made / "model.json").read_text())
    assert kept["fast"] == words
    assert kept["calibrations"]
    plain = tmp_path / "plain"
    assert run("package", "--backbone", tower, "--out", plain).exit_code == 0
    assert "fast" not in json.loads((plain / "model.json").read_text())
    ways = {
        "alone": ["--backbone", tower, "--fast", "--reference", good],
        "model": ["--model", made],
    }
    for name, way in ways.items():
        out = tmp_path / name
        predict(parts, out, *way, "--report")
        assert json.loads((out / "settings.json").read_text())["fast"] == words
        lines = [json.loads(line) for line in (out / "scores.jsonl").read_text().splitlines()]
        assert [line["fast"] for line in lines] == [words] * 6
        assert words in (out / "report.html").read_text()
    fast, whole = read_scores(tmp_path / "alone"), tmp_path / "whole"
    assert fast == pytest.approx(read_scores(tmp_path / "model"), abs=1e-5)
    predict(parts, whole, "--backbone", tower, "--reference", good)
    assert fast != pytest.approx(read_scores(whole), abs=1e-3)
    assert (
        '"fast"' not in (whole / "settings.json").read_text() + (whole / "scores.jsonl").read_text()
    )
    done = run("predict", parts, "--out", whole, *ways["alone"], "--device", "cpu")
    assert done.exit_code == 1
    assert "other settings" in done.output  # a folder is of one setting


def test_a_method_that_a_graph_can_not_repeat_is_refused_in_words(model, parts, tmp_path):
    made = tmp_path / "made"
    assert run("package", "--backbone", model, "--method", "winclip", "--out", made).exit_code == 0
    done = run("export", "--model", made, "--category", "gear", "--out", tmp_path / "a.onnx",
               "--check", parts)  # fmt: skip
    assert done.exit_code == 1
    assert "features of its own (windows)" in done.output
    assert not (tmp_path / "a.onnx").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--model"),
        (["--model", "m", "--backbone", "b"], "not both"),
        (["--model", "m", "--method", "clip"], "goes with --backbone"),
        (["--model", "m", "--image-size", "64"], "goes with --backbone"),
        (["--backbone", "MODEL", "--image-size", "64"], "its size"),
        (["--model", "m", "--fast"], "fuzzyclip package --backbone NAME --fast"),
        (["--backbone", "MODEL", "--fast", "--batch"], "a model's own backbone is as it is"),
        (["--backbone", "TOWER", "--fast", "--image-size", "64", "--batch"], "it says the size"),
        (["--backbone", "MODEL", "--method", "patchcore"], "there is no method"),
        (["--backbone", "MODEL", "--method", "coop"], "has a training"),
        (["--backbone", "MODEL", "--method", "mutual"], "--batch"),
        (["--backbone", "MODEL", "--method", "sdp"], "--set as=mended"),
        (["--backbone", "MODEL"], "--reference"),
        (["--backbone", "TOWER", "--method", "clip"], "reads no text"),
        (["--backbone", "no/such/tower"], "fuzzyclip fetch"),
        (["--backbone", "MODEL", "--batch", "--method", "clip"], "by no other method"),
        (["--model", "TOWER"], "give it as --backbone"),
        (["--backbone", "TOWER", "--verify-key", "k.pem", "--batch"], "FUZZYCLIP_VERIFY_KEY"),
        (["--backbone", "MODEL", "--verify-key", "k.pem", "--batch"], "k.pem"),
        (["--backbone", "TOWER", "--image-size", "50", "--batch"], "multiple of the patch size 16"),
    ],
)
def test_what_does_not_go_together_says_what_does(
    arguments, words, model, tower, parts, monkeypatch, tmp_path
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    given = [{"MODEL": model, "TOWER": tower}.get(each, each) for each in arguments]
    done = run("predict", parts, "--device", "cpu", *given)
    assert done.exit_code != 0
    said = " ".join(f"{done.output} {done.exception}".replace("│", " ").split())
    assert words in said


def test_the_model_of_the_environment_gives_way_to_a_backbone(
    model, tower, parts, monkeypatch, tmp_path
):
    monkeypatch.setenv("FUZZYCLIP_MODEL", str(model))
    predict(parts, tmp_path / "out", "--backbone", tower, "--batch")
    settings = json.loads((tmp_path / "out/settings.json").read_text())
    assert settings["model"] == "nearest"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("cut", "no KEY=VALUE"),
        ("=2", "no KEY=VALUE"),
        ("cut=[1", "cut must be a number"),
        ("cut=far", "cut must be a number"),
        ("far=2", "no setting far"),
        ("shots=2.5", "shots must be a whole number"),
        ("cut=2.0 --set cut=3.0", "cut is set twice"),
    ],
)
def test_a_setting_that_is_none_is_refused(given, words, tower, tmp_path):
    settings = ["--set", *given.split()]
    done = run("package", "--backbone", tower, *settings, "--out", tmp_path / "made")
    assert done.exit_code != 0
    assert words in " ".join(done.output.replace("│", " ").split())
    assert not (tmp_path / "made").exists()


def test_a_tower_that_was_changed_is_refused(tower, parts, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(tower, other)
    content = bytearray((other / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (other / "model.safetensors").write_bytes(bytes(content))
    done = run("predict", parts, "--backbone", other, "--batch")
    assert done.exit_code == 1
    assert "sha256" in done.output
