"""What an ordinary user may not read or write: every command says so and leaves the rest alone.

A superuser is stopped by no permission; there the commands run without that power (setpriv of
util-linux), so that the campaign means the same for everybody.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.campaigns.kills import CLI, REPRO
from tools.campaigns.project import (
    GOOD,
    MODEL,
    PARTS,
    CampaignError,
    Project,
    kept_outputs,
    make_project,
    remove,
)

POWERLESS = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--")
#: Exit code of predict and calibrate where some images could not be read.
SOME_UNREADABLE = 3


@dataclass(frozen=True)
class Case:
    """One thing that is forbidden.

    Attributes:
        command: what is tried.
        place: what loses permissions; the first that the pattern names.
        mode: its permissions then.
        code: exit code that says so; 0 where the command needs no more than it has.
        named: whether the message must name the place.
    """

    command: Sequence[str]
    place: str
    mode: int
    code: int = 1
    named: bool = True


PREDICT = (*CLI, "predict", PARTS, "--model", MODEL, "--category", "part", "--out", "out/p")
CALIBRATE = (*CLI, "calibrate", "--model", MODEL, "--category", "capsule", "--good", GOOD,
             "--false-alarms", "0.3", "--out", "out/c")  # fmt: skip
EXPORT = (
    *CLI,
    "export",
    "--model",
    MODEL,
    "--category",
    "part",
    "--check",
    PARTS,
    "--out",
    "out/e.onnx",
)
CHECK = (*CLI, "data", "check", "sdd", "data/raw/sdd", "--subset")
CASES = (
    Case(PREDICT, f"{PARTS}/*.png", 0o000, SOME_UNREADABLE),
    Case(PREDICT, PARTS, 0o000),
    Case(PREDICT, "data/raw/sdd", 0o555, 0),
    Case(PREDICT, "out", 0o555),
    Case(PREDICT, f"{MODEL}/model.json", 0o000),
    Case(PREDICT, MODEL, 0o000),
    Case(PREDICT, MODEL, 0o555, 0),
    Case(PREDICT, "cache", 0o555, 0),
    Case(CALIBRATE, f"{GOOD}/*", 0o000, SOME_UNREADABLE),
    Case(CALIBRATE, "out", 0o555),
    Case(CALIBRATE, MODEL, 0o555, 0),
    Case(EXPORT, "out", 0o555),
    Case(EXPORT, MODEL, 0o555, 0),
    Case(CHECK, f"{PARTS}/*.png", 0o000),
    Case(CHECK, PARTS, 0o000),
    Case(CHECK, "data/raw/sdd", 0o555, 0),
    Case((*CHECK, "--write"), "data/raw/sdd", 0o555),
    Case((*REPRO, "features@sdd"), "features/tokens", 0o555),
    Case((*REPRO, "features@sdd"), "data/index/sdd.csv", 0o000),
    Case((*REPRO, "report"), "metrics", 0o555),
    Case((*REPRO, "csp@visa"), "models/visa", 0o555),
    Case((*REPRO, "track"), "mlflow.db", 0o444, 0),  # recorded already: nothing is written
    Case((*REPRO, "track"), "params.yaml", 0o000),
)
#: What the cases may change, put back after each.
TOUCHED = (
    "data",
    "models",
    "features",
    "metrics",
    "report",
    "mlflow.db",
    "params.yaml",
    "dvc.lock",
)


def try_permissions(folder: Path, count: int) -> Iterator[list[str]]:
    """Try `count` of the cases; for each, the faults.

    Raises:
        CampaignError: a superuser's power can not be laid down.
    """
    project = make_project(folder)
    before = POWERLESS if os.geteuid() == 0 else ()
    if before and not shutil.which(before[0]):
        raise CampaignError(f"{before[0]} (util-linux) is needed where a superuser tries this")
    for case in CASES[:count]:
        with kept_outputs(project, *TOUCHED):
            yield try_case(project, case, before)
        remove(project.folder / "out")


def try_case(project: Project, case: Case, before: Sequence[str]) -> list[str]:
    """Take permissions away, run the command, and give them back."""
    (project.folder / "out").mkdir(exist_ok=True)
    (project.folder / "cache").mkdir(exist_ok=True)
    place = min(project.folder.glob(case.place))
    mode = place.stat().st_mode
    kept = list_others(project, place)
    place.chmod(case.mode)
    try:
        process = project.start((*before, *case.command))
        output, _ = process.communicate()
    finally:
        place.chmod(mode)
    shown = place.relative_to(project.folder)
    words = f"{' '.join(case.command)} with {oct(case.mode)} on {shown}"
    faults = []
    if "Traceback" in output:
        faults.append("a traceback")
    exact = "dvc" not in case.command  # DVC has codes of its own for what failed
    wrong = (
        process.returncode != case.code if exact else bool(process.returncode) != bool(case.code)
    )
    if wrong:
        faults.append(f"exit code {process.returncode}, not {case.code}")
    if case.code and case.named and place.name not in output:
        faults.append(f"no word of {place.name}")
    if changed := sorted({name for name, _ in list_others(project, place) ^ kept}):
        faults.append(f"changed {', '.join(changed)[:500]}")
    return [f"{words}: {', '.join(faults)}\n{output[-3000:]}"] if faults else []


def list_others(project: Project, place: Path) -> set[tuple[str, str]]:
    """Inputs and their content, but for what is forbidden: no command may change them."""
    digests = project.digest("data/raw", "params.yaml", f"{MODEL}/model.json")
    return {
        (name, digest)
        for name, digest in digests.items()
        if not (project.folder / name).is_relative_to(place)
    }
