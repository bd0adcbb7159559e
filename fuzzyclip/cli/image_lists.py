"""The image files that a person means by files, folders and patterns."""

import os
from collections.abc import Iterator, Sequence
from glob import glob, has_magic
from pathlib import Path

from fuzzyclip.images.decode import IGNORED, IMAGE_SUFFIXES


def list_images(paths: Sequence[str | Path]) -> list[Path]:
    """Image files behind names, in the order of the names, sorted within each, none twice.

    Args:
        paths: each one of
            - a file, taken whatever its suffix is: whoever names it wants it, or its error;
            - a folder: images at any depth by `IMAGE_SUFFIXES`, in folders behind links too; hidden
              files and folders and archives' `__MACOSX` are left out;
            - a pattern (`*`, `?`, `[...]`, `**`): folders as above, and files; by `IMAGE_SUFFIXES`
              unless the pattern ends in a suffix of its own, `*.pgm`.

    Returns:
        Paths that begin as their name does.

    Raises:
        OSError: a name stands for no image, or a folder can not be read; names it.
    """
    distinct: dict[str, Path] = {}
    for name in map(str, paths):
        listed = list(_list_name(name))
        if not listed:
            raise FileNotFoundError(
                f"{name}: no images there (looked for {', '.join(sorted(IMAGE_SUFFIXES))})"
            )
        for path in listed:
            distinct.setdefault(os.path.abspath(path), path)  # noqa: PTH100 - links are files too
    return list(distinct.values())


def _list_name(name: str) -> Iterator[Path]:
    path = Path(name).expanduser()
    if path.is_dir():
        yield from _list_folder(path)
    elif path.exists():  # before patterns: part[1].png is a file's name too
        yield path
    elif has_magic(name):
        yield from _list_matches(str(path))
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
        if place not in entered:
            images += [Path(top) / file for file in files if _is_visible(file) and _is_image(file)]
        entered.add(place)
    return sorted(images)


def _list_matches(pattern: str) -> Iterator[Path]:
    """Images that match a pattern, sorted."""
    any_suffix = Path(pattern).suffix not in ("", ".*")
    paths = glob(pattern, recursive=True)  # noqa: PTH207 - Path.glob takes no absolute pattern
    for path in sorted(map(Path, paths)):
        if IGNORED & set(path.parts):
            continue
        if path.is_dir():
            yield from _list_folder(path)
        elif any_suffix or _is_image(path.name):
            yield path


def _is_visible(name: str) -> bool:
    return not name.startswith(".") and name not in IGNORED


def _is_image(name: str) -> bool:
    return Path(name).suffix.lower() in IMAGE_SUFFIXES


def _refuse(error: OSError) -> None:
    """An image that is passed over without a word would count as inspected."""
    raise OSError(f"{error.filename}: the folder can not be read ({error.strerror})") from error
