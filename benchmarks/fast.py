"""Faster settings of a real image tower: processor time against quality on real photos, as a curve.

    python benchmarks/fast.py ARCHIVES --work FOLDER --out docs/data/fast.csv

ARCHIVES as `benchmarks/real_cuts.py` takes them. Settings are a smaller input, merged tokens, int8,
and some together, each beside the tower's own size in float32 (the first, to which times are
relative).

Time is the processor's for one image: tower, and comparison with four good parts. Settings take
turns after one to warm up, and each counts with its least, because what else runs on a machine only
adds; one thread computes, because others would be counted while they wait. Which setting is fastest
depends on the processor: the first line names it.

Quality is of the methods and seeds of `METHODS`. Maps are enlarged to the own size and compared
with masks of that size, so that no setting has an easier question. Each measurement is a line of a
table in FOLDER, and a run that was killed goes on behind the last. At 518 px on one core it takes
hours, most of them the batch's: `--method` takes one of the two at a time.

    --only TITLE     a setting, repeatable; the own one is always there
    --image-size N   side of the own input, for a trial; others shrink with it
    --images N       of each label of each cut, for a trial
    --times          the times alone, on another processor
    --threads N      that compute; more than one for the quality alone
"""

import argparse
import shutil
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.nn import functional as F

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.engines import name_processor  # noqa: E402
from benchmarks.real_cuts import CUTS, SEEDS, TRIED, Cut  # noqa: E402
from fuzzyclip.baselines.registry import build_method  # noqa: E402
from fuzzyclip.clip.backbone import load_backbone  # noqa: E402
from fuzzyclip.clip.encoding import encode_images  # noqa: E402
from fuzzyclip.clip.name_encoder import NameEncoder  # noqa: E402
from fuzzyclip.datasets import get_dataset  # noqa: E402
from fuzzyclip.engines.equality import draw_pixels  # noqa: E402
from fuzzyclip.evaluation.category import finish_scores  # noqa: E402
from fuzzyclip.evaluation.metrics import compute_image_metrics  # noqa: E402
from fuzzyclip.evaluation.pixel_meters import ExactMeter, MapFile  # noqa: E402
from fuzzyclip.images.decode import load_masks  # noqa: E402
from fuzzyclip.method.interface import Learned  # noqa: E402
from fuzzyclip.method.scorer import remember  # noqa: E402
from fuzzyclip.towers import find_tower  # noqa: E402
from fuzzyclip.towers.fast import FAST, FastSetting, explain_fast, make_fast  # noqa: E402
from fuzzyclip.utils.prefetch import release_memory  # noqa: E402
from fuzzyclip.utils.tables import read_table, write_csv  # noqa: E402

#: What is tried. Sides are in patches of 37, as DINOv2 has them at 518 px: 448, 392, 364, 336 and
#: 252 px.
TRIED_SETTINGS = [
    FastSetting(side=1),
    *(FastSetting(side=patches / 37) for patches in (32, 28, 26, 24, 18)),
    *(FastSetting(side=1, merge=share) for share in (0.3, 0.5, 0.7, 0.8, 0.9)),
    FastSetting(side=1, precision="int8"),
    FastSetting(side=32 / 37, merge=0.5),
    FastSetting(side=28 / 37, merge=0.5),
    FastSetting(side=1, merge=0.5, precision="int8"),
    FastSetting(side=32 / 37, precision="int8"),
    FastSetting(side=28 / 37, precision="int8"),
]
#: Title of `real_cuts` to seeds. The batch looks at many images for each: one seed.
METHODS = {"4 good parts": SEEDS, "batch": SEEDS[:1]}
METRICS = ("pixel_ap", "pixel_aupro_std", "image_auroc")
KEYS = ["variant", "dataset", "method", "seed"]
GOOD_PARTS = 4


def name_setting(settings):
    """A setting's title, and what kind of change it is."""
    parts = [f"{settings.image_size} px"]
    if settings.merge:
        parts.append(f"{100 * settings.merge:.0f} % merged")
    if settings.precision != "float32":
        parts.append(settings.precision)
    return ", ".join(parts)


def name_kind(fast):
    """`own`, `size`, `merged`, `int8`, or `together` for more than one."""
    changes = {
        "size": fast.side != 1,
        "merged": fast.merge > 0,
        "int8": fast.precision != "float32",
    }
    made = [name for name, applies in changes.items() if applies]
    return "together" if len(made) > 1 else (made or ["own"])[0]


def list_settings(own, only):
    """Title to settings, kind and whether it is the declared one; the tower's own is the first."""
    settings = {}
    for fast in TRIED_SETTINGS:
        made = make_fast(own, fast)
        title = name_setting(made)
        if not settings or only is None or title in only:
            declared = made == make_fast(own, FAST)
            settings.setdefault(title, (made, name_kind(fast), declared))
    if unknown := set(only or ()) - set(settings):
        raise SystemExit(f"--only {unknown.pop()!r}: there is no such setting")
    return settings


@torch.no_grad()
def measure_times(backbones, rounds):
    """Least processor seconds of an image by title: the tower's, and those of the comparison."""
    spent = {title: [] for title in backbones}
    pixels = {title: draw_pixels(each.image_size) for title, each in backbones.items()}
    method, compare = build_method(*TRIED["4 good parts"]), {}
    for title, backbone in backbones.items():
        tokens = encode_images(backbone, pixels[title][:1])[1]
        parts = tokens.expand(GOOD_PARTS, -1, -1, -1)
        memory = remember(parts.clone(), backbone.grid, backbone.image_size)
        compare[title] = method.build_from(memory).compute_map
    for turn in range(rounds + 1):
        for title, backbone in backbones.items():
            start = time.process_time()
            embed, tokens = encode_images(backbone, pixels[title][1:])
            middle = time.process_time()
            compare[title](tokens, embed)
            if turn:  # the first warms up
                spent[title].append((middle - start, time.process_time() - middle))
    return {title: np.min(turns, axis=0) for title, turns in spent.items()}


def measure_quality(cut, method, seed, side, scratch):
    """Metrics in percent of maps of side x side pixels."""
    name, settings = TRIED[method]
    built, category = build_method(name, settings), cut.category
    encode = NameEncoder(category.backbone, lambda prompts: None)
    (scorer,) = built.build_variants(encode, cut.as_target(seed), Learned()).values()
    scratch.mkdir(parents=True, exist_ok=True)
    kept = []
    with closing(MapFile(scratch / "maps", side, np.float64)) as file:
        meter = ExactMeter(file, scorer.scale)
        for batch in category.iterate():
            scores = category.score(scorer, batch, built.sigma)
            maps = torch.from_numpy(scores.maps)[:, None]
            if maps.shape[-1] != side:
                maps = F.interpolate(maps, size=(side, side), mode="bilinear", align_corners=False)
            rows = category.rows.iloc[batch.first : batch.first + len(maps)]
            meter.add(maps[:, 0].numpy(), load_masks(rows, side))
            kept.append(scores)
        values = dict(meter.compute().values)
    whole = finish_scores(scorer, kept)
    values |= compute_image_metrics(whole.image_scores, category.rows["label"].to_numpy())
    release_memory()
    return {metric: 100 * values[metric] for metric in METRICS}


def measure_setting(settings, title, given, side, lines, path):
    """Add what is missing of a setting to the lines, each written as soon as it is known."""
    done = {tuple(line[key] for key in KEYS) for line in lines}
    todo = [
        (tested, method, seed)
        for tested in CUTS
        for method, seeds in METHODS.items()
        for seed in seeds
        if method in given.method and (title, tested, method, seed) not in done
    ]
    if not todo:
        return
    backbone, folder = load_backbone(settings, device="cpu"), given.work / "cuts"
    for tested in dict.fromkeys(tested for tested, _, _ in todo):
        cut = Cut(tested, given.archives, folder, backbone, given.images)
        for method, seed in ((m, s) for t, m, s in todo if t == tested):
            metrics = measure_quality(cut, method, seed, side, given.work / "scratch")
            line = dict(zip(KEYS, (title, tested, method, seed), strict=True)) | metrics
            lines.append(line)
            write_csv(path, pd.DataFrame(lines))
            print(line, flush=True)
    shutil.rmtree(folder / f"features-{backbone.fingerprint[:16]}")


def join(settings, times, lines):
    """The table of the docs, a line a setting: times, and means over seeds by method and cut."""
    own = sum(times[next(iter(settings))])
    rows = []
    for title, (_, kind, declared) in settings.items():
        row = {"variant": title, "kind": kind, "declared": float(declared)}
        tower, comparison = times[title]
        row |= {"time": (tower + comparison) / own, "tower": tower, "comparison": comparison}
        rows.append(row)
    table = pd.DataFrame(rows).set_index("variant")
    if lines:
        frame = pd.DataFrame(lines)
        means = frame.pivot_table([*METRICS], "variant", ["method", "dataset"], "mean")
        names = {cut: get_dataset(cut).title for cut in CUTS}
        means.columns = [
            f"{method}, {names[cut]}: {metric}" for metric, method, cut in means.columns
        ]
        table = table.join(means)
    return table.reset_index()


def format_markdown(table):
    """The table of the docs as Markdown: times, and pixel AP, AUPRO and AUROC side by side."""
    groups = [name.removesuffix(": pixel_ap") for name in table if name.endswith(": pixel_ap")]
    head = ["setting", "time", "tower, s", *groups]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for _, row in table.iterrows():
        title = f"**{row['variant']}**" if row["declared"] else row["variant"]
        cells = [title, f"{row['time']:.2f}", f"{row['tower']:.2f}"]
        for group in groups:
            numbers = [row[f"{group}: {metric}"] for metric in METRICS]
            cells.append(" / ".join("" if np.isnan(n) else f"{n:.1f}" for n in numbers))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("archives", type=Path)
    parser.add_argument("--tower", default="timm/vit_small_patch14_dinov2")
    parser.add_argument("--work", type=Path, required=True, help="folder of what is kept")
    parser.add_argument("--out", type=Path, help="table of the docs")
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--images", type=int)
    parser.add_argument("--only", action="append")
    parser.add_argument("--method", action="append", choices=[*METHODS])
    parser.add_argument("--times", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    given.method = given.method or [*METHODS]
    torch.set_num_threads(given.threads)
    print(name_processor(given.threads))
    own = find_tower(given.tower, image_size=given.image_size)
    settings = list_settings(own, given.only)
    backbones = {title: load_backbone(each, device="cpu") for title, (each, *_) in settings.items()}
    print(f"the declared fast setting is: {explain_fast(own, make_fast(own))}")
    times = measure_times(backbones, given.rounds)
    fingerprint = next(iter(backbones.values())).fingerprint
    del backbones
    release_memory()
    given.work /= f"{fingerprint[:16]}-{given.images or 'all'}"
    given.work.mkdir(parents=True, exist_ok=True)
    path = given.work / "lines.csv"
    lines = read_table(path).to_dict("records") if path.is_file() else []
    for title, (each, *_) in ({} if given.times else settings).items():
        measure_setting(each, title, given, own.image_size, lines, path)
    table = join(settings, times, lines)
    print(format_markdown(table))
    if given.out:
        write_csv(given.out, table)


if __name__ == "__main__":
    main()
