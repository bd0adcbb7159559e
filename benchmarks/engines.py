"""The frozen image tower by each engine against PyTorch: `python benchmarks/engines.py`.

What `machine.runtime: auto` measures, with more turns: ViT-L/14@336 and DINOv2's ViT-S/14 at 518
px with random weights, or the tower of `--tower`, as many images a pass as engines are sent. All
get as many threads, ways take turns, and each counts with its least time, by the clock and, in
brackets, the processor's, which other programs hardly touch. ViT-L/14 takes a quarter of an hour on
two cores and 8 GB of memory. Which engine is fastest depends on the processor: its name is the
first line. Then a line a measurement: name, ratio, goal.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.shared import LARGE  # noqa: E402
from fuzzyclip.clip.backbone import load_backbone  # noqa: E402
from fuzzyclip.engines.choice import count_images  # noqa: E402
from fuzzyclip.engines.equality import check_equal, draw_pixels  # noqa: E402
from fuzzyclip.engines.machine import describe_processor  # noqa: E402
from fuzzyclip.engines.runners import RUNNERS  # noqa: E402
from fuzzyclip.engines.tower_files import keep_tower  # noqa: E402
from fuzzyclip.towers import find_tower  # noqa: E402
from fuzzyclip.utils.settings import BackboneSettings  # noqa: E402

SMALL = BackboneSettings(
    model="timm/vit_small_patch14_dinov2", weights="random", image_size=518, blocks=(3, 6, 9, 12)
)


def name_processor(threads):
    """A line: the processor, what decides its speed, and how many threads compute."""
    processor = describe_processor()
    flags = ", ".join(processor["instructions"]) or "no vector instructions known here"
    family = f"family {processor['family']}" if processor["family"] else "no family known"
    return f"  {processor['model']}, {family} ({flags}), {threads} threads"


def choose_settings(given):
    """The towers to measure, by name."""
    if given.tower:
        return {given.tower: find_tower(given.tower, image_size=given.size)}
    towers = {"vit_l_14_336": LARGE, "dinov2_s": SMALL}
    return {
        name: settings.model_copy(update={"image_size": given.size} if given.size else {})
        for name, settings in towers.items()
        if given.only in (None, name)
    }


@torch.no_grad()
def measure(name, settings, rounds, threads):
    """Print times and ratios of one tower."""
    backbone = load_backbone(settings, device="cpu")
    tower, (rows, columns) = backbone.image_tower, backbone.grid
    count = count_images(backbone)
    pixels = draw_pixels(backbone.image_size)[:1].repeat(count, 1, 1, 1)
    ways = {"torch": tower.encode}
    start = time.perf_counter()
    path, _ = keep_tower(backbone)
    print(
        f"  {name}: {settings.image_size} px, the file made in {time.perf_counter() - start:.0f} s"
    )
    for engine, runner in RUNNERS.items():
        start = time.perf_counter()
        ways[engine] = runner(path, backbone.blocks, rows * columns, threads)
        opened = time.perf_counter() - start
        difference = check_equal(ways[engine], backbone, engine)
        print(f"  {ways[engine].label}: opened in {opened:.1f} s, differs by {difference:.1e}")
    spent = {way: [] for way in ways}
    for number in range(rounds + 1):
        for way, run in ways.items():
            start = time.perf_counter(), time.process_time()
            run(pixels, backbone.blocks)
            ended = time.perf_counter(), time.process_time()
            if number:  # the first warms up
                spent[way].append(np.subtract(ended, start) / count)
    least = {way: np.min(turns, axis=0) for way, turns in spent.items()}
    for way, (clock, busy) in least.items():
        print(f"  {way:10} {clock:.3f} ({busy:.3f}) s an image")
    for way in RUNNERS:
        clock, busy = least["torch"] / least[way]
        print(f"engine-{name}-{way:10} {clock:.2f} ({busy:.2f})  no goal (the processor decides)")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tower", help="a fetched tower's name or folder")
    parser.add_argument("--only", choices=("vit_l_14_336", "dinov2_s"))
    parser.add_argument("--size", type=int, help="side of the input in pixels")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    print(name_processor(given.threads))
    for name, settings in choose_settings(given).items():
        with tempfile.TemporaryDirectory() as cache, patch.dict("os.environ", XDG_CACHE_HOME=cache):
            measure(Path(name).name, settings, given.rounds, given.threads)


if __name__ == "__main__":
    main()
