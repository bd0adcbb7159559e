"""Models that MLflow keeps, fetched by their address, without making a store where there is none.

MLflow is imported only where an address asks for it.
"""

import atexit
import os
import re
import shutil
from pathlib import Path
from urllib.parse import unquote, urlsplit

from fuzzyclip.model.card import FILENAME, ModelError
from fuzzyclip.utils.scratch import make_private_folder

#: `models:/name/1`, `runs:/id/model`, `mlflow-artifacts:/...`, `s3://...`
ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+:/")
#: Addresses that a store must be asked for.
STORED = re.compile(r"(models|runs|mlflow-artifacts):/")
SQLITE = "sqlite:///"


def fetch_model(address: str) -> Path:
    """The directory of a model at an address of MLflow, a copy that is gone when this program ends.

    Raises:
        ModelError: there is no store, MLflow does not find it, or it is no model of ours.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    import mlflow

    if STORED.match(address):
        for uri in {mlflow.get_tracking_uri(), mlflow.get_registry_uri()}:
            check_store(address, uri)
    folder = make_private_folder()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    try:
        fetched = Path(mlflow.artifacts.download_artifacts(address, dst_path=str(folder)))
    except Exception as error:
        raise ModelError(f"{address}: MLflow does not find it ({error})") from error
    for place in (fetched, *sorted(fetched.glob("artifacts/*"))):
        if (place / FILENAME).is_file():
            return place
    raise ModelError(f"{address}: no FuzzyCLIP model there ({FILENAME} is missing)")


def check_store(address: str, uri: str) -> None:
    """Refuse a store in a file or folder that is not there: MLflow would make an empty one.

    Raises:
        ModelError: it is not there; says how to name another.
    """
    place = _find_place(uri)
    if place is None or place.exists():
        return
    named = os.environ.get("MLFLOW_TRACKING_URI")
    reason = f"MLFLOW_TRACKING_URI is {named}" if named else "MLFLOW_TRACKING_URI is not set"
    raise ModelError(
        f"{address}: {place}, where MLflow would look, is not there ({reason}); name the store, "
        "export MLFLOW_TRACKING_URI=sqlite:////path/to/mlflow.db, or give the model's directory"
    )


def _find_place(uri: str) -> Path | None:
    """The file or folder of a local store; None for a server, or another database."""
    if uri.startswith(SQLITE):
        name = uri.removeprefix(SQLITE).partition("?")[0]
        return Path(name) if name else None
    parts = urlsplit(uri)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    return Path(uri) if not parts.scheme else None
