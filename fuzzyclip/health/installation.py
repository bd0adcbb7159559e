"""Checks of the installation: Python and packages, device, disk, folder, the pipeline's tools."""

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

NAME = "fuzzyclip"
#: Extras for those who work on FuzzyCLIP itself.
INTERNAL = {"dev"}
#: Extra to its purpose.
PURPOSES = {
    "hf": "tokenizers of SigLIP and MetaCLIP 2",
    "ray": "features and inference on several GPUs and machines",
    "export": "ONNX and OpenVINO files, and faster image towers on CPUs",
    "saa": "the method SAA+",
}
#: Whose versions stand in the answer.
TELLING = ("torch", "open_clip_torch", "timm", "pillow", "numpy")
#: Packages that the pipeline alone needs; the library imports neither.
PIPELINE = ("dvc", "mlflow")
#: Patches, width and class feature's width of the sample's CLIP and of ViT-L/14 at 518 px, and the
#: blocks whose patch tokens are kept.
SAMPLE_TOWER, PAPER_TOWER, BLOCKS = (12 * 12, 128, 128), (37 * 37, 1024, 768), 4
#: `warn`: something optional is missing, or should be known; `fail`: something will not work.
Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Check:
    """The answer of a check: what there is, and advice on what is to be done, a line each."""

    name: str
    status: Status
    found: str
    advice: str = ""


def check_packages() -> list[Check]:
    """Checks of Python, the packages that are needed, and each extra."""
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
    place = f"{version} in {sys.prefix}"
    if SpecifierSet(bounds).contains(version, prereleases=True):
        return Check("python", "ok", place)
    advice = f"install Python {bounds} and make an environment with it"
    return Check("python", "fail", place, advice)


def _check_needed(own_version: str) -> Iterator[Check]:
    """Checks of what is always needed: one for each fault, or one for all."""
    wanted = list(_list_requirements(NAME, ""))
    faults = {str(need): fault for need in wanted if (fault := _find_fault(need))}
    for need, fault in faults.items():
        yield Check("packages", "fail", fault, f"pip install '{need}'")
    if not faults:
        there = {need.name for need in wanted}
        versions = [f"{name} {metadata.version(name)}" for name in TELLING if name in there]
        state = f"{NAME} {own_version}, {len(wanted)} packages within bounds: {', '.join(versions)}"
        yield Check("packages", "ok", state)


def _check_extra(extra: str) -> Check:
    """The check of an optional group: there, not there, or there in part."""
    name = f"extra {extra}"
    wanted = list(_list_requirements(NAME, extra))
    faults = [fault for need in wanted if (fault := _find_fault(need))]
    if not faults:
        versions = [f"{need.name} {metadata.version(need.name)}" for need in wanted]
        return Check(name, "ok", ", ".join(versions))
    purpose = f" ({PURPOSES[extra]})" if extra in PURPOSES else ""
    return Check(name, "warn", f"{'; '.join(faults)}{purpose}", f"pip install '{NAME}[{extra}]'")


def _list_requirements(package: str, extra: str) -> Iterator[Requirement]:
    """Requirements of a package here: always (`extra` empty), or for an extra besides."""
    for line in metadata.requires(package) or []:
        requirement = Requirement(line)
        always = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        chosen = requirement.marker is not None and requirement.marker.evaluate({"extra": extra})
        if always if not extra else chosen and not always:
            yield requirement


def _find_fault(requirement: Requirement) -> str:
    """The fault of an installed package; empty if it has none."""
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return f"{requirement.name} is not installed"
    if not requirement.specifier.contains(version, prereleases=True):
        return f"{requirement.name} is {version}, needed is {requirement.specifier}"
    for extra in requirement.extras:
        for inner in _list_requirements(requirement.name, extra):
            if fault := _find_fault(inner):
                return fault
    return ""


def check_device() -> list[Check]:
    """The check of the device that `auto` chooses, with a multiplication there."""
    import torch

    from fuzzyclip.clip.backbone import choose_device

    device = choose_device()
    values = torch.ones(2, 2, device=device)
    if float((values @ values).sum()) != 8:
        return [Check("device", "fail", f"{device} computes wrongly", "use --device cpu")]
    hardware = (
        f"auto takes {device}, {torch.get_num_threads()} threads of {os.cpu_count()} processors"
    )
    if device.type == "cuda":
        about = torch.cuda.get_device_properties(device)
        hardware += f"; {about.name}, {about.total_memory / 1e9:.0f} GB, CUDA {torch.version.cuda}"
    if device.type == "cpu" and shutil.which("nvidia-smi"):
        why = "built without CUDA" if torch.version.cuda is None else "does not find the driver"
        hardware += f"; there is a GPU, but PyTorch is {why}"
        advice = "install PyTorch for the GPU's CUDA (pytorch.org), or update the driver"
        return [Check("device", "warn", hardware, advice)]
    return [Check("device", "ok", hardware)]


def check_folder(folder: Path) -> list[Check]:
    """The check that files can be made in the working folder."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return [Check("folder", "ok", f"{folder} is writable")]
    except OSError as error:
        state = f"{folder} is not writable ({error.strerror})"
        return [Check("folder", "fail", state, "change into a folder of yours")]


def check_pipeline(folder: Path) -> list[Check]:
    """The check of git, DVC and MLflow, which also tells whether a folder is a checkout."""
    inside = (folder / "dvc.yaml").is_file() and (folder / "stages").is_dir()
    place = "in a checkout" if inside else "not in a checkout: the pipeline's commands need one"
    missing = [name for name in PIPELINE if find_spec(name) is None]
    missing += [] if shutil.which("git") else ["git"]
    if missing:
        state = f"{', '.join(missing)} not found; {place}"
        return [Check("pipeline", "warn", state, f"install {' and '.join(missing)}")]
    return [Check("pipeline", "ok", f"git, {', '.join(PIPELINE)}; {place}")]


def check_disk(folder: Path, images: int) -> list[Check]:
    """The check of free space against what features of so many test images need in a folder."""
    from fuzzyclip.features.shards import count_bytes
    from fuzzyclip.features.store import SPARE_BYTES

    free = shutil.disk_usage(folder).free
    sample, paper = (
        images * (count_bytes(BLOCKS * patches, width, "float16") + 4 * embed_dim)
        for patches, width, embed_dim in (SAMPLE_TOWER, PAPER_TOWER)
    )
    state = f"{_to_gb(free)} free"
    if images:
        state += f"; features of {images} test images take {_to_gb(sample)} by the sample CLIP, "
        state += f"{_to_gb(paper)} by ViT-L/14 at 518 px"
    if free - SPARE_BYTES < sample:
        return [Check("disk", "fail", state, f"make room, or work on another disk than {folder}'s")]
    if free - SPARE_BYTES < paper:
        advice = "for ViT-L/14 make room, or set features.tokens to auxiliary or none, or "
        return [Check("disk", "warn", state, f"{advice}features.dtype to int8 (half)")]
    return [Check("disk", "ok", state)]


def _to_gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
