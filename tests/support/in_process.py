"""Stages run in this process, one after the other: what they compute, without DVC around them.

`tests/stages/test_pipeline.py` runs the same stages once as DVC does.
"""

import importlib
import os
import shutil
from contextlib import chdir
from unittest.mock import patch

from imports import ROOT
from pipelines import FROM_OUTSIDE, change_params


def copy_pipeline(source, folder):
    """A copy of a finished pipeline with the stages of all methods, its cache included.

    Without the tracker's store, which knows its artifacts by their place.
    """
    ignored = shutil.ignore_patterns("mlflow.db*", "mlartifacts")
    shutil.copytree(source, folder, symlinks=True, ignore=ignored)
    shutil.copyfile(ROOT / "dvc.yaml", folder / "dvc.yaml")
    return folder


def run_stages(folder, *stages, change=None):
    """Run stages as DVC would, by `name` or `name@key`.

    Args:
        folder: the pipeline's.
        stages: in order.
        change: edits params.yaml first.
    """
    if change is not None:
        change_params(folder, change)
    with chdir(folder), patch.dict(os.environ):
        for name in FROM_OUTSIDE:
            os.environ.pop(name, None)
        for stage in stages:
            name, _, key = stage.partition("@")
            main = find_main(name)
            main(*[key] if key else ())


#: Stages of modules of another name, or of several, by module and function.
ELSEWHERE = {
    "features": ("features", "make_tokens"),
    "views": ("features", "make_view"),
    "evaluate": ("evaluate", "evaluate_own"),
    "evaluate_baseline": ("evaluate", "evaluate_baseline"),
    "track": ("track", "track_own"),
    "baselines": ("track", "track_baselines"),
}


def find_main(stage):
    """The main function of a stage."""
    module, function = ELSEWHERE.get(stage, (stage, "main"))
    return getattr(importlib.import_module(f"stages.{module}"), function)
