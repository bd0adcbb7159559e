"""A packaged model as MLflow serves it; `fuzzyclip.deploy.mlflow_model` says how it is logged.

MLflow runs this file by itself, next to a copy of this package: nothing is unpickled.
"""

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import TEMPORARILY_UNAVAILABLE

from fuzzyclip.deploy.mlflow_model import ARTIFACT
from fuzzyclip.deploy.request import Options, RequestError
from fuzzyclip.deploy.serving import OUTPUTS, Responder
from fuzzyclip.deploy.turns import BusyError
from fuzzyclip.utils.faults import explain

#: Threads besides those of requests that wait: one that is answered, others to send away.
SPARE_THREADS = 8

log = logging.getLogger(__name__)


class ServedModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc]  # MLflow has no types here
    """FuzzyCLIP behind MLflow's `predict`."""

    def load_context(self, context: Any) -> None:
        """Load the model from its artifacts, as the environment says."""
        self.responder = Responder.start(context.artifacts[ARTIFACT])
        _make_threads(self.responder.limits.waiting + SPARE_THREADS)

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Answers, a row an image, with the columns `fuzzyclip.deploy.serving.OUTPUTS`.

        Rows and params are what `fuzzyclip.deploy.request` reads.

        Raises:
            MlflowException: HTTP 400 where the request is at fault, 503 where the server is busy.
                Whatever else happens is 500, and the server's log alone says what it was.
        """
        try:
            options = Options.read(params or {})
            rows = model_input.astype(object).where(model_input.notna(), None)
            answers = self.responder.answer(rows.to_dict("records"), options)
        except RequestError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error
        except BusyError as error:
            raise MlflowException(str(error), TEMPORARILY_UNAVAILABLE) from error
        except Exception as error:
            log.exception("a request failed: %s", explain(error) or "a bug of FuzzyCLIP")
            raise MlflowException("the server failed; its log says why") from error
        # objects: None stays None, where numbers would make NaN of it, which is no JSON
        return pd.DataFrame(answers, columns=list(OUTPUTS), dtype=object)


def _make_threads(count: int) -> None:
    """Give MLflow's server, if this is one, a thread for each request that it may let in.

    It has four more than processors, and what finds none free waits where nobody can refuse it.
    """
    with suppress(RuntimeError):  # no server: nothing runs a loop
        pool = ThreadPoolExecutor(count, thread_name_prefix="request")
        asyncio.get_running_loop().set_default_executor(pool)


mlflow.models.set_model(ServedModel())
