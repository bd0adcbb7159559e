"""Results of any git revision or DVC experiment: both are commits, and metrics lie in git."""

import io
import subprocess
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from fuzzyclip.report.comparison import Side
from stages import paths
from stages.experiments.catalog import CatalogError
from stages.experiments.plan import IRRELEVANT
from stages.page import flatten

WORKSPACE = "workspace"
#: Where DVC keeps experiments that are no branch.
EXPERIMENTS = "refs/exps"


def read_side(revision: str | None) -> Side:
    """One of two experiments that are compared.

    Args:
        revision: a commit, branch or tag, or a DVC experiment by name; None for the work tree.

    Raises:
        CatalogError: there is no such revision, or it holds no results.
    """
    if revision is None or revision == WORKSPACE:
        files = {path.as_posix(): path.read_text() for path in _list_files()}
        name = WORKSPACE
    else:
        commit = find_commit(revision)
        files = read_files(commit)
        name = revision if commit.startswith(revision) else f"{revision} ({commit[:7]})"
    folder = paths.CATEGORY_METRICS.as_posix()
    tables = {path: text for path, text in files.items() if path.startswith(f"{folder}/")}
    if not tables or paths.PARAMS.as_posix() not in files:
        raise CatalogError(
            f"{revision or WORKSPACE} holds no results: {paths.PARAMS} and {folder}/*.csv are "
            "needed; run `dvc repro` there and commit, or name another revision"
        )
    types = {"category": str, "prompt": str}
    return Side(
        name,
        list_params(yaml.safe_load(files[paths.PARAMS.as_posix()])),
        {Path(p).stem: pd.read_csv(io.StringIO(text), dtype=types) for p, text in tables.items()},
    )


def _list_files() -> list[Path]:
    found = [paths.PARAMS, *sorted(paths.CATEGORY_METRICS.glob("*.csv"))]
    return [path for path in found if path.is_file()]


def find_commit(revision: str) -> str:
    """The commit that a revision or a DVC experiment names.

    Raises:
        CatalogError: none, or several experiments of that name.
    """
    done = run_git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    if done.returncode == 0:
        return done.stdout.strip()
    listed = run_git("for-each-ref", "--format=%(refname) %(objectname)", EXPERIMENTS)
    named: dict[str, list[str]] = {}
    for line in listed.stdout.splitlines():
        reference, commit = line.rsplit(" ", 1)
        parts = reference.split("/")
        if len(parts) == 5:  # refs/exps/xx/yyyy/name; others are DVC's own
            named.setdefault(parts[4], []).append(commit)
    found = sorted(set(named.get(revision, [])))
    if len(found) == 1:
        return found[0]
    if found:
        raise CatalogError(
            f"several experiments are named {revision!r}; give a commit: {', '.join(found)}"
        )
    there = ", ".join(sorted(named)) or "none"
    raise CatalogError(
        f"no revision and no experiment {revision!r}; experiments there are: {there}"
    )


def read_files(commit: str) -> dict[str, str]:
    """params.yaml and the per-category results of a commit, by path from this folder."""
    listed = run_git(
        "ls-tree", "-r", "-z", "--name-only", commit, "--",
        f"./{paths.PARAMS.as_posix()}", f"./{paths.CATEGORY_METRICS.as_posix()}/",
    )  # fmt: skip
    names = [name for name in listed.stdout.split("\0") if name]
    return {name: run_git("show", f"{commit}:./{name}").stdout for name in names}


def run_git(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Git in this folder.

    Raises:
        CatalogError: this is no git repository.
    """
    done = subprocess.run(
        ["git", *arguments], capture_output=True, text=True, encoding="utf-8", check=False
    )
    if "not a git repository" in done.stderr:
        raise CatalogError("this is no git repository: experiments are compared in a checkout")
    return done


def list_params(tree: dict[str, Any]) -> dict[str, str]:
    """What decides results in params.yaml, as dotted keys; of the backbones the one in use."""
    kept = {name: value for name, value in tree.items() if name not in IRRELEVANT}
    backbones, used = kept.get("backbones", {}), kept.get("backbone")
    kept["backbones"] = {name: value for name, value in backbones.items() if name == used}
    return dict(flatten("", kept))
