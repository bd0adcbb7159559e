"""What commands leave: results with the user's modes, what the docs name, and nothing else."""

import os
import subprocess
import sys

import mlflow
import pytest
from command import draw
from imports import ROOT
from tiny_models import make_model

from fuzzyclip.deploy.mlflow_model import describe_model

#: What stands beside the models and images; commands run in `here`, which is empty.
PLACES = ("here", "home", "tmp")


@pytest.fixture(scope="module")
def model(tmp_path_factory, tiny_config):
    return make_model(tmp_path_factory.mktemp("made"), tiny_config)[0]


@pytest.fixture
def images(tmp_path):
    for number in range(4):
        draw(tmp_path / f"images/good/{number}.png", number)
        draw(tmp_path / f"images/bad/{number}.png", number + 4)
    return tmp_path / "images"


@pytest.fixture
def fuzzyclip(tmp_path):
    """Runs a command as a person does, in an empty folder with a home and a place for scratch."""
    for name in PLACES:
        (tmp_path / name).mkdir()

    def call(*arguments, umask=0o022, code=0, **variables):
        environment = {
            key: value for key, value in os.environ.items()
            if not key.startswith(("MLFLOW_", "FUZZYCLIP_", "XDG_"))
        }  # fmt: skip
        environment |= {
            "HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "tmp"),
            "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-m", "fuzzyclip.cli", *map(str, arguments)],
            cwd=tmp_path / "here", env=environment | variables, umask=umask, text=True,
            capture_output=True, check=False, timeout=900,
        )  # fmt: skip
        assert code is None or done.returncode == code, done.stderr
        return done

    return call


def list_tree(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def check_modes(folder, umask):
    for path in folder.rglob("*"):
        whole = 0o777 if path.is_dir() else 0o666
        assert path.stat().st_mode & 0o777 == whole & ~umask, path


def list_home(tmp_path):
    """What is in the home besides what matplotlib keeps there for itself."""
    parts = ((name, name.split("/")) for name in list_tree(tmp_path / "home"))
    return {name for name, words in parts if "matplotlib" not in words and len(words) > 1}


def list_left(tmp_path):
    """What is there besides results and the cache of texts, which the docs name."""
    cache = ".cache/fuzzyclip"
    assert {name for name in list_home(tmp_path) if not name.startswith(cache)} == set()
    scratch = {name for name in list_tree(tmp_path / "tmp") if "torchinductor" not in name}
    return list_tree(tmp_path / "here") | scratch  # PyTorch makes an empty folder of its own


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077], ids=["022", "002", "077"])
def test_inspecting_leaves_its_results_alone(fuzzyclip, model, images, tmp_path, umask):
    out = tmp_path / "results/out"
    use = ("--model", model, "--device", "cpu")
    fuzzyclip("predict", images, *use, "--out", out, "--report", "--save", "overlay", "--save",
              "map", "--save", "npy", "--save", "mask", umask=umask)  # fmt: skip
    fuzzyclip("predict", images, *use, umask=umask)
    fuzzyclip("calibrate", "--good", images / "good/[123].png", "--bad", images / "bad", *use,
              "--category", "gear", "--reference", images / "good/0.png",
              "--out", tmp_path / "results/own", umask=umask)  # fmt: skip
    assert list_left(tmp_path) == set()
    assert not list(out.rglob(".*"))
    check_modes(tmp_path / "results", umask)
    check_modes(tmp_path / "home/.cache/fuzzyclip", umask)


@pytest.mark.parametrize("kind", ["onnx", "openvino", "mlflow"])
def test_exporting_leaves_its_files_alone(fuzzyclip, model, images, tmp_path, kind):
    out = tmp_path / f"results/{ {'onnx': 'a.onnx', 'openvino': 'a.xml', 'mlflow': 'a'}[kind] }"
    check = () if kind == "mlflow" else ("--check", images / "good/0.png", "--category", "gear")
    fuzzyclip("export", "--model", model, "--format", kind, "--out", out, *check, umask=0o002)
    assert list_left(tmp_path) == set()
    assert not list((tmp_path / "results").rglob(".*"))
    check_modes(tmp_path / "results", 0o002)


def test_looking_leaves_nothing(fuzzyclip, images, tmp_path):
    fuzzyclip("--help")
    fuzzyclip("doctor", code=None)  # it has its own view of this machine
    fuzzyclip("data", "list")
    fuzzyclip("data", "show", "visa")
    fuzzyclip("data", "check", "folder", images)
    fuzzyclip("tables", "list", code=2)  # needs a checkout
    fuzzyclip("compare", "HEAD", code=2)
    assert list_left(tmp_path) == set()
    assert list_home(tmp_path) == set()


def test_an_address_without_a_store_makes_none(fuzzyclip, images, tmp_path):
    elsewhere = {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/none/mlflow.db"}
    for address in ("models:/inspection/1", "runs:/0123/model"):
        for variables in ({}, elsewhere):
            refused = fuzzyclip("predict", images, "--model", address, code=1, **variables)
            assert "export MLFLOW_TRACKING_URI=sqlite:" in refused.stderr
            assert len(refused.stderr.strip().splitlines()) == 1
            assert list_left(tmp_path) == set()
    assert not (tmp_path / "none").exists()


def test_a_model_of_a_store_is_used_and_leaves_nothing(fuzzyclip, model, images, tmp_path):
    uri = f"sqlite:///{tmp_path}/store/mlflow.db"
    (tmp_path / "store").mkdir()
    client = mlflow.MlflowClient(uri)
    experiment = client.create_experiment(
        "x", artifact_location=(tmp_path / "store/files").as_uri()
    )
    before = mlflow.get_tracking_uri()
    try:
        mlflow.set_tracking_uri(uri)
        with mlflow.start_run(experiment_id=experiment), describe_model(model) as described:
            logged = mlflow.pyfunc.log_model(name="m", **described)
        mlflow.register_model(logged.model_uri, "inspection")
    finally:
        mlflow.set_tracking_uri(before)
    stored = list_tree(tmp_path / "store")
    done = fuzzyclip("predict", images, "--model", "models:/inspection/1", "--device", "cpu",
                     MLFLOW_TRACKING_URI=uri)  # fmt: skip
    assert "could not be read" in done.stderr
    assert list_left(tmp_path) == set()
    assert list_tree(tmp_path / "store") == stored
