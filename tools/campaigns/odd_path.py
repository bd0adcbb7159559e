"""A checkout in a folder with spaces, umlauts, quotes: everything runs there as anywhere else."""

from collections.abc import Iterator
from pathlib import Path

from tools.campaigns.kills import CLI
from tools.campaigns.project import GOOD, MODEL, PARTS, CampaignError, make_project

#: A folder a name.
NAMES = ("Prüf stand/fuzzy clip", "it's 100 %", "a#b;c&d", "日本 [1]")
COMMANDS = (
    ("dvc", "repro", "track", "--quiet"),
    ("dvc", "exp", "run", "-S", "efa.test.sigma=1.0", "track"),
    ("dvc", "exp", "run", "-S", "efa.test.sigma=2.0", "--temp", "track"),
    ("dvc", "exp", "show", "--only-changed"),
    (*CLI, "predict", PARTS, "--model", MODEL, "--category", "part", "--out", "out/parts seen"),
    (*CLI, "calibrate", "--model", MODEL, "--category", "capsule", "--good", GOOD,
     "--false-alarms", "0.3", "--out", "out/new model"),
    (*CLI, "export", "--model", MODEL, "--category", "part", "--check", PARTS,
     "--out", "out/as an onnx.onnx"),
    (*CLI, "data", "check", "sdd", "data/raw/sdd", "--subset"),
    (*CLI, "doctor"),
)  # fmt: skip


def try_paths(folder: Path, count: int) -> Iterator[list[str]]:
    """Run the pipeline and every command in `count` of the folders."""
    for name in NAMES[:count]:
        try:
            project = make_project(folder / name)
        except CampaignError as error:
            yield [f"{name}: {error}"]
            continue
        yield []
        for command in COMMANDS:
            process = project.start(command)
            output, _ = process.communicate()
            # doctor ends with 1 where something could be better, such as a missing extra
            failed = process.returncode and command[-1] != "doctor"
            words = f"{name}: {' '.join(command)}: exit code {process.returncode}"
            yield [f"{words}\n{output[-3000:]}"] if failed or "Traceback" in output else []
