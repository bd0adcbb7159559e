"""A stage as a process: what it says when it fails, and what it leaves."""

import json
import subprocess
import sys

import pytest
import yaml
from imports import ROOT

from stages import run


def run_stage(folder, *arguments):
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=folder, capture_output=True, text=True, check=False,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
    )  # fmt: skip


def test_a_failure_is_one_message_without_a_traceback(tmp_path):
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["datasets"]["visa"]["mask_above"] = -1
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    done = run_stage(tmp_path, "stages.index", "visa")
    assert done.returncode == 1
    assert "stage index@visa failed: ParamsError" in done.stderr
    assert "datasets.visa.mask_above" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert not (tmp_path / "timing").exists()


def test_a_missing_file_is_named(tmp_path):
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    done = run_stage(tmp_path, "stages.index", "visa")
    assert done.returncode == 1
    assert "data/records/visa.json" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_stage_that_ends_well_leaves_its_time_and_memory(tmp_path):
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    done = run_stage(tmp_path, "stages.method_code")
    assert done.returncode == 0, done.stderr
    left = json.loads((tmp_path / "timing/method_code.json").read_text())
    assert left["seconds"] >= 0
    assert left["peak_mib"] > 10


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Start a stage in this process, as DVC does: what its main function got, and its exit code."""

    def start_stage(run, *arguments, running):
        got = []
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["stage", *arguments])
        monkeypatch.setenv("DVC_STAGE", running)
        with pytest.raises(SystemExit) as ended:
            run(lambda *keys: got.extend(keys))
        return got, ended.value.code

    return start_stage


def run_index(work):
    run.run_stage("index", work, keyed=True)


def run_method_test(work):
    run.run_matrix_stage("method_test", work)


@pytest.mark.parametrize("running", ["index@my-visa", "../dvc.yaml:index@my-visa"])
def test_the_key_comes_from_the_stage_that_dvc_runs(start, running):
    assert start(run_index, running=running) == (["my-visa"], 0)
    assert start(run_index, "sdd", running=running) == (["sdd"], 0)


def test_two_keys_come_from_the_stage_of_a_matrix(start):
    expected = ["sdp_plus", "my-visa"], 0
    assert start(run_method_test, running="method_test@sdp_plus-my-visa") == expected
    assert start(run_method_test, "sdp_plus", "my-visa", running="") == expected


@pytest.mark.parametrize("running", ["", "download@visa", "index", "index@"])
def test_another_stages_key_is_not_taken(start, running, capsys):
    assert start(run_index, running=running) == ([], 2)
    assert "give its key" in capsys.readouterr().err


def test_no_stage_works_on_a_key_that_leads_elsewhere(start, tmp_path, caplog):
    assert start(run_index, running="index@../mine") == ([], 1)
    assert start(run_index, "../mine", running="") == ([], 1)
    assert start(run_method_test, running="method_test@../x-visa") == ([], 1)
    assert start(run_method_test, running="method_test@clip-$(x)") == ([], 1)
    assert caplog.text.count("can not be a key") == 4
    assert not list(tmp_path.iterdir())
