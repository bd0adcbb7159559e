"""Files of a training: the checkpoint it resumes from and its curve."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from fuzzyclip.method.training import CurveRow
from fuzzyclip.utils.files import write_csv
from stages import paths


def checkpoint_path(key: str, header: dict[str, Any], cluster: int) -> Path:
    """Where a killed training goes on from; the name changes with all that changes its result."""
    manifest = paths.auxiliary(key).read_text()
    said = json.dumps([header, manifest, cluster, torch.__version__], sort_keys=True)
    digest = hashlib.sha256(said.encode()).hexdigest()
    return paths.SCRATCH / f"{header['kind']}-{key}-{cluster}-{digest[:16]}.pt"


def write_curve(path: Path, rows: list[CurveRow]) -> None:
    """A training curve as CSV, one row a step, six digits."""
    write_csv(path, pd.DataFrame(rows), "%.6g")
