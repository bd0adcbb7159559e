"""Stages run in this process, one after the other: what they compute, without DVC around them.

`tests/stages/test_pipeline.py` runs the same stages once as DVC does.
"""

import importlib
import shutil

import pytest
from pipelines import FROM_OUTSIDE, change_params

#: Beside a finished pipeline, the same as it was when it was finished: nobody works in it.
KEPT = "pipeline-kept"


def keep_pipeline(source):
    """Copy a finished pipeline, its cache included, but not the tracker's store.

    The store knows its artifacts by their place.
    """
    ignored = shutil.ignore_patterns("mlflow.db*", "mlartifacts")
    shutil.copytree(source, source.with_name(KEPT), symlinks=True, ignore=ignored)


def copy_pipeline(source, folder):
    """A copy of a finished pipeline to be changed."""
    kept = source.with_name(KEPT)
    shutil.copytree(kept if kept.is_dir() else source, folder, symlinks=True)
    return folder


def run_stages(folder, *stages, change=None):
    """Run stages as `python -m stages.<name> <key>` would, by `name` or `name@key`.

    Args:
        folder: the pipeline's.
        stages: in order; two keys of a matrix stand apart by a comma.
        change: edits params.yaml first.
    """
    if change is not None:
        change_params(folder, change)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in FROM_OUTSIDE:
            patch.setenv(name, "")  # so that it is as before afterwards, whatever a stage sets
            patch.delenv(name)
        for stage in stages:
            name, _, keys = stage.partition("@")
            main = importlib.import_module(f"stages.{name}").main
            main(*keys.split(",") if keys else ())
