"""Changes of results by each type of stored tokens: `python benchmarks/token_types.py`.

Runs the whole pipeline of this checkout once for each type, as `dvc exp run --temp -S
features.dtype=...`, which leaves the work tree alone, and prints the mean metrics of FuzzyCLIP,
as differences from float32, with the size of the store.
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from fuzzyclip.utils.tables import read_table  # noqa: E402

TYPES = ("float32", "float16", "bfloat16", "int8")
SHOWN = ("pixel_auroc", "pixel_ap", "pixel_f1_max", "pixel_aupro", "image_auroc")


def run(*command):
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def measure(dtype):
    """Mean metrics of one type: those of an experiment, which is made where there is none."""
    name = f"tokens-{dtype}"
    if name not in run("dvc", "exp", "list", "--names-only").split():
        run("dvc", "exp", "run", "--temp", "-n", name, "-S", f"features.dtype={dtype}")
    commit = run("git", "rev-parse", "-q", "--verify", find_reference(name)).strip()
    frame = read_table(run("git", "show", f"{commit}:metrics/tables/averages.csv"))
    return frame[frame["variant"] == "fuzzyclip"].iloc[0]


def find_reference(name):
    """The git reference under which DVC keeps an experiment."""
    experiments = run("git", "for-each-ref", "--format=%(refname)", "refs/exps").split()
    return next(reference for reference in experiments if reference.endswith(f"/{name}"))


def main():
    values = {dtype: measure(dtype) for dtype in TYPES}
    print("| type | " + " | ".join(SHOWN) + " |")
    print("|---|" + "---|" * len(SHOWN))
    exact = values["float32"]
    print("| float32 | " + " | ".join(f"{exact[name]:.2f}" for name in SHOWN) + " |")
    for dtype in TYPES[1:]:
        moved = [f"{values[dtype][name] - exact[name]:+.2f}" for name in SHOWN]
        print(f"| {dtype} | " + " | ".join(moved) + " |")


if __name__ == "__main__":
    main()
