"""A stage as a process: what it says when it fails, and what it leaves."""

import json
import subprocess
import sys

import yaml
from imports import ROOT


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
