"""The image files that a person means by files, folders and patterns."""

import logging
import os
from collections.abc import Iterator, Sequence
from functools import cache
from glob import glob, has_magic
from itertools import takewhile
from pathlib import Path

from fuzzyclip.datasets.base.accounting import holds_results
from fuzzyclip.images.names import (
    IMAGE_SUFFIXES,
    describe_names,
    is_image_name,
    is_left_by_system,
    is_visible,
)
from fuzzyclip.utils.files import show_line, show_name

log = logging.getLogger(__name__)


def list_images(paths: Sequence[str | Path], without: Path | None = None) -> list[Path]:
    """Image files behind names, in the order of the names, sorted within each, none twice.

    Args:
        paths: each one of
            - a file, taken whatever its suffix is: whoever names it wants it, or its error;
            - a folder: images at any depth by `IMAGE_SUFFIXES`, in folders behind links too; hidden
              files and what systems leave (`@eaDir`, `__MACOSX`) are left out, and, with a word,
              files of other suffixes and folders inside that hold results of `fuzzyclip predict`;
            - a pattern (`*`, `?`, `[...]`, `**`): folders as above, and files; by `IMAGE_SUFFIXES`
              unless the pattern ends in a suffix of its own, `*.pgm`. What lies in a folder of
              results is left out too, unless the pattern names that folder letter by letter.
        without: a folder of which nothing is taken but files that are named one by one.

    Returns:
        Paths that begin as their name does.

    Raises:
        OSError: a name stands for no image, or a folder can not be read; names it.
    """
    distinct: dict[str, Path] = {}
    for name in map(str, paths):
        listed = list(_list_name(name, without))
        if not listed and without and any(_list_name(name, None)):
            raise FileNotFoundError(
                f"{name}: all images there lie in {without}, where results go; give another --out"
            )
        if not listed:
            raise FileNotFoundError(
                f"{name}: no images there (looked for {', '.join(sorted(IMAGE_SUFFIXES))})"
            )
        for path in listed:
            distinct.setdefault(os.path.abspath(path), path)  # noqa: PTH100 - links are files too
    return list(distinct.values())


def _list_name(name: str, without: Path | None) -> Iterator[Path]:
    path = Path(name).expanduser()
    if not path.is_dir() and path.exists():  # before patterns: part[1].png is a file's name too
        yield path
    elif path.is_dir() or has_magic(name):
        listed = _list_folder(path) if path.is_dir() else _list_matches(str(path))
        yield from (each for each in listed if not (without and _is_inside(each.parent, without)))
    else:
        raise FileNotFoundError(f"{name}: no such file or folder")


def _list_folder(folder: Path) -> list[Path]:
    """Images below a folder, sorted; of other files there, a word."""
    images: list[Path] = []
    others: list[Path] = []
    entered = set()
    for top, folders, files in os.walk(folder, onerror=_refuse, followlinks=True):
        place = os.path.realpath(top)
        kept = [] if place in entered else sorted(filter(is_visible, folders))
        folders[:] = kept  # tells os.walk where to go on; a link may lead back up
        if Path(top) != folder and _tell_results(Path(top)):
            folders.clear()
        elif place not in entered:
            for file in filter(is_visible, files):
                (images if is_image_name(file) else others).append(Path(top) / file)
        entered.add(place)
    _tell_others(folder, others)
    return sorted(images)


def _list_matches(pattern: str) -> Iterator[Path]:
    """Images that match a pattern, sorted; of other files that match, a word."""
    any_suffix = Path(pattern).suffix not in ("", ".*")
    named = len([*takewhile(lambda part: not has_magic(part), Path(pattern).parts)])
    tell_results = cache(_tell_results)  # asked, and told, once a folder
    others: list[Path] = []
    paths = glob(pattern, recursive=True)  # noqa: PTH207 - Path.glob takes no absolute pattern
    for path in sorted(map(Path, paths)):
        inside = (Path(*path.parts[:depth]) for depth in range(named + 1, len(path.parts) + 1))
        if is_left_by_system(path) or any(map(tell_results, inside)):
            continue
        if path.is_dir():
            yield from _list_folder(path)
        elif any_suffix or is_image_name(path.name):
            yield path
        else:
            others.append(path)
    _tell_others(pattern, others)


def _tell_others(place: str | Path, files: Sequence[Path]) -> None:
    """Say what is passed over: without a word it would count as inspected."""
    dangling = [path for path in files if not path.exists()]
    others = [path for path in files if path not in dangling]
    for paths, one, many in (
        (others, "file is no image by its suffix", "files are no images by their suffixes"),
        (dangling, "link leads nowhere", "links lead nowhere"),
    ):
        if paths:
            names = describe_names([show_line(path.name) for path in sorted(paths)])
            what = one if len(paths) == 1 else many
            log.warning("%s: %d %s, not inspected: %s", show_name(place), len(paths), what, names)


def _tell_results(folder: Path) -> bool:
    """True, with a word, for a folder that `fuzzyclip predict` left."""
    if not holds_results(folder):
        return False
    log.warning("%s: results of fuzzyclip predict, not inspected", show_line(str(folder)))
    return True


def _is_inside(folder: Path, outer: Path) -> bool:
    """True for a folder itself and those below it, links followed; a circle of links is none."""
    inner, top = (Path(os.path.realpath(path)) for path in (folder, outer))
    return inner.is_relative_to(top)


def _refuse(error: OSError) -> None:
    """An image that is passed over without a word would count as inspected."""
    raise OSError(f"{error.filename}: the folder can not be read ({error.strerror})") from error
