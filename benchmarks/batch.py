"""What comparing images with one another, or with good parts, is worth, and what it costs.

    python benchmarks/batch.py choices    # the settings on the drawn auxiliary sets
    python benchmarks/batch.py shares     # how many images may be anomalous
    python benchmarks/batch.py parts      # the image itself beside two good parts, in their place
    python benchmarks/batch.py growth     # 1,000 and 10,000 images: time and memory

The first three read the features that `make repro` stores, of the auxiliary sets alone, and print
tables of docs/batch.md and docs/any-method.md; the last prints lines: name, ratio, goal.
"""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.shared import SAMPLE  # noqa: E402
from fuzzyclip.baselines.mutual.scoring import (  # noqa: E402
    MutualSettings,
    References,
    draw_maps,
    find_peaks,
    place_on_scale,
    study,
)
from fuzzyclip.baselines.nearest import Nearest  # noqa: E402
from fuzzyclip.clip.backbone import load_backbone  # noqa: E402
from fuzzyclip.evaluation.category import choose_references, encode_references  # noqa: E402
from fuzzyclip.evaluation.metrics import (  # noqa: E402
    compute_image_metrics,
    compute_pixel_metrics,
)
from fuzzyclip.images.decode import load_masks  # noqa: E402
from fuzzyclip.method.interface import order_images  # noqa: E402
from fuzzyclip.method.scorer import remember  # noqa: E402
from fuzzyclip.model.batch import study_batch  # noqa: E402
from fuzzyclip.model.inference import Opener, detect_images  # noqa: E402

#: The sets that methods are trained on; what is tested besides is looked at nowhere here.
SETS = ("mvtec", "visa")
#: What is tried, each as what differs from the defaults.
TRIED = {
    "as it is": {},
    "16 references": {"references": 16},
    "8 references": {"references": 8},
    "48 references (all)": {"references": 48},
    "no neighbourhoods": {"neighbourhoods": (1,)},
    "neighbourhoods of 3 alone": {"neighbourhoods": (3,)},
    "1, 3 and 5": {"neighbourhoods": (1, 3, 5)},
    **{f"own image {share}": {"own_image": share} for share in (0.0, 0.25, 0.75, 1.0)},
    "nearest 10 %": {"share": 0.1},
    "nearest 50 %": {"share": 0.5},
}
SEEDS = (0, 1, 2)
#: What counts beside good parts, and how many of them a drawn category has.
OWN_IMAGE, PARTS = (0.0, 0.25, 0.5, 0.75, 1.0), 2
#: Shares of a batch that are anomalous, and images of a batch.
SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
BATCH, DRAWS = 32, 4
#: Side of the maps that the tables are made of: half of the model's, for speed.
SIDE = 72
SHOWN = {"pixel_ap": "pixel AP", "pixel_aupro_std": "AUPRO", "image_auroc": "image AUROC"}
COUNTS = (1000, 10000)


def load_tower():
    """The sample's."""
    return load_backbone(SAMPLE, allow_unverified=True)


def iterate_categories(backbone):
    """Each auxiliary category: set, tokens, masks (n, SIDE, SIDE), labels, digests."""
    from fuzzyclip.features.store import read_or_encode
    from stages import paths
    from stages.stored import open_features

    for name in SETS:
        for category in json.loads(paths.index_info(name).read_text())["prompts"]:
            rows, features = open_features(name, category, backbone)
            images = [Path(path) for path in rows["image_path"]]
            stored = [(features, place) for place in range(len(rows))]
            tokens = read_or_encode(images, stored, backbone)
            masks = load_masks(rows, SIDE)
            yield name, tokens, masks, rows["label"].to_numpy(), list(rows["sha256"])


def iterate_parts(backbone):
    """Good parts of each of these categories, as what is remembered of them."""
    from stages import paths
    from stages.stored import read_rows

    for name in SETS:
        for category in json.loads(paths.index_info(name).read_text())["prompts"]:
            chosen = choose_references(read_rows(name, "train", category), PARTS, 0)
            yield remember(encode_references(chosen, backbone), backbone.grid, SIDE)


def judge(tokens, digests, backbone, settings, seed):
    """Maps (n, SIDE, SIDE) of a batch's images, and what is usual in it."""
    order = order_images(digests, seed)
    references = References.take(tokens[order[: settings.references]], backbone.grid, settings)
    far, rare = references.compare(tokens), references.looks.measure(tokens)
    studied = order[: settings.studied]
    scale = study(references, far[studied], rare[studied], SIDE)
    return draw_maps(scale.join(far, rare), backbone.grid, SIDE), scale


def show_choices():
    """Mean pixel AP and image AUROC of both sets by setting, over three seeds."""
    backbone, rows = load_tower(), []
    for name, tokens, masks, labels, digests in iterate_categories(backbone):
        for title, changed in TRIED.items():
            for seed in SEEDS:
                maps, _ = judge(tokens, digests, backbone, MutualSettings(**changed), seed)
                pixel = average_precision_score(masks.ravel(), maps.numpy().ravel())
                image = roc_auc_score(labels, find_peaks(maps).numpy())
                rows.append((title, f"{name}, pixel AP", seed, 100 * pixel))
                rows.append((title, f"{name}, image AUROC", seed, 100 * image))
    frame = pd.DataFrame(rows, columns=["setting", "metric", "seed", "value"])
    seeds = frame.groupby(["setting", "metric", "seed"])["value"].mean().reset_index()
    table = seeds.pivot_table("value", "setting", "metric", "mean").reindex(TRIED)
    spread = seeds.pivot_table("value", "setting", "metric", "std").reindex(TRIED)
    print("| setting | " + " | ".join(table.columns) + " |")
    print("|---|" + "---|" * len(table.columns))
    for title in TRIED:
        cells = [f"{table.loc[title, name]:.1f} ± {spread.loc[title, name]:.1f}" for name in table]
        print(f"| {title} | " + " | ".join(cells) + " |")


def show_parts():
    """Mean metrics of both sets by how much the image itself counts beside two good parts."""
    backbone, rows = load_tower(), []
    known = zip(iterate_parts(backbone), iterate_categories(backbone), strict=True)
    for memory, (name, tokens, masks, labels, _) in known:
        for share in OWN_IMAGE:
            scorer = Nearest(own_image=share).build_from(memory)
            with torch.no_grad():
                maps = torch.cat([scorer.compute_map(part, None) for part in tokens.split(8)])
            measured = compute_pixel_metrics(maps.numpy(), masks)
            measured |= compute_image_metrics(find_peaks(maps).numpy(), labels)
            rows += [(share, f"{name}, {SHOWN[key]}", 100 * measured[key]) for key in SHOWN]
    frame = pd.DataFrame(rows, columns=["own image", "metric", "value"])
    table = frame.pivot_table("value", "own image", "metric", "mean", sort=False)
    print("| own image | " + " | ".join(table.columns) + " |")
    print("|---|" + "---|" * len(table.columns))
    for share, values in table.iterrows():
        print(f"| {share:g} | " + " | ".join(f"{value:.1f}" for value in values) + " |")


def show_shares():
    """How well batches with a share of anomalous images are ordered, judged and noticed."""
    backbone, settings = load_tower(), MutualSettings(references=BATCH, studied=BATCH)
    rows, rng = [], np.random.default_rng(0)
    for _, tokens, _, labels, _ in iterate_categories(backbone):
        normal, anomalous = np.flatnonzero(labels == 0), np.flatnonzero(labels == 1)
        for share in SHARES:
            for _ in range(DRAWS):
                count = min(round(BATCH * share), len(anomalous))
                chosen = [*rng.permutation(normal)[: BATCH - count]]
                chosen += [*rng.permutation(anomalous)[:count]]
                own, digests = labels[chosen], [str(place) for place in range(len(chosen))]
                maps, scale = judge(tokens[chosen], digests, backbone, settings, 0)
                peaks = find_peaks(maps)
                decided = (place_on_scale(peaks, scale, settings) >= 0).numpy()
                rows.append({
                    "share": f"{100 * share:.0f} %",
                    "image AUROC": roc_auc_score(own, peaks) if 0 < count < BATCH else np.nan,
                    "normal ones rejected": decided[own == 0].mean(),
                    "anomalous ones rejected": decided[own == 1].mean() if count else np.nan,
                    "noticed": "far apart" in scale.warning,
                })  # fmt: skip
    table = pd.DataFrame(rows).groupby("share", sort=False).mean()
    print("| anomalous | " + " | ".join(table.columns) + " |")
    print("|---|" + "---|" * len(table.columns))
    for share, values in table.iterrows():
        cells = ["-" if np.isnan(value) else f"{100 * value:.0f} %" for value in values]
        print(f"| {share} | " + " | ".join(cells) + " |")


class Drawn(Sequence):
    """Pictures of a part that are drawn when they are asked for: a source that holds none."""

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, place):
        if place >= self.count:
            raise IndexError(place)
        rng = np.random.default_rng(place)
        rows, columns = np.mgrid[:96, :96]
        part = 80 + 90 * ((rows - 48) ** 2 + (columns - 48) ** 2 < 1500)
        picture = part[..., None] + rng.normal(0, 6, (96, 96, 3))
        return picture.clip(0, 255).astype(np.uint8)


def measure(count):
    """Seconds an image and peak memory in MB of a batch, in this process."""
    torch.set_num_threads(1)
    backbone, images = load_tower(), Drawn(count)
    start = time.process_time()
    batch = study_batch(images, backbone)
    done = sum(1 for _ in detect_images(images, Opener(), batch, batch_size=8))
    seconds = time.process_time() - start
    assert done == count
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds / count, "peak": peak}))


def show_growth():
    """Ten times as many images: ratios of the time an image, and of the peak memory."""
    small, large = (
        json.loads(
            subprocess.run(
                [sys.executable, __file__, "measure", str(count)],
                capture_output=True, text=True, check=True,
            ).stdout
        )
        for count in COUNTS
    )  # fmt: skip
    print(f"time an image, 10,000 over 1,000: {large['seconds'] / small['seconds']:.2f} (goal 1.1)")
    print(f"peak memory, 10,000 over 1,000: {large['peak'] / small['peak']:.2f} (goal 1.1)")
    print(f"peak of 10,000: {large['peak']:.0f} MB; {1000 * large['seconds']:.0f} ms an image")


if __name__ == "__main__":
    command = sys.argv[1] if len(sys.argv) > 1 else ""
    shown = {
        "choices": show_choices,
        "shares": show_shares,
        "parts": show_parts,
        "growth": show_growth,
    }
    if command == "measure":
        measure(int(sys.argv[2]))
    elif command in shown:
        shown[command]()
    else:
        sys.exit(__doc__)
