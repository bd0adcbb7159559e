"""Temporary files: what a killed process left goes, what a running one uses stays."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from fuzzyclip.utils import scratch
from fuzzyclip.utils.files import place_together, replace_file, write_text
from fuzzyclip.utils.scratch import (
    FORGOTTEN,
    give_usual_mode,
    hold_folder,
    hold_private_folder,
    name_temporary,
    remove_left,
)
from fuzzyclip.utils.tensor_files import write_tensors

#: Holds a temporary file and a folder in the folder that is named, until it is killed.
HOLDER = """
import sys, time
from pathlib import Path
from fuzzyclip.utils.files import replace_file
from fuzzyclip.utils.scratch import hold_folder
folder = Path(sys.argv[1])
with replace_file(folder / "a.txt") as temporary, hold_folder(folder / "b") as inner:
    temporary.write_text("half")
    (inner / "deep").mkdir()
    (inner / "deep/c.txt").write_text("c")
    print("ready", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds temporary places in a folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_what_a_running_process_uses_stays_and_goes_after_its_kill(tmp_path, holder):
    write_text(tmp_path / "mine.txt", "mine")
    assert remove_left(tmp_path) == []
    assert len(list(tmp_path.glob(".*.tmp"))) == 2
    holder.send_signal(signal.SIGKILL)
    while remove_left(tmp_path) == []:  # also while it is a zombie, which nobody waited for
        time.sleep(0.01)
    scratch._look_once.cache_clear()  # as in another process
    write_text(tmp_path / "later.txt", "later")
    assert {path.name for path in tmp_path.iterdir()} == {"mine.txt", "later.txt"}
    holder.wait()


def test_own_places_and_files_of_others_stay(tmp_path):
    names = [".hidden.tmp", "a.tmp", ".a.12345678-1-1-12345678.tmpx", ".b.tmp", ".a.0123.tmp"]
    for name in names:
        (tmp_path / name).write_text("mine")
    with replace_file(tmp_path / "a") as first, hold_folder(tmp_path / "b") as second:
        first.write_text("")
        assert remove_left(tmp_path) == []
        assert second.is_dir()
    assert {path.name for path in tmp_path.iterdir()} == {*names, "a"}


@pytest.mark.parametrize(
    "name", [".a.ffffffff-1-1-12345678.tmp", f".a.{'0' * 32}.tmp"], ids=["machine", "old"]
)
def test_what_nobody_can_be_asked_about_goes_after_a_week(tmp_path, name):
    (tmp_path / name).write_text("")
    assert remove_left(tmp_path) == []
    then = time.time() - FORGOTTEN - 60
    os.utime(tmp_path / name, (then, then))
    assert remove_left(tmp_path) == [tmp_path / name]
    assert not list(tmp_path.iterdir())


def test_a_process_with_the_number_of_an_earlier_one_is_another(tmp_path):
    own = name_temporary(tmp_path / "a").name
    machine, pid, start, _ = own.split(".")[2].split("-")
    assert pid == str(os.getpid())
    (tmp_path / f".a.{machine}-{pid}-{int(start) + 1}-12345678.tmp").write_text("")
    (tmp_path / f".a.{machine}-{pid}-{start}-12345678.tmp").write_text("")
    assert [path.name for path in remove_left(tmp_path)] == [
        f".a.{machine}-{pid}-{int(start) + 1}-12345678.tmp"
    ]


def test_a_process_that_proc_hides_keeps_its_files(tmp_path, holder, monkeypatch):
    def hide(pid):  # as where /proc is mounted with hidepid, for other users
        return read_start(pid) if pid == os.getpid() else None

    read_start = scratch._read_start
    monkeypatch.setattr(scratch, "_read_start", hide)
    assert remove_left(tmp_path) == []
    holder.kill()
    holder.wait()
    assert len(remove_left(tmp_path)) == 2


@pytest.mark.parametrize("start", [0, 1])
def test_a_number_that_no_process_can_have_is_no_fault(tmp_path, start):
    name = f".a.{scratch._name_machine()}-{10**30}-{start}-12345678.tmp"
    (tmp_path / name).write_text("")
    assert remove_left(tmp_path) == [tmp_path / name]


def test_machines_of_one_name_are_told_apart_by_when_they_were_started(monkeypatch):
    def start_again(path, *arguments, **options):
        if path.name == "boot_id":
            return "00000000-0000-0000-0000-000000000000\n"
        return read(path, *arguments, **options)

    name, read = scratch._name_machine(), Path.read_text
    monkeypatch.setattr(Path, "read_text", start_again)
    assert scratch._name_machine.__wrapped__() != name


def test_a_link_goes_and_what_it_leads_to_stays(tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/file").write_text("kept")
    machine = scratch._name_machine()
    (tmp_path / f".a.{machine}-999999999-1-12345678.tmp").symlink_to(tmp_path / "kept")
    assert len(remove_left(tmp_path)) == 1
    assert (tmp_path / "kept/file").read_text() == "kept"


def test_names_of_any_length_and_script_have_a_temporary_one(tmp_path):
    for name in ("x" * 255, "ä" * 127, "\U0001f600" * 63, "new\nline", os.fsdecode(b"\xff\xfe")):
        with replace_file(tmp_path / name) as temporary:
            temporary.write_text(name.encode("utf-8", "replace").decode())
        assert (tmp_path / name).is_file()
    assert remove_left(tmp_path) == []
    assert len(list(tmp_path.iterdir())) == 5


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_files_and_folders_have_the_users_modes(tmp_path, umask):
    before = os.umask(umask)
    try:
        write_text(tmp_path / "new/a.txt", "a")
        with place_together(tmp_path / "new/b", tmp_path / "new/c") as folder:
            (folder / "b").write_text("b")
            (folder / "c").write_text("c")
        with hold_folder(tmp_path / "new/d") as folder:
            assert folder.stat().st_mode & 0o777 == 0o777 & ~umask
        with hold_private_folder() as folder:
            assert folder.stat().st_mode & 0o777 == 0o700
        (tmp_path / "new/e").touch(mode=0o600)
        give_usual_mode(tmp_path / "new/e")
        (tmp_path / "new/g").mkdir(mode=0o700)
        give_usual_mode(tmp_path / "new/g")
        write_tensors(tmp_path / "new/f", {"a": torch.zeros(2)}, {})
    finally:
        os.umask(before)
    for folder in tmp_path / "new", tmp_path / "new/g":
        assert folder.stat().st_mode & 0o777 == 0o777 & ~umask
    for name in "a.txt", "b", "c", "e", "f":
        assert (tmp_path / "new" / name).stat().st_mode & 0o777 == 0o666 & ~umask


def test_a_folder_that_can_not_be_looked_into_is_no_fault(tmp_path):
    assert remove_left(tmp_path / "missing") == []
    (tmp_path / "file").write_text("")
    assert remove_left(Path(tmp_path / "file")) == []
