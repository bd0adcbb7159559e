"""The table of `python benchmarks/gpu.py`: rows, the line above, and peaks to compare with."""

import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from math import isfinite

import open_clip
import torch

from benchmarks import costs
from benchmarks.scale_page import CPU, EFFICIENCY, GPUS, build_table, write_number

#: Peaks of docs/scale.md, and those of a card that it does not name (NVIDIA's data sheet, dense).
CARDS = (
    *GPUS,
    costs.Device("H200, bf16", 990e12, 4.8e12, EFFICIENCY),
    costs.Device("H200, TF32", 495e12, 4.8e12, EFFICIENCY),
    costs.Device("H200, fp32", 67e12, 4.8e12, EFFICIENCY),
)
#: Cards of the same number with other peaks, and parts of a card.
OTHERS = re.compile(r"\b(PCIe|NVL|MIG|Ti|Laptop)\b", re.IGNORECASE)
#: What a peak may be called in `CARDS` for each precision; fp16 and bf16 have one peak.
PEAKS = {"bf16": ("bf16", "fp16"), "TF32": ("TF32",), "float32": ("fp32",)}
TINY = "**CPU, tiny sizes: no figure of this is a result.**"
#: Characters of an error that the table repeats.
LONGEST = 120
HEAD = ("measurement", "value", "compared with", "ratio")


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        name: what was measured.
        value: the number; None where it could not be had.
        unit: of it; where there is no number, why.
        against: what it is compared with.
        ratio: the number over what it is compared with.
        failed: whether the check fails with it.
    """

    name: str
    value: float | None
    unit: str = ""
    against: str = ""
    ratio: float | None = None
    failed: bool = False


def tell_failure(title, error):
    """The row of a part that failed: the error's kind and the start of its first line."""
    first = next(iter(str(error).splitlines()), "")[:LONGEST].replace("|", "/")
    return Row(title, None, f"failed: {type(error).__name__} {first}".rstrip(), failed=True)


def bound_gap(name, gap, most):
    """The row of a difference from the CPU's numbers, which fails where rounding is no excuse."""
    bound = f"at most {most:g}" + (": **failed**" if gap > most else "")
    return Row(name, gap, "", bound, gap / most, failed=gap > most)


def check_finite(rows):
    """The same rows; a ValueError names those whose number is none."""
    numbers = [(row.name, number) for row in rows for number in (row.value, row.ratio)]
    if wild := [name for name, number in numbers if number is not None and not isfinite(number)]:
        raise ValueError(f"not finite: {', '.join(dict.fromkeys(wild))}")
    return rows


def write_table(head, rows):
    """The table in Markdown, below a line that says of what machine it is."""
    lines = []
    for row in rows:
        value = "" if row.value is None else write_number(row.value)
        ratio = "" if row.ratio is None else write_number(row.ratio)
        lines.append((row.name, f"{value} {row.unit}".strip(), row.against, ratio))
    return f"{head}\n\n{build_table(HEAD, lines)}\n"


def describe_machine(device, model):
    """The line above the table: card, versions and model; of the CPU, that nothing is a result."""
    made = f"PyTorch {torch.__version__}, open_clip {open_clip.__version__}"
    if device.type == "cpu":
        threads = torch.get_num_threads()
        return f"{TINY} {platform.machine()}, {threads} threads, {made}; {model}, random weights."
    card, cuda = torch.cuda.get_device_name(device), torch.version.cuda
    driver = read_driver()
    return f"**{card}**, driver {driver}, CUDA {cuda}, {made}; {model}, random weights."


def read_driver():
    """Version of NVIDIA's driver, as its own command tells it."""
    if not shutil.which("nvidia-smi"):
        return "unknown"
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    return next(iter(done.stdout.split()), "unknown")


def find_peak(device, precision):
    """What docs/scale.md computes with for this device; None for cards whose peak is not known."""
    if device.type == "cpu":
        return CPU
    return find_card(torch.cuda.get_device_name(device), precision)


def find_card(name, precision):
    """One of `CARDS` by the name that CUDA gives it and a precision, or None."""
    if OTHERS.search(name):
        return None
    for card in CARDS:
        title, kind = card.name.split(", ")
        if re.search(rf"\b{title}\b", name) and kind in PEAKS[precision]:
            return card
    return None


def compare_rate(name, rate, unit, against, other):
    """A row of a rate beside another one, which may be unknown."""
    if other is None:
        return Row(name, rate, unit, f"{against}: peak not known")
    return Row(name, rate, unit, f"{against}: {write_number(other)}", rate / other)
