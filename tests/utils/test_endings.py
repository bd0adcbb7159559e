"""A process that is refused, breaks, is interrupted or stopped: its line, exit code and debris."""

import os
import signal
import subprocess
import sys

import pytest
import typer
from imports import ROOT

from fuzzyclip.utils.endings import BUG, DEBUG, INTERRUPTED, REFUSED, STOPPED, ending
from fuzzyclip.utils.tree import DatasetError


def end(error, monkeypatch):
    """Exit code and lines of a block that raises an error."""
    lines = []
    with pytest.raises(SystemExit) as ended, ending(lines.append):
        raise error
    return ended.value.code, lines


def test_a_refusal_is_one_line(monkeypatch):
    monkeypatch.delenv(DEBUG, raising=False)
    assert end(DatasetError("nut: no images"), monkeypatch) == (REFUSED, ["nut: no images"])
    assert end(KeyboardInterrupt(), monkeypatch)[0] == INTERRUPTED


def test_a_refusal_shows_where_it_came_from_to_who_asks(monkeypatch):
    monkeypatch.setenv(DEBUG, "1")
    code, lines = end(DatasetError("nut: no images"), monkeypatch)
    assert (code, lines[-1]) == (REFUSED, "nut: no images")
    assert "Traceback" in lines[0]


def test_a_bug_shows_its_traceback_and_says_that_it_is_one(monkeypatch):
    code, lines = end(KeyError("x"), monkeypatch)
    assert code == BUG
    assert "Traceback" in lines[0]
    assert lines[-1].startswith("this is a bug of FuzzyCLIP")


@pytest.mark.parametrize("error", [BrokenPipeError(32, ""), SystemExit(3), typer.Exit(4)])
def test_what_ends_in_its_own_way_does(error):
    with pytest.raises(type(error)), ending():
        raise error


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, INTERRUPTED), (signal.SIGTERM, STOPPED)]
)
@pytest.mark.parametrize(
    ("words", "line"),
    [("", "the same command begins anew"), ("parts stay; it goes on", "parts stay; it goes on")],
)
def test_a_stop_leaves_one_true_line_and_no_temporary_file(tmp_path, number, code, words, line):
    program = (
        "import time\n"
        "from pathlib import Path\n"
        "from fuzzyclip.utils.endings import ending, keeping\n"
        "from fuzzyclip.utils.files import replace_file\n"
        f"with ending(), keeping({words!r}), replace_file(Path('x')) as made:\n"
        "    made.write_text('half')\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=tmp_path, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT)},
    ) as process:  # fmt: skip
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
    assert process.returncode == code
    assert said.split("; ", 1)[1] == f"{line}\n"
    assert not list(tmp_path.iterdir())
