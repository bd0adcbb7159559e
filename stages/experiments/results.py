"""Results by revision: a DVC experiment's commit, any other commit, or the work tree.

Parameters, dvc.lock and metrics lie in git, image scores and pictures in DVC's cache.
"""

import atexit
import json
import shutil
import subprocess
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from fuzzyclip.evaluation.metrics import METRICS
from fuzzyclip.method import OWN
from fuzzyclip.report.tables import read_categories
from fuzzyclip.utils.scratch import make_private_folder
from stages import paths
from stages.experiments.catalog import CatalogError
from stages.git import call_git

#: Names of the revisions that are no experiments.
WORKSPACE, HEAD = "workspace", "HEAD"
#: Lengths of RPL's prompts in params.yaml, by the paper's letters.
LETTERS = {"words": "E", "deep_tokens": "L", "depth": "M"}


class MissingResultError(CatalogError):
    """A file of a result is not there: never made, or gone from DVC's cache."""


@dataclass(frozen=True)
class Results:
    """The results of one revision, named as people say it; without a commit those of a folder."""

    name: str
    commit: str | None = None
    folder: Path = Path()

    def read_text(self, path: Path) -> str:
        """A file of git or of DVC's cache.

        Raises:
            MissingResultError: it is not there.
        """
        if self.commit is not None:
            shown = run_git("show", f"{self.commit}:./{path.as_posix()}")
            if shown.returncode == 0:
                return shown.stdout
        return self.fetch(path).read_text(encoding="utf-8")

    def fetch(self, path: Path) -> Path:
        """The place of a whole file of DVC's: in the work tree, or a copy for this process.

        Raises:
            MissingResultError: it is not there.
        """
        place = (self.folder if self.commit is None else self._copies) / path
        if self.commit is not None and not place.is_file():
            self._copy(path, place)
        if not place.is_file():
            remedy = f"`dvc exp remove {self.name}` and the same run again make it anew"
            if self.name in (WORKSPACE, HEAD):
                remedy = "`dvc repro track baselines` makes it anew"
            raise MissingResultError(
                f"{path} of {self.name} is not there, nor in DVC's cache: {remedy}"
            )
        return place

    def _copy(self, path: Path, place: Path) -> None:
        """Copy a file of DVC's cache or remote storage, where it is."""
        from dvc_data.index import DataIndexDirError

        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._files.get_file(path.as_posix(), str(place))
        except (OSError, DataIndexDirError):
            place.unlink(missing_ok=True)

    def holds(self, path: Path) -> bool:
        """True where a file is there."""
        try:
            self.fetch(path)
        except MissingResultError:
            return False
        return True

    @cached_property
    def _files(self) -> Any:
        from dvc.api import DVCFileSystem

        return DVCFileSystem(rev=self.commit)

    @cached_property
    def _copies(self) -> Path:
        folder = make_private_folder()
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        return folder


def read_method(results: Results, dataset: str, method: str = OWN) -> pd.DataFrame:
    """A method's per-category table of a dataset: `variant`, `category`, counts, the metrics."""
    return read_categories(results.read_text(paths.method_metrics(method, dataset)))


def average_categories(categories: pd.DataFrame) -> pd.DataFrame:
    """Unweighted means over categories: a line a variant, a column a metric, percent."""
    return categories.groupby("variant", sort=False)[[*METRICS]].mean()


def read_means(
    results: Results, dataset: str, method: str = OWN, variant: str | None = None
) -> dict[str, float]:
    """A method's means over the categories of a dataset; empty where it has no result.

    They are of the variant that is called as the method is, or of another one by name.
    """
    try:
        means = average_categories(read_method(results, dataset, method))
    except MissingResultError:
        return {}
    name = variant or method
    return {metric: float(means[metric][name]) for metric in METRICS if name in means.index}


def read_facts(results: Results, dataset: str, method: str = OWN) -> dict[str, Any]:
    """How a method's result on a dataset came about: settings, weights, `tested` and more."""
    facts: dict[str, Any] = json.loads(results.read_text(paths.method_facts(method, dataset)))
    return facts


def read_lengths(results: Results, dataset: str) -> dict[str, int]:
    """RPL's E, L and M as they ran, by letter; none where the facts do not say."""
    lengths = dict(read_facts(results, dataset).get("lengths", {}))
    if "words" in lengths:
        lengths["words"] = min(lengths["words"])
    return {letter: lengths[key] for key, letter in LETTERS.items() if key in lengths}


def read_tested(results: Results, dataset: str) -> dict[str, Any]:
    """Facts of what FuzzyCLIP's result was measured on: `title`, `source`, `complete` and more."""
    tested: dict[str, Any] = read_facts(results, dataset)["tested"]
    return tested


def read_csp(results: Results, auxiliary: str) -> dict[str, Any]:
    """CSP's scores and clusters."""
    scores: dict[str, Any] = json.loads(results.read_text(paths.csp_scores(auxiliary)))
    return scores


def run_git(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Git's answer in this folder.

    Raises:
        CatalogError: this is no git repository.
    """
    done = call_git(*arguments)
    if "not a git repository" in done.stderr:
        raise CatalogError("this is no git repository: experiments are compared in a checkout")
    return done
