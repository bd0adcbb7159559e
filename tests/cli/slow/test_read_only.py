"""Folders that can only be read, as an ordinary user meets them: said before any work is done."""

import os
import shutil
import subprocess
import sys

import pytest
from command import draw
from imports import ROOT

#: Root may write anywhere, unless this right is taken away.
AS_USER = ["setpriv", "--bounding-set=-dac_override,-dac_read_search",
           "--inh-caps=-dac_override,-dac_read_search"]  # fmt: skip


def run(*arguments):
    prefix = AS_USER if os.geteuid() == 0 else []
    command = [*prefix, sys.executable, "-m", "fuzzyclip.cli", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def images(tmp_path):
    """A dataset of one's own in a folder that can only be read."""
    if os.geteuid() == 0 and not shutil.which("setpriv"):
        pytest.skip("root may write anywhere")
    for number, name in enumerate(("good/0.png", "good/1.png", "bad/0.png", "bad/1.png")):
        draw(tmp_path / "nut" / name, number)
    folders = [tmp_path / "nut", tmp_path / "nut/good", tmp_path / "nut/bad"]
    for folder in folders:
        folder.chmod(0o555)
    yield tmp_path / "nut"
    for folder in folders:
        folder.chmod(0o755)


def test_a_data_folder_is_checked_and_copied_and_nothing_is_written_there(images, tmp_path):
    before = sorted(images.rglob("*"))
    code, said = run("data", "check", "folder", images)
    assert code == 0, said
    code, said = run("data", "check", "folder", images, "--write")
    assert code != 0
    assert f"{images} can only be read: nothing can be written there; without --write" in said
    code, said = run("data", "prepare", "folder", "--path", images, "--out", images / "new")
    assert code != 0
    assert f"{images} can only be read" in said
    assert "name another place with --out" in said
    code, said = run("data", "prepare", "folder", "--path", images, "--out", tmp_path / "copy")
    assert code == 0, said
    assert (tmp_path / "copy/index.csv").is_file()
    assert sorted(images.rglob("*")) == before
