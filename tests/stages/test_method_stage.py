"""method_test: what is made already is kept, whatever stopped or changed the rest."""

import json
import shutil
from types import SimpleNamespace

import pandas as pd
import pytest
import yaml
from damage import damage
from imports import ROOT

from fuzzyclip.method.interface import MethodUnavailableError
from stages import method_test, paths

METHOD, AUXILIARY = "winclip", "visa"
#: Of the committed params.yaml, in its order.
DATASETS = ["mvtec", "btad", "mpdd", "dagm", "sdd", "dtd"]


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Datasets that were tested; `made.fail` maps one to the error that stops it."""
    shutil.copyfile(ROOT / "params.yaml", tmp_path / "params.yaml")
    monkeypatch.chdir(tmp_path)
    files = [paths.method_code(METHOD), paths.auxiliary(AUXILIARY)]
    files += [find(name) for name in DATASETS for find in (paths.index, paths.index_info)]
    for path in files:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'{{"of": "{path.stem}"}}')
    seen = SimpleNamespace(tested=[], set_up=0, fail={})

    def set_up(method, auxiliary, params):
        seen.set_up += 1
        return SimpleNamespace(method=SimpleNamespace(title=method))

    def evaluate(dataset, ready, params, tensors):
        seen.tested.append(dataset)
        if dataset in seen.fail:
            raise seen.fail[dataset]
        line = {"row": METHOD, "category": dataset, "prompt": f"run {len(seen.tested)}"}
        return [SimpleNamespace(table=[line], listing=pd.DataFrame([{"image_score": 0.5}]))]

    monkeypatch.setattr(method_test, "set_up", set_up)
    monkeypatch.setattr(method_test, "evaluate", evaluate)
    monkeypatch.setattr(method_test, "learn", lambda *given: {})
    monkeypatch.setattr(method_test, "describe", lambda *given: {"choices": "all"})
    return seen


def run(made):
    """What one run of the stage tests."""
    made.tested.clear()
    method_test.main(METHOD, AUXILIARY)
    folder = paths.method_results(METHOD, AUXILIARY)
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        f"{name}.{kind}" for name in DATASETS for kind in ("csv", "json")
    )
    for name in DATASETS:
        table = pd.read_csv(paths.method_metrics(METHOD, AUXILIARY, name))
        assert table["category"].tolist() in ([name], [])
    return made.tested


def change(path):
    path.write_text(path.read_text() + " ")


def test_a_stage_that_was_killed_goes_on_where_it_was(made):
    made.fail["dagm"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        run(made)
    assert made.tested == ["mvtec", "btad", "mpdd", "dagm"]
    assert not paths.method_results(METHOD, AUXILIARY).exists()
    del made.fail["dagm"]
    assert run(made) == ["dagm", "sdd", "dtd"]
    assert run(made) == []
    assert made.set_up == 2  # the towers are not even loaded where all is made


def test_a_result_that_was_half_written_is_made_again(made):
    run(made)
    (folder,) = (paths.BASELINES / "results" / METHOD).glob("sdd-*")
    (folder / "facts.json").unlink()
    assert run(made) == ["sdd"]


@pytest.mark.parametrize("name", ["metrics.csv", "scores.csv", "facts.json", "sha256.json"])
def test_a_damaged_result_is_named_and_made_again(made, caplog, name):
    run(made)
    before = paths.method_metrics(METHOD, AUXILIARY, "sdd").read_text()
    (folder,) = (paths.BASELINES / "results" / METHOD).glob("sdd-*")
    damage(folder / name, ("flip", 0.5, 1))
    assert run(made) == ["sdd"]
    assert f"{folder}: " in caplog.text
    assert name in caplog.text or name == "sha256.json"
    assert (
        paths.method_metrics(METHOD, AUXILIARY, "sdd").read_text().split("run")[0]
        == (before.split("run")[0])
    )
    assert run(made) == []


@pytest.mark.parametrize("find", [paths.index, paths.index_info])
def test_one_changed_dataset_is_tested_alone(made, find):
    run(made)
    before = paths.method_metrics(METHOD, AUXILIARY, "btad").read_bytes()
    change(find("btad"))
    assert run(made) == ["btad"]
    assert paths.method_metrics(METHOD, AUXILIARY, "btad").read_bytes() != before
    paths.index("btad").write_text('{"of": "btad"}')
    paths.index_info("btad").write_text('{"of": "btad"}')
    assert run(made) == []  # the former data's results are still there
    assert paths.method_metrics(METHOD, AUXILIARY, "btad").read_bytes() == before


@pytest.mark.parametrize("path", [paths.method_code(METHOD), paths.auxiliary(AUXILIARY)])
def test_other_code_or_another_auxiliary_set_tests_all_again(made, path):
    run(made)
    change(path)
    assert run(made) == DATASETS


def test_a_setting_that_results_rest_on_tests_all_again(made, tmp_path):
    run(made)
    file = tmp_path / "params.yaml"
    text = file.read_text()
    for key, matters in (
        ("seed", True),
        ("methods.winclip.sigma", True),
        ("machine.workers", False),
    ):
        params = yaml.safe_load(text)
        *parents, last = key.split(".")
        block = params
        for parent in parents:
            block = block[parent]
        block[last] += 1
        file.write_text(yaml.safe_dump(params, sort_keys=False))
        assert run(made) == (DATASETS if matters else [])
        file.write_text(text)
        assert run(made) == []


def test_what_lacked_models_is_tried_again_and_the_rest_is_kept(made):
    made.fail["mpdd"] = MethodUnavailableError("no models here")
    assert run(made) == DATASETS
    facts = json.loads(paths.method_facts(METHOD, AUXILIARY, "mpdd").read_text())
    assert facts["left_out"] == "no models here"
    assert pd.read_csv(paths.method_metrics(METHOD, AUXILIARY, "mpdd")).empty
    assert run(made) == ["mpdd"]
    del made.fail["mpdd"]
    assert run(made) == ["mpdd"]
    assert "left_out" not in json.loads(paths.method_facts(METHOD, AUXILIARY, "mpdd").read_text())
    assert run(made) == []
