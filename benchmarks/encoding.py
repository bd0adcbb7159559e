"""Filling the feature store against the bare tower: `python benchmarks/encoding.py`.

Decoding, resizing, the towers and writing, against `forward_intermediates` of the same model on
tensors in memory, in turns in one process. Default: ViT-L/14@336 with random weights at 518 px,
which takes some minutes without a GPU; `--model ViT-B-16 --size 224` is quicker. Prints a line:
name, share of the bare tower's throughput, goal.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.shared import LARGE, draw_images, load_random  # noqa: E402
from fuzzyclip.features.encode import write_category  # noqa: E402


def run_bare(backbone, batches):
    """Seconds of the tower alone."""
    start = time.perf_counter()
    for pixels in batches:
        with torch.no_grad(), torch.autocast(backbone.device.type, enabled=False):
            backbone.model.visual.forward_intermediates(
                pixels,
                indices=[block - 1 for block in backbone.blocks],
                normalize_intermediates=False,
                output_fmt="NLC",
            )
    if backbone.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=LARGE.model)
    parser.add_argument("--size", type=int, default=LARGE.image_size)
    parser.add_argument("--blocks", type=int, nargs="+", default=LARGE.blocks)
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=2)
    given = parser.parse_args()
    backbone = load_random(given.model, given.size, given.blocks, device="auto")
    shape = (given.batch, 3, given.size, given.size)
    batches = [
        torch.randn(shape, device=backbone.device) for _ in range(given.images // given.batch)
    ]
    run_bare(backbone, batches[:1])  # warm
    shares = []
    with tempfile.TemporaryDirectory() as name:
        rows = draw_images(Path(name), given.images)
        for number in range(given.repeats):
            bare = run_bare(backbone, batches)
            start = time.perf_counter()
            store = Path(name) / f"store-{number}"
            write_category(store, rows, backbone, batch_size=given.batch, shard_size=64, workers=2)
            ours = time.perf_counter() - start
            shares.append(bare / ours)
            print(f"  {given.images} images: tower {bare:.2f} s, store {ours:.2f} s", flush=True)
    print(f"encoding        {median(shares):.3f}  goal 0.95 (of the bare tower's throughput)")


if __name__ == "__main__":
    main()
