"""What git does to files when it checks them out."""

import shutil

from imports import ROOT
from pipelines import commit, run

FILES = ("dvc.yaml", "dvc.lock", "params.yaml", "metrics/tables/means.csv", "stages/check.py",
         "fuzzyclip/sample/weights/model.safetensors")  # fmt: skip


def clone(folder, *, attributes):
    """Files of this checkout in a clone with core.autocrlf: whether each has the same bytes."""
    origin = folder / "origin"
    for name in (*FILES, *([".gitattributes"] if attributes else [])):
        (origin / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, origin / name)
    run(origin, "git", "-c", "init.defaultBranch=main", "init", "-q")
    commit(origin, "files")
    run(folder, "git", "clone", "-q", "-c", "core.autocrlf=true", "origin", "clone")
    return {n: (folder / "clone" / n).read_bytes() == (ROOT / n).read_bytes() for n in FILES}


def test_a_clone_with_converted_line_ends_has_the_same_bytes(tmp_path):
    """DVC compares bytes: a stage whose code has other line ends would run again."""
    assert all(clone(tmp_path, attributes=True).values())


def test_git_would_convert_them_without_attributes(tmp_path):
    same = clone(tmp_path, attributes=False)
    assert [name for name in FILES if same[name]] == ["fuzzyclip/sample/weights/model.safetensors"]
