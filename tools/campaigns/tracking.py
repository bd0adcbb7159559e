"""MLflow's server is killed while a result is recorded; afterwards it is recorded once, whole."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tools.campaigns.kills import compare, read_runs
from tools.campaigns.project import CampaignError, Project, make_project
from tools.campaigns.server import start_server


def kill_servers(folder: Path, count: int, seed: int) -> Iterator[list[str]]:
    """Kill the server in the middle of `count` recordings; for each, the faults."""
    project, draw = make_project(folder), random.Random(seed)
    with serve(project, folder / "whole") as (address, _):
        start = time.monotonic()
        code, output = record(project, address)
        seconds = time.monotonic() - start
        if code:
            raise CampaignError(f"recording fails, unhurt:\n{output[-3000:]}")
        wanted = read_runs(address)
    for number in range(count):
        store, moment = folder / f"store{number}", seconds * draw.uniform(0.3, 1)
        with serve(project, store) as (address, server):
            process = project.start(COMMAND, MLFLOW_TRACKING_URI=address)
            with suppress(subprocess.TimeoutExpired):
                process.wait(moment)
            os.killpg(server.pid, signal.SIGKILL)
            output, _ = process.communicate()
        words = f"kill {number} after {moment:.1f} of {seconds:.1f} s"
        faults = [f"{words}: a traceback\n{output[-3000:]}"] if "Traceback" in output else []
        if process.returncode and "Nothing is lost" not in output:
            faults.append(f"{words}: it does not say how to record later\n{output[-3000:]}")
        with serve(project, store) as (address, _):
            code, output = record(project, address)
            if code:
                faults.append(f"{words}: recording fails afterwards\n{output[-3000:]}")
            elif (seen := read_runs(address)) != wanted:
                faults.append(f"{words}: recorded otherwise: {compare(seen, wanted)}")
        yield faults


COMMAND = ("python", "-m", "stages.track", "track")


def record(project: Project, address: str) -> tuple[int, str]:
    """Record FuzzyCLIP's result; exit code and output."""
    process = project.start(COMMAND, MLFLOW_TRACKING_URI=address)
    output, _ = process.communicate()
    return process.returncode, output


@contextmanager
def serve(project: Project, store: Path) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    """MLflow's server over a SQLite store; its address and process."""
    store.mkdir(exist_ok=True)
    command = [
        "mlflow", "server", "--workers", "1",
        "--backend-store-uri", f"sqlite:///{store / 'mlflow.db'}",
        "--artifacts-destination", str(store / "artifacts"),
    ]  # fmt: skip
    with start_server(project, command, store / "log", "health") as server:
        yield server
