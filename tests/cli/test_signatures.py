"""`fuzzyclip sign` and `verify`, and the commands that load signed models alone."""

import shutil
import stat

import numpy as np
import pytest
from command import run
from PIL import Image

from fuzzyclip.deploy.serving import Responder
from fuzzyclip.model.card import ModelError
from fuzzyclip.model.signing import SIGNATURE


@pytest.fixture
def signed(packaged, tmp_path):
    """A signed model, and its public key."""
    model = shutil.copytree(packaged, tmp_path / "model")
    assert run("sign", model, "--make-key", tmp_path / "line.pem").exit_code == 0
    return model, tmp_path / "line.pub.pem"


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "part.png"
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_a_key_is_made_then_signs_then_verifies(packaged, tmp_path):
    model = shutil.copytree(packaged, tmp_path / "model")
    done = run("sign", "--make-key", tmp_path / "line.pem")
    assert done.exit_code == 0
    assert stat.S_IMODE((tmp_path / "line.pem").stat().st_mode) == 0o600
    done = run("sign", model, "--key", tmp_path / "line.pem")
    assert (done.exit_code, done.stdout) == (0, f"{model / SIGNATURE} written\n")
    done = run("verify", model, "--key", tmp_path / "line.pub.pem")
    count = len([*packaged.iterdir()])
    assert (done.exit_code, done.stderr) == (0, "")
    assert f"all {count} files are as the owner of" in done.stdout


def test_every_flipped_file_of_a_model_fails_by_its_name(signed):
    model, key = signed
    for path in [path for path in model.iterdir() if path.name != SIGNATURE]:
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        done = run("verify", model, "--key", key)
        assert (done.exit_code, done.stdout) == (1, "")
        assert done.stderr == f"{model} is not as it was signed: {path.name} is changed\n"
        path.write_bytes(content)


def test_the_key_may_come_from_the_environment(signed, monkeypatch):
    monkeypatch.setenv("FUZZYCLIP_VERIFY_KEY", str(signed[1]))
    assert run("verify", signed[0]).exit_code == 0


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (("verify",), "fuzzyclip tables verify"),
        (("verify", "folder"), "public key"),
        (("sign",), "name the folder"),
        (("sign", "folder"), "--make-key mine.pem"),
        (("sign", "folder", "--key", "a.pem", "--make-key", "b.pem"), "new key or a given one"),
    ],
)
def test_what_is_missing_is_asked_for(words, answer):
    done = run(*words)
    assert done.exit_code == 2
    assert answer in " ".join(done.stderr.replace("\u2502", " ").split())


def test_a_passwords_place_is_the_environment(signed, tmp_path, monkeypatch):
    monkeypatch.setenv("FUZZYCLIP_KEY_PASSWORD", "none was needed")
    done = run("sign", signed[0], "--key", tmp_path / "line.pem")
    assert done.exit_code == 1
    assert "has no password (unset FUZZYCLIP_KEY_PASSWORD)" in done.stderr


@pytest.mark.parametrize("elsewhere", [False, True])
def test_predict_takes_a_signed_model_alone_where_a_key_is_given(
    signed, image, tmp_path, elsewhere
):
    model, key = signed
    options = ("--model", model, "--verify-key", key, "--category", "nut")
    if elsewhere:
        shutil.move(model / SIGNATURE, tmp_path / "other.sig")
        options += ("--signature", tmp_path / "other.sig")
    assert run("predict", image, *options).exit_code == 0
    (model / "model.json").write_text("{")
    done = run("predict", image, *options)
    assert done.exit_code == 1
    assert done.stderr == f"{model} is not as it was signed: model.json is changed\n"


def test_other_commands_that_read_a_model_refuse_a_changed_one(
    signed, image, tmp_path, monkeypatch
):
    model, key = signed
    (model / "added").touch()
    monkeypatch.setenv("FUZZYCLIP_VERIFY_KEY", str(key))
    for words in (
        ("calibrate", "--good", image, "--model", model),
        ("export", "--model", model, "--out", tmp_path / "served", "--format", "mlflow"),
        ("export", "--model", model, "--out", tmp_path / "a.onnx", "--check", image),
    ):
        done = run(*words)
        assert (done.exit_code, done.stderr.splitlines()[-1:]) == (
            1, [f"{model} is not as it was signed: added is added"],
        ), words  # fmt: skip
    assert not (tmp_path / "served").exists()
    with pytest.raises(ModelError, match="added is added"):
        Responder.start(model, {"FUZZYCLIP_VERIFY_KEY": str(key)})


def test_a_server_starts_with_a_signed_model(signed):
    model, key = signed
    environment = {"FUZZYCLIP_VERIFY_KEY": str(key), "FUZZYCLIP_DEVICE": "cpu"}
    assert Responder.start(model, environment).detector.card.name == "drawn"
    with pytest.raises(ModelError, match="is missing"):
        Responder.start(model, environment | {"FUZZYCLIP_SIGNATURE": str(model / "nothere")})


def test_calibrate_says_that_the_signature_is_gone(signed, image, tmp_path):
    model, _ = signed
    mine = ("--model", model, "--category", "nut", "--good")
    images = [tmp_path / f"{number}.png" for number in range(3)]
    for path in images:
        shutil.copy(image, path)
    goods = [word for path in images for word in ("--good", path)][1:]
    done = run("calibrate", *mine, *goods, "--out", tmp_path / "mine")
    assert done.exit_code == 0, done.stderr
    assert (
        "it is not signed: the old signature is of other thresholds; fuzzyclip sign" in done.stderr
    )
    assert not (tmp_path / "mine" / SIGNATURE).exists()
    assert (model / SIGNATURE).exists()


def test_calibrate_says_it_of_a_signature_that_lies_elsewhere_too(signed, image, tmp_path):
    model, key = signed
    elsewhere = tmp_path / "elsewhere.sig"
    shutil.move(model / SIGNATURE, elsewhere)
    images = [shutil.copy(image, tmp_path / f"{number}.png") for number in range(3)]
    goods = [word for path in images for word in ("--good", path)]
    checked = ("--verify-key", key, "--signature", elsewhere)
    done = run("calibrate", "--model", model, "--category", "nut", *goods, *checked)
    assert done.exit_code == 0, done.stderr
    assert f"of other thresholds; fuzzyclip sign {model}" in done.stderr
    done = run("verify", model, "--key", key, "--signature", elsewhere)
    assert f"{model} is not as it was signed: model.json is changed" in done.stderr
