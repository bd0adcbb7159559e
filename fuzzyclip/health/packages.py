"""Python and the packages, against what the installed FuzzyCLIP says it needs."""

import platform
import sys
from collections.abc import Iterator
from importlib import metadata

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from fuzzyclip.health.check import Check

NAME = "fuzzyclip"
#: Extras for those who work on FuzzyCLIP itself.
INTERNAL = {"dev"}
#: What an extra is for.
PURPOSES = {
    "hf": "tokenizers of SigLIP and MetaCLIP 2",
    "ray": "features and inference on several GPUs and machines",
    "export": "ONNX and OpenVINO files",
    "saa": "the method SAA+",
}
#: Whose versions stand in the answer.
TELLING = ("torch", "open_clip_torch", "timm", "pillow", "numpy")


def check_packages() -> list[Check]:
    """Python, the packages that are needed, and each extra."""
    try:
        own = metadata.metadata(NAME)
    except metadata.PackageNotFoundError:
        advice = "install it: pip install -e . in a checkout"
        return [Check("packages", "fail", f"{NAME} runs without being installed", advice)]
    extras = [name for name in own.get_all("Provides-Extra") or [] if name not in INTERNAL]
    return [
        _check_python(own["Requires-Python"] or ""),
        *_check_needed(own["Version"]),
        *(_check_extra(name) for name in extras),
    ]


def _check_python(bounds: str) -> Check:
    version = platform.python_version()
    found = f"{version} in {sys.prefix}"
    if SpecifierSet(bounds).contains(version, prereleases=True):
        return Check("python", "ok", found)
    return Check(
        "python", "fail", found, f"install Python {bounds} and make an environment with it"
    )


def _check_needed(own_version: str) -> Iterator[Check]:
    """What is always needed: each fault, or one line for all."""
    wanted = list(_list_requirements(NAME, ""))
    faults = {str(one): fault for one in wanted if (fault := _find_fault(one))}
    for requirement, fault in faults.items():
        yield Check("packages", "fail", fault, f"pip install '{requirement}'")
    if not faults:
        there = {one.name for one in wanted}
        versions = [f"{name} {metadata.version(name)}" for name in TELLING if name in there]
        found = f"{NAME} {own_version}, {len(wanted)} packages within bounds: {', '.join(versions)}"
        yield Check("packages", "ok", found)


def _check_extra(extra: str) -> Check:
    """An optional group: there, not there, or there in part."""
    name = f"extra {extra}"
    wanted = list(_list_requirements(NAME, extra))
    faults = [fault for one in wanted if (fault := _find_fault(one))]
    if not faults:
        return Check(name, "ok", ", ".join(f"{o.name} {metadata.version(o.name)}" for o in wanted))
    purpose = f" ({PURPOSES[extra]})" if extra in PURPOSES else ""
    return Check(name, "warn", f"{'; '.join(faults)}{purpose}", f"pip install '{NAME}[{extra}]'")


def _list_requirements(package: str, extra: str) -> Iterator[Requirement]:
    """What a package needs on this machine: always (`extra` empty), or for an extra besides."""
    for line in metadata.requires(package) or []:
        requirement = Requirement(line)
        always = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        chosen = requirement.marker is not None and requirement.marker.evaluate({"extra": extra})
        if always if not extra else chosen and not always:
            yield requirement


def _find_fault(requirement: Requirement) -> str:
    """Why an installed package does not do; empty if it does."""
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return f"{requirement.name} is not installed"
    if not requirement.specifier.contains(version, prereleases=True):
        return f"{requirement.name} is {version}, needed is {requirement.specifier}"
    inner = (
        one for extra in requirement.extras for one in _list_requirements(requirement.name, extra)
    )
    return next((fault for one in inner if (fault := _find_fault(one))), "")
