"""Where a model is: a directory, or an address of MLflow.

MLflow is imported only where an address asks for it.
"""

import re
from pathlib import Path

from fuzzyclip.model.card import FILENAME, ModelError

#: `models:/name/1`, `runs:/id/model`, `mlflow-artifacts:/...`, `s3://...`
ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+:/")


def find_folder(source: str | Path) -> Path:
    """The directory of a model, fetched first where `source` is an address.

    Args:
        source: a directory; or an address that MLflow understands, of a model that was logged there
            or of a plain directory. MLFLOW_TRACKING_URI says which server or store.

    Raises:
        ModelError: MLflow does not find it, or it is no model of ours.
    """
    if not ADDRESS.match(str(source)):
        return Path(source)
    import mlflow

    try:
        fetched = Path(mlflow.artifacts.download_artifacts(str(source)))
    except Exception as error:
        raise ModelError(f"{source}: MLflow does not find it ({error})") from error
    for folder in (fetched, *sorted(fetched.glob("artifacts/*"))):
        if (folder / FILENAME).is_file():
            return folder
    raise ModelError(f"{source}: no FuzzyCLIP model there ({FILENAME} is missing)")
