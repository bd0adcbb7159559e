"""Pixel metrics of one category against the field's way: `python benchmarks/pixel_metrics.py`.

100 maps of 518 x 518. The field's way is scikit-learn's AUROC, average precision and
precision-recall curve over all pixels, and a loop over 200 thresholds that looks at every region of
every mask. Both ways are exact; their values are compared. The third way takes the maps as they
come and keeps a histogram; the exact values must lie within its bounds. A fourth, anomalib's, sorts
once for each metric; it needs an environment of its own, see benchmarks/anomalib_metrics.py, and is
left out without one. Seconds are the processor's. Prints lines: name, value, goal.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy import ndimage
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from fuzzyclip.evaluation.metrics import AUPRO_STEPS, FPR_LIMIT, compute_pixel_metrics  # noqa: E402
from fuzzyclip.evaluation.pixel_meters import StreamingMeter  # noqa: E402

IMAGES, SIDE = 100, 518


def make_maps():
    """Smooth maps and masks of one to three blobs; every third image is normal."""
    rng = np.random.default_rng(0)
    masks = np.zeros((IMAGES, SIDE, SIDE), dtype=bool)
    maps = np.empty((IMAGES, SIDE, SIDE), dtype=np.float32)
    for number in range(IMAGES):
        for _ in range(rng.integers(1, 4) if number % 3 else 0):
            y, x = rng.integers(0, SIDE - 80, 2)
            masks[number, y : y + rng.integers(5, 80), x : x + rng.integers(5, 80)] = True
        noise = ndimage.zoom(rng.normal(size=(37, 37)), SIDE / 37, order=1)
        maps[number] = noise + 1.5 * ndimage.gaussian_filter(masks[number].astype(float), 6)
    return maps, masks


def measure_as_the_field(maps, masks):
    """AUROC, AP, F1-max and the 200-threshold AUPRO."""
    labels, scores = masks.ravel(), maps.ravel()
    precision, recall, _ = precision_recall_curve(labels, scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    regions = [ndimage.label(mask, structure=np.ones((3, 3))) for mask in masks]
    low, high = float(maps.min()), float(maps.max())
    points = []
    for step in range(AUPRO_STEPS):
        hot = maps > low + (high - low) / AUPRO_STEPS * step
        covered = [
            above[labelled == index].mean()
            for above, (labelled, count) in zip(hot, regions, strict=True)
            for index in range(1, count + 1)
        ]
        points.append((np.mean(covered), hot[~masks].mean()))
    pros, fprs = np.array([point for point in points if point[1] < FPR_LIMIT]).T
    fprs = (fprs - fprs.min()) / (fprs.max() - fprs.min())
    return {
        "pixel_auroc": roc_auc_score(labels, scores),
        "pixel_ap": average_precision_score(labels, scores),
        "pixel_f1_max": f1.max(),
        "pixel_aupro": abs(np.trapezoid(pros, fprs)),
    }


def measure_whole(maps, masks):
    """All five metrics, and bounds that are the values themselves."""
    values = compute_pixel_metrics(maps, masks)
    return values, values, values


def measure_as_they_come(maps, masks):
    """Estimates and bounds from one map after the other."""
    meter = StreamingMeter()
    for score, mask in zip(maps, masks, strict=True):
        meter.add(score[None], mask[None])
    result = meter.compute()
    return result.values, result.low, result.high


def measure_field_values(maps, masks):
    """The field's four, in the others' form."""
    values = measure_as_the_field(maps, masks)
    return values, values, values


WAYS = {"ours": measure_whole, "stream": measure_as_they_come, "field": measure_field_values}


def run(way):
    """Values, seconds and memory above the maps, in a process of its own."""
    command = [sys.executable, __file__, "--measure", way]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    measured = json.loads(done.stdout.splitlines()[-1])
    times = measured["memory"] / measured["maps"]
    print(f"  {way:6}: {measured['seconds']:7.2f} s, {times:5.1f} times the maps more")
    return measured


def measure(way):
    maps, masks = make_maps()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    bounds = WAYS[way](maps, masks)
    seconds = time.process_time() - start
    more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    values, low, high = ({name: float(value) for name, value in each.items()} for each in bounds)
    sizes = {"memory": more, "maps": maps.nbytes}
    return {"seconds": seconds, **sizes, "values": values, "low": low, "high": high}


def run_anomalib(python):
    """Values and seconds of anomalib's exact metrics, by a Python that has it."""
    with tempfile.TemporaryDirectory() as folder:
        for name, array in zip(("maps", "masks"), make_maps(), strict=True):
            np.save(Path(folder) / f"{name}.npy", array)
        command = [python, str(ROOT / "benchmarks/anomalib_metrics.py"), folder]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    measured = json.loads(done.stdout.splitlines()[-1])
    each = ", ".join(f"{name} {seconds:.1f}" for name, seconds in measured["each"].items())
    print(f"  anomalib: {measured['seconds']:.2f} s ({each})")
    return measured


def compare_anomalib(ours):
    """A line for anomalib, where there is one; its values must be ours."""
    if not (python := os.environ.get("ANOMALIB_PYTHON")):
        print(
            "anomalib-metrics  not measured: set ANOMALIB_PYTHON (benchmarks/anomalib_metrics.py)"
        )
        return
    theirs = run_anomalib(python)
    for name, value in theirs["values"].items():
        # its sums are float32
        assert abs(ours["values"][name] - value) < 1e-4, (name, value, ours["values"][name])
    print(f"anomalib-metrics {theirs['seconds'] / ours['seconds']:.1f}  goal 10 (times faster)")


def main():
    ours, stream, field = run("ours"), run("stream"), run("field")
    for name, value in field["values"].items():
        assert abs(ours["values"][name] - value) < 1e-6, (name, value, ours["values"][name])
    for name, value in ours["values"].items():
        assert stream["low"][name] <= value <= stream["high"][name], (name, value, stream)
    width = max(stream["high"][name] - stream["low"][name] for name in ours["values"])
    error = max(abs(stream["values"][name] - value) for name, value in ours["values"].items())
    print(f"pixel-metrics   {field['seconds'] / ours['seconds']:.0f}  goal 60 (times faster)")
    compare_anomalib(ours)
    memory = ours["memory"] / ours["maps"]
    print(f"pixel-memory    {memory:.2f}  goal at most 2 (times the maps' memory)")
    print(f"stream-metrics  {field['seconds'] / stream['seconds']:.0f}  goal 30 (times faster)")
    more = stream["memory"] / 2**20
    print(f"stream-memory   {more:.0f}  goal at most 100 (MiB, however many maps)")
    print(f"stream-bounds   {width:.1e}  goal at most 1e-3 (widest of the five metrics)")
    print(f"stream-error    {error:.1e}  goal at most 1e-4 (largest of the five metrics)")


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[2]))) if "--measure" in sys.argv else main()
