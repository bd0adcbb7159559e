"""Time and memory to index many images: `python benchmarks/index_images.py [COUNT]`.

Makes a tree of COUNT JPEGs of 512 x 512 (20,000 take 1.4 GB, in a temporary folder) and indexes
halves of it, each in a process of its own. Prints a line a figure: name, ratio, goal.
"""

import io
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from fuzzyclip.datasets import get_dataset  # noqa: E402
from fuzzyclip.datasets.indexing import build_index  # noqa: E402

KINDS = 64


def make_pictures():
    """Encoded JPEGs of texture and noise, about 70 KB each."""
    rng = np.random.default_rng(0)
    for _ in range(KINDS):
        coarse = Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8))
        pixels = np.asarray(coarse.resize((512, 512), Image.Resampling.BICUBIC), np.int16)
        noisy = np.clip(pixels + rng.integers(-12, 13, pixels.shape), 0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(noisy).save(buffer, "JPEG", quality=85)
        yield buffer.getvalue()


def make_tree(root, count):
    """`count` distinct files, one in ten anomalous with a mask."""
    pictures = list(make_pictures())
    mask = io.BytesIO()
    Image.fromarray(np.eye(512, dtype=np.uint8) * 255).save(mask, "PNG")
    folders = [root / "part/good", root / "part/dent", root / "part/ground_truth/dent"]
    for folder in folders:
        folder.mkdir(parents=True)
    for number in range(count):
        # What follows the end of a JPEG is ignored by decoders, but makes another file of it.
        content = pictures[number % KINDS] + number.to_bytes(4, "big")
        (folders[number % 10 == 0] / f"{number:06d}.jpg").write_bytes(content)
        if number % 10 == 0:
            (folders[2] / f"{number:06d}_mask.png").write_bytes(mask.getvalue())


def measure(root, workers):
    """Seconds and peak MiB of indexing `root`; with 0 workers of decoding alone, one by one."""
    start = time.perf_counter()
    if workers:
        options = {"protocol": "good_bad", "expect_counts": False, "workers": workers}
        images = len(build_index(get_dataset("folder"), root, **options).frame)
    else:
        images = 0
        for path in sorted(root.rglob("*.jpg")):
            with Image.open(path) as image:
                image.load()
            images += 1
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": seconds, "peak": peak, "images": images}


def run(root, workers):
    """`measure` in a fresh process."""
    command = [sys.executable, __file__, "--measure", str(root), str(workers)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    measured = json.loads(done.stdout.splitlines()[-1])
    what = f"{workers} threads" if workers else "bare decoding"
    print(
        f"  {measured['images']:6d} images, {what:13s}: {measured['seconds']:6.1f} s, "
        f"{1000 * measured['seconds'] / measured['images']:5.2f} ms each, "
        f"peak {measured['peak']:.0f} MiB",
        flush=True,
    )
    return measured


def main(count):
    with tempfile.TemporaryDirectory() as temporary:
        sizes = [count // 8, count // 4, count // 2, count]
        for size in sizes:
            make_tree(Path(temporary) / str(size), size)
        roots = [Path(temporary) / str(size) for size in sizes]
        run(roots[0], 2)  # warm-up of the disk cache
        bare = run(roots[-1], 0)
        single = run(roots[-1], 1)
        pairs = [run(root, 2) for root in roots]
    each = [measured["seconds"] / measured["images"] for measured in pairs]
    growth = (pairs[-1]["peak"] - pairs[0]["peak"]) * 1024 / (sizes[-1] - sizes[0])
    parallel, overhead = (
        single["seconds"] / pairs[-1]["seconds"],
        single["seconds"] / bare["seconds"],
    )
    print(f"index-linear    {each[-1] / each[0]:.2f}  goal at most 1.1 (time an image, 8 x images)")
    print(f"index-parallel  {parallel:.2f}  goal at least 1.6 (2 threads against 1)")
    print(f"index-overhead  {overhead:.2f}  goal at most 1.3 (1 thread against bare decoding)")
    print(f"index-memory    {growth:.2f}  goal at most 4 (KiB an image)")


if __name__ == "__main__":
    if "--measure" in sys.argv:
        print(json.dumps(measure(Path(sys.argv[2]), int(sys.argv[3]))))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 20_000)
