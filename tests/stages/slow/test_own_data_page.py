"""docs/own-data.md, word for word: its blocks run in a clone, with drawn or real parts as /data."""

import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import requests
import yaml
from imports import ROOT
from PIL import Image
from pipelines import change_params, clone_repository

from fuzzyclip.sample.archives import write_sample_archives

PAGE = (ROOT / "docs/own-data.md").read_text()
REAL = os.environ.get("FUZZYCLIP_REAL_DATA")
LIMIT = 120.0  # seconds until the server must answer


def read_blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def save(image, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def lay_out(archive, root):
    """Commutators of KolektorSDD, drawn or real; its defects are called scratch here."""
    with zipfile.ZipFile(archive) as archive:
        names = [name for name in archive.namelist() if name.endswith(".jpg")]
        normal, anomalous = [], []
        for name in sorted(names):
            label = name.replace(".jpg", "_label.bmp")
            mask = (
                Image.open(io.BytesIO(archive.read(label)))
                .convert("L")
                .point(lambda v: 255 * (v > 0))
            )
            part = Image.open(io.BytesIO(archive.read(name))).convert("RGB")
            (anomalous if mask.getbbox() else normal).append((part, mask))
    for number, (part, _) in enumerate(normal[:6]):
        save(part, root / f"brackets/good/{number}.png")
    for number, (part, _) in enumerate(normal[6:16]):
        save(part, root / f"held_out/good/{number}.png")
    for number, (part, mask) in enumerate(anomalous[:3]):
        save(part, root / f"brackets/scratch/{number}.png")
        save(mask, root / f"brackets/ground_truth/scratch/{number}_mask.png")
    for number, (part, _) in enumerate([*normal[16:18], anomalous[3]]):
        save(part, root / f"line/{number}.png")


@pytest.fixture
def clone(pipeline, tmp_path):
    """A clone of a finished pipeline, with parts in `data`: real ones where there are any."""
    if not REAL:
        sizes = {"train_normal": 8, "test_normal": 20, "test_anomalous": 8}
        write_sample_archives("sdd", tmp_path / "drawn", seed=0, **sizes)
    lay_out(Path(REAL or tmp_path / "drawn") / "KolektorSDD.zip", tmp_path / "data")
    (tmp_path / "data/line/9.png").write_bytes(b"not an image")
    return clone_repository(pipeline[0], tmp_path / "clone")


def adapt(block, folder, port):
    """A block as it runs here: its own folders and port, and what is installed already."""
    block = block.replace("/data/", f"{folder.parent}/data/").replace("5000", str(port))
    return re.sub(r"^(source|pip) .*$", ":", block, flags=re.MULTILINE)


def run_block(block, folder):
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "XDG_CACHE_HOME": str(folder.parent / "cache"),
        "DVC_NO_ANALYTICS": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block], cwd=folder, env=environment,
        capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def find_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Server:
    """The page's server, started as it says, ended with all its processes."""

    def __init__(self, block, folder, port):
        command = block.strip().removesuffix("&")
        self.log = (folder / "server.txt").open("w+")
        self.process = subprocess.Popen(
            ["bash", "-c", command], cwd=folder, stdout=self.log, stderr=self.log,
            start_new_session=True,
            env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        )  # fmt: skip
        self.address = f"http://127.0.0.1:{port}/health"

    def __enter__(self):
        end = time.monotonic() + LIMIT
        while time.monotonic() < end:
            try:
                if requests.get(self.address, timeout=2).ok:
                    return
            except requests.RequestException:
                time.sleep(0.3)
        raise AssertionError(Path(self.log.name).read_text())

    def __exit__(self, *error):
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.log.close()


def test_every_step_of_the_page_does_what_it_says(clone):
    port = find_port()
    check, evaluate, quantile, by_f1, inspect, pack, serve, ask, export = (
        adapt(block, clone, port) for block in read_blocks("bash")
    )
    assert "metal bracket" in run_block(check, clone)
    (added,) = read_blocks("yaml")
    for section, entries in yaml.safe_load(adapt(added, clone, port)).items():
        change_params(clone, lambda params, at=section, new=entries: params[at].update(new))
    printed = run_block(evaluate, clone)
    metrics = json.loads((clone / "metrics/datasets/brackets.json").read_text())
    assert {"pixel_aupro", "image_auroc"} <= set(metrics)
    assert f"{metrics['image_auroc']}" in printed
    assert "by the false alarm rate, from 10 normal" in run_block(quantile, clone)
    assert "of the largest F1, from 10 normal and 3 anomalous" in run_block(by_f1, clone)
    assert "9.png" in run_block(inspect, clone)
    assert len(list((clone / "found").glob("*.overlay.jpg"))) == 3
    assert (clone / "found/scores.csv").read_text().count("quantile") == 3
    compare, script = read_blocks("python")
    (clone / "compare.py").write_text(adapt(compare, clone, port))
    compared = run_block("python compare.py", clone)
    aurocs = dict(re.findall(r"^(class|map|both) ([\d.]+)$", compared, re.MULTILINE))
    assert float(aurocs["class"]) == pytest.approx(metrics["image_auroc"], abs=0.06)
    assert len(aurocs) == 3
    (clone / "script.py").write_text(adapt(script, clone, port))
    decided = run_block("python script.py", clone).split()[-5:]
    assert decided[0] in ("normal", "anomalous")
    run_block(pack, clone)
    with Server(serve, clone, port):
        (answer,) = json.loads(run_block(ask, clone))["predictions"]
    assert answer["decision"] == decided[0]
    assert answer["image_score"] == pytest.approx(float(decided[1]), abs=1e-5)
    run_block(export, clone)
    assert (clone / "brackets.onnx").stat().st_size > 1_000_000
    shutil.rmtree(clone)
