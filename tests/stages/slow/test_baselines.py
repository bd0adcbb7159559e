"""Methods of the tables through DVC, on two small datasets, in a temporary repository."""

import re
import shutil

import pytest
import yaml
from imports import ROOT
from pipelines import change_params, clone_repository, commit, list_runs, ran, run, shorten_methods

#: One of every kind of features, with and without training, and one with models of its own.
SOME = ("clip", "winclip", "april_gan", "sdp", "coop", "anomaly_clip", "saa")


@pytest.fixture(scope="module")
def baselines(pipeline, tmp_path_factory):
    """A clone of the finished pipeline in which `dvc repro baselines` has run, and what DVC said.

    Each method has next to no training. All are tested in tests/stages/test_stages_again.py.
    """
    folder = clone_repository(pipeline[0], tmp_path_factory.mktemp("baselines") / "clone")
    shutil.copyfile(ROOT / "dvc.yaml", folder / "dvc.yaml")

    def shorten(params):
        params["methods"] = {name: params["methods"][name] for name in SOME}
        params["views"]["vv"] = "anomaly_clip"
        shorten_methods(params)

    change_params(folder, shorten)
    output = run(folder, "dvc", "repro", "baselines")
    commit(folder, "results")
    return folder, output


def test_every_method_runs_once_and_a_second_repro_does_nothing(baselines):
    folder, output = baselines
    for stage in ("train", "evaluate_baseline"):
        assert {f"{stage}@{name}" for name in SOME} <= set(ran(output))
    assert ran(run(folder, "dvc", "repro", "baselines")) == []
    assert run(folder, "git", "status", "--porcelain") == ""


def test_methods_of_one_kind_share_their_features(baselines):
    _, output = baselines
    encoded = re.findall(r"^sdd, (\w+): 8 images", output, flags=re.M)
    assert sorted(encoded) == ["vv", "vv_stages", "windows"]  # patch tokens are there already


def test_a_setting_reruns_its_method_alone(baselines):
    folder, _ = baselines
    output = run(folder, "dvc", "exp", "run", "-S", "methods.winclip.temperature=0.2", "baselines")
    assert set(ran(output)) == {
        "check", "views@windows", "train@winclip", "evaluate_baseline@winclip", "method_tables",
        "baselines",
    }  # fmt: skip
    assert re.findall(r"windows: (\d+) images to encode", output) == ["0", "0"]  # taken over
    assert "is broken" not in output  # the rows of a store are no shards
    assert sum(each.data.tags["method"] == "winclip" for each in list_runs(folder)) == 2
    assert sum(each.data.tags["method"] == "clip" for each in list_runs(folder)) == 1
    run(folder, "git", "checkout", "-q", "HEAD", "--", ".")
    assert list_tested(run(folder, "dvc", "repro", "baselines")) == set()  # DVC restores it


def list_tested(output):
    return {stage.split("@")[1] for stage in ran(output) if stage.startswith("evaluate_baseline")}


def test_an_edit_of_a_methods_code_reruns_that_method_alone(baselines):
    folder, _ = baselines
    path = folder / "fuzzyclip/baselines/coop/__init__.py"
    path.write_text(path.read_text() + "# a change\n")
    output = run(folder, "dvc", "repro", "baselines")
    assert list_tested(output) == {"coop"}
    assert "views@windows" not in ran(output)
    run(folder, "git", "checkout", "-q", "HEAD", "--", ".")


def test_a_method_of_ones_own_is_one_file_and_one_block(baselines):
    folder, _ = baselines
    page = (ROOT / "docs/methods.md").read_text()
    own = page[page.index("## A method of your own") :]
    (code,) = re.findall(r"```python\n(.*?METHOD = TopPatches\n)```", own, re.S)
    (block,) = re.findall(r"```yaml\n(methods:.*?)```", page, flags=re.S)
    path = folder / "fuzzyclip/baselines/top_patches/__init__.py"
    path.parent.mkdir()
    path.write_text(code)

    def add(params):
        params["methods"] |= yaml.safe_load(block)["methods"]

    change_params(folder, add)
    output = run(folder, "dvc", "repro", "baselines")
    assert list_tested(output) == {"top_patches"}
    assert "| Top patches |" in (folder / "metrics/method_tables/table-3.md").read_text()
    run(folder, "git", "checkout", "-q", "HEAD", "--", ".")
    shutil.rmtree(path.parent)
