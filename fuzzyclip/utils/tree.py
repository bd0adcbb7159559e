"""The one rule of what a folder from outside may hold, to check it in place, copy or read it.

Regular files and folders; of links those to regular files of the same folder, and those to files in
a cache of DVC, which puts them in place of files where `cache.type` is symlink. A link that leads
elsewhere would bring in what nobody meant to share, one to a folder may go in a circle, and a
device or a pipe has no end.
"""

import os
import re
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from fuzzyclip.utils.files import show_line

MAX_SHOWN = 20  # faults in one message
#: Where DVC keeps a file, by the MD5 of its content.
CACHED = re.compile(r".+/files/md5/[0-9a-f]{2}/[0-9a-f]{30}")


class DatasetError(ValueError):
    """Something is wrong with a dataset's archives, folders or images; says how to mend it."""


class Tree(NamedTuple):
    """A folder that was looked at.

    Attributes:
        root: the folder.
        folders: those below it, each behind the one that it lies in.
        files: size in bytes by POSIX path below the root, sorted as paths are.
        refused: what is neither or is not taken, by POSIX path; the reason and the mend.
    """

    root: Path
    folders: list[Path]
    files: dict[str, int]
    refused: dict[str, str]


def read_tree(root: Path, *, linked: bool = False) -> Tree:
    """Look at a folder before anything in it is opened, and take it whole or not at all.

    Args:
        linked: as for `look_at_tree`.

    Raises:
        DatasetError: it holds what is neither file nor folder, a link that is not taken, or can not
            be read; says how to mend each.
    """
    tree = look_at_tree(root, linked=linked)
    if faults := [show_line(f"{root / name}: {why}") for name, why in tree.refused.items()]:
        rest = [f"... and {len(faults) - MAX_SHOWN} more"] if len(faults) > MAX_SHOWN else []
        count = f"{show_line(str(root))}: {len(faults)} problem(s)"
        title = f"{count}; only regular files and folders are taken"
        raise DatasetError("\n".join([title, *faults[:MAX_SHOWN], *rest]))
    return tree


def look_at_tree(root: Path, *, linked: bool = False) -> Tree:
    """All that a folder holds, also what is not taken; a missing folder is empty.

    Args:
        linked: whether links may lead to files anywhere: in a model they often lie in the store of
            the hub that it came from, and its card has their digests.

    Raises:
        DatasetError: a folder can not be read.
    """
    folders: list[Path] = []
    sizes: dict[str, int] = {}
    refused: dict[str, str] = {}
    inside = None if linked else root.resolve()
    for name in _walk(root):
        try:
            size = _look_at(root / name, inside)
        except OSError as error:
            refused[name] = str(error)
            continue
        if size is None:
            folders.append(Path(name))
        else:
            sizes[name] = size
    names = sorted(sizes, key=lambda name: name.split("/"))
    return Tree(root, folders, {name: sizes[name] for name in names}, refused)


def copy_tree(tree: Tree, target: Path) -> None:
    """Copy the files that were looked at, those behind links as files, into a new folder."""
    target.mkdir()
    for folder in tree.folders:
        (target / folder).mkdir()
    for name in tree.files:
        shutil.copyfile(tree.root / name, target / name)


def _walk(root: Path) -> Iterator[str]:
    """POSIX paths of everything below a folder; no link is entered."""

    def refuse(error: OSError) -> None:
        place = show_line(str(error.filename))
        raise DatasetError(f"{place}: the folder can not be read ({error.strerror})")

    if not root.is_dir():
        return
    for top, folders, files in os.walk(root, onerror=refuse):
        inside = Path(top).relative_to(root)
        yield from ((inside / name).as_posix() for name in (*folders, *files))


def _look_at(path: Path, inside: Path | None) -> int | None:
    """Size of a file, or None for a folder; links must lead inside a folder, or for None anywhere.

    An OSError says what it is in place of both, and how to mend it.
    """
    try:
        path.name.encode()
    except UnicodeEncodeError as error:
        raise OSError("a name that is no UTF-8; rename it") from error
    kind = path.lstat()
    if stat.S_ISDIR(kind.st_mode):
        return None
    if stat.S_ISREG(kind.st_mode):
        return kind.st_size
    if not stat.S_ISLNK(kind.st_mode):
        raise OSError("a pipe, socket or device; remove it")
    try:
        kind = path.stat()
    except OSError as error:
        raise OSError(f"a link that leads nowhere ({error.strerror}); remove it") from error
    if stat.S_ISDIR(kind.st_mode):
        raise OSError("a link to a folder; put the folder itself in its place")
    if not stat.S_ISREG(kind.st_mode):
        raise OSError("a link to a pipe, socket or device; remove it")
    target = path.resolve()
    own = inside is None or target.is_relative_to(inside) or CACHED.fullmatch(target.as_posix())
    if not own:
        raise OSError(
            f"a link to {target}, which lies outside of the folder; put the file itself in its "
            "place"
        )
    return kind.st_size
