"""`fuzzyclip` itself: help, versions, wrong guesses, pipes and encodings."""

import os
import subprocess
import sys
import time

import pytest
import torch
from command import run
from typer.testing import CliRunner

import fuzzyclip
from fuzzyclip.cli import app
from fuzzyclip.utils.devices import check_device


def test_the_version_is_the_packages():
    assert run("--version").stdout == f"fuzzyclip {fuzzyclip.__version__}\n"


@pytest.mark.parametrize(
    "words", [(), ("predict",), ("data", "check"), ("tables",), ("tables", "run"), ("verify",)]
)
def test_help_is_of_the_command_that_was_typed_and_loads_nothing_heavy(words):
    heavy = "torch", "pandas", "numpy", "matplotlib", "mlflow", "dvc"
    program = (
        "import sys\nfrom fuzzyclip.cli import app\n"
        "try:\n    app(prog_name='fuzzyclip')\nexcept SystemExit:\n    pass\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    arguments = [sys.executable, "-c", program, *words, "--help"]
    begun = time.perf_counter()
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert time.perf_counter() - begun < 10  # 0.5 s where nothing else runs
    assert f"Usage: {' '.join(('fuzzyclip', *words))} " in done.stdout
    assert done.stdout.endswith("\n[]\n")


def test_mistakes_in_tables_are_answered_in_its_name():
    done = run("tables", "run")
    assert done.exit_code == 2
    assert "tables run" in done.stderr
    assert "stages" not in done.output


def test_a_pipe_that_nobody_reads_is_no_fault():
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "fuzzyclip.cli", "data", "list"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.parametrize("charset", ["cp1252", "ascii"])
def test_help_fits_any_encoding(charset):
    done = CliRunner(charset=charset).invoke(app, ["predict", "--help"])
    assert done.exit_code == 0
    assert "--category" in done.output


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gpu", "PyTorch calls it cuda"),
        ("cuda", "finds no CUDA GPU"),
        ("cuda:1", "finds no CUDA GPU"),
        ("mps", "no GPU of Apple's"),
        ("warp drive", "give auto, cpu, cuda"),
        ("xpu", "can not compute there"),
    ],
)
def test_a_device_that_is_not_there_gets_one_line(name, words, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    (tmp_path / "1.png").touch()
    done = run("predict", tmp_path / "1.png", "--model", tmp_path, "--device", name)
    assert done.exit_code == 1
    assert done.stderr.count("\n") == 1
    assert f"device {name}: " in done.stderr
    assert words in done.stderr


def test_devices_that_are_there_pass(monkeypatch):
    for name in ("auto", "cpu"):
        check_device(name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match="the last of 1 is cuda:0"):
        check_device("cuda:1")


def test_a_folder_that_is_not_there_is_said_to_be_absent(tmp_path):
    (tmp_path / "file").touch()
    for name, words in (("nothere", "no such folder"), ("file", "a file, not a folder")):
        done = run("data", "check", "folder", tmp_path / name)
        assert (done.exit_code, done.stdout) == (1, "")
        assert done.stderr == f"{tmp_path / name}: {words}; name the one with the images\n"
