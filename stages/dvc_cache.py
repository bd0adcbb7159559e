"""Files of a stage's last result as DVC's cache still has them: DVC clears outputs before a run."""

import hashlib
import logging
from pathlib import Path
from typing import Any

from stages import paths

log = logging.getLogger(__name__)


def list_earlier(stage: str, out: Path) -> list[Path]:
    """Files of a folder as dvc.lock records it, in DVC's cache; none if it has none.

    Args:
        stage: the stage's name in dvc.lock.
        out: its output folder, or a folder inside it.
    """
    if not paths.LOCK.is_file() or f"\n  {stage}:\n" not in paths.LOCK.read_text():
        return []
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo() as repo:
            whole = repo.find_outs_by_path(str(out), strict=False)[0]
            inside = out.absolute().relative_to(whole.fs_path).parts
            tree = whole.get_obj() or ()
            places = [
                whole.cache.oid_to_path(each.value)
                for key, _, each in tree
                if key[: len(inside)] == inside
            ]
    except DvcException as error:
        log.info("nothing is taken over from an earlier %s: %s", out, error)
        return []
    return [Path(place) for place in places if Path(place).is_file()]


def discard_output(path: Path) -> str:
    """Remove a broken file of a stage's output, so that DVC makes it anew.

    DVC takes a file whose time has not changed for what it was, and a protected file of its cache,
    often the same one, for whole. So both go; what only the work tree has lost comes back from the
    cache.

    Returns:
        What is to be done now; empty where the file is no stage's output.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo() as repo:
            (found,) = repo.find_outs_by_path(str(path), strict=False)
            stage = found.stage.addressing
            oid = _find_oid(found, path)
            kept = None if oid is None else Path(found.cache.oid_to_path(oid))
    except (DvcException, ValueError) as error:
        log.info("%s is left: %s", path, error)
        return ""
    path.unlink(missing_ok=True)
    if kept is not None and kept.is_file() and not _has_md5(kept, str(oid)):
        kept.unlink()
        return f"it is removed, here and from DVC's cache: `dvc repro {stage}` makes it anew"
    return f"it is removed: `dvc repro {stage}` brings it back"


def _find_oid(out: Any, path: Path) -> str | None:
    """Digest by which DVC knows a file of an output."""
    if Path(out.fs_path) == path.absolute():
        return str(out.hash_info.value) if out.hash_info else None
    parts = path.absolute().relative_to(out.fs_path).parts
    tree = out.get_obj()
    return next((each.value for key, _, each in tree or () if key == parts), None)


def _has_md5(path: Path, expected: str) -> bool:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest() == expected
