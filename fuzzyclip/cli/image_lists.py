"""The image files that a person means by files, folders and patterns."""

import logging
import os
from collections.abc import Iterator, Sequence
from functools import cache
from glob import glob, has_magic
from itertools import takewhile
from pathlib import Path

from fuzzyclip.images.decode import IGNORED, IMAGE_SUFFIXES

log = logging.getLogger(__name__)

#: What `fuzzyclip predict` leaves in a folder of its results; see `fuzzyclip.model.outputs`.
RESULTS = frozenset({"scores.jsonl", "settings.json"})


def list_images(paths: Sequence[str | Path], without: Path | None = None) -> list[Path]:
    """Image files behind names, in the order of the names, sorted within each, none twice.

    Args:
        paths: each one of
            - a file, taken whatever its suffix is: whoever names it wants it, or its error;
            - a folder: images at any depth by `IMAGE_SUFFIXES`, in folders behind links too; hidden
              files and folders and archives' `__MACOSX` are left out, and, with a word, folders
              inside that hold results of `fuzzyclip predict`;
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
    """Images below a folder, sorted."""
    images: list[Path] = []
    entered = set()
    for top, folders, files in os.walk(folder, onerror=_refuse, followlinks=True):
        place = os.path.realpath(top)
        kept = [] if place in entered else sorted(filter(_is_visible, folders))
        folders[:] = kept  # tells os.walk where to go on; a link may lead back up
        if Path(top) != folder and _hold_results(Path(top)):
            folders.clear()
        elif place not in entered:
            images += [Path(top) / file for file in files if _is_visible(file) and _is_image(file)]
        entered.add(place)
    return sorted(images)


def _list_matches(pattern: str) -> Iterator[Path]:
    """Images that match a pattern, sorted."""
    any_suffix = Path(pattern).suffix not in ("", ".*")
    named = len([*takewhile(lambda part: not has_magic(part), Path(pattern).parts)])
    hold_results = cache(_hold_results)  # asked, and told, once a folder
    paths = glob(pattern, recursive=True)  # noqa: PTH207 - Path.glob takes no absolute pattern
    for path in sorted(map(Path, paths)):
        inside = (Path(*path.parts[:depth]) for depth in range(named + 1, len(path.parts) + 1))
        if IGNORED & set(path.parts) or any(map(hold_results, inside)):
            continue
        if path.is_dir():
            yield from _list_folder(path)
        elif any_suffix or _is_image(path.name):
            yield path


def _hold_results(folder: Path) -> bool:
    """True, with a word, for a folder that `fuzzyclip predict` left."""
    results = all((folder / name).is_file() for name in RESULTS)
    if results:
        log.warning("%s: results of fuzzyclip predict, not inspected", folder)
    return results


def _is_inside(folder: Path, outer: Path) -> bool:
    """True for a folder itself and those below it, links followed; a circle of links is none."""
    inner, top = (Path(os.path.realpath(path)) for path in (folder, outer))
    return inner.is_relative_to(top)


def _is_visible(name: str) -> bool:
    return not name.startswith(".") and name not in IGNORED


def _is_image(name: str) -> bool:
    return Path(name).suffix.lower() in IMAGE_SUFFIXES


def _refuse(error: OSError) -> None:
    """An image that is passed over without a word would count as inspected."""
    raise OSError(f"{error.filename}: the folder can not be read ({error.strerror})") from error
