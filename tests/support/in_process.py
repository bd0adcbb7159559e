"""Stages run in this process, one after the other: what they compute, without DVC around them.

`tests/stages/test_pipeline.py` runs the same stages once as DVC does.
"""

import importlib
import os
import shutil
from pathlib import Path

from pipelines import change_params


def copy_pipeline(source, folder):
    """All files of a finished pipeline, the cache and the tracker's store among them."""
    shutil.copytree(source, folder, symlinks=True)
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
    before = Path.cwd()
    os.chdir(folder)
    try:
        for stage in stages:
            name, _, keys = stage.partition("@")
            main = importlib.import_module(f"stages.{name}").main
            main(*keys.split(",") if keys else ())
    finally:
        os.chdir(before)
