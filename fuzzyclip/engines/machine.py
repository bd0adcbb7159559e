"""What an answer to "which engine is fastest here" holds for: processor, threads, packages."""

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

#: Instructions that decide which engine is fastest, as Linux calls them.
INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_tile", "asimd")
#: Packages that make the file, or run it.
MAKERS = ("torch", "onnx", "onnxscript", "timm", "open_clip_torch")
RUNTIMES = ("torch", "onnxruntime", "openvino")
#: Where Linux says what memory is left, to all and to a container.
MEMORY, GROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")


@cache
def describe_processor() -> dict[str, Any]:
    """Model of the processor, which clouds shorten, its family, and its instructions."""
    facts: dict[str, str] = {}
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        lines = []
    for line in lines:
        name, _, value = line.partition(":")
        facts.setdefault(name.strip(), value.strip())
    family = [facts[name] for name in ("cpu family", "model") if name in facts]
    flags = facts.get("flags", facts.get("Features", "")).split()
    return {
        "model": facts.get("model name") or platform.processor() or platform.machine(),
        "family": ".".join(family),
        "instructions": [name for name in INSTRUCTIONS if name in flags],
    }


def describe_machine() -> dict[str, Any]:
    """The processor, PyTorch's threads and the runtimes' versions, as plain data."""
    return {
        "processor": describe_processor(),
        "threads": torch.get_num_threads(),
        "versions": find_versions(RUNTIMES),
    }


def find_free_memory() -> int | None:
    """Bytes that this process may still take, by Linux and its container; None elsewhere."""
    free = []
    with suppress(OSError, ValueError):
        for line in MEMORY.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                free.append(1024 * int(line.split()[1]))
    with suppress(OSError, ValueError):  # of a container's limit; without one it is the word max
        limit, used = (int((GROUP / name).read_text()) for name in ("memory.max", "memory.current"))
        free.append(max(0, limit - used))
    return min(free, default=None)


def find_versions(packages: Sequence[str]) -> dict[str, str | None]:
    """Versions by package; None of one that is not installed."""
    return {name: _find_version(name) for name in packages}


def _find_version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def name_facts(facts: Mapping[str, Any]) -> str:
    """Sixteen digits of plain data, for the names of files that hold for it alone."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
