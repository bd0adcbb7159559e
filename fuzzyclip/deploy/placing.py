"""Files that belong together take their places together."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def place_together(path: Path, companion: Path) -> Iterator[Path]:
    """A folder beside `path` whose files move there when the block ends without an error.

    Two renames are not one. So where there is or was a companion the old main file goes first and
    the new one comes last: a kill in between leaves no main file, never one with the data of
    another. An error in the block leaves everything as it was.

    Args:
        path: the main file, which the block must make under this name.
        companion: what may lie beside it, which the block may make; an old one is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as name:
        main, other = Path(name) / path.name, Path(name) / companion.name
        yield Path(name)
        if other.exists() or companion.exists():
            path.unlink(missing_ok=True)
            companion.unlink(missing_ok=True)
        if other.exists():
            other.replace(companion)
        main.replace(path)
