"""The campaigns see what they look for: what loses something is told from what does not."""

import random
import sys

import pytest
from PIL import Image

from tools.campaigns import __main__ as command
from tools.campaigns.kills import Target, kill_target
from tools.campaigns.parallel import make_liar
from tools.campaigns.project import CampaignError, Project, kept_outputs

#: Writes a file in two halves; half of it is taken for whole by the next run.
CARELESS = """
import pathlib, time
place = pathlib.Path("made")
if not place.exists():
    place.write_text("half"); time.sleep(2); place.write_text("half and half")
"""
#: The same, under a temporary name that a kill leaves behind.
UNTIDY = """
import pathlib, time, os
part = pathlib.Path(f".made.{os.getpid()}.tmp")
part.write_text("half"); time.sleep(2); part.write_text("half and half"); part.rename("made")
"""
#: Under a name that the next run takes over.
CAREFUL = """
import pathlib, time, signal, sys
signal.signal(signal.SIGINT, lambda *_: sys.exit(130))
part = pathlib.Path("part")
part.write_text("half"); time.sleep(0.3); part.write_text("half and half"); part.rename("made")
"""


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path, {})


def kill(project, script, count=1):
    target = Target((sys.executable, "-c", script), ("made",))
    return [*kill_target(project, "it", target, count, random.Random(7))]  # in the middle


def test_half_a_file_that_is_taken_for_whole_is_a_fault(project):
    ((fault,),) = kill(project, CARELESS)
    assert "afterwards it makes something else" in fault
    assert fault.splitlines()[-1].startswith("made: ")  # which file, and both of its digests


def test_what_is_left_behind_is_a_fault_and_goes(project):
    ((fault,),) = kill(project, UNTIDY)
    assert "left behind .made." in fault
    assert project.find_leftovers() == []


def test_a_careful_command_has_no_fault_by_any_signal(project):
    assert kill(project, CAREFUL, 3) == [[], [], []]


def test_a_command_that_fails_unhurt_ends_the_campaign(project):
    with pytest.raises(CampaignError, match=r"failed, unhurt:\n[^z]*ZeroDivisionError"):
        kill(project, "1 / 0")


def test_outputs_are_put_back_with_links_and_modes(project):
    (project.folder / "a").mkdir()
    (project.folder / "a/b").write_text("1")
    (project.folder / "a/b").chmod(0o640)
    (project.folder / "a/c").symlink_to("b")
    with kept_outputs(project, "a", "none"):
        (project.folder / "a/b").unlink()
        (project.folder / "none").write_text("new")
    assert (project.folder / "a/b").stat().st_mode & 0o777 == 0o640
    assert (project.folder / "a/c").is_symlink()
    assert not (project.folder / "none").exists()


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_the_liar_promises_many_pixels_in_a_few_bytes(tmp_path):
    content = make_liar(13_377)
    (tmp_path / "liar.jpg").write_bytes(content)
    assert len(content) < 200
    with Image.open(tmp_path / "liar.jpg") as image:
        assert image.size == (13_377, 13_377)


def test_a_fault_is_printed_counted_and_told_by_the_exit_code(monkeypatch, capsys):
    monkeypatch.setattr(command, "start", lambda *_: iter([[], ["it was lost"], []]))
    assert command.main(["kills"]) == 1
    assert capsys.readouterr().out == "it was lost\nkills: 3 tried, 1 with a fault\n"
    monkeypatch.setattr(command, "start", lambda *_: iter([[], []]))
    assert command.main(["paths"]) == 0
    monkeypatch.setattr(command, "start", lambda *_: iter([]))
    assert command.main(["paths"]) == 1  # nothing tried shows nothing
