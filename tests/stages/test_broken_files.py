"""Damage that a stage meets: what is ours alone is made anew, what DVC keeps is cleared away."""

import os
from types import SimpleNamespace

import pytest
import torch
from damage import damage
from dvc.repo import Repo

from fuzzyclip.utils.files import BrokenFileError, compute_sha256
from fuzzyclip.utils.tensor_files import check_tensors, write_tensors
from stages import features, paths, run

FLIP = ("flip", 0.99, 1)


def test_a_broken_shard_of_the_last_result_leaves_dvcs_cache(tmp_path, monkeypatch, caplog):
    """What is made anew has the same digest: DVC would link the broken file again."""
    path, missing = tmp_path / "kept", [SimpleNamespace(is_written=lambda: False)]
    path.touch()
    monkeypatch.setattr(features, "list_earlier", lambda stage, out: [path])
    monkeypatch.setattr(features, "adopt_shards", lambda shards, earlier: earlier)
    assert features.adopt_earlier("features@sdd", tmp_path, missing) == missing
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
    assert "`dvc repro make` makes it anew" in run.discard_output(paths.Path(name))
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
    assert "`dvc repro make`" in run.discard_output(path)
    reproduce()
    assert path.read_bytes() == content
    assert (made / "ran").read_text() == "x"


def test_a_file_of_no_stage_is_left_alone(made):
    (made / "other.safetensors").write_text("x")
    assert run.discard_output(made / "other.safetensors") == ""
    assert (made / "other.safetensors").exists()


def test_a_stage_that_meets_a_broken_output_says_what_to_do(made, caplog):
    path = paths.Path("one.safetensors")
    break_unseen(path)
    with pytest.raises(SystemExit), caplog.at_level("INFO"):
        run._run("evaluate@sdd", lambda: check_tensors(path))
    assert "stage evaluate@sdd failed: BrokenFileError: one.safetensors is broken" in caplog.text
    assert "`dvc repro make` makes it anew" in caplog.text
    assert not path.exists()


def test_a_file_of_an_earlier_version_stays(made, caplog, monkeypatch):
    monkeypatch.setattr("fuzzyclip.utils.tensor_files._seal", lambda header, sums: "{}")
    path = paths.Path("one.safetensors")
    path.unlink()
    write_tensors(path, {"a": torch.ones(1)}, {})
    with pytest.raises(SystemExit):
        run._run("evaluate@sdd", lambda: check_tensors(path))
    assert "without check sums; run `dvc repro`" in caplog.text
    assert path.exists()
