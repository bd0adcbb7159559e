"""What a result is said to have used, and what was changed for it."""

import copy
import subprocess
from contextlib import chdir

import pytest
import yaml
from imports import ROOT
from pipelines import commit, run

from stages import paths
from stages.params import read_params
from stages.schema import Params
from stages.tracking.choices import (
    find_changes,
    join_values,
    list_changes,
    list_edits,
    list_params,
    list_used,
    summarize,
)

TREE = yaml.safe_load((ROOT / "params.yaml").read_text())


@pytest.fixture(autouse=True)
def checkout(tmp_path, monkeypatch):
    """A committed copy of what says how the pipeline runs, and a module of code."""
    monkeypatch.delenv("DVC_EXP_BASELINE_REV", raising=False)
    for name in (paths.PARAMS, paths.PIPELINE):
        (tmp_path / name).write_text((ROOT / name).read_text())
    (tmp_path / "fuzzyclip/method").mkdir(parents=True)
    (tmp_path / "fuzzyclip/method/csp.py").write_text("K = 1\n")
    run(tmp_path, "git", "init", "-q")
    commit(tmp_path, "start")
    with chdir(tmp_path):
        yield tmp_path


def change(**settings):
    """params.yaml with other values, `csp__penalty=0.2`."""
    tree = copy.deepcopy(TREE)
    for key, value in settings.items():
        *sections, last = key.split("__")
        place = tree
        for section in sections:
            place = place[section]
        place[last] = value
    paths.PARAMS.write_text(yaml.safe_dump(tree, sort_keys=False))
    return Params.model_validate(tree)


def name(params, method="fuzzyclip"):
    return find_changes(params, method).name


def test_a_run_is_named_by_the_changes_that_it_sees():
    assert name(read_params()) == ""
    assert name(change(csp__penalty=0.2)) == "csp.penalty=0.2"
    assert name(change(efa__train__epochs=5)) == "efa.train.epochs=5"  # in place of a table
    assert name(change(seed=112, evaluation__shots=[1, 2])) == "seed=112, evaluation.shots=[1, 2]"
    assert name(change(machine__device="cpu", tracking__models=False)) == ""
    assert name(change(methods__coop__words=4)) == ""
    assert name(change(methods__coop__words=4), "coop") == "methods.coop.words=4"
    assert name(change(csp__penalty=0.2), "coop") == ""
    many = change(seed=1, csp__penalty=0.2, csp__form="mean", text__separator="", rpl__words=3)
    assert name(many).endswith(", 2 more")
    assert find_changes(many).text.count("`") == 10


def test_other_pairs_are_told_by_the_datasets_that_are_left():
    assert name(change(pairs={"sdd": "visa", "btad": "visa"})) == "on sdd, btad"
    assert name(change(pairs__sdd="mvtec")) == "pairs.sdd=mvtec"


def test_changes_are_those_since_the_commit_that_an_experiment_started_from(checkout, monkeypatch):
    start = subprocess.check_output(["git", "rev-parse", "HEAD"], text=True).strip()
    params = change(csp__penalty=0.2)
    commit(checkout, "another penalty")
    assert name(params) == ""
    monkeypatch.setenv("DVC_EXP_BASELINE_REV", start)
    assert name(params) == "csp.penalty=0.2"
    assert find_changes(params).text == (
        f"Changed: `csp.penalty=0.2`, compared with commit {start[:8]}."
    )


def test_edited_code_is_a_change(checkout):
    (checkout / "fuzzyclip/method/csp.py").write_text("K = 2\n")
    assert name(read_params()) == "edited fuzzyclip/method/csp.py"
    (checkout / "fuzzyclip/method/more.py").write_text("")
    assert list_edits() == ["fuzzyclip/method/csp.py", "fuzzyclip/method/more.py"]
    assert name(change(seed=5)) == "seed=5, edited 2 files"
    for other in ("notes.md", "fuzzyclip/cli/new.py", "stages/tracking/new.py"):
        (checkout / other).parent.mkdir(parents=True, exist_ok=True)
        (checkout / other).write_text("")
    assert len(list_edits()) == 2
    (checkout / "fuzzyclip/clip").mkdir()  # which begins as the name of another package
    (checkout / "fuzzyclip/clip/ü.py").write_text("")
    assert "fuzzyclip/clip/ü.py" in list_edits()


def test_a_methods_own_folder_is_a_change_of_no_other_method(checkout):
    for file in ("coop/words.py", "shared/loss.py"):
        path = checkout / "fuzzyclip/baselines" / file
        path.parent.mkdir(parents=True)
        path.write_text("")
    assert name(read_params()) == ""
    assert name(read_params(), "clip") == "edited fuzzyclip/baselines/shared/loss.py"
    assert name(read_params(), "coop") == "edited 2 files"


def test_a_method_that_is_not_committed_is_new(checkout):
    tree = copy.deepcopy(TREE)
    del tree["methods"]["coop"]
    paths.PARAMS.write_text(yaml.safe_dump(tree, sort_keys=False))
    commit(checkout, "without")
    assert name(change(), "coop") == "new method"


def test_edits_are_named_from_the_checkout_also_below_gits_root(checkout, monkeypatch):
    (checkout / "sub").mkdir()
    (checkout / "fuzzyclip").rename(checkout / "sub/fuzzyclip")
    monkeypatch.chdir(checkout / "sub")
    (checkout / "sub/fuzzyclip/cli").mkdir()
    (checkout / "sub/fuzzyclip/cli/new.py").write_text("")
    assert list_edits() == ["fuzzyclip/method/csp.py"]


def test_outside_of_git_nothing_is_claimed(checkout):
    (checkout / ".git").rename(checkout / "no-git")
    assert find_changes(read_params()).name == ""
    assert "not known" in find_changes(read_params()).text


def test_added_and_removed_keys_are_named():
    base, now = copy.deepcopy(TREE), copy.deepcopy(TREE)
    del now["csp"]["form"]
    now["csp"]["extra"] = {"a": 1}
    assert list_changes(base, now, ["csp"]) == ["csp.extra.a=1", "without csp.form"]
    assert summarize([], []) == ""


def test_parameters_are_those_that_the_run_used():
    """At most some 60; each as params.yaml has it or as its table came to."""
    params = read_params()
    told = dict(list_params(params))
    assert len(told) == len(list_params(params)) <= 60
    assert not [key for key in told if key.startswith(("methods.", "views", "towers", "machine"))]
    assert "null" not in told.values()
    assert {key for key in told if key.startswith("backbones.")} >= {"backbones.sample.blocks"}
    assert not [key for key in told if key.startswith("backbones.vit_l")]
    assert told["csp.penalty"] == str(TREE["csp"]["penalty"])
    assert told["efa.train.epochs"] == str(TREE["efa"]["train"]["epochs"]["sample"])
    rates = TREE["efa"]["train"]["learning_rate"]["sample"]
    assert told["efa.train.learning_rate"] == f"visa: {rates['visa']}; mvtec: {rates['default']}"
    official = dict(list_params(change(data__source="official")))
    assert official["efa.train.epochs"] == str(TREE["efa"]["train"]["epochs"]["default"])
    assert not [key for key in official if key.startswith("sample.")]


def test_what_is_said_of_a_dataset_is_what_is_not_usual():
    told = dict(list_params(change(datasets__visa__categories=["pcb1"])))
    assert told["datasets.visa.categories"] == '["pcb1"]'
    assert [key for key in told if key.startswith("datasets.")] == ["datasets.visa.categories"]
    alone = dict(list_params(change(pairs={"sdd": "visa"})))
    assert alone["protocols"] == "visa: 1cls; sdd: dra"
    assert alone["pairs"] == "visa"
    used = list_used(change(pairs={"sdd": "visa"}))
    assert not [key for key in used if key.startswith(("datasets.mvtec", "auxiliary.mvtec"))]


def test_values_are_joined_by_the_names_that_share_them():
    assert join_values({"a": 1, "b": 1}) == "1"
    assert join_values({"a": 1, "b": "x", "c": 1}) == "a, c: 1; b: x"
