"""Device, disk, working folder, and the tools of the pipeline."""

import os
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path

from fuzzyclip.health.check import Check

#: Packages that the pipeline alone needs; the library imports neither.
PIPELINE = ("dvc", "mlflow")


def check_device() -> list[Check]:
    """What `auto` chooses, and a multiplication there."""
    import torch

    from fuzzyclip.clip.backbone import choose_device

    device = choose_device()
    values = torch.ones(2, 2, device=device)
    if float((values @ values).sum()) != 8:
        return [Check("device", "fail", f"{device} computes wrongly", "use --device cpu")]
    found = f"auto takes {device}, {torch.get_num_threads()} threads of {os.cpu_count()} processors"
    if device.type == "cuda":
        about = torch.cuda.get_device_properties(device)
        found += f"; {about.name}, {about.total_memory / 1e9:.0f} GB, CUDA {torch.version.cuda}"
    if device.type == "cpu" and shutil.which("nvidia-smi"):
        why = "built without CUDA" if torch.version.cuda is None else "does not find the driver"
        advice = "install PyTorch for the GPU's CUDA (pytorch.org), or update the driver"
        return [Check("device", "warn", f"{found}; there is a GPU, but PyTorch is {why}", advice)]
    return [Check("device", "ok", found)]


def check_folder(folder: Path) -> list[Check]:
    """Whether files can be made in the working folder."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return [Check("folder", "ok", f"{folder} is writable")]
    except OSError as error:
        found = f"{folder} is not writable ({error.strerror})"
        return [Check("folder", "fail", found, "change into a folder of yours")]


def check_pipeline(folder: Path) -> list[Check]:
    """Git, DVC and MLflow, and whether a folder is a checkout."""
    inside = (folder / "dvc.yaml").is_file() and (folder / "stages").is_dir()
    place = "in a checkout" if inside else "not in a checkout: the pipeline's commands need one"
    missing = [name for name in PIPELINE if find_spec(name) is None]
    missing += [] if shutil.which("git") else ["git"]
    if missing:
        found = f"{', '.join(missing)} not found; {place}"
        return [Check("pipeline", "warn", found, f"install {' and '.join(missing)}")]
    return [Check("pipeline", "ok", f"git, {', '.join(PIPELINE)}; {place}")]


def check_disk(folder: Path, images: int) -> list[Check]:
    """Free space against what features of the datasets' test images need.

    Args:
        folder: where features are written.
        images: test images of all datasets that are there.
    """
    from benchmarks.costs import VisionShape, count_store_bytes
    from fuzzyclip.features.store import SPARE_BYTES

    free = shutil.disk_usage(folder).free
    sample, paper = (
        count_store_bytes(VisionShape(*shape), 4, "float16", "all", images, auxiliary=0)
        for shape in ((144, 12, 128, 8, 128), (518, 14, 1024, 24, 768))
    )
    found = f"{_to_gb(free)} free"
    if images:
        found += f"; features of {images} test images take {_to_gb(sample)} by the sample CLIP, "
        found += f"{_to_gb(paper)} by ViT-L/14 at 518 px"
    if free - SPARE_BYTES < sample:
        return [Check("disk", "fail", found, f"make room, or work on another disk than {folder}'s")]
    if free - SPARE_BYTES < paper:
        advice = "for ViT-L/14 make room, or set features.tokens to auxiliary or none, or "
        return [Check("disk", "warn", found, f"{advice}features.dtype to int8 (half)")]
    return [Check("disk", "ok", found)]


def _to_gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
