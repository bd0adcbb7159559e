"""Temporary git and DVC repositories in which the pipeline runs as a user runs it.

Or its stages in this process, one after the other: what they compute, without DVC around them.
"""

import importlib
import os
import shutil
import subprocess
import sys
from contextlib import chdir
from pathlib import Path
from unittest.mock import patch

import yaml
from imports import ROOT
from mlflow.tracking import MlflowClient
from trees import MASK, write_images, write_picture

from stages.yaml_numbers import dump_yaml

#: Where the stages of other methods begin; they are the last ones of dvc.yaml.
FIRST_OF_METHODS = "\n  # The methods that FuzzyCLIP is compared with"
#: What a stage would read of a run around it, or of this machine's tracker.
FROM_OUTSIDE = ("MLFLOW_TRACKING_URI", "DVC_ROOT", "DVC_EXP_NAME", "DVC_EXP_BASELINE_REV")
#: Module and main function of the stages that share a module with another.
MAINS = {
    "features": ("features", "make_tokens"),
    "views": ("features", "make_view"),
    "evaluate": ("evaluate", "evaluate_own"),
    "evaluate_baseline": ("evaluate", "evaluate_baseline"),
    "track": ("track", "track_own"),
    "baselines": ("track", "track_baselines"),
}
#: Branch of a finished pipeline: what others do in its work tree moves `HEAD`, not this.
DONE = "done"
#: Entry of own images in `mine`.
OWN = {
    "kind": "folder", "path": "mine", "urls": None, "sha256": None, "protocol": "auto",
    "categories": None, "counts": "any", "mask_above": 0, "names": "raw",
}  # fmt: skip


def copy_checkout(folder, *, without=()):
    """What git tracks of this checkout or would track, as it stands, in another folder."""
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    for name in tracked:
        if (ROOT / name).is_file() and not name.startswith(without):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    return folder


def make_repository(folder, change):
    """A git and DVC repository with the committed files and changed parameters.

    The pipeline is FuzzyCLIP's alone, as in `dvc repro track`.
    """
    copy_checkout(folder, without=("metrics/", "docs/", "tests/", "dvc.lock"))
    own, comment, _ = (folder / "dvc.yaml").read_text().partition(FIRST_OF_METHODS)
    assert comment
    (folder / "dvc.yaml").write_text(own + "\n")
    change_params(folder, change)
    run(folder, "git", "init", "-q")
    commit(folder, "start")
    return folder


def run(folder, *command, fails=False):
    """Run a command as a user would, away from any configuration of this machine."""
    empty = folder / ".git" / "empty"
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "DVC_NO_ANALYTICS": "1",
        "DVC_GLOBAL_CONFIG_DIR": str(empty),
        "DVC_SYSTEM_CONFIG_DIR": str(empty),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a",
        "GIT_COMMITTER_EMAIL": "a@b",
    }  # fmt: skip
    for name in FROM_OUTSIDE:
        environment.pop(name, None)
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    output = done.stdout + done.stderr
    assert (done.returncode != 0) == fails, output
    return output


def ran(output):
    """Stages that DVC really ran."""
    return [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")]


def list_runs(folder):
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("fuzzyclip")
    return client.search_runs([experiment.experiment_id], order_by=["start_time ASC"])


def shrink(params):
    """VisA to KolektorSDD with a few images, three VisA categories, short training."""
    params["datasets"] = {name: params["datasets"][name] for name in ("visa", "sdd")}
    params["datasets"]["visa"]["categories"] = ["capsules", "pcb1", "pcb2"]
    params["auxiliary"] = {"visa": ["visa"]}
    params["pairs"] = {"sdd": "visa"}
    params["sample"] |= {"train_normal": 1, "test_normal": 4, "test_anomalous": 4}
    params["efa"]["train"] |= {"epochs": 8, "learning_rate": 0.001}
    params["efa"]["train"]["mosaic"]["visa"] = 0.3
    params["evaluation"]["overlays"] = 1


def shorten_methods(params):
    """Next to no training of the methods that the paper compares with."""
    for block in params["methods"].values():
        block |= {"epochs": 1} if "epochs" in block else {}


def clone_repository(source, folder, *, cache=True):
    """A clone of its branch `DONE`; with `cache`, its data are those of the source's cache."""
    run(source, "git", "clone", "-q", "--branch", DONE, ".", str(folder))
    if cache:
        known = run(source, "dvc", "cache", "dir").strip()  # of a clone, that of its own source
        run(folder, "dvc", "cache", "dir", "--local", known)
        run(folder, "dvc", "checkout")
    return folder


def change_params(folder, change):
    """Edit params.yaml as a person would."""
    params = yaml.safe_load((folder / "params.yaml").read_text())
    change(params)
    (folder / "params.yaml").write_text(dump_yaml(params))


def commit(folder, message):
    run(folder, "git", "add", "-A")
    run(folder, "git", "commit", "-qm", message)


def make_own_images(folder: Path) -> None:
    """Two categories, one with masks and one without."""
    for number, name in enumerate(("bracket black", "hinge")):
        write_images(folder / name / "good", ["0.png", "1.JPG", "2.bmp"], 10 * number)
        write_images(folder / name / "scratch", ["0.png", "1.png"], 10 * number + 5)
    for number in range(2):
        write_picture(folder / f"hinge/ground_truth/scratch/{number}_mask.png", MASK)


def copy_pipeline(source, folder):
    """A copy of a finished pipeline with the stages of all methods, its cache included.

    Without the tracker's store, which knows its artifacts by their place.
    """
    ignored = shutil.ignore_patterns("mlflow.db*", "mlartifacts")
    shutil.copytree(source, folder, symlinks=True, ignore=ignored)
    shutil.copyfile(ROOT / "dvc.yaml", folder / "dvc.yaml")
    return folder


def run_stages(folder, *stages, change=None):
    """Run stages as DVC would, by `name` or `name@key`; `change` edits params.yaml first."""
    if change is not None:
        change_params(folder, change)
    with chdir(folder), patch.dict(os.environ):
        for name in FROM_OUTSIDE:
            os.environ.pop(name, None)
        for stage in stages:
            name, _, key = stage.partition("@")
            module, function = MAINS.get(name, (name, "main"))
            main = getattr(importlib.import_module(f"stages.{module}"), function)
            main(*[key] if key else ())
