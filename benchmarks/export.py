"""Exported detectors against PyTorch: `python benchmarks/export.py`.

The whole way from resized pixels to map and score, one image a pass, two clusters. PyTorch runs the
detector itself, on pixels that are normalised already; onnxruntime and OpenVINO run the exported
files. All get as many threads, ways take turns, and each counts with its least time, by the clock
and, in brackets, the processor's, which other programs hardly touch. Default: ViT-L/14@336 with
random weights at 518 px, which takes some minutes and 13 GB of memory; `--sample` measures the
sample CLIP at 144 px. Prints a line: name, ratio, goal.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.shared import LARGE, SAMPLE, build_scorer  # noqa: E402
from fuzzyclip.clip.backbone import load_backbone  # noqa: E402
from fuzzyclip.clip.encoding import preprocess  # noqa: E402
from fuzzyclip.deploy.export import export_onnx  # noqa: E402
from fuzzyclip.deploy.facts import Origin  # noqa: E402
from fuzzyclip.deploy.parity import Difference  # noqa: E402
from fuzzyclip.deploy.runtimes import load_pixels, open_exported  # noqa: E402
from fuzzyclip.model.inference import CategoryModel  # noqa: E402

#: Random weights say nothing about what int8 costs in accuracy: here everything is allowed.
ANY = Difference(1.0, 1.0, 1.0)
#: Times faster than PyTorch.
GOALS = {
    "onnxruntime-float32": "goal 1.5",
    "onnxruntime-int8": "goal 3.0",
    "openvino-float32": "goal 1.5",
    "openvino-int8": "no goal (OpenVINO computes these operators one by one)",
}


def build_ways(detector, image, folder, threads):
    """Each way as a function of nothing."""
    ready = preprocess(image, detector.backbone)[None]
    ways = {"torch": lambda: detector(ready)}
    pixels = load_pixels([image], detector.backbone.image_size)
    for weights in ("float32", "int8"):
        path = folder / f"{weights}.onnx"
        allowed = None if weights == "float32" else ANY
        difference = export_onnx(
            detector, path, [image], Origin("drawn"), weights=weights, allowed=allowed
        )
        size = sum(file.stat().st_size for file in folder.glob(f"{path.name}*"))
        print(f"  {weights:8} {size / 2**20:.0f} MB, {difference}")
        for runtime in ("onnxruntime", "openvino"):
            run = open_exported(path, runtime, threads)
            ways[f"{runtime}-{weights}"] = lambda run=run: run(pixels)
    return ways


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sample", action="store_true", help="the sample CLIP instead of ViT-L/14")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    given = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(given.threads)
    settings = SAMPLE if given.sample else LARGE
    backbone = load_backbone(settings, allow_unverified=True, device="cpu")
    detector = CategoryModel(backbone, build_scorer(backbone))
    noise = np.random.default_rng(0).integers(0, 256, (600, 600, 3), dtype=np.uint8)
    spent = {}
    with tempfile.TemporaryDirectory() as folder:
        ways = build_ways(detector, Image.fromarray(noise), Path(folder), given.threads)
        for number in range(given.rounds * (20 if given.sample else 1) + 1):
            for name, run in ways.items():
                start = time.perf_counter(), time.process_time()
                run()
                ended = time.perf_counter(), time.process_time()
                if number:  # the first warms up
                    spent.setdefault(name, []).append(np.subtract(ended, start))
    report({name: np.min(turns, axis=0) for name, turns in spent.items()})


def report(least):
    """Ratios by the clock; by processor time in brackets."""
    for name, (clock, busy) in least.items():
        print(f"  {name:20} {clock:.4f} ({busy:.4f}) s an image")
    for name, goal in GOALS.items():
        clock, busy = least["torch"] / least[name]
        print(f"export-{name:20} {clock:.2f} ({busy:.2f})  {goal}")


if __name__ == "__main__":
    main()
