"""check: params.yaml as a whole, before any other stage.

Its keys become the names of outputs, and DVC removes a stage's outputs before it starts the stage:
too late for that stage to see that its key leads elsewhere. So all wait for the file of this one.
"""

from fuzzyclip.utils.files import write_json
from stages import paths
from stages.params import load_params
from stages.run import run_stage

PARAMS = ("auxiliary", "backbones", "datasets", "methods", "pairs")


def main() -> None:
    """Make data/keys.json, the same whenever params.yaml is valid: nothing reruns for it."""
    load_params(PARAMS)
    write_json(paths.KEYS, {"checked": PARAMS})


if __name__ == "__main__":
    run_stage("check", main, keyed=False)
