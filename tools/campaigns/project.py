"""A small finished checkout to be hurt: this one's files, few drawn images, short training."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from stages.yaml_file import read_yaml
from stages.yaml_numbers import dump_yaml

ROOT = Path(__file__).resolve().parents[2]
#: What a command of the project would read of a run around it, or of the machine.
FROM_OUTSIDE = ("MLFLOW_TRACKING_URI", "DVC_ROOT", "DVC_EXP_NAME", "DVC_STAGE", "FUZZYCLIP_MODEL")
#: Where the project's model lies.
MODEL = "models/visa/fuzzyclip"
#: Images to inspect, and normal ones to calibrate with.
PARTS = "data/raw/sdd/electrical commutators/defect"
GOOD = "data/raw/visa/capsules/Data/Images/Normal"
#: A name that a file has until it is whole. Git, DVC and MLflow clean up after themselves.
TEMPORARY = re.compile(r"\..+\.tmp|\..*\.download|\.sample-.*|\..+\.part|tmp\w{8}")
NOT_OURS = (".git", ".dvc", "mlartifacts", "__pycache__")


class CampaignError(RuntimeError):
    """The campaign itself can not go on; says why."""


@dataclass(frozen=True)
class Project:
    """A checkout, and how its commands run.

    Attributes:
        folder: its root.
        environment: of its commands, over this process'.
    """

    folder: Path
    environment: Mapping[str, str]

    def start(self, command: Sequence[str], **variables: str) -> "subprocess.Popen[str]":
        """Start a command in a process group of its own; its output is one text."""
        own = {name: text for name, text in os.environ.items() if name not in FROM_OUTSIDE}
        return subprocess.Popen(
            command, cwd=self.folder, env=own | dict(self.environment) | variables, text=True,
            errors="backslashreplace", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    def run(self, *command: str) -> str:
        """Run a command to its end; its output.

        Raises:
            CampaignError: it failed.
        """
        process = self.start(command)
        output, _ = process.communicate()
        if process.returncode:
            raise CampaignError(f"{' '.join(command)} failed, unhurt:\n{output[-4000:]}")
        return output

    def digest(self, *paths: str) -> dict[str, str]:
        """SHA-256 of every file of some outputs, by path below the folder."""
        digests = {}
        for path in map(self.folder.joinpath, paths):
            for file in [path] if path.is_file() else sorted(path.rglob("*")):
                if file.is_file():
                    content = hashlib.sha256(file.read_bytes()).hexdigest()
                    digests[file.relative_to(self.folder).as_posix()] = content
        return digests

    def find_leftovers(self) -> list[str]:
        """Temporary names that nobody has removed."""
        names = []
        for top, folders, files in os.walk(self.folder):
            folders[:] = [name for name in folders if name not in NOT_OURS]
            inside = Path(top).relative_to(self.folder)
            names += [
                (inside / name).as_posix()
                for name in (*folders, *files)
                if TEMPORARY.fullmatch(name)
            ]
        return sorted(names)


def make_project(folder: Path) -> Project:
    """A finished pipeline of two datasets with a few images each; one that is there is taken.

    Raises:
        CampaignError: the pipeline does not run.
    """
    finished = (folder / "dvc.lock").is_file()
    if not finished:
        copy_files(folder)
        shrink(folder / "params.yaml")
    nothing = folder / ".git" / "nothing"
    project = Project(
        folder,
        {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(folder),  # whatever is installed, this copy's files run
            "PYTHONDONTWRITEBYTECODE": "1",
            "DVC_NO_ANALYTICS": "1",
            "DVC_GLOBAL_CONFIG_DIR": str(nothing),
            "DVC_SYSTEM_CONFIG_DIR": str(nothing),
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "XDG_CACHE_HOME": str(folder / "cache"),
            "GIT_AUTHOR_NAME": "campaign", "GIT_AUTHOR_EMAIL": "campaign@localhost",
            "GIT_COMMITTER_NAME": "campaign", "GIT_COMMITTER_EMAIL": "campaign@localhost",
        },
    )  # fmt: skip
    if finished:
        return project
    project.run("git", "init", "--quiet")
    project.run("git", "add", "--all")
    project.run("git", "commit", "--quiet", "--message", "start")
    project.run("dvc", "repro", "--quiet", "track")
    project.run("git", "add", "dvc.lock", "metrics")
    project.run("git", "commit", "--quiet", "--message", "results")
    return project


def copy_files(folder: Path) -> None:
    """What git tracks of this checkout, as it stands, without results."""
    tracked = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\0")
    for name in filter(None, tracked):
        if name.startswith(("metrics/", "docs/", "tests/")) or name == "dvc.lock":
            continue
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / name)


def shrink(path: Path) -> None:
    """VisA to KolektorSDD with a few images, three categories of VisA, short training."""
    params = read_yaml(path)
    params["datasets"] = {name: params["datasets"][name] for name in ("visa", "sdd")}
    params["datasets"]["visa"]["categories"] = ["capsules", "pcb1", "pcb2"]
    params["auxiliary"], params["pairs"] = {"visa": ["visa"]}, {"sdd": "visa"}
    params["sample"] |= {"train_normal": 1, "test_normal": 6, "test_anomalous": 6}
    params["efa"]["train"]["epochs"] = params["rpl"]["epochs"] = 4
    for block in params["methods"].values():
        block |= {"epochs": 1} if "epochs" in block else {}
    path.write_text(dump_yaml(params), encoding="utf-8")


@contextmanager
def kept_outputs(project: Project, *paths: str) -> Iterator[None]:
    """Put outputs back, as they were, when the block ends, however it ends."""
    aside = project.folder.with_name(f"{project.folder.name}.aside")
    for path in paths:
        copy(project.folder / path, aside / path)
    try:
        yield
    finally:
        for path in paths:
            remove(project.folder / path)
            copy(aside / path, project.folder / path)
        remove(aside)


def copy(source: Path, target: Path) -> None:
    """Copy a file or folder with its links and modes; nothing where there is none."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True)
    elif source.exists():
        shutil.copy2(source, target)


def remove(path: Path) -> None:
    """Remove a file or folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
