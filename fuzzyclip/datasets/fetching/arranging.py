"""The folders of a dataset, from wherever archives have left them, side by side under one root."""

import filecmp
import shutil
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from fuzzyclip.datasets.base.layouts import list_folders
from fuzzyclip.utils.files import show_line
from fuzzyclip.utils.tree import DatasetError

MAX_DEPTH = 4  # of the folders that an archive wraps around the data


def arrange(
    staging: Path, patterns: Sequence[str], out_dir: Path, origins: Mapping[str, str] | None = None
) -> None:
    """Move a dataset's folders from where everything was extracted to a new root.

    A folder that is there several times, as in the parts of a cloud drive's download, becomes one.

    Args:
        patterns: shell patterns of the names at the root: folders, or a file such as meta.json.
        origins: what the folders in `staging` came from, for messages.

    Raises:
        DatasetError: none of them is there, or a file is there twice with different contents.
    """
    folders = list(_find(staging, patterns, MAX_DEPTH))
    if not folders:
        listed = sorted(path.relative_to(staging).as_posix() for path in staging.glob("*/*"))
        inside = [show_line(name) for name in listed[:10]]
        raise DatasetError(
            f"nothing named {', '.join(patterns)} inside; found {', '.join(inside) or 'nothing'}"
        )
    names = [folder.name for folder in folders]
    parents = {folder.parent for folder in folders}
    if len(parents) == 1:
        # One root: licence and read-me files beside the folders come along.
        parents.pop().rename(out_dir)
    else:
        out_dir.mkdir(parents=True)
        sources: dict[Path, str] = {}
        for folder in folders:
            _unwrap(folder)
            _unwrap(folder)
            place = folder.relative_to(staging).parts[0]
            origin = (origins or {}).get(place, place)
            _merge(folder, out_dir / folder.name, origin, sources)
    for name in dict.fromkeys(names):
        _unwrap(out_dir / name)


def _merge(path: Path, target: Path, origin: str, sources: dict[Path, str]) -> None:
    """Move a file or folder to a place where another part of it may lie already.

    `sources` has what each file came from.
    """
    if path.is_dir() and (target.is_dir() or not target.exists()):
        target.mkdir(exist_ok=True)
        for inner in sorted(path.iterdir()):
            _merge(inner, target / inner.name, origin, sources)
        return
    if not target.exists():
        path.rename(target)
        sources[target] = origin
    elif path.is_dir() or target.is_dir() or not filecmp.cmp(path, target, shallow=False):
        first = sources.get(target, "elsewhere")
        places = f"in {first} and in {origin}" if first != origin else f"in {origin}, twice"
        name = show_line(f"{target.parent.name}/{target.name}")
        raise DatasetError(
            f"{name} is there twice and not the same, {places}; remove the one that is not meant"
        )


def _find(folder: Path, patterns: Sequence[str], depth: int) -> Iterator[Path]:
    """Topmost folders and files that match, sorted."""
    files = [path for path in folder.iterdir() if path.is_file()]
    for path in sorted([*list_folders(folder), *files]):
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
