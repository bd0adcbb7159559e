"""Finds the revisions that hold results, as DVC and git have recorded them.

A run is done where an experiment of DVC's, HEAD or the work tree has its parameters, and where DVC
would make its results of the same code today.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from fuzzyclip.method import OWN
from fuzzyclip.report.comparison import Side
from fuzzyclip.report.tables import read_categories
from stages import paths
from stages.experiments.catalog import CatalogError
from stages.experiments.plan import Run, drop_irrelevant, select_relevant
from stages.experiments.results import HEAD, WORKSPACE, MissingResultError, Results, run_git
from stages.params import flatten
from stages.yaml_file import YamlError, parse_yaml

if TYPE_CHECKING:
    from dvc.dependency import Dependency
    from dvc.repo import Repo
    from dvc.stage import Stage

#: Where DVC keeps experiments that are no branch.
EXPERIMENTS = "refs/exps"
#: Folders of code: a change of theirs makes results out of date.
CODE = ("fuzzyclip", "stages")
#: Where results by category lay in earlier commits.
EARLIER = paths.METRICS / "categories"
#: The last stage of the pipeline.
TARGET = "track"

log = logging.getLogger(__name__)


def locate(
    runs: Sequence[Run], list_files: Callable[[Run], Sequence[Path]] = lambda run: ()
) -> list[Run]:
    """The runs, those that are done with their results.

    Where a file of `list_files`, of a run's results beside its metrics, is gone from DVC's cache,
    the run is not done, and the log says so.
    """
    from dvc.repo import Repo  # takes a while

    records = [*list_records()]
    with Repo() as here, Repo() as past:
        today = Today(here, past)
        return [replace(run, results=_find(run, records, list_files(run), today)) for run in runs]


def list_records() -> Iterator[tuple[Results, Mapping[str, Any]]]:
    """Everything that may hold results, with its parameters: experiments first, newest of all.

    The work tree is none while experiments change it.
    """
    revisions = [*list_experiments()]
    if (head := run_git("rev-parse", "--verify", "--quiet", HEAD)).returncode == 0:
        revisions.append(Results(HEAD, head.stdout.strip()))
    if not paths.BEFORE_EXPERIMENTS.exists():
        revisions.append(Results(WORKSPACE))
    for results in revisions:
        try:
            params = parse_yaml(results.read_text(paths.PARAMS), paths.PARAMS)
        except (MissingResultError, YamlError):
            continue
        if isinstance(params, Mapping):
            yield results, params


def _find(
    run: Run,
    records: Sequence[tuple[Results, Mapping[str, Any]]],
    files: Sequence[Path],
    today: "Today",
) -> Results | None:
    """The first record that holds a run's results."""
    wanted, metrics = select_relevant(run.params, run.params), list_metrics(run)
    for results, params in records:
        if select_relevant(params, run.params) != wanted or not today.makes(results, metrics):
            continue
        try:
            for file in files:
                results.fetch(file)
        except MissingResultError as error:
            log.warning("%s: %s", run.row.label, error)
        else:
            return results
    return None


def list_metrics(run: Run) -> list[Path]:
    """Files in git that every run leaves."""
    sets = sorted(set(run.row.tests.values()))
    return [
        *(paths.method_metrics(OWN, dataset) for dataset in run.row.tests),
        *(paths.csp_scores(auxiliary) for auxiliary in sets),
        *(paths.curve(stage, auxiliary) for auxiliary in sets for stage in ("efa", "rpl")),
    ]


class Today:
    """Results that the code of the work tree makes, in DVC's words.

    `here` is DVC's view of the work tree, `past` that of one revision after the other.
    """

    def __init__(self, here: "Repo", past: "Repo") -> None:
        self.here, self.past = here, past
        self._definitions = _read_definitions(Results(WORKSPACE))
        self._hashes: dict[str, str | None] = {}
        self._made: dict[Results, list[PurePosixPath]] = {}

    def makes(self, results: Results, files: Iterable[Path]) -> bool:
        """True where today's code makes these files of a revision anew just as they are."""
        if results not in self._made:
            self._made[results] = self._list_made(results)
        made = {*self._made[results]}
        return all(made & {path, *path.parents} for path in map(PurePosixPath, files))

    def _list_made(self, results: Results) -> list[PurePosixPath]:
        """Outputs of a revision's pipeline that DVC would not make anew, from data to metrics."""
        from dvc.exceptions import DvcException
        from dvc.repo.brancher import switch
        from networkx import descendants  # type: ignore[import-untyped]

        made = []
        try:
            known = _read_definitions(results)
            same = {name for name in known if known[name] == self._definitions.get(name)}
            with self.past.lock, switch(self.past, results.commit or WORKSPACE):
                graph = self.past.index.graph
                last = [stage for stage in graph if stage.name == TARGET]
                stages = {stage for target in last for stage in descendants(graph, target)}
                data = {out.def_path: out.hash_info for stage in stages for out in stage.outs}
                stale = {
                    stage
                    for stage in stages
                    if stage.name.partition("@")[0] not in same
                    or (not self._is_recorded(stage, data) if results.commit else stage.status())
                }
                for stage in stages:
                    if stale.isdisjoint({stage, *descendants(graph, stage)}):
                        made += [PurePosixPath(out.def_path) for out in stage.outs]
        except (DvcException, MissingResultError) as error:
            # Another process changes the work tree, or a broken pipeline.
            log.info("%s holds no results for now: %s", results.name, error)
        return made

    def _is_recorded(self, stage: "Stage", data: Mapping[str, Any]) -> bool:
        """True where a commit's stage has the parameters, data and metrics of its own dvc.lock.

        Code counts as it is today; `data` has the digest of every output of the commit's stages.
        """
        return (
            not stage.cmd_changed
            and all(self._is_same(dependency, data) for dependency in stage.deps)
            and not any(out.changed_checksum() for out in stage.outs if not out.use_cache)
        )

    def _is_same(self, dependency: "Dependency", data: Mapping[str, Any]) -> bool:
        from dvc.dependency import ParamsDependency

        path, digest = dependency.def_path, dependency.hash_info
        if isinstance(dependency, ParamsDependency):
            return not dependency.status()
        if PurePosixPath(path).parts[0] in CODE:
            return bool(digest.value == self._hash(path))
        return bool(digest) and digest == data.get(path, digest)  # folders of outputs are no output

    def _hash(self, path: str) -> str | None:
        """DVC's digest of a file or folder of the work tree, None where there is none."""
        from dvc.dependency import Dependency

        if path not in self._hashes:
            dependency = Dependency(self.here.index.stages[0], path)
            self._hashes[path] = dependency.get_hash().value if dependency.exists else None
        return self._hashes[path]


def _read_definitions(results: Results) -> dict[str, Any]:
    """Stages as dvc.yaml defines them, without their descriptions, which decide nothing."""

    def strip(definition: Mapping[str, Any]) -> dict[str, Any]:
        kept = {key: value for key, value in definition.items() if key != "desc"}
        return kept | ({"do": strip(kept["do"])} if "do" in kept else {})

    stages = parse_yaml(results.read_text(paths.PIPELINE), paths.PIPELINE)["stages"]
    return {name: strip(definition) for name, definition in stages.items()}


def list_experiments() -> Iterator[Results]:
    """DVC's experiments on whatever commit, the newest first."""
    columns = "%(refname) %(objectname)"
    listed = run_git("for-each-ref", "--sort=-committerdate", f"--format={columns}", EXPERIMENTS)
    for line in listed.stdout.splitlines():
        reference, commit = line.rsplit(" ", 1)
        parts = reference.split("/")
        if len(parts) == 5:  # refs/exps/xx/yyyy/name; others are DVC's own
            yield Results(parts[4], commit)


def find_commit(revision: str) -> str:
    """The commit that a revision or a DVC experiment names.

    Raises:
        CatalogError: none, or several experiments of that name.
    """
    options = ("--verify", "--quiet", "--end-of-options")
    parsed = run_git("rev-parse", *options, f"{revision}^{{commit}}")
    if parsed.returncode == 0:
        return parsed.stdout.strip()
    experiments = [*list_experiments()]
    commits = sorted({str(known.commit) for known in experiments if known.name == revision})
    if len(commits) > 1:
        raise CatalogError(
            f"several experiments are named {revision!r}; give a commit: {', '.join(commits)}"
        )
    if not commits:
        there = ", ".join(sorted({known.name for known in experiments})) or "none"
        raise CatalogError(
            f"no revision and no experiment {revision!r}; experiments there are: {there}"
        )
    return commits[0]


def list_tables(results: Results, folder: Path) -> list[Path]:
    """CSV files of a folder that lies in git."""
    if results.commit is None:
        return [*folder.glob("*.csv")]
    where = f"./{folder.as_posix()}/"
    listed = run_git("ls-tree", "-z", "--name-only", results.commit, "--", where).stdout
    return [Path(file) for file in listed.split("\0") if file.endswith(".csv")]


def find_results(revision: str) -> Results:
    """The results of a revision or of a DVC experiment by name; or the work tree's.

    Raises:
        CatalogError: there is no such revision.
    """
    if revision == WORKSPACE:
        return Results(WORKSPACE)
    return Results(revision, find_commit(revision))


def read_side(revision: str = WORKSPACE) -> Side:
    """One of two experiments that are compared: a revision or a DVC experiment; or the work tree.

    Raises:
        CatalogError: there is no such revision, or it holds no results.
    """
    results, name = find_results(revision), revision
    if results.commit is not None and not results.commit.startswith(revision):
        name = f"{revision} ({results.commit[:7]})"
    folder = paths.METHOD_METRICS / OWN
    files = list_tables(results, folder) or list_tables(results, EARLIER)
    try:
        params = parse_yaml(results.read_text(paths.PARAMS), paths.PARAMS)
    except MissingResultError:
        files = []
    if not files:
        raise CatalogError(
            f"{revision} holds no results: {paths.PARAMS} and {folder}/*.csv are "
            "needed; run `dvc repro` there and commit, or name another revision"
        )
    tables = {file.stem: read_categories(results.read_text(file)) for file in sorted(files)}
    return Side(name, dict(flatten(drop_irrelevant(params))), tables)
