"""Whatever lies in a folder: every file is image, mask or named as neither, once."""

from collections import Counter
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from properties import try_examples
from trees import touch

from fuzzyclip.datasets.base.accounting import account_for
from fuzzyclip.datasets.base.spec import Listing
from fuzzyclip.datasets.folder import list_rows
from fuzzyclip.images.names import is_image_name, is_result, is_visible
from fuzzyclip.utils.tree import read_tree

FOLDERS = (
    "good", "OK", "bad", "scratch", "Good_2", "masks", "gt", "ground_truth", "label", "train",
    "Test", "val", "test_private", "images", "batch2", "0", "unsorted", "@eaDir", ".cache", "out",
)  # fmt: skip
FILES = (
    "0.png", "1.png", "0.jpg", "0_mask.png", "0_GT.png", "1_label.bmp", "Thumbs.db", "notes.txt",
    "a.json", "x.heic", "clip.mp4", "noext", "0.overlay.png", "scores.jsonl", "settings.json",
    ".hidden.png", "2.GIF",
)  # fmt: skip


def count_uses(root: Path, listing: Listing) -> Counter[str]:
    """How often each file is image or mask of a listing."""
    uses: Counter[str] = Counter()
    for row in listing.rows:
        uses[row.image_path] += 1
        if (root / row.mask_path).is_dir() and row.mask_path:
            uses.update(
                path.relative_to(root).as_posix() for path in (root / row.mask_path).iterdir()
            )
        elif row.mask_path:
            uses[row.mask_path] += 1
    return uses


def is_named(name: str, root: Path, listing: Listing) -> bool:
    """Whether a problem of the listing is about a file, or a folder around it."""
    return any(
        name in problem.files or (root / name).is_relative_to(problem.path)
        for problem in listing.problems
    )


PATHS = st.builds(
    lambda folders, file: "/".join([*folders, file]),
    st.lists(st.sampled_from(FOLDERS), max_size=4),
    st.sampled_from(FILES),
)


@try_examples(400)
@given(names=st.sets(PATHS, min_size=1, max_size=25), laid_out=st.booleans())
@example({"masks/0/0.png", "masks/0/1.png", "masks/0/notes.txt", "bad/0.png"}, True)
@example({"bad/0.png", "bad/0.jpg", "masks/0.png"}, True)
def test_every_file_is_accounted_for_once(
    tmp_path_factory: pytest.TempPathFactory, names: set[str], laid_out: bool
) -> None:
    root = tmp_path_factory.mktemp("tree")
    touch(root, names | ({"good/9.png", "bad/9.png"} if laid_out else set()))
    files = read_tree(root).files
    listing = list_rows(root, (), layout="auto")
    left = account_for(root, files, listing)
    groups = [*left.problems, *left.notes]
    uses = count_uses(root, listing)
    mentions = Counter(name for group in groups for name in group.files)
    for name in files:
        times = min(uses[name], 1) + mentions[name]
        assert times <= 1, name
        assert times or is_named(name, root, listing), name
        assert uses[name] <= 1 or not is_image_name(name), name
    assert {*uses, *mentions} <= {*files}
    silent = {name for note in left.notes for name in note.files}
    for name in filter(is_image_name, silent):  # only what is no picture of the person's
        parts = PurePosixPath(name).parts
        assert (
            not all(map(is_visible, parts))
            or is_result(name)
            or "out" in parts
            or any(
                (root / PurePosixPath(*parts[:i]) / "scores.jsonl").is_file()
                for i in range(1, len(parts))
            )
            or any(part.startswith("test_private") for part in parts)
        ), name
