"""What `python benchmarks/gpu.py` measures on: towers and sizes, clocks, memory."""

import os
import resource
import sys
import time
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil
from statistics import median

import torch

from benchmarks import costs
from benchmarks.gpu_table import compare_rate
from benchmarks.shared import LARGE
from fuzzyclip.clip.backbone import load_backbone
from fuzzyclip.clip.weights import SAMPLE_CONFIG
from fuzzyclip.utils.settings import BackboneSettings

#: What the towers compute in, and how PyTorch multiplies float32. `highest` is its default, with
#: which cuDNN still rounds the patch embedding's convolution to TF32.
PRECISIONS = {
    "float32": ("float32", "highest"),
    "TF32": ("float32", "high"),
    "bf16": ("bfloat16", "highest"),
}
#: Times that each way is measured.
TURNS = 3


@dataclass(frozen=True)
class Check:
    """What is measured where; towers are built when they are first asked for.

    Attributes:
        title: of the CLIP.
        device: the GPU, or the CPU.
        settings: of the CLIP.
        batches: images a pass that are tried, ascending.
        images: that are compared with the CPU's.
        steps: of EFA in a run.
        turn: least seconds that are measured at once.
    """

    title: str
    device: torch.device
    settings: BackboneSettings
    batches: tuple[int, ...]
    images: int
    steps: int
    turn: float

    @cached_property
    def on_cpu(self):
        return load_backbone(self.settings, device="cpu")

    @cached_property
    def backbone(self):
        """The same weights on the device."""
        model = deepcopy(self.on_cpu.model).to(self.device)
        return replace(self.on_cpu, model=model, device=self.device)

    @cached_property
    def shape(self):
        """The image tower as the costs are computed."""
        tower, size = self.backbone.image_tower, self.backbone.image_size
        return costs.VisionShape(
            size, size // tower.grid[0], tower.width, tower.depth, tower.embed_dim
        )

    @contextmanager
    def computing(self, precision):
        """The backbone as it computes in this precision; PyTorch's own setting comes back."""
        dtype, products = PRECISIONS[precision]
        settings = self.backbone.settings.model_copy(update={"precision": dtype})
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision(products)
        try:
            yield replace(self.backbone, settings=settings)
        finally:
            torch.set_float32_matmul_precision(before)


def prepare(device):
    """The paper's setting on a GPU; on the CPU the sample's small towers."""
    if device.type == "cuda":
        title = f"{LARGE.model} at {LARGE.image_size} px"
        return Check(title, device, LARGE, (1, 4, 16, 64), images=2, steps=10, turn=0.4)
    tiny = BackboneSettings(
        model=str(SAMPLE_CONFIG), weights="random", image_size=48, blocks=(2, 4, 6, 8)
    )
    title = f"the sample's towers at {tiny.image_size} px"
    return Check(title, device, tiny, (1, 2), images=2, steps=2, turn=0.02)


def tell(text):
    """A line of progress, apart from the table."""
    print(text, file=sys.stderr, flush=True)


@torch.no_grad()
def measure_ways(ways, check, deadline):
    """Median seconds of a call of each way; ways take turns, the device is waited for."""
    passes = {way: plan_passes(run, check) for way, run in ways.items()}
    spent = {way: [] for way in ways}
    for turn in range(TURNS):
        if turn and time.monotonic() > deadline:
            break
        for way, run in ways.items():
            spent[way].append(time_passes(run, passes[way], check.device) / passes[way])
    return {way: median(seconds) for way, seconds in spent.items()}


def plan_passes(run, check):
    """Calls that fill a turn; the first one warms up, and what follows it is counted on."""
    run()
    return ceil(check.turn / time_passes(run, 1, check.device))


def time_passes(run, passes, device):
    """Seconds of some calls in a row. A GPU computes after the call, so it is waited for."""
    wait_for(device)
    start = time.perf_counter()
    for _ in range(passes):
        run()
    wait_for(device)
    return time.perf_counter() - start


def wait_for(device):
    """Return when the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def forget_peak(device):
    """Free what the last part left, and begin to count anew."""
    if device.type == "cuda":
        torch.zeros(1, device=device)  # begins the counts, where nothing was computed yet
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def read_peak(device, title):
    """Most memory of a part's tensors; of the CPU, the process's since it began."""
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device)
        whole, against = torch.cuda.get_device_properties(device).total_memory, "the card's"
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        whole, against = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), "the machine's"
    return compare_rate(f"peak memory, {title}", peak / 2**30, "GiB", against, whole / 2**30)
