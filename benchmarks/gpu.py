"""A prepared check of one GPU: `python benchmarks/gpu.py [--out FILE]`, under five minutes.

The tests marked for a GPU; features and maps against the CPU's; throughput of ViT-L/14 at 518 px
against open_clip's bare tower and against what docs/scale.md computes; steps of EFA and RPL; peak
memory. Weights are random. Prints a table for docs/scale.md; `--out` writes the same as JSON. A
part that fails is told in the table, the others go on, and the exit code is 1. Without a GPU, or
with `--cpu`, everything runs at tiny sizes, which only shows that it runs.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import traceback
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import costs  # noqa: E402
from benchmarks.gpu_setup import (  # noqa: E402
    forget_peak,
    measure_ways,
    prepare,
    read_peak,
    tell,
)
from benchmarks.gpu_table import (  # noqa: E402
    Row,
    bound_gap,
    check_finite,
    compare_rate,
    describe_machine,
    find_peak,
    tell_failure,
    write_table,
)
from benchmarks.rpl_training import BATCH, build_steps  # noqa: E402
from benchmarks.scale_page import (  # noqa: E402
    CLUSTERS,
    estimate_image,
    estimate_tower,
)
from benchmarks.shared import (  # noqa: E402
    build_scorer,
    draw_images,
    draw_training_set,
    draw_unit,
    measure_gap,
)
from fuzzyclip.clip.backbone import build_model  # noqa: E402
from fuzzyclip.clip.encoding import encode_images, load_pixels, normalise  # noqa: E402
from fuzzyclip.clip.model_configs import read_model_config  # noqa: E402
from fuzzyclip.method.efa_training import train_heads  # noqa: E402
from fuzzyclip.method.scorer import score_batch  # noqa: E402

#: Differences from the CPU that rounding explains: of class features, patch tokens and image scores
#: relative to their length, of maps the mean one. bf16 on a CPU stays below a third of these.
MOST = {
    "float32": (0.01, 0.01, 0.05, 0.005),
    "TF32": (0.01, 0.01, 0.05, 0.005),
    "bf16": (0.06, 0.06, 0.2, 0.02),
}
OUTCOMES = ("passed", "failed", "error", "skipped")


def run_tests(check, deadline):
    """The tests marked for a GPU, in a process of their own; on one, none may be skipped."""
    on_gpu = check.device.type == "cuda"
    files = [path for path in (ROOT / "tests").rglob("test_*.py") if is_marked(path)]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", *map(str, files)]
    hidden = {} if on_gpu else {"CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | hidden,
        timeout=deadline - time.monotonic(),
        capture_output=True,
        text=True,
        check=False,
    )
    tell(done.stdout + done.stderr)
    counts = {word: count_outcome(done.stdout, word) for word in OUTCOMES}
    broken = re.findall(r"^(?:FAILED|ERROR) \S*?(\w+\.py\S*)", done.stdout, flags=re.MULTILINE)
    against = f"{counts['skipped']} skipped without a GPU" if counts["skipped"] else ""
    if done.returncode:
        against = f"**failed**: pytest ended with {done.returncode}, {', '.join(broken)}"
    unit = f"of {sum(counts.values())} passed"
    failed = done.returncode != 0 or (on_gpu and counts["skipped"] > 0)
    return [Row("tests marked for a GPU", counts["passed"], unit, against, failed=failed)]


def is_marked(path):
    """Whether a file has tests for a GPU; the others need not be imported to learn that."""
    return "mark.gpu" in path.read_text()


def count_outcome(printed, word):
    """Tests of an outcome, by pytest's last line."""
    numbers = re.findall(rf"(\d+) {word}", printed.strip().rpartition("\n")[2])
    return int(numbers[0]) if numbers else 0


def compare_with_cpu(check, deadline):
    """Features, maps and scores of drawn images in each precision against the CPU's in float32."""
    with tempfile.TemporaryDirectory() as name:
        rows = draw_images(Path(name), check.images)
        pixels = load_pixels([Path(path) for path in rows["image_path"]], check.on_cpu)
    expected, table = detect(check.on_cpu, pixels), []
    for precision, most in MOST.items():
        with check.computing(precision) as backbone:
            measured = detect(backbone, pixels)
        gaps = {
            name: measure_gap(measured[name], expected[name])
            for name in ("class features", "patch tokens", "image scores")
        }
        gaps["maps"] = float(np.abs(measured["maps"] - expected["maps"]).mean())
        for (name, gap), allowed in zip(gaps.items(), most, strict=True):
            table.append(bound_gap(f"{name}, {precision}, difference from the CPU", gap, allowed))
    return table


def detect(backbone, pixels):
    """Features by name, and FuzzyCLIP's maps and image scores by layers that are drawn anew."""
    image_embed, tokens = encode_images(backbone, pixels)
    torch.manual_seed(0)
    scores = score_batch(build_scorer(backbone), tokens, image_embed, backbone)
    return {
        "class features": image_embed,
        "patch tokens": tokens,
        "image scores": scores.image_scores,
        "maps": scores.shown,
    }


def measure_throughput(check, deadline):
    """Images a second in TF32 and bf16, each way at its best number of images a pass."""
    table = []
    for number, precision in enumerate(("TF32", "bf16"), start=1):
        now = time.monotonic()
        with check.computing(precision) as backbone:
            best = find_best(check, backbone, now + (deadline - now) * number / 2)
        table += compare_throughput(check, precision, best)
    return table


def find_best(check, backbone, deadline):
    """Images a second and images a pass of each way, where it is fastest."""
    best = {}
    for batch in check.batches:
        if best and time.monotonic() > deadline:
            tell(f"  no time for {batch} images a pass")
            break
        try:
            seconds = measure_ways(list_ways(backbone, batch), check, deadline)
        except torch.OutOfMemoryError:
            if not best:
                raise
            tell(f"  no memory for {batch} images a pass")
            break
        rates = {way: batch / spent for way, spent in seconds.items()}
        tell(f"  {batch} images a pass: " + ", ".join(f"{k} {v:.4g}/s" for k, v in rates.items()))
        for way, rate in rates.items():
            best[way] = max(best.get(way, (0, 0)), (rate, batch))
    return best


def list_ways(backbone, batch):
    """What is run on a batch: open_clip's tower alone, our features, and ours from pixels to map.

    The bare tower has its pixels on the device already; ours are sent from the host each time.
    """
    size, device = backbone.image_size, backbone.device
    host = torch.randn(batch, 3, size, size)
    pixels, dtype = host.to(device), backbone.precision
    lowered = dtype != torch.float32
    bare, scorer = build_bare(backbone), build_scorer(backbone, CLUSTERS)

    def run_bare():
        with torch.autocast(device.type, dtype, enabled=lowered):
            bare(pixels)

    def find_maps():
        image_embed, tokens = encode_images(backbone, host)
        scorer.compute_map(tokens, normalise(image_embed))

    ways = {"bare": run_bare}
    if lowered:
        tower, given = deepcopy(bare).to(dtype), pixels.to(dtype)
        ways["bare, rounded"] = lambda: tower(given)
    return ways | {"features": lambda: encode_images(backbone, host), "maps": find_maps}


def build_bare(backbone):
    """open_clip's image tower as open_clip builds it, with the very same weights."""
    settings = backbone.settings
    with torch.device("meta"):
        config = read_model_config(settings.model)
        visual = build_model(config, settings.image_size, settings.activation).visual
    visual.load_state_dict(backbone.model.visual.state_dict(), assign=True)
    return visual.eval().requires_grad_(False)


def compare_throughput(check, precision, best):
    """Rows of one precision: against the bare tower, and against what docs/scale.md computes."""
    card = find_peak(check.device, precision)
    tower = card and 1 / estimate_tower(card, check.shape)
    whole = card and 1 / estimate_image(card, check.shape)
    limit = f"computed, at {card.efficiency:.0%} of the peak" if card else "computed"
    names = {
        "bare": "open_clip's bare tower",
        "bare, rounded": "the same with rounded weights",
        "features": "features",
        "maps": "image to map",
    }

    def compare(way, against, other):
        rate, batch = best[way]
        name = f"{names[way]}, {precision}, {batch} a pass"
        return compare_rate(name, rate, "images/s", against, other)

    rows = [compare("bare", limit, tower)]
    if "bare, rounded" in best:
        rows.append(compare("bare, rounded", limit, tower))
    for way in ("features", "maps"):
        rows.append(compare(way, "the bare tower", best["bare"][0]))
        rows.append(compare(way, limit, tower if way == "features" else whole))
    return rows


def measure_efa(check, deadline):
    """Steps a second of EFA's training on stored tokens, which travel from the host each time."""
    images = draw_training_set(check.backbone, BATCH)
    text = draw_unit(2, check.backbone.embed_dim).T
    settings = {"batch_size": BATCH, "learning_rate": 1e-3, "seed": 0, "epochs": check.steps}

    def run():
        with torch.enable_grad():
            train_heads(check.backbone, images, text, **settings)

    rate = check.steps / measure_ways({"efa": run}, check, deadline)["efa"]
    card, blocks = find_peak(check.device, "float32"), len(check.settings.blocks)
    flops = costs.count_step_flops(check.shape, blocks, BATCH)
    limit = card and 1 / costs.estimate_seconds(flops, 0, card)
    name = f"EFA, float32, {BATCH} images a step"
    return [compare_rate(name, rate, "steps/s", "computed from its operations", limit)]


def measure_rpl(check, deadline):
    """Steps a second of RPL's training against the text tower at every position."""
    quick, plain = build_steps(check.backbone)
    images = normalise(torch.randn(BATCH, check.backbone.embed_dim)).to(check.device)
    steps = {"quick": quick, "plain": plain}
    ways = {way: torch.enable_grad()(lambda step=step: step(images)) for way, step in steps.items()}
    seconds = measure_ways(ways, check, deadline)
    name, against = f"RPL, float32, {BATCH} images a step", "every position of the prompts"
    return [compare_rate(name, 1 / seconds["quick"], "steps/s", against, 1 / seconds["plain"])]


#: Title, what is run, seconds it may take.
PARTS = (
    ("tests marked for a GPU", run_tests, 80),
    ("features and maps against the CPU's", compare_with_cpu, 60),
    ("throughput", measure_throughput, 100),
    ("EFA's training", measure_efa, 25),
    ("RPL's training", measure_rpl, 25),
)


def run_parts(check, parts):
    """Rows of all parts and of their peak memory; one that fails is told, and the rest goes on."""
    table, peaks = [], []
    for title, run, seconds in parts:
        tell(f"{title}: at most about {seconds} s")
        start = time.monotonic()
        apart = run is run_tests  # a process of its own, with its own memory
        try:
            if not apart:
                forget_peak(check.device)
            table += check_finite(run(check, start + seconds))
            if not apart:
                peaks.append(read_peak(check.device, title))
        except Exception as error:
            traceback.print_exc()
            table.append(tell_failure(title, error))
        tell(f"{title}: {time.monotonic() - start:.1f} s")
    return table + peaks


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cpu", action="store_true", help="tiny sizes, even where a GPU is")
    parser.add_argument("--out", type=Path, help="a file for the same as JSON")
    given = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() and not given.cpu else "cpu")
    if device.type == "cpu":
        torch.set_num_threads(1)  # at tiny sizes threads only wait for one another
    check = prepare(device)
    head = describe_machine(device, check.title)
    rows = run_parts(check, PARTS)
    print(write_table(head, rows), end="")
    if given.out:
        content = {"machine": head, "rows": [asdict(row) for row in rows]}
        given.out.write_text(json.dumps(content, indent=2) + "\n")
    sys.exit(int(any(row.failed for row in rows)))


if __name__ == "__main__":
    main()
