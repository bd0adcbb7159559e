"""method_code: what code makes each method's results, as a digest, and which CLIP.

A method's stages depend on its file alone. DVC would need the list of each method's own modules,
and with one list for all a change of one method would run every other again; so it is with
`backbones`, of which a method uses one.
"""

import hashlib

from fuzzyclip.utils.files import compute_sha256, write_json
from stages import paths
from stages.imports import ROOT, close, find_module, leave_plumbing
from stages.params import load_params
from stages.run import run_stage

PARAMS = ("methods", "backbone", "backbones")
#: The stage whose results they are.
STAGE = "stages/method_test.py"


def main() -> None:
    """Make metrics/method_code."""
    params = load_params(PARAMS)
    for method, block in params.methods.items():
        key = block.choose_backbone(params.backbone)
        clip = {"key": key} | params.backbones[key].model_dump(mode="json")
        write_json(paths.method_code(method), describe(method) | {"backbone": clip})


def describe(method: str) -> dict[str, object]:
    """Modules that a method's results depend on, and one digest of them all.

    Raises:
        ValueError: the method has no module.
    """
    module = find_module(f"fuzzyclip.baselines.{method}")
    if module is None:
        raise ValueError(
            f"methods.{method}: there is no fuzzyclip/baselines/{method}.py; a method is a module "
            "of that folder (docs/methods.md)"
        )
    modules = leave_plumbing(close(STAGE, module))
    digest = hashlib.sha256()
    for path in modules:
        digest.update(f"{path} {compute_sha256(ROOT / path)}\n".encode())
    return {"sha256": digest.hexdigest(), "modules": modules}


if __name__ == "__main__":
    run_stage("method_code", main, keyed=False)
