"""Peak memory for 10, 100 and 1,000 images of a category: `python benchmarks/memory.py`.

Encoding, training and evaluation, each in a process of its own for each number of images. The tower
is a small random one, so that a thousand images take minutes; maps and tokens have a fair size (280
px, 400 tokens). Prints lines: name, peak for 1,000 images over the peak for 10, goal.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import pandas as pd  # noqa: E402

from fuzzyclip.clip.backbone import load_backbone  # noqa: E402
from fuzzyclip.evaluation.category import Category, evaluate_category  # noqa: E402
from fuzzyclip.evaluation.examples import Overlays  # noqa: E402
from fuzzyclip.features.auxiliary import AuxiliarySet  # noqa: E402
from fuzzyclip.features.encode import write_category  # noqa: E402
from fuzzyclip.features.shards import compute_identity  # noqa: E402
from fuzzyclip.features.store import open_category  # noqa: E402
from fuzzyclip.method.efa import Heads  # noqa: E402
from fuzzyclip.method.efa_training import train_heads  # noqa: E402
from fuzzyclip.method.scorer import build_trained, build_untrained  # noqa: E402
from fuzzyclip.method.training_set import make_training_set  # noqa: E402
from fuzzyclip.utils.files import compute_sha256  # noqa: E402
from fuzzyclip.utils.settings import BackboneSettings  # noqa: E402

SIZE, COUNTS = 280, (10, 100, 1000)
PARTS = ("encoding", "training", "evaluation", "evaluation-exact")
TOWER = {
    "embed_dim": 64,
    "vision_cfg": {
        "image_size": SIZE,
        "layers": 4,
        "width": 128,
        "head_width": 64,
        "patch_size": 14,
    },
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}


def load_tower(folder):
    path = folder / "tower.json"
    path.write_text(json.dumps(TOWER))
    settings = BackboneSettings(
        model=str(path), weights="random", image_size=SIZE, blocks=(1, 2, 3, 4)
    )
    return load_backbone(settings, device="cpu")


def draw_category(folder, count):
    """Noise with a square defect in every second image."""
    rng, lines = np.random.default_rng(0), []
    for number in range(count):
        image = rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
        mask = np.zeros((SIZE, SIZE), dtype=np.uint8)
        if number % 2:
            mask[40:90, 60:160] = 255
            image[mask > 0] = 255
            Image.fromarray(mask).save(folder / f"{number}_mask.png")
        Image.fromarray(image).save(folder / f"{number}.png")
        lines.append(
            {
                "image_path": str(folder / f"{number}.png"),
                "mask_path": str(folder / f"{number}_mask.png") if number % 2 else "",
                "category": "parts",
                "label": number % 2,
                "defect": "square" if number % 2 else "good",
                "mask_above": 0,
                "sha256": compute_sha256(folder / f"{number}.png"),
            }
        )
    return pd.DataFrame(lines)


def run_part(part, folder, count):
    """One part in this process; its peak in MiB."""
    os.chdir(folder)
    backbone = load_tower(folder)
    rows = pd.read_pickle(folder / f"{count}.pickle")
    store = folder / f"store-{count}"
    if part == "encoding":
        write_category(store, rows, backbone, batch_size=8, workers=2)
        return read_peak()
    stored = open_category(store, compute_identity(backbone, list(rows["sha256"])))
    text = F.normalize(torch.randn(64, 2), dim=0)
    if part == "training":
        own = rows.assign(member="own/parts", name="parts", place=range(count))
        auxiliary = AuxiliarySet(["parts"], own, {"own/parts": stored})
        images = make_training_set(auxiliary, backbone)
        train_heads(backbone, images, text, epochs=1, batch_size=8, learning_rate=1e-3, seed=0)
        return read_peak()
    heads = [Heads(4, 128, 64) for _ in range(2)]
    tests = torch.stack([text, -text])
    scorers = {
        "object": build_untrained(backbone, "object", text),
        "fuzzyclip": build_trained(backbone, "parts", heads, tests, None, 100.0, text.T),
    }
    category = Category("own", "parts", rows, stored, backbone)
    exact = part == "evaluation-exact"
    scratch = folder / "scratch"
    evaluate_category(
        category, scorers, shown="fuzzyclip", scratch=scratch, exact=exact, watcher=Overlays(2)
    )
    return read_peak()


def read_peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main():
    peaks = {part: {} for part in PARTS}
    with tempfile.TemporaryDirectory() as name:
        for count in COUNTS:
            folder = Path(name) / f"{count}"
            folder.mkdir()
            draw_category(folder, count).to_pickle(Path(name) / f"{count}.pickle")
        for part in PARTS:
            for count in COUNTS:
                command = [sys.executable, __file__, "--part", part, name, str(count)]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                peaks[part][count] = float(done.stdout.splitlines()[-1])
            shown = ", ".join(f"{count}: {peak:.0f} MiB" for count, peak in peaks[part].items())
            print(f"  {part}: {shown}", flush=True)
    for part in PARTS:
        ratio = peaks[part][COUNTS[-1]] / peaks[part][COUNTS[0]]
        goal = "no goal: grows with" if part == "evaluation-exact" else "goal 1.2: flat over"
        print(f"memory-{part:17} {ratio:.2f}  {goal} 10 to 1,000 images")


if __name__ == "__main__":
    if "--part" in sys.argv:
        part, folder, count = sys.argv[2:]
        print(run_part(part, Path(folder), int(count)))
    else:
        main()
