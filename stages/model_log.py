"""Putting the packaged models into MLflow's run, ready for `mlflow models serve`."""

import logging
import re
from collections.abc import Iterable

import mlflow

from fuzzyclip.deploy.mlflow_model import describe_model
from stages import paths

log = logging.getLogger(__name__)


def log_models(names: Iterable[str]) -> None:
    """Log the packaged model of each auxiliary set to the run that is open.

    Args:
        names: of the auxiliary sets.
    """
    for name in names:
        with describe_model(paths.package(name)) as described:
            logged = mlflow.pyfunc.log_model(name=name_model(name), **described)
        log.info("logged the model %s, to be served from %s", name, logged.model_uri)


def name_model(name: str) -> str:
    """What the model of an auxiliary set is called in MLflow, which takes no `/:.%"'` in names."""
    return "fuzzyclip-" + re.sub(r"""[/:.%"']""", "_", name)
