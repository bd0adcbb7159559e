"""Files of a training: the checkpoint it goes on from, what was learned, its curve."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from fuzzyclip.clip.backbone import Backbone
from fuzzyclip.method.training import CurveRow
from fuzzyclip.utils.files import write_csv
from stages import paths


def checkpoint_path(key: str, header: Mapping[str, Any], cluster: int = 0) -> Path:
    """Where a killed training goes on from; the name changes with all that changes its result."""
    manifest = paths.auxiliary(key).read_text()
    content = json.dumps([header, manifest, cluster, torch.__version__], sort_keys=True)
    digest = hashlib.sha256(content.encode()).hexdigest()
    return paths.SCRATCH / f"{header['kind']}-{key}-{cluster}-{digest[:16]}.pt"


def write_curve(path: Path, rows: Sequence[CurveRow]) -> None:
    """A training curve as CSV, one row a step, six digits."""
    write_csv(path, pd.DataFrame(rows), "%.6g")


def check_trained(path: Path, header: Mapping[str, Any], dataset: str, backbone: Backbone) -> None:
    """Refuse what was trained on the tested data, or for another CLIP.

    Args:
        path: of what was trained.
        header: of that file.
        dataset: that is to be tested on.
        backbone: the frozen CLIP that features come from.

    Raises:
        ValueError: names the file and what to do.
    """
    if dataset in header["datasets"]:
        raise ValueError(
            f"{path} was trained on {dataset}; evaluating it there would not be zero-shot. Choose "
            f"another auxiliary set in pairs.{dataset}"
        )
    if header["backbone"] != backbone.fingerprint:
        raise ValueError(f"{path} was trained with another backbone; train it again (dvc repro)")
