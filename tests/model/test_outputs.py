"""Places of the files of predictions: each image has its own, whatever it is called."""

import os
import random
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from properties import try_examples

from fuzzyclip.model.outputs import LINES, SETTINGS, TABLE
from fuzzyclip.model.places import keep_places, name_outputs
from fuzzyclip.utils.files import show_name

#: The longest endings of what is written for an image.
ENDINGS = (".overlay.jpg", ".overlay_scaled_to_image.jpg", ".map.png", ".map.npy", ".mask.png")
#: What a file is called until it is whole: a dot before, its maker and two dots after.
ROOM = 1 + 1 + 40 + len(".tmp")
LONGEST = 255  # bytes of a name, on all systems in use


def list_outputs(places: dict[Path, Path]) -> list[Path]:
    return [place.with_name(place.name + ending) for place in places.values() for ending in ENDINGS]


def check(images: list[Path]) -> dict[Path, Path]:
    places = name_outputs(images)
    assert list(places) == images
    files = list_outputs(places)
    folded = [str(path).casefold() for path in files]
    assert len(set(folded)) == len(files)
    folders = {str(folder).casefold() for path in files for folder in path.parents}
    taken = {*folded, TABLE, LINES, SETTINGS}
    assert not folders & taken
    for path in files:
        assert not path.is_absolute()
        assert ".." not in path.parts
        str(path).encode("utf-8")
        assert all(len(os.fsencode(part)) + ROOM <= LONGEST for part in path.parts)
        assert len(os.fsencode(path)) < 1000
    return places


NAMES = st.sampled_from(
    ["a", "A", "a.png", "a.overlay", "a.png.overlay.jpg", "scores.csv", "x" * 240, "x" * 251, "é",
     "e\u0301", "\udcff", "\udcfe", "a~", "b c", "..", "ä" * 120, "..."]
)  # fmt: skip
PATHS = st.builds(
    lambda folders, stem, suffix: Path("/data", *(name for name in folders if name != ".."))
    / f"{stem}{suffix}",
    st.lists(NAMES, max_size=2), NAMES, st.sampled_from([".png", ".PNG", ".jpg", ".bmp", ""]),
)  # fmt: skip


@try_examples(300)
@given(st.lists(PATHS.filter(lambda path: path.name not in ("", "..")), max_size=12, unique=True))
def test_no_two_files_meet_and_all_can_be_written(images: list[Path]) -> None:
    places = check(images)
    shuffled = random.Random(0).sample(images, len(images))
    assert name_outputs(shuffled) == places


def test_ordinary_names_stay_as_they_are() -> None:
    images = [Path("/d", name) for name in ("a/1.png", "a/2.png", "b/1.png", "b/1.jpg", "x.y.png")]
    expected = ["a/1", "a/2", "b/1.png", "b/1.jpg", "x.y"]
    assert [str(place) for place in check(images).values()] == expected


def test_a_path_that_is_long_as_a_whole_is_kept_short() -> None:
    deep = Path("/d", *["folder" * 10] * 20)
    places = check([Path("/d/1.png"), deep / "1.png", deep / "2.png", deep / "in/1.png"])
    assert len({place.parent for place in places.values()}) == 3


@try_examples(100)
@given(
    st.lists(PATHS.filter(lambda path: path.name not in ("", "..")), max_size=12, unique=True),
    st.integers(0, 12),
)
def test_images_of_two_runs_do_not_meet(images: list[Path], first: int) -> None:
    held = {show_name(image): place for image, place in check(images[:first]).items()}
    later = keep_places(name_outputs(images[first:]), held)
    again = keep_places(name_outputs(images), held)
    for places in (later, again):
        whole = {*map(str.casefold, map(str, held.values()))}
        new = [
            str(place).casefold() for image, place in places.items() if show_name(image) not in held
        ]
        assert len(whole | {*new}) == len(held) + len(new)
    assert {show_name(image): again[image] for image in images[:first]} == held
