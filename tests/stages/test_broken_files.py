"""Damage that a stage meets: what is ours alone is made anew, what DVC keeps is cleared away."""

import os
from types import SimpleNamespace

import pytest
import torch
import typer
from damage import damage
from dvc.repo import Repo

from fuzzyclip.method.efa import Heads
from fuzzyclip.utils.files import BrokenFileError, compute_sha256
from fuzzyclip.utils.tensor_files import check_tensors, write_tensors
from stages import efa, features, method_setup, paths, run
from stages.earlier import discard_output

FLIP = ("flip", 0.99, 1)
RECIPE = efa.Recipe(
    prompt="stacked", epochs=3, batch_size=4, learning_rate=0.01, mosaic=0.0, seed=0, keep="all"
)


@pytest.fixture
def trainings(monkeypatch):
    """Trainings without images: what they went on from; a checkpoint stands for two epochs."""
    begun = []

    def train_heads(images, text, *, checkpoint, after_epoch, **settings):
        torch.manual_seed(0)
        heads = Heads(1, 4, 3)
        begun.append(checkpoint.exists())
        for epoch in (3,) if checkpoint.exists() else (1, 2, 3):
            torch.manual_seed(epoch)
            heads = Heads(1, 4, 3)
            after_epoch(epoch, heads)
        checkpoint.touch()
        return heads, [{"loss": 1.0}]

    monkeypatch.setattr(efa, "train_heads", train_heads)
    return begun


def train(folder):
    return efa.train_cluster([], torch.zeros(3, 2), RECIPE, folder / "efa-visa-0.pt", "visa/0")


@pytest.mark.parametrize("how", [FLIP, ("cut", 0.5, 1), ("zero", 0.9, 200), None])
def test_layers_of_an_epoch_that_are_broken_or_gone_are_trained_again(
    tmp_path, trainings, caplog, how
):
    expected, _ = train(tmp_path / "whole")
    train(tmp_path / "killed")
    path = tmp_path / "killed" / "efa-visa-0-epoch1.safetensors"
    path.unlink() if how is None else damage(path, how)
    found, _ = train(tmp_path / "killed")
    assert trainings == [False, False, True, False]
    assert f"{path}" in caplog.text
    assert set(found) == set(expected)
    assert {name.split(".")[0] for name in found} == {"{}", "epoch1", "epoch2"}
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_whole_layers_of_epochs_that_a_killed_run_left_are_taken(tmp_path, trainings):
    expected, _ = train(tmp_path)
    found, _ = train(tmp_path)
    assert trainings == [False, True]
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_what_a_method_learned_is_learned_again_where_it_is_broken(tmp_path, caplog):
    path = tmp_path / "winclip.safetensors"
    assert method_setup.read_learned(path) is None
    assert not caplog.text
    write_tensors(path, {"a": torch.ones(3)}, {})
    assert torch.equal(method_setup.read_learned(path)["a"], torch.ones(3))
    damage(path, FLIP)
    assert method_setup.read_learned(path) is None
    assert f"{path} is broken: a does not fit" in caplog.text


def test_a_broken_shard_of_the_last_result_leaves_dvcs_cache(tmp_path, monkeypatch, caplog):
    """What is made anew has the same digest: DVC would link the broken file again."""
    path, missing = tmp_path / "kept", [SimpleNamespace(is_written=lambda: False)]
    path.touch()
    monkeypatch.setattr(features, "list_earlier", lambda stage, out: [path])
    monkeypatch.setattr(features, "adopt_shards", lambda shards, earlier: earlier)
    monkeypatch.setattr(features, "check_space", lambda *given: "1 image to encode")
    encoded = []
    monkeypatch.setattr(
        features, "encode_shards", lambda shards, *given, **more: encoded.extend(shards)
    )
    machine = SimpleNamespace(batch_size=1, workers=1, engine="local")
    features.fill("sdd", missing, None, SimpleNamespace(machine=machine))
    assert encoded == missing
    assert not path.exists()


MAKE = """
import torch
from fuzzyclip.utils.tensor_files import write_tensors
from pathlib import Path
for name in ("out/a/1", "out/a/2", "one"):
    write_tensors(Path(name + ".safetensors"), {"x": torch.arange(9.0)}, {"of": name})
Path("ran").open("a").write("x")
"""


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A finished DVC pipeline of one stage, whose outputs are links to DVC's cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    (tmp_path / "make.py").write_text(MAKE)
    (tmp_path / "dvc.yaml").write_text(
        "stages:\n  make:\n    cmd: run\n    deps: [make.py]\n    outs: [out, one.safetensors]\n"
    )
    with Repo.init(no_scm=True) as repo, repo.config.edit() as config:
        config["cache"]["type"] = ["hardlink"]

    def call(stage, *args, **kwargs):
        exec(MAKE, {})

    monkeypatch.setattr("dvc.stage.run.cmd_run", call)
    reproduce()
    return tmp_path


def reproduce():
    with Repo() as repo:
        repo.reproduce()


def break_unseen(path):
    """As a disk does it: the time of the file does not change."""
    before = path.stat()
    path.chmod(0o644)
    damage(path, FLIP)
    path.chmod(before.st_mode)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("name", ["out/a/2.safetensors", "one.safetensors"])
def test_a_broken_output_is_made_anew_although_dvc_takes_it_for_whole(made, name):
    path = made / name
    assert path.stat().st_nlink == 2
    digest = compute_sha256(path)
    break_unseen(path)
    reproduce()
    assert (made / "ran").read_text() == "x"  # DVC sees nothing
    with pytest.raises(BrokenFileError):
        check_tensors(path)
    assert "`dvc repro make` makes it anew" in discard_output(paths.Path(name))
    assert not path.exists()
    reproduce()
    assert compute_sha256(path) == digest
    assert (made / "ran").read_text() == "xx"


def test_what_only_the_work_tree_has_lost_comes_back_from_the_cache(made):
    path = made / "out/a/1.safetensors"
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)
    damage(path, FLIP)
    assert "`dvc repro make`" in discard_output(path)
    reproduce()
    assert path.read_bytes() == content
    assert (made / "ran").read_text() == "x"


def test_a_file_of_no_stage_is_left_alone(made):
    (made / "other.safetensors").write_text("x")
    assert discard_output(made / "other.safetensors") == ""
    assert (made / "other.safetensors").exists()


def test_a_stage_that_meets_a_broken_output_says_what_to_do(made, caplog):
    path = paths.Path("one.safetensors")
    break_unseen(path)
    with pytest.raises(typer.Exit), caplog.at_level("INFO"):
        run._run("evaluate@sdd", lambda: check_tensors(path))
    assert "stage evaluate@sdd failed: BrokenFileError: one.safetensors is broken" in caplog.text
    assert "`dvc repro make` makes it anew" in caplog.text
    assert not path.exists()


def test_a_file_of_an_earlier_version_stays(made, caplog, monkeypatch):
    monkeypatch.setattr("fuzzyclip.utils.tensor_files._seal", lambda header, sums: "{}")
    path = paths.Path("one.safetensors")
    path.unlink()
    write_tensors(path, {"a": torch.ones(1)}, {})
    with pytest.raises(typer.Exit):
        run._run("evaluate@sdd", lambda: check_tensors(path))
    assert "without check sums; run `dvc repro`" in caplog.text
    assert path.exists()
