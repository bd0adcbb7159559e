"""Costs at scale: `python benchmarks/scale.py [--write]`.

With `--write`, docs/scale.md anew, from benchmarks/costs.py and the constants below. Without,
checks the model on this machine: the speed of one tower predicts the others' time, and the store
takes the predicted bytes. Prints a line: name, ratio, goal.
"""

import sys
import tempfile
import time
from dataclasses import replace
from math import inf
from pathlib import Path

import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import costs  # noqa: E402
from benchmarks.scale_page import LARGE, PAGE, build_page  # noqa: E402
from benchmarks.shared import draw_images, load_random  # noqa: E402
from fuzzyclip.clip.encoding import preprocess  # noqa: E402
from fuzzyclip.evaluation.metrics import compute_pixel_metrics  # noqa: E402
from fuzzyclip.features.encode import write_category  # noqa: E402

BASE = costs.VisionShape(image_size=224, patch_size=16, width=768, depth=12, embed_dim=512)
MIDDLE = costs.VisionShape(image_size=336, patch_size=14, width=1024, depth=24, embed_dim=768)
#: Towers to time: name, shape, open_clip's model, images a pass. The first is the calibration.
TOWERS = (
    ("ViT-B/16 at 224", BASE, "ViT-B-16", 8),
    ("ViT-L/14 at 336", MIDDLE, "ViT-L-14-336", 2),
    ("ViT-L/14 at 518", LARGE, "ViT-L-14-336", 2),
)
ROUNDS = 4


@torch.no_grad()
def measure_towers():
    """Least seconds an image of each tower, the processor's and the clock's; towers take turns."""
    runs = {}
    for name, shape, model, batch in TOWERS:
        size = shape.image_size
        backbone = load_random(model, size)
        runs[name] = (backbone.model.encode_image, torch.randn(batch, 3, size, size))
        backbone.model.encode_image(runs[name][1])  # warms up
    spent_by_tower = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, (encode, pixels) in runs.items():
            start = time.process_time(), time.perf_counter()
            encode(pixels)
            spent = time.process_time() - start[0], time.perf_counter() - start[1]
            spent_by_tower[name].append(np.array(spent) / len(pixels))
    for name, turns in spent_by_tower.items():
        each = ", ".join(f"{busy:.2f} ({wall:.2f})" for busy, wall in turns)
        print(f"  {name}: {each} s an image, processor (clock)")
    return [np.min(turns, axis=0) for turns in spent_by_tower.values()]


def check_towers():
    """Towers' times as another's speed predicts them: the processor's; the clock's in brackets."""
    measured = measure_towers()
    flops = [costs.count_image_flops(shape) for _, shape, _, _ in TOWERS]
    for (name, *_), count, (_, wall) in zip(TOWERS, flops, measured, strict=True):
        print(f"  {name}: {count / 1e9:.1f} GFLOP, {count / wall / 1e9:.0f} GFLOP/s by the clock")
    for label, known, asked in (("base-336", 0, 1), ("base-518", 0, 2), ("336-518", 1, 2)):
        ratios = []
        for clock in (0, 1):
            device = costs.calibrate(label, [flops[known]], [measured[known][clock]], inf)
            seconds = costs.estimate_seconds(flops[asked], 0, device)
            ratios.append(seconds / measured[asked][clock])
        print(
            f"scale-{label:9}  {ratios[0]:.2f} ({ratios[1]:.2f})  "
            "goal 0.8 to 1.25 (predicted to measured time)"
        )


def check_store():
    """Bytes of a store that is really written, by type, against the predicted."""
    blocks = (3, 6, 9, 12)
    backbone = load_random("ViT-B-16", 224, blocks)
    predicted = written = 0
    with tempfile.TemporaryDirectory() as temporary:
        rows = draw_images(Path(temporary), 16, side=256)
        for dtype in ("float32", "float16", "bfloat16", "int8", None):
            folder = Path(temporary) / str(dtype)
            write_category(folder, rows, backbone, dtype=dtype)
            size = sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
            count = len(rows) * costs.count_feature_bytes(BASE, len(blocks), dtype)
            print(f"  store, {dtype}: {size} bytes, predicted {count}")
            predicted, written = predicted + count, written + size
    print(f"scale-store      {written / predicted:.4f}  goal at most 1.01 (written to predicted)")


def measure_constants():
    """Prints what scale_page.py holds as measured: decoding an image, metrics of a map."""
    backbone = load_random("ViT-B-16", 224)
    large = replace(backbone, settings=backbone.settings.model_copy(update={"image_size": 518}))
    with tempfile.TemporaryDirectory() as temporary:
        draw_images(Path(temporary), 1)
        (path,) = Path(temporary).glob("*.png")
        Image.open(path).save(path.with_suffix(".jpg"), quality=90)
        for file in (path, path.with_suffix(".jpg")):
            seconds = find_fastest(lambda file=file: preprocess(Image.open(file), large))
            print(f"  decode and squash {file.suffix} of 1024 px: {1000 * seconds:.1f} ms")
    rng = np.random.default_rng(0)
    maps = rng.random((20, 518, 518), dtype=np.float32)
    masks = np.zeros(maps.shape, dtype=bool)
    masks[:10, 100:150, 100:200] = True
    seconds = find_fastest(lambda: compute_pixel_metrics(maps, masks), rounds=3)
    print(f"  exact pixel metrics: {1000 * seconds / len(maps):.1f} ms a map of 518 px")


def find_fastest(run, rounds=7):
    """Seconds of the fastest of some runs; what else runs on a machine only ever adds time."""
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


if __name__ == "__main__":
    if "--write" in sys.argv:
        PAGE.write_text(build_page())
    else:
        check_towers()
        check_store()
        measure_constants()
