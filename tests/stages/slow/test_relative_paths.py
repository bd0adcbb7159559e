"""Own images that git does not track, named by a relative path, in the copy where DVC works."""

import hashlib
import json

import yaml
from pipelines import OWN, make_own_images, make_repository, ran, run, shrink


def test_a_relative_path_is_found_from_a_temporary_copy(tmp_path):
    def add(params):
        shrink(params)
        params["data"]["source"] = "official"  # nothing is drawn
        params["datasets"]["parts"] = OWN

    tmp_path.joinpath("repository").mkdir()
    folder = make_repository(tmp_path / "repository", add)
    make_own_images(folder / "mine")
    with (folder / ".git/info/exclude").open("a") as file:
        file.write("/mine/\n")
    output = run(folder, "dvc", "exp", "run", "--temp", "-n", "copy", "download@parts")
    assert ran(output) == ["check", "sample", "download@parts"]
    assert not (folder / "data").exists()
    (ref,) = run(folder, "git", "for-each-ref", "--format=%(refname)", "refs/exps/**/copy").split()
    lock = yaml.safe_load(run(folder, "git", "show", f"{ref}:dvc.lock"))
    (listed,) = [
        out["md5"]
        for out in lock["stages"]["download@parts"]["outs"]
        if out["path"] == "data/raw/parts"
    ]
    cache = folder / ".dvc/cache/files/md5"
    kept = json.loads((cache / listed[:2] / listed[2:]).read_text())
    assert {entry["relpath"]: entry["md5"] for entry in kept} == {
        path.relative_to(folder / "mine").as_posix(): hashlib.md5(path.read_bytes()).hexdigest()
        for path in (folder / "mine").rglob("*.*")
    }
