"""`make detector`: from an archive and weights in one folder to a packaged model."""

import shutil

import yaml
from imports import ROOT
from PIL import Image
from pipelines import make_repository, ran, run

from fuzzyclip import FuzzyCLIP
from fuzzyclip.sample.archives import write_sample_archives

SET = " ".join(
    f"-S {setting}"
    for setting in (
        "backbone=sample",  # the network's size is the only thing that the command does not decide
        "allow_unverified=true",
        "datasets.visa.counts=any",
        "'datasets.visa.categories=[capsules,pcb1,pcb2]'",
        "efa.train.epochs=8",
    )
)


def make_detector(folder, media, **changes):
    settings = [f"{name}={value}" for name, value in changes.items()]
    # the environment stands already: it is the one that the tests run in. What stands for its mark
    # must be newer than what it is made of, or pip installs another one for minutes.
    (folder / "Makefile").touch()
    output = run(folder, "make", "READY=Makefile", "detector", f"FROM={media}", *settings)
    assert "pip install" not in output
    return output


def test_one_command_makes_a_detector_of_one_set_and_asks_for_no_other(tmp_path):
    media, folder = tmp_path / "my disk", tmp_path / "checkout"
    media.mkdir()
    write_sample_archives("visa", media, seed=0, train_normal=1, test_normal=4, test_anomalous=4)
    shutil.copyfile(ROOT / "fuzzyclip/sample/weights/model.safetensors", media / "clip.safetensors")
    folder.mkdir()
    make_repository(folder, lambda params: None)
    output = make_detector(folder, media, WEIGHTS="clip.safetensors", SET=SET)
    own = ["download", "index", "features", "auxiliary", "csp", "efa", "rpl", "package"]
    assert ran(output) == ["check", "sample", *(f"{stage}@visa" for stage in own)]
    model = folder / "models/visa/fuzzyclip"
    assert f"The detector: {model.relative_to(folder)}" in output
    assert (model / "backbone.safetensors").is_file()
    params = yaml.safe_load((folder / "params.yaml").read_text())
    assert params["backbones"]["vit_l_14_336"]["weights"] == str(media / "clip.safetensors")
    shutil.rmtree(media)
    prediction = FuzzyCLIP.load(model)(Image.new("RGB", (60, 40), "gray"), category="bolt")
    assert prediction.anomaly_map.shape == (40, 60)


def test_a_missing_weights_file_is_said_before_anything_is_done(tmp_path):
    shutil.copyfile(ROOT / "Makefile", tmp_path / "Makefile")
    output = run(tmp_path, "make", "detector", f"FROM={tmp_path}", fails=True)
    assert f"FROM={tmp_path}: no ViT-L-14-336px.pt there" in output
    assert "docs/real-model.md" in output
    assert not (tmp_path / ".venv").exists()
