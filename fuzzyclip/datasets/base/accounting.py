"""Every file of a dataset's folder is an image, a mask, or named as neither with the reason.

A file that is passed over without a word would count as inspected, and a mask as if it were not
there. What would change results is a fault of the folder, group by group; the rest is told in a
line a kind.
"""

import os
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from fuzzyclip.datasets.base.spec import Listing, Note, Problem, Unused
from fuzzyclip.images.names import (
    RESULTS,
    UNREAD_SUFFIXES,
    describe_names,
    is_image_name,
    is_result,
    is_visible,
)

#: What people keep beside images: the index and meta.json are among them.
TEXT_SUFFIXES = frozenset({
    ".json", ".jsonl", ".xml", ".txt", ".csv", ".tsv", ".md", ".yaml", ".yml", ".html", ".pdf",
    ".npy", ".npz", ".log", ".xlsx", ".dvc", ".py",
})  # fmt: skip

HIDDEN = Unused("hidden, or left by a system (thumbnails and such)")
RESULT = Unused("results of fuzzyclip predict")
TEXT = Unused("text, tables or annotations (masks must be pictures)")
UNKNOWN = Unused("of a suffix that no image has")
UNREAD = Unused("a kind of picture that is not read; save it as PNG, or elsewhere", fault=True)
NO_PLACE = Unused(
    "no folder says that it is normal, has a defect or is a mask; move it into such a one, or "
    "elsewhere",
    fault=True,
)


class Leftovers(NamedTuple):
    """Files that are neither images nor masks.

    Attributes:
        problems: those that would change results, grouped by folder and reason.
        notes: the others, a note a reason.
    """

    problems: list[Problem]
    notes: list[Note]


def account_for(root: Path, files: Iterable[str], listing: Listing) -> Leftovers:
    """Name every file that a listing has not used, unless one of its problems does.

    Args:
        files: all below the root, POSIX.
    """
    used = {name for row in listing.rows for name in (row.image_path, row.mask_path) if name}
    places = set(map(os.path.normpath, used))
    # a problem of several files is called by their folder, where others may lie
    places |= {_relate(root, problem.path) for problem in listing.problems if not problem.files}
    places |= {name for problem in listing.problems for name in problem.files}
    listed = list(files)
    results = {
        PurePosixPath(name).parent
        for name in listed
        if PurePosixPath(name).name in RESULTS
        and "/" in name  # the folder itself is looked at
        and holds_results((root / name).parent)
    }
    beside: dict[PurePosixPath, list[str]] = defaultdict(list)
    for path in map(PurePosixPath, listed):
        beside[path.parent].append(path.name)
    pictured = {folder: find_pictured(names) for folder, names in beside.items()}
    faults: dict[tuple[str, str], list[str]] = defaultdict(list)
    harmless: dict[str, list[str]] = defaultdict(list)
    for name in listed:
        if any(place in places for place in _list_places(name)):
            continue
        unused = _explain(name, pictured[PurePosixPath(name).parent], listing, results)
        if unused.fault:
            faults[PurePosixPath(name).parent.as_posix(), unused.reason].append(name)
        else:
            harmless[unused.reason].append(name)
    return Leftovers(
        [_make_problem(root, names, reason) for (_, reason), names in faults.items()],
        [Note(_describe(names, reason), files=tuple(names)) for reason, names in harmless.items()],
    )


def _list_places(name: str) -> Iterator[str]:
    """A file's path and those of the folders around it, the root last as "."."""
    yield name
    yield from (parent.as_posix() for parent in PurePosixPath(name).parents)


def _relate(root: Path, path: str) -> str:
    """A path of a problem below the root, as files are named; itself if it is none."""
    return Path(path).relative_to(root).as_posix() if Path(path).is_relative_to(root) else path


def find_pictured(names: Iterable[str]) -> set[str]:
    """Stems of images, folded, of which a folder's names hold an overlay or a map of `predict`."""
    folded = map(str.casefold, filter(is_result, names))
    return {
        name.split(mark)[0] for name in folded for mark in (".overlay", ".map.") if mark in name
    }


def is_own_result(name: str, pictured: Collection[str]) -> bool:
    """True for what `fuzzyclip predict` has made; a mask without overlay and map may be a person's.

    Args:
        pictured: of the names in its folder, as `find_pictured` gives it.
    """
    stem, mark, _ = name.casefold().rpartition(".mask.")
    return is_result(name) and (not mark or stem in pictured)


def holds_results(folder: Path) -> bool:
    """True for a folder that `fuzzyclip predict` has written."""
    return all((folder / name).is_file() for name in RESULTS)


def _explain(
    name: str, pictured: Collection[str], listing: Listing, results: set[PurePosixPath]
) -> Unused:
    """Why a file is not used."""
    path = PurePosixPath(name)
    if not all(map(is_visible, path.parts)):
        return HIDDEN
    if is_own_result(path.name, pictured) or results.intersection(path.parents):
        return RESULT
    for place in _list_places(name):
        if place in listing.unused:
            return listing.unused[place]
    suffix = path.suffix.lower()
    if is_image_name(name):
        return NO_PLACE if listing.whole else Unused("pictures that nothing names")
    if suffix in UNREAD_SUFFIXES:
        return UNREAD if listing.whole else Unused(UNREAD.reason)
    return TEXT if suffix in TEXT_SUFFIXES else UNKNOWN


def _make_problem(root: Path, names: list[str], reason: str) -> Problem:
    """One problem for files of a folder: named by the file if it is one, else by the folder."""
    place = PurePosixPath(names[0])
    path = root / (place if len(names) == 1 else place.parent)
    return Problem(str(path), reason, files=tuple(names))


def _describe(names: list[str], reason: str) -> str:
    count = "1 file is" if len(names) == 1 else f"{len(names):,} files are"
    return f"{count} neither image nor mask: {reason}: {describe_names(names)}"
