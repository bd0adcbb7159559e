"""check: params.yaml as a whole, and whether dvc.lock is one, before any other stage.

Its keys become the names of outputs, and DVC removes a stage's outputs before it starts the stage:
too late for that stage to see that its key leads elsewhere. So all wait for the file of this one.
"""

from fuzzyclip.utils.files import write_json
from stages import paths
from stages.params import read_params
from stages.run import run_stage
from stages.yaml_file import YamlError, read_yaml


def main() -> None:
    """Make data/keys.json, the same whenever params.yaml is valid: nothing reruns for it."""
    check_lock()
    read_params()
    write_json(paths.KEYS, {"checked": paths.PARAMS.name})


def check_lock() -> None:
    """Refuse a dvc.lock that ends too early: DVC writes it in its place, which a kill can cut off.

    DVC itself does not say what mends it. One that was cut between two stages is as good as one
    before the second.

    Raises:
        YamlError: says so.
    """
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA
    from voluptuous import Invalid

    if not paths.LOCK.exists():
        return
    try:
        COMPILED_LOCKFILE_SCHEMA(read_yaml(paths.LOCK))
    except (YamlError, Invalid) as error:
        raise YamlError(
            f"{paths.LOCK} ends too early, as after a kill while DVC wrote it ({error}): "
            f"`git checkout -- {paths.LOCK}`, and the same command goes on; what has run since "
            "comes from DVC's cache"
        ) from error


if __name__ == "__main__":
    run_stage(check=main)
