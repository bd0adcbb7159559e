"""`fuzzyclip data check folder` as typed: what it says, and exit codes."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from command import run
from PIL import Image
from trees import MASK, picture, write_images, write_picture

from fuzzyclip.cli import OneLine


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    write_images(tmp_path / "parts/good", ["0.png"])
    write_images(tmp_path / "parts/bad", ["0.png"], 5)
    return tmp_path / "parts"


def add_alpha_mask(parts: Path) -> None:
    """A shape that is in alpha alone."""
    image = Image.new("RGBA", (8, 6), (255, 255, 255, 255))
    image.putalpha(Image.fromarray(MASK))
    (parts / "masks").mkdir()
    image.save(parts / "masks/0.png")


def add_unpaired(parts: Path) -> None:
    write_picture(parts / "masks/0.png", MASK)
    write_picture(parts / "masks/7.png", MASK)


def add_loose(parts: Path) -> None:
    write_picture(parts / "loose.jfif.png", picture(9))


def add_doubtful(parts: Path) -> None:
    write_images(parts / "Good_cam2", ["0.png"], 9)


def forget_folders(parts: Path) -> None:
    for path in sorted(parts.rglob("*.png")):
        path.rename(parts / f"{path.parent.name}.png")
    (parts / "test").mkdir()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (add_alpha_mask, "masks/0.png: not a readable image (its alpha has a shape"),
        (add_unpaired, "masks/7.png: masks without an image of this name"),
        (add_loose, "loose.jfif.png: no folder says"),
        (add_doubtful, "rename it: good if they are normal"),
        (forget_folders, "no image is there that can be used"),
    ],
)
def test_what_would_change_the_numbers_fails_by_name(
    parts: Path, spoil: Callable[[Path], None], words: str
) -> None:
    spoil(parts)
    done = run("data", "check", "folder", parts)
    assert done.exit_code == 1
    assert words in done.output


def test_what_does_not_is_said_and_counts_are_in_words(
    parts: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_picture(parts / "masks/0.png", np.full_like(MASK, 255))
    (parts / "README.txt").touch()
    done = run("data", "check", "folder", parts, "--write")
    assert done.exit_code == 0, done.output
    assert "2 images, protocol auto" in done.output
    for line in (
        "note: parts, test: taken as defects: bad",
        "note: parts, test: taken as folders of masks: masks",
        "note: 1 file is neither image nor mask: text, tables or annotations (masks must be "
        "pictures): README.txt",
        "warning: parts: the mask masks/0.png covers nearly the whole image, as an inverted mask "
        "does; defects must be white on black",
    ):
        assert line in caplog.messages
    (parts / "bad/0.png").unlink()
    assert run("data", "check", "folder", parts, "--drop").exit_code == 1  # nothing to test on


def test_a_note_is_said_once_and_on_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    splits, labels = ("train", "valid", "test"), ("good", "bad\nnote")
    names = [f"{split}/{label}/0.png" for split in splits for label in labels]
    write_images(tmp_path / "parts", names)
    done = run("data", "check", "folder", tmp_path / "parts")
    assert done.exit_code == 0, done.output
    notes = [record for record in caplog.records if "train: taken as defects" in record.message]
    assert len(notes) == 1
    assert "\n" not in OneLine("%(message)s").format(notes[0])
