"""Kills: a command is killed at any moment and given again; what it makes must be the same.

Stages run as a user runs them, by DVC, which is killed with them. By SIGKILL nothing is cleaned up;
SIGINT (Ctrl-C) and SIGTERM (a machine that shuts down, a scheduler) must end a command in words.
"""

import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import cycle
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from mlflow.tracking import MlflowClient

from tools.campaigns.project import (
    GOOD,
    MODEL,
    PARTS,
    CampaignError,
    Project,
    make_project,
    remove,
)

SIGNALS = (signal.SIGKILL, signal.SIGINT, signal.SIGTERM)
#: Seconds in which a signal must end a command; PyTorch alone loads for some of them.
PATIENCE = 30
#: Python itself loads for the first part of a command's time, where there is nothing to lose.
LOADING = 0.3
CLI = ("python", "-m", "fuzzyclip.cli")
REPRO = ("dvc", "repro", "--single-item", "--force", "--no-run-cache")
#: A traceback's first line, as Python and those who imitate it write it.
TRACEBACK = re.compile(r"^Traceback \(most recent call last\)", re.MULTILINE)

#: What DVC says of a dvc.lock that a kill has cut off while DVC wrote it.
CUT_OFF = re.compile(r"dvc\.lock' validation failed|dvc\.lock', YAML file structure is corrupted")


@dataclass(frozen=True)
class Target:
    """A command to be killed.

    Attributes:
        command: its words.
        makes: its outputs; all but those of DVC's stages are removed before.
        observe: what it has made, in a form to be compared.
    """

    command: Sequence[str]
    makes: Sequence[str]
    observe: Callable[[Project, Sequence[str]], Any] = lambda project, paths: project.digest(*paths)


def observe_runs(project: Project, paths: Sequence[str]) -> Any:
    """All that the finished runs of a project's MLflow store hold, and runs that seem to go on."""
    del paths
    # in a process of its own: this one would go on reading the file that lay there before
    with ProcessPoolExecutor(1, get_context("spawn")) as alone:
        return alone.submit(read_runs, f"sqlite:///{project.folder / 'mlflow.db'}").result()


def read_runs(store: str) -> dict[str, Any]:
    """What a store's runs hold, by run and name; of each result there must be one."""
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("fuzzyclip")
    runs = client.search_runs([experiment.experiment_id]) if experiment else []
    told: dict[str, Any] = {}
    for number, run in enumerate(run for run in runs if run.info.status == "FINISHED"):
        name = f"{run.info.run_name} ({number})"
        held = {"metrics": run.data.metrics, "params": run.data.params}
        told |= {f"{name} {kind} {key}": held[kind][key] for kind in held for key in held[kind]}
        files = sorted(file.path for file in client.list_artifacts(run.info.run_id))
        told |= {f"{name} files": files, f"{name} models": len(run.outputs.model_outputs)}
    return told | {f"{run.info.run_name} goes on": True for run in runs if is_open(run)}


def is_open(run: Any) -> bool:
    """True for a run that seems to be recorded right now."""
    return bool(run.info.status == "RUNNING")


def observe_names(project: Project, paths: Sequence[str]) -> Any:
    """Files by name: for what holds its own date."""
    return sorted(project.digest(*paths))


def list_targets() -> dict[str, Target]:
    """All commands that make something, by name."""
    images, model = (PARTS, "--model", MODEL, "--category", "part"), ("--model", MODEL)
    good = ("--good", GOOD, "--category", "capsule", "--false-alarms", "0.3")
    stages = {
        "sample": ("data/sample",),
        "download@sdd": ("data/raw/sdd", "data/records/sdd.json"),
        "index@sdd": ("data/index/sdd.csv", "data/index/sdd.json", "data/index/sdd.meta.json"),
        "features@visa": ("features/tokens/visa",),
        "auxiliary@visa": ("data/auxiliary/visa.json",),
        "csp@visa": ("models/visa/partition.json", "metrics/csp/visa.json"),
        "efa@visa": ("models/visa/efa.safetensors", "metrics/curves/efa_visa.csv"),
        "rpl@visa": ("models/visa/rpl.safetensors", "metrics/curves/rpl_visa.csv"),
        "package@visa": (MODEL,),
        "evaluate@sdd": ("results/fuzzyclip/sdd", "metrics/methods/fuzzyclip"),
        "report": ("report", "metrics/plots", "metrics/tables"),
        "page": ("page",),
    }
    return {
        **{name: Target((*REPRO, name), makes) for name, makes in stages.items()},
        "track": Target((*REPRO, "track"), ("mlflow.db", "mlartifacts"), observe_runs),
        "predict": Target(
            (*CLI, "predict", *images, "--report", "--out", "out/predict"), ("out/predict",)
        ),
        "calibrate": Target(
            (*CLI, "calibrate", *model, *good, "--out", "out/calibrate"), ("out/calibrate",)
        ),
        "export": Target(
            (*CLI, "export", *model, "--category", "part", "--check", PARTS,
             "--out", "out/export.onnx"),
            ("out/export.onnx",), observe_names,
        ),
        "prepare": Target(
            (*CLI, "data", "prepare", "sdd", "--path", "data/sample/sdd", "--subset",
             "--allow-unverified", "--offline", "--out", "out/prepare"),
            ("out/prepare",),
        ),
    }  # fmt: skip


def kill_all(folder: Path, count: int, seed: int, only: Sequence[str]) -> Iterator[list[str]]:
    """Kill every command `count` times; for each, the faults, none where nothing was lost."""
    project = make_project(folder)
    targets = list_targets()
    for name in only or targets:
        yield from kill_target(project, name, targets[name], count, random.Random(f"{seed} {name}"))


def kill_target(
    project: Project, name: str, target: Target, count: int, draw: random.Random
) -> Iterator[list[str]]:
    """Kill one command `count` times, by each signal in turn."""
    # behind a shell's `&` this process ignores Ctrl-C, and with it all that it starts
    signal.signal(signal.SIGINT, signal.default_int_handler)
    clear(project, target)
    start = time.monotonic()
    project.run(*target.command)
    seconds = time.monotonic() - start
    wanted = target.observe(project, target.makes)
    for number, sign in zip(range(count), cycle(SIGNALS), strict=False):
        clear(project, target)
        moment = seconds * draw.uniform(LOADING, 1)
        words = f"{name}, kill {number}: {sign.name} after {moment:.1f} of {seconds:.1f} s"
        faults = []
        code, output = kill_once(project, target, sign, moment)
        if sign != signal.SIGKILL and TRACEBACK.search(output):
            faults.append(f"{words}: a traceback\n{output[-3000:]}")
        if code is None:
            faults.append(f"{words}: it went on for {PATIENCE} s\n{output[-3000:]}")
        if code == 0 and target.observe(project, target.makes) != wanted:
            faults.append(f"{words}: it ended well without all that it makes")
        again = project.start(target.command)
        output, _ = again.communicate()
        if CUT_OFF.search(output):
            output = restore_lock(project)
            again = project.start(target.command)
            output += again.communicate()[0]
        if again.returncode:
            faults.append(f"{words}: the same command fails afterwards\n{output[-3000:]}")
        elif (made := target.observe(project, target.makes)) != wanted:
            faults.append(f"{words}: afterwards it makes something else\n{compare(made, wanted)}")
        if leftovers := project.find_leftovers():
            faults.append(f"{words}: left behind {', '.join(leftovers)}")
            for path in leftovers:
                remove(project.folder / path)
        yield faults


def restore_lock(project: Project) -> str:
    """Do what docs/dvc.md says of a dvc.lock that is cut off; what the check says before.

    Raises:
        CampaignError: the check has no word of it.
    """
    check = project.start(("python", "-m", "stages.check"))
    output, _ = check.communicate()
    if not check.returncode or "git checkout -- dvc.lock" not in output:
        raise CampaignError(f"the check does not say how dvc.lock is mended:\n{output[-3000:]}")
    return output + project.run("git", "checkout", "--", "dvc.lock")


def clear(project: Project, target: Target) -> None:
    """Take away what a command makes; of its own stages DVC does that itself."""
    if "dvc" not in target.command or "mlflow.db" in target.makes:
        for path in target.makes:
            remove(project.folder / path)


def kill_once(
    project: Project, target: Target, sign: signal.Signals, moment: float
) -> tuple[int | None, str]:
    """Start a command and send a signal to it and all that it started.

    Returns:
        The exit code, None where the signal did not end it, and the output.
    """
    process = project.start(target.command)
    try:
        output, _ = process.communicate(timeout=moment)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, sign)
        try:
            output, _ = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
            return None, output
    return process.returncode, output


def compare(made: Any, wanted: Any) -> str:
    """What differs, as far as a person reads it."""
    if isinstance(made, dict) and isinstance(wanted, dict):
        keys = [key for key in {**made, **wanted} if made.get(key) != wanted.get(key)]
        lines = [f"{key}: {made.get(key)!r:.300}, not {wanted.get(key)!r:.300}" for key in keys]
        return "\n".join(lines[:20])
    return f"{made!r:.1500}\nin place of\n{wanted!r:.1500}"
