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

import numpy as np
import pytest
import requests
import yaml
from imports import ROOT
from PIL import Image, ImageDraw, ImageFilter
from pipelines import change_params, clone_repository

PAGE = (ROOT / "docs/own-data.md").read_text()
REAL = os.environ.get("FUZZYCLIP_REAL_DATA")
LIMIT = 120.0  # seconds until the server must answer


def read_blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def draw_bracket(seed, defect=None):
    """A steel plate with two holes, uneven light and noise; its mask."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", (220, 160), (40, 42, 46))
    draw = ImageDraw.Draw(image)
    shift = rng.integers(-4, 5, 2)
    draw.rounded_rectangle((20 + shift[0], 25, 200 + shift[0], 135), 14, fill=(150, 152, 158))
    for x in (55, 165):
        draw.ellipse(
            (x + shift[0] - 14, 66 + shift[1], x + shift[0] + 14, 94 + shift[1]), (45, 46, 50)
        )
    mask = Image.new("L", image.size)
    mark = ImageDraw.Draw(mask)
    x, y = rng.integers(80, 130), rng.integers(45, 110)
    if defect == "scratch":
        for pen, ink in ((draw, (225, 228, 232)), (mark, 255)):
            pen.line((x, y, x + 26, y + 9), ink, width=3)
    if defect == "hole":
        for pen, ink in ((draw, (30, 30, 34)), (mark, 255)):
            pen.ellipse((x, y, x + 11, y + 11), ink)
    light = np.linspace(0.85, 1.1, 220)[None, :, None]
    pixels = np.asarray(image.filter(ImageFilter.GaussianBlur(0.6))) * light
    pixels = np.clip(pixels + rng.normal(0, 4, pixels.shape), 0, 255).astype(np.uint8)
    return Image.fromarray(pixels), mask


def save(image, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def lay_out_drawn(root):
    for number in range(6):
        save(draw_bracket(number)[0], root / f"brackets/good/{number}.png")
    for number in range(10):
        save(draw_bracket(50 + number)[0], root / f"held_out/good/{number}.png")
    for defect in ("scratch", "hole"):
        for number in range(3):
            image, mask = draw_bracket(100 + number, defect)
            save(image, root / f"brackets/{defect}/{number}.png")
            save(mask, root / f"brackets/ground_truth/{defect}/{number}_mask.png")
    for number, defect in enumerate((None, "scratch", "hole")):
        save(draw_bracket(200 + number, defect)[0], root / f"line/{number}.png")


def lay_out_real(root):
    """Commutators of the real cut of KolektorSDD; its defects are called scratch here."""
    with zipfile.ZipFile(Path(REAL) / "KolektorSDD.zip") as archive:
        names = [name for name in archive.namelist() if name.endswith(".jpg")]
        good, bad = [], []
        for name in sorted(names):
            label = name.replace(".jpg", "_label.bmp")
            mask = (
                Image.open(io.BytesIO(archive.read(label)))
                .convert("L")
                .point(lambda v: 255 * (v > 0))
            )
            part = Image.open(io.BytesIO(archive.read(name))).convert("RGB")
            (bad if mask.getbbox() else good).append((part, mask))
    for number, (part, _) in enumerate(good[:6]):
        save(part, root / f"brackets/good/{number}.png")
    for number, (part, _) in enumerate(good[6:16]):
        save(part, root / f"held_out/good/{number}.png")
    for number, (part, mask) in enumerate(bad[:3]):
        save(part, root / f"brackets/scratch/{number}.png")
        save(mask, root / f"brackets/ground_truth/scratch/{number}_mask.png")
    for number, (part, _) in enumerate([*good[16:18], bad[3]]):
        save(part, root / f"line/{number}.png")


@pytest.fixture
def clone(pipeline, tmp_path):
    """A clone of a finished pipeline, with parts in `data`: real ones where there are any."""
    (lay_out_real if REAL else lay_out_drawn)(tmp_path / "data")
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
    assert "by quantile; from 10 normal" in run_block(quantile, clone)
    assert "by f1_max; from 10 normal, 3 anomalous" in run_block(by_f1, clone)
    assert "9.png" in run_block(inspect, clone)
    assert len(list((clone / "found").glob("*.overlay.png"))) == 3
    assert (clone / "found/scores.csv").read_text().count("quantile") == 3
    (script,) = read_blocks("python")
    (clone / "script.py").write_text(adapt(script, clone, port))
    said = run_block("python script.py", clone).split()[-5:]
    assert said[0] in ("normal", "anomalous")
    run_block(pack, clone)
    with Server(serve, clone, port):
        (answer,) = json.loads(run_block(ask, clone))["predictions"]
    assert answer["decision"] == said[0]
    assert answer["image_score"] == pytest.approx(float(said[1]), abs=1e-5)
    run_block(export, clone)
    assert (clone / "brackets.onnx").stat().st_size > 1_000_000
    shutil.rmtree(clone)
