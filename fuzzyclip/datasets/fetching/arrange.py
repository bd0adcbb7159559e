"""From extracted folders to one dataset root, whatever folders an archive wraps around it.

Archives come with a top folder, without one, with one archive a category, or with archives inside;
the root is where the dataset's own folders lie.
"""

import shutil
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from fuzzyclip.datasets.base.layouts import list_folders
from fuzzyclip.utils.tree import DatasetError

MAX_DEPTH = 4


def arrange(staging: Path, patterns: Sequence[str], out_dir: Path) -> None:
    """Move a dataset's folders to a new root.

    Args:
        staging: folder with everything that was extracted.
        patterns: shell patterns of the names at the root: folders, or a file such as meta.json.
        out_dir: root to make; must not exist.

    Raises:
        DatasetError: none of the folders is there, or one is there twice.
    """
    found = list(_find(staging, patterns, MAX_DEPTH))
    if not found:
        inside = sorted(p.relative_to(staging).as_posix() for p in staging.glob("*/*"))[:10]
        raise DatasetError(
            f"nothing named {', '.join(patterns)} inside; found {', '.join(inside) or 'nothing'}"
        )
    names = [folder.name for folder in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DatasetError(f"there twice: {', '.join(twice)}")
    parents = {folder.parent for folder in found}
    if len(parents) == 1:
        # One root: licence and read-me files beside the folders come along.
        parents.pop().rename(out_dir)
    else:
        out_dir.mkdir(parents=True)
        for folder in found:
            folder.rename(out_dir / folder.name)
    for name in names:
        _unwrap(out_dir / name)


def _find(folder: Path, patterns: Sequence[str], depth: int) -> Iterator[Path]:
    """Topmost folders and files that match, sorted."""
    folders = list_folders(folder)
    files = [path for path in folder.iterdir() if path.is_file()]
    for path in sorted([*folders, *files]):
        if any(fnmatchcase(path.name, pattern) for pattern in patterns):
            yield path
        elif depth > 1 and path.is_dir():
            yield from _find(path, patterns, depth - 1)


def _unwrap(folder: Path) -> None:
    """`Class1/Class1/Train` becomes `Class1/Train`: an archive extracted into its own name."""
    while list_folders(folder) == [folder / folder.name]:
        aside = folder.with_name(f".{folder.name}.unwrapped")
        (folder / folder.name).rename(aside)
        shutil.rmtree(folder)  # read-me files of the wrapping
        aside.rename(folder)
