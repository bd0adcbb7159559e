"""A stage as a process: what it says when it fails, and what it leaves."""

import json
import shutil
import signal
import subprocess
import sys
import time

import pytest
from imports import ROOT
from pipelines import change_params

from stages import run


def run_stage(folder, *arguments, change=None):
    for name in ("params.yaml", "dvc.yaml"):
        (folder / name).write_text((ROOT / name).read_text())
    if change is not None:
        change_params(folder, change)
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=folder, capture_output=True, text=True, check=False,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("mask_above", "named"),
    [(-1, "datasets.visa.mask_above: "), (0, "data/records/visa.json")],
)
def test_a_failure_is_one_message_without_a_traceback_that_names_the_cause(
    tmp_path, mask_above, named
):
    def change(params):
        params["datasets"]["visa"]["mask_above"] = mask_above

    done = run_stage(tmp_path, "stages.index", "visa", change=change)
    assert done.returncode == 1
    assert "stage index@visa failed: " in done.stderr
    assert named in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert not (tmp_path / "timing").exists()


def test_a_stage_that_ends_well_leaves_its_time_and_memory(tmp_path):
    done = run_stage(tmp_path, "stages.check")
    assert done.returncode == 0, done.stderr
    left = json.loads((tmp_path / "timing/check.json").read_text())
    assert left["seconds"] >= 0
    assert left["peak_mib"] > 10


#: A stage whose modules load for long, and one that works for long.
LOADING = """
import pathlib, time
pathlib.Path("started").touch()
time.sleep(60)
"""
WORKING = """
import pathlib, time
from stages.run import run_stage
def work():
    pathlib.Path("started").touch()
    time.sleep(60)
if __name__ == "__main__":
    run_stage(waiting=work)
"""


@pytest.mark.parametrize(
    ("code", "end", "words"),
    [
        (LOADING, -signal.SIGINT, ""),
        (WORKING, 130, "stage waiting failed: interrupted; the same command goes on"),
    ],
    ids=["loading", "working"],
)
def test_ctrl_c_ends_a_stage_without_a_traceback(tmp_path, code, end, words):
    shutil.copytree(ROOT / "stages", tmp_path / "stages")
    (tmp_path / "stages" / "waiting.py").write_text(code)
    stage = subprocess.Popen(
        [sys.executable, "-m", "stages.waiting"],
        cwd=tmp_path, env={"PYTHONPATH": f"{tmp_path}:{ROOT}", "PATH": ""}, text=True,
        stderr=subprocess.PIPE,
        # a shell's `&` makes all that is started behind it deaf
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    while not (tmp_path / "started").exists():
        assert stage.poll() is None
        time.sleep(0.05)
    stage.send_signal(signal.SIGINT)
    _, told = stage.communicate(timeout=30)
    assert stage.returncode == end
    assert told.startswith(words) if words else not told
    assert "Traceback" not in told


@pytest.mark.parametrize("lines", [0, 1, 3, 5, 7, 9])
def test_a_lock_that_was_cut_off_is_known_with_its_mend(tmp_path, lines):
    """DVC writes it in its place."""
    whole = (ROOT / "dvc.lock").read_text()
    cut = "".join(f"{line}\n" for line in whole.splitlines()[:lines])
    (tmp_path / "dvc.lock").write_text(f"{cut}    de"[: None if lines else 0])
    done = run_stage(tmp_path, "stages.check")
    assert done.returncode == 1
    assert "stage check failed: YamlError: dvc.lock ends too early" in done.stderr
    assert "`git checkout -- dvc.lock`" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_lock_that_is_whole_passes(tmp_path):
    (tmp_path / "dvc.lock").write_bytes((ROOT / "dvc.lock").read_bytes())
    done = run_stage(tmp_path, "stages.check")
    assert done.returncode == 0, done.stderr


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Start a stage in this process, as DVC does: what its main function got, and its exit code."""

    def start_stage(*arguments, running):
        got = []
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["stage", *arguments])
        monkeypatch.setenv("DVC_STAGE", running)
        with pytest.raises(SystemExit) as ended:
            run.run_stage(
                index=lambda key: got.append(("index", key)),
                views=lambda key: got.append(("views", key)),
                report=lambda: got.append(("report",)),
            )
        return got, ended.value.code

    return start_stage


@pytest.mark.parametrize("running", ["index@my-visa", "../dvc.yaml:index@my-visa"])
def test_the_key_comes_from_the_stage_that_dvc_runs(start, running):
    assert start(running=running) == ([("index", "my-visa")], 0)
    assert start("sdd", running=running) == ([("index", "sdd")], 0)


def test_a_module_may_be_several_stages(start):
    assert start(running="views@vv") == ([("views", "vv")], 0)
    assert start("views@vv", running="") == ([("views", "vv")], 0)
    assert start(running="report") == ([("report",)], 0)
    assert start("report", running="index@visa") == ([("report",)], 0)


@pytest.mark.parametrize(
    ("running", "message"),
    [(stage, "needs a key") for stage in ("", "index", "index@", "views@")]
    + [("download@visa", "none of index, views, report")],
)
def test_a_stage_without_its_key_or_of_another_module_is_refused(start, running, message, capsys):
    assert start(running=running) == ([], 2)
    assert message in capsys.readouterr().err


def test_no_stage_works_on_a_key_that_leads_elsewhere(start, tmp_path, caplog):
    for stage in ("index@../mine", "views@../x", "views@clip-$(x)"):
        assert start(running=stage) == ([], 1)
    assert start("../mine", running="") == ([], 1)
    assert caplog.text.count("can not be a key") == 4
    assert not list(tmp_path.iterdir())


def test_a_time_that_can_not_be_noted_is_one_message_too(tmp_path):
    (tmp_path / "timing").write_text("a file where the folder belongs")
    done = run_stage(tmp_path, "stages.check")
    assert done.returncode == 1
    assert "stage check failed: " in done.stderr
    assert "timing" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
