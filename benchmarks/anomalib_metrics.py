"""Pixel metrics by anomalib, for `benchmarks/pixel_metrics.py`: run by another Python that has it.

    python -m venv anomalib-env && anomalib-env/bin/pip install anomalib==2.7.0
    ANOMALIB_PYTHON=anomalib-env/bin/python python benchmarks/pixel_metrics.py

Takes a folder with maps.npy and masks.npy; prints JSON: seconds and values, by our names. Not
beside our own packages: anomalib wants an older open_clip than this project.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from anomalib.metrics.aupr import _AUPR
from anomalib.metrics.aupro import _AUPRO
from anomalib.metrics.auroc import _AUROC
from anomalib.metrics.f1_score import _F1Max

METRICS = {
    "pixel_auroc": _AUROC,
    "pixel_ap": _AUPR,
    "pixel_f1_max": _F1Max,
    "pixel_aupro_std": _AUPRO,
}


def main(folder):
    torch.set_num_threads(1)
    maps, masks = (torch.from_numpy(np.load(folder / f"{name}.npy")) for name in ("maps", "masks"))
    # its metrics take a logit for a map outside of [0, 1]; the order is all that counts
    maps = (maps - maps.min()) / (maps.max() - maps.min())
    start, seconds, values = time.process_time(), {}, {}
    for name, build in METRICS.items():
        begun, metric = time.process_time(), build()
        for anomaly_map, mask in zip(maps, masks, strict=True):
            metric.update(anomaly_map[None], mask[None].int())
        values[name] = float(metric.compute())
        seconds[name] = time.process_time() - begun
    print(json.dumps({"seconds": time.process_time() - start, "each": seconds, "values": values}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
