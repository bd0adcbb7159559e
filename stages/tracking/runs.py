"""A result as a run of MLflow: written once, with its numbers bound to their data and models."""

import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import mlflow
import pandas as pd
from mlflow.data.dataset import Dataset
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from requests import RequestException

from fuzzyclip.utils.faults import is_misuse
from stages.tracking.store import (
    NotRecordedError,
    Store,
    close_abandoned,
    explain_fault,
    find_run,
    find_store,
    hold_turn,
    open_experiment,
    tag_recorder,
)

T = TypeVar("T")

#: What a store takes at a time.
BATCH = 100
#: Of the MLflow run: its description, as Markdown.
DESCRIPTION = "mlflow.note.content"
#: How MLflow's client behaves, unless the environment says otherwise. Three repeats of a request
#: wait some 12 seconds for a server that went away; MLflow's seven wait four minutes.
QUIETLY = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # an address of its GenAI pages
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
}

log = logging.getLogger(__name__)


class Number(NamedTuple):
    """A metric's value; with the dataset that it was measured on, if it was on one alone."""

    name: str
    value: float
    step: int = 0
    dataset: str | None = None


@dataclass(frozen=True)
class TrackedResult:
    """One result, as a run of MLflow.

    Attributes:
        name: of the run.
        identity: names of the tags by which the same result is known again.
        tags: where it comes from; those that are empty are left out.
        params: the choices that made it.
        metrics: its numbers; those that are not there are left out.
        describe: its description, by the address of its artifacts in MLflow's pages.
        list_data: the datasets that it was measured on, by name.
        log_models: logs its models to the run that is open; their ids by dataset that they met.
        log_files: logs files to the run that is open.
    """

    name: str
    identity: Sequence[str]
    tags: Mapping[str, str]
    params: Iterable[tuple[str, str]]
    metrics: Iterable[Number]
    describe: Callable[[str], str]
    list_data: Callable[[], Mapping[str, Dataset]] = dict
    log_models: Callable[[], Mapping[str, str]] = dict
    log_files: Callable[[], None] = field(default=lambda: None)


#: What a store that is not there, or not as it should be, ends in.
EXPECTED = (
    MlflowException, NotRecordedError, RequestException, sqlite3.Error, OSError, ImportError,
)  # fmt: skip


def record(name: str, results: Iterable[TrackedResult]) -> None:
    """Make a run of each result in an experiment, unless there is one already.

    A store that fails does not end an experiment of DVC's: its results, which are finished, would
    be lost with it. There it is a warning, with the command that records them later.

    Raises:
        NotRecordedError: the store does not answer, or refuses; says how to record later.
        MlflowException: MLflow was called with what it does not take, which is a mistake of ours.
    """
    for variable, value in QUIETLY.items():
        os.environ.setdefault(variable, value)
    store = find_store()
    try:
        _record_all(store, name, results)
    except Exception as error:  # where files go, any library of any storage may fail
        fault = explain_fault(error, store)
        known = isinstance(error, EXPECTED) and not is_misuse(error)
        if not os.environ.get("DVC_EXP_NAME"):
            raise (fault if known else error) from error
        log.warning("NOT RECORDED: %s", fault, exc_info=None if known else error)


def _record_all(store: Store, name: str, results: Iterable[TrackedResult]) -> None:
    client, experiment = open_experiment(store, name)
    with hold_turn(store):
        for result in results:
            identity = {tag: result.tags[tag] for tag in result.identity}
            if existing := find_run(client, experiment, identity):
                log.info("%s is recorded already, as run %s", result.name, existing)
            else:
                # known by these from its first moment, so that a kill leaves none that is nobody's
                known = {**identity, **tag_recorder(store)}
                close_abandoned(client, experiment, known)
                _record_new(result, client, experiment, known)
    log.info("look at the runs, and compare them:\n  %s", store.open_ui(experiment))


def _record_new(
    result: TrackedResult, client: MlflowClient, experiment: str, known: Mapping[str, str]
) -> None:
    """Record a result as a run, which has the tags `known` before anything else."""
    mlflow.set_experiment(experiment_id=experiment)
    tagged = {tag: value for tag, value in known.items() if value}
    with mlflow.start_run(run_name=result.name, tags=tagged) as run:
        identifier = run.info.run_id
        artifacts = f"#/experiments/{experiment}/runs/{identifier}/artifacts"
        tags = {**result.tags, DESCRIPTION: result.describe(artifacts)}
        written = [RunTag(key, value) for key, value in tags.items() if value]
        for part in _split(written, BATCH):
            client.log_batch(identifier, tags=part)
        for part in _split([Param(key, value) for key, value in result.params], BATCH):
            client.log_batch(identifier, params=part)
        data = result.list_data()
        if data:
            mlflow.log_inputs([*data.values()], ["eval"] * len(data), [None] * len(data))
        models = result.log_models()
        metrics = [
            _bind(number, data, models) for number in result.metrics if pd.notna(number.value)
        ]
        for part in _split(metrics, 10 * BATCH):
            client.log_batch(identifier, metrics=part)
        result.log_files()
    log.info("recorded as MLflow run %s (%s)", result.name, identifier)


def _split(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Items in parts of at most `size`, which is what MLflow takes at once."""
    for first in range(0, len(items), size):
        yield items[first : first + size]


def _bind(number: Number, data: Mapping[str, Dataset], models: Mapping[str, str]) -> Metric:
    """A metric of MLflow's, with the dataset that it was measured on and the model that was."""
    dataset = data.get(number.dataset) if number.dataset is not None else None
    return Metric(
        number.name,
        float(number.value),
        int(1000 * time.time()),
        number.step,
        model_id=models.get(number.dataset) if number.dataset is not None else None,
        dataset_name=None if dataset is None else dataset.name,
        dataset_digest=None if dataset is None else dataset.digest,
    )
