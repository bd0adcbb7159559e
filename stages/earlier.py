"""Files of a stage's last result as DVC's cache still has them: DVC clears outputs before a run."""

import logging
from pathlib import Path

from stages import paths

log = logging.getLogger(__name__)


def list_earlier(stage: str, out: Path) -> list[Path]:
    """Files of an output folder as dvc.lock records it, in DVC's cache; none if it has none.

    Args:
        stage: the stage's name in dvc.lock.
        out: its output folder.
    """
    if not paths.LOCK.is_file() or f"\n  {stage}:\n" not in paths.LOCK.read_text():
        return []
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo() as repo:
            found = repo.find_outs_by_path(str(out))[0]
            tree = found.get_obj()
            if tree is None:
                return []
            places = [found.cache.oid_to_path(each.value) for _, _, each in tree]
    except DvcException as error:
        log.info("nothing is taken over from an earlier %s: %s", out, error)
        return []
    return [Path(place) for place in places if Path(place).is_file()]
