"""`make sbom`: what is installed, and the weights that come along, as CycloneDX JSON.

    .trust/bin/python -m tools.supply.sbom .venv/bin/python sbom.json

cyclonedx-py lists the packages of an environment with name, version, licence and purl; it knows no
hashes of archives, since an installed package does not. Added are the weights of the sample's CLIP
with their SHA-256. The same environment gives the same bytes: no time, no serial number, no path.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from fuzzyclip.utils.files import compute_sha256, write_json

VERSION = "1.6"  # of CycloneDX
WEIGHTS = Path("fuzzyclip/sample/weights")
#: Of these a model is made; what else lies there says how it was made.
WEIGHT_FILES = ("model.json", "model.safetensors")
WEIGHTS_REF = "fuzzyclip-sample-clip"


class SbomError(ValueError):
    """A bill of materials that can not be made, or would say what it must not."""


def list_environment(python: Path, project: Path) -> dict[str, Any]:
    """The packages of an environment, as cyclonedx-py lists them.

    Args:
        python: the environment's interpreter.
        project: pyproject.toml of what the environment is for.

    Raises:
        SbomError: it can not be listed; says why.
    """
    command = [
        sys.executable, "-m", "cyclonedx_py", "environment", str(python),
        "--pyproject", str(project), "--output-reproducible", "--spec-version", VERSION,
        "--output-format", "JSON", "--no-validate",
    ]  # fmt: skip
    # what PYTHONPATH adds is not installed
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no word why"])[-1]
        raise SbomError(f"{python}: cyclonedx-py can not list it ({reason})")
    listed: dict[str, Any] = json.loads(done.stdout)
    return listed


def finish(bom: dict[str, Any], root: Path) -> dict[str, Any]:
    """A bill with the weights in `root`, a checkout, and without addresses.

    Addresses are packages' own words and no part of what is installed; a package that was installed
    from a folder or an index of one's own would name that.
    """
    for component in [*bom["components"], *bom["metadata"]["tools"]["components"]]:
        component.pop("externalReferences", None)
    product = bom["metadata"]["component"]
    bom["components"].append(describe_weights(root, product["version"]))
    bom["dependencies"].append({"ref": WEIGHTS_REF})
    for entry in bom["dependencies"]:
        if entry["ref"] == product["bom-ref"]:
            entry["dependsOn"] = sorted([*entry.get("dependsOn", []), WEIGHTS_REF])
    return bom


def describe_weights(root: Path, version: str) -> dict[str, Any]:
    """The sample's CLIP as a component of CycloneDX, its files inside."""
    files = [
        {
            "bom-ref": f"{WEIGHTS_REF}/{name}",
            "type": "file",
            "name": (WEIGHTS / name).as_posix(),
            "hashes": [{"alg": "SHA-256", "content": compute_sha256(root / WEIGHTS / name)}],
        }
        for name in WEIGHT_FILES
    ]
    return {
        "bom-ref": WEIGHTS_REF,
        "type": "machine-learning-model",
        "name": "FuzzyCLIP sample CLIP",
        "version": version,
        "description": "A small CLIP pretrained on drawn parts, which the sample uses",
        "licenses": [{"license": {"id": "MIT", "acknowledgement": "declared"}}],
        "components": files,
    }


def check(bom: dict[str, Any], private: tuple[str, ...]) -> None:
    """Refuse a bill that is not CycloneDX, or that tells of this machine.

    Args:
        private: what must not stand in it: paths, names of hosts.

    Raises:
        SbomError: says what is wrong.
    """
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    text = json.dumps(bom)
    if told := [name for name in (*private, "file://") if name in text]:
        raise SbomError(f"the bill would tell of this machine: {', '.join(told)}")
    if fault := JsonStrictValidator(SchemaVersion.from_version(VERSION)).validate_str(text):
        raise SbomError(f"not valid CycloneDX {VERSION}: {fault.data}")


def main(python: Path, out: Path) -> None:
    """Write the bill of an environment, for the checkout that is the working directory."""
    root = Path.cwd()
    bom = finish(list_environment(python, root / "pyproject.toml"), root)
    check(bom, (str(root), str(Path.home()) + "/", str(Path(sys.prefix).resolve())))
    write_json(out, bom)
    print(f"{out}: {len(bom['components'])} components, CycloneDX {VERSION}, valid")


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), Path(sys.argv[2]))
    except (ValueError, OSError) as error:
        raise SystemExit(str(error)) from error
