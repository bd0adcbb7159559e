"""MLflow's store: where it is, whether it answers, and how to look at it.

The default is a SQLite file in the main checkout, also for `dvc exp run --temp` and `--queue`,
which work in copies that are deleted afterwards: every path is absolute and built on DVC_ROOT.
MLFLOW_TRACKING_URI names another file or a server. Several processes may start at once: a fresh
SQLite store is made by one at a time.
"""

import hashlib
import logging
import os
import platform
import shlex
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import mlflow
from filelock import FileLock, Timeout
from mlflow.tracking import MlflowClient

DATABASE = "mlflow.db"
ARTIFACTS = "mlartifacts"
#: Held by the process that looks for a result and records it.
RECORDING = f"{DATABASE}.recording.lock"
SQLITE = "sqlite:///"
#: Tag of a server's runs: who recorded it.
RECORDER = "recorder"
#: Seconds in which a server must have answered.
PATIENCE = 10
#: MLflow 3 opens on its GenAI pages; this opens the runs, with charts of their metrics.
RUNS = "#/experiments/{experiment}/runs?workflowType=machine_learning&compareRunsMode=CHART"
#: Without the variable it starts seven processes more, for jobs of its GenAI side.
UI = "MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false mlflow ui --backend-store-uri"
#: Where `mlflow ui` serves.
LOCAL = "http://127.0.0.1:5000"
#: Variables of the environment that say where a result comes from.
ORIGIN = ("DVC_EXP_NAME", "DVC_EXP_BASELINE_REV", "FUZZYCLIP_EXPERIMENT", "FUZZYCLIP_ROW")
#: Columns of a SQLite store that hold the places of artifacts.
PLACES = {
    "runs": ("artifact_uri",),
    "logged_models": ("artifact_location",),
    "model_versions": ("source", "storage_location"),
}

log = logging.getLogger(__name__)


class NotRecordedError(RuntimeError):
    """A result could not be recorded; it is in the work tree and can be recorded later."""


@dataclass(frozen=True)
class Store:
    """A store as MLflow names it.

    Attributes:
        uri: its address.
        file: of a SQLite store; None of a server, which also decides where artifacts go.
    """

    uri: str
    file: Path | None

    @property
    def artifacts(self) -> str | None:
        """The place of artifacts: beside the file."""
        return None if self.file is None else (self.file.parent / ARTIFACTS).as_uri()

    @property
    def shown(self) -> str:
        """The address without name and password."""
        parts = urlsplit(self.uri)
        host = parts.netloc.rpartition("@")[2]
        return self.uri if host == parts.netloc else parts._replace(netloc=host).geturl()

    def open_ui(self, experiment: str) -> str:
        """How to look at an experiment's runs: a command and an address, or the server's."""
        page = RUNS.format(experiment=experiment)
        if self.uri.startswith(("http:", "https:")):
            return f"{self.shown.rstrip('/')}/{page}"
        named = shlex.quote(self.uri) if self.uri == self.shown else '"$MLFLOW_TRACKING_URI"'
        return f"{UI} {named}\nand then open\n  {LOCAL}/{page}"


def find_root() -> Path:
    """The main checkout: DVC's root where DVC runs us, else the working folder."""
    return Path(os.environ.get("DVC_ROOT", ".")).resolve()


def find_store() -> Store:
    """The store that MLFLOW_TRACKING_URI names, a relative file in the main checkout; else ours.

    MLflow sets that variable itself when a store is chosen, to what this gave.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") or SQLITE + DATABASE
    if not uri.startswith(SQLITE):
        return Store(uri, None)
    name, question, options = uri.removeprefix(SQLITE).partition("?")
    file = find_root() / name
    return Store(f"{SQLITE}{file}{question}{options}", file)


def open_experiment(store: Store, name: str) -> tuple[MlflowClient, str]:
    """A client of the store and the experiment's id, made if it is not there.

    Raises:
        NotRecordedError: the server does not answer.
    """
    mlflow.set_tracking_uri(store.uri)
    with FileLock(find_root() / f"{DATABASE}.lock"):
        if store.file is None:
            check_answer(store)
        follow_move(store)
        client = MlflowClient()
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            made = client.create_experiment(name, artifact_location=store.artifacts)
            return client, str(made)
        if experiment.lifecycle_stage == "deleted":
            client.restore_experiment(experiment.experiment_id)
        return client, str(experiment.experiment_id)


@contextmanager
def hold_turn(store: Store) -> Iterator[None]:
    """One process at a time, from looking for a result to its record; says so where it waits.

    Two that looked at once would both find nothing, and both record. The lock lies beside a SQLite
    file, else in the main checkout: of a server, checkouts on other machines are not kept away.
    """
    folder = find_root() if store.file is None else store.file.parent
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / RECORDING)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info(
            "another process records into %s; waiting for it (%s)", store.shown, lock.lock_file
        )
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def check_answer(store: Store) -> None:
    """Ask a server for anything, once and for `PATIENCE` seconds; MLflow itself asks for minutes.

    Raises:
        NotRecordedError: there is no answer, or one that refuses.
    """
    once = {
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": str(PATIENCE),
    }
    faults: list[Exception] = []

    def ask() -> None:
        try:
            MlflowClient(store.uri).search_experiments(max_results=1)
        except Exception as error:  # whatever a driver raises
            faults.append(error)

    # a thread, since what a database's driver waits for knows no limit of ours
    asking = threading.Thread(target=ask, daemon=True)
    with _environment(once):
        asking.start()
        asking.join(PATIENCE)
    if asking.is_alive():
        raise NotRecordedError(f"{store.shown} has not answered within {PATIENCE} seconds")
    if faults:
        raise NotRecordedError(f"{store.shown} does not answer: {faults[0]}") from faults[0]


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Variables of the environment while the block runs."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def follow_move(store: Store) -> None:
    """Let a SQLite store that was moved with its checkout know its artifacts where they are now.

    It holds absolute addresses: without this, new artifacts would go to the old place.
    """
    if store.file is None or store.artifacts is None or not store.file.is_file():
        return
    new, there = store.artifacts, (store.file.parent / ARTIFACTS).is_dir()
    with closing(sqlite3.connect(store.file, timeout=60)) as database, database:
        known = {table for (table,) in database.execute("SELECT name FROM sqlite_master")}
        if "experiments" not in known:
            return
        rows = database.execute("SELECT DISTINCT artifact_location FROM experiments")
        for old in [place for (place,) in rows if _is_left_behind(place, store)]:
            _move(database, "experiments", "artifact_location", old, new)
            for table in (table for table in PLACES if there and table in known):
                for column in PLACES[table]:
                    _move(database, table, column, old, new)
            rest = "" if there else "; those of earlier runs stay where they were"
            log.warning(
                "artifacts of %s were in %s, now they are in %s%s", store.file, old, new, rest
            )


def _is_left_behind(location: str | None, store: Store) -> bool:
    """True of a place that we once chose beside a store of ours which is not there any more.

    Or that belongs to the one that this is a copy of. Any other place was chosen by somebody.
    """
    if location is None or location == store.artifacts or not location.startswith("file:"):
        return False
    folder = Path(unquote(urlsplit(location).path))
    copied = store.file is not None and (folder.parent / store.file.name).is_file()
    return folder.name == ARTIFACTS and (copied or not folder.exists())


def _move(database: sqlite3.Connection, table: str, column: str, old: str, new: str) -> None:
    database.execute(
        f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
        f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
        (new, len(old) + 1, old, len(old) + 1, f"{old}/"),
    )


def find_run(client: MlflowClient, experiment: str, tags: Mapping[str, str]) -> str | None:
    """A finished run that carries all of `tags`, if there is one; an empty one it must not have."""
    return next(iter(_list_runs(client, experiment, tags, "FINISHED")), None)


def tag_recorder(store: Store) -> dict[str, str]:
    """Who takes turns with this process, as a tag: at a server the checkout on this machine.

    At a file it is everybody, for the lock lies beside it (`hold_turn`).
    """
    if store.file is not None:
        return {}
    place = f"{platform.node()}:{find_root()}"
    return {RECORDER: hashlib.sha256(place.encode()).hexdigest()[:16]}


def close_abandoned(client: MlflowClient, experiment: str, tags: Mapping[str, str]) -> None:
    """Mark runs of a result as killed that seem to go on: whoever holds the turn knows better.

    Args:
        tags: of the result and, as `tag_recorder` has it, of whom the turn was taken from.
    """
    for run in _list_runs(client, experiment, tags, "RUNNING"):
        client.set_terminated(run, "KILLED")
        log.info("run %s was killed while it was recorded; it is marked so", run)


def _list_runs(
    client: MlflowClient, experiment: str, tags: Mapping[str, str], status: str
) -> list[str]:
    """Ids of the runs of a status that carry all of `tags`."""
    quotable = {key: value for key, value in tags.items() if value and "'" not in value}
    terms = [f"tags.`{key}` = '{value}'" for key, value in quotable.items()]
    query = " and ".join([*terms, f"attributes.status = '{status}'"])
    runs: Any = client.search_runs([experiment], query, max_results=1000)
    return [
        str(run.info.run_id)
        for run in runs
        if all(run.data.tags.get(key, "") == value for key, value in tags.items())
    ]


def explain_fault(error: Exception, store: Store) -> NotRecordedError:
    """The same as an error that names the store and says how the result is recorded later."""
    told = str(error) if isinstance(error, NotRecordedError) else f"{store.shown}: {error}"
    return NotRecordedError(
        f"{told}\nNothing is lost: the result is finished, it is only not recorded yet. "
        f"Once the store answers, record it with\n  {describe_retry(store)}"
    )


def describe_retry(store: Store) -> str:
    """The command that records the result of the stage that runs, in a shell of a later day."""
    variables = {name: os.environ[name] for name in ORIGIN if os.environ.get(name)}
    if store.file is None and store.uri == store.shown:  # else it holds a password, or is ours
        variables["MLFLOW_TRACKING_URI"] = store.uri
    words = [f"{name}={shlex.quote(value)}" for name, value in variables.items()]
    stage = os.environ.get("DVC_STAGE", "").rpartition(":")[2]
    command = " ".join([*words, "python -m stages.track", stage]).rstrip()
    experiment = os.environ.get("DVC_EXP_NAME")  # its work tree may be a copy, or hold another then
    return f"dvc exp apply {shlex.quote(experiment)} && {command}" if experiment else command
