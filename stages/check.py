"""check: params.yaml as a whole, before any other stage.

Its keys become the names of outputs, and DVC removes a stage's outputs before it starts the stage:
too late for that stage to see that its key leads elsewhere. So all wait for the file of this one.
"""

from fuzzyclip.utils.files import write_json
from stages import paths
from stages.params import read_params
from stages.run import run_stage


def main() -> None:
    """Make data/keys.json, the same whenever params.yaml is valid: nothing reruns for it."""
    read_params()
    write_json(paths.KEYS, {"checked": paths.PARAMS.name})


if __name__ == "__main__":
    run_stage(check=main)
