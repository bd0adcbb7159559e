"""What tests/slow/test_ray.py runs in other processes: a Ray cluster, jobs on it, held actors."""

import os
import pickle
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from uuid import uuid4

import psutil

LIMIT = 150.0  # seconds until a wait is given up


def wait_for(condition, what):
    """Look again and again, but not for ever."""
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.05)


class Cluster:
    """Two raylets on loopback, started as a user starts them; one CPU each."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))  # sockets want short paths
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address = f"127.0.0.1:{port}"
        self.environment = os.environ | {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),  # else Ray would put one into the home folder
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_TMPDIR": str(self.folder),  # for a Ray that a job starts by itself
        }
        self.started, self.second = [], None
        self._start("--head", f"--port={port}", "--include-dashboard=false")

    def _start(self, *options):
        command = [
            str(Path(sys.executable).parent / "ray"), "start", "--block", *options,
            "--node-ip-address=127.0.0.1", "--num-cpus=1", "--num-gpus=0",
            f"--object-store-memory={100 * 2**20}", f"--temp-dir={self.folder}",
        ]  # fmt: skip
        log = self.folder / f"{len(self.started)}.txt"
        with log.open("w") as file:
            process = subprocess.Popen(
                command, env=self.environment, stdout=file, stderr=file, start_new_session=True
            )
        self.started.append(process)
        wait_for(lambda: "Ray runtime started" in log.read_text(), f"ray start, see {log}")
        return process

    def ensure_second(self):
        """The second machine runs, started again if it was killed."""
        if self.second is None:
            self.second = self._start(f"--address={self.address}")

    def kill_second(self):
        """A machine that is gone from one moment to the next: its raylet, actors and all."""
        kill_tree(self.second)
        self.second = None

    def stop(self):
        left = [each for process in self.started for each in kill_tree(process)]
        shutil.rmtree(self.folder, ignore_errors=True)
        assert not left, left

    def start_job(self, name, **arguments):
        """`run_job` in a process of its own, connected to this cluster unless told otherwise."""
        path = self.folder / f"{uuid4().hex}.pickle"
        path.write_bytes(pickle.dumps({"address": self.address} | arguments))
        return subprocess.Popen(
            [sys.executable, __file__, name, str(path)],
            env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip


def kill_tree(process):
    """Kill a process and all that it started; the answer is what lives on."""
    try:
        root = psutil.Process(process.pid)
        tree = [*root.children(recursive=True), root]
    except psutil.NoSuchProcess:
        return []
    for each in tree:
        if each.is_running():
            each.kill()
    process.wait()
    return psutil.wait_procs(tree, timeout=10)[1]


def build_held(build, gate, calls=5):
    """Build what an actor needs; after some batches of images it waits until the gate is open.

    Each batch that reaches the image tower leaves a file in `gate`, named after the machine.
    """
    import ray

    node = ray.get_runtime_context().get_node_id()
    done = 0

    def hold(_, inputs):
        nonlocal done
        if not inputs[0].any():
            return  # no image: the black one that shapes are measured with
        done += 1
        (gate / f"{node}.{uuid4().hex}").touch()
        if done > calls:
            wait_for((gate / "open").exists, "the gate")

    built = build()
    backbone = getattr(built, "backbone", built)  # of a detector
    backbone.model.visual.conv1.register_forward_pre_hook(hold)
    return built


def build_detector(build, sigma=1.0, score="class"):
    """A detector without training, whose text is drawn."""
    import torch

    from fuzzyclip.method.scorer import build_untrained
    from fuzzyclip.model.inference import CategoryModel

    backbone = build()
    text = torch.randn(backbone.embed_dim, 2, generator=torch.Generator().manual_seed(0))
    unit = torch.nn.functional.normalize(text, dim=0)
    return CategoryModel(backbone, build_untrained(backbone, "drawn", unit), sigma, score)


def run_job(name, arguments):
    """One call of the library; its answer or its error, printed."""
    from fuzzyclip.distributed.engine import encode_shards_on_ray
    from fuzzyclip.distributed.inference import detect_on_ray

    work = {"encode": encode_shards_on_ray, "detect": detect_on_ray}[name]
    try:
        print(work(**arguments))
    except (OSError, ValueError) as error:
        print(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    run_job(sys.argv[1], pickle.loads(Path(sys.argv[2]).read_bytes()))
