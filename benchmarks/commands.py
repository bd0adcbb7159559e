"""Seconds of the commands that are typed most: `python benchmarks/commands.py`, in a checkout.

The median of five runs each, after one that warms up. `dvc repro` is timed where it has nothing to
do; anything else is refused. Prints a line: name, seconds, goal. What takes longest to import is
named where an import misses its goal.
"""

import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

FOLDER = Path(sys.executable).parent
#: Name, command, seconds that it may take.
COMMANDS = (
    ("import", (sys.executable, "-c", "import fuzzyclip"), 0.2),
    ("help", (str(FOLDER / "fuzzyclip"), "--help"), 0.3),
    ("repro-track", (str(FOLDER / "dvc"), "repro", "track"), 2.0),  # FuzzyCLIP alone
    ("repro", (str(FOLDER / "dvc"), "repro"), 2.0),
)
#: What Python imports for the commands that have to start fast.
IMPORTS = {"import": "fuzzyclip", "help": "fuzzyclip.cli"}
ROUNDS, SHOWN = 5, 5


def run(command):
    """The output of a command; stages find the environment's own Python."""
    path = os.pathsep.join((str(FOLDER), os.environ["PATH"]))
    environment = os.environ | {"PATH": path, "DVC_NO_ANALYTICS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
    return done.stdout


def check_pipeline():
    """End here unless `dvc repro` has nothing to do."""
    if not Path("dvc.yaml").is_file():
        sys.exit("no dvc.yaml here: change into a checkout")
    planned = run([*COMMANDS[-1][1], "--dry"])
    waiting = [line for line in planned.splitlines() if line.startswith("Running stage")]
    if waiting:
        sys.exit(
            f"the pipeline is not up to date ({len(waiting)} stages would run, the first: "
            f"{waiting[0]}): run dvc repro first"
        )


def measure(command):
    """Seconds of five runs, after one that warms up."""
    run(command)
    seconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        run(command)
        seconds.append(time.perf_counter() - start)
    return seconds


def list_imports(module):
    """The modules that take longest by themselves: milliseconds and name."""
    command = [sys.executable, "-X", "importtime", "-c", f"import {module}"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stderr.splitlines()
    fields = [line.removeprefix("import time:").split("|") for line in lines[1:]]
    return sorted(((int(own) / 1000, name.strip()) for own, _, name in fields), reverse=True)


def main():
    check_pipeline()
    for name, command, goal in COMMANDS:
        seconds = measure(command)
        print(f"  {name}: {', '.join(f'{second:.2f}' for second in seconds)} s")
        print(f"command-{name:8} {median(seconds):.2f}  goal at most {goal} (seconds)", flush=True)
        if median(seconds) > goal and name in IMPORTS:
            slowest = list_imports(IMPORTS[name])[:SHOWN]
            print("  longest imports: " + ", ".join(f"{what} {ms:.0f} ms" for ms, what in slowest))


if __name__ == "__main__":
    main()
