"""MLflow's server is killed while a result is recorded; afterwards it is recorded once, whole."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tools.campaigns.kills import compare, read_runs
from tools.campaigns.project import CampaignError, Project, make_project

#: Seconds in which a server must answer.
PATIENCE = 120


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
def serve(project: Project, store: Path) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """MLflow's server over a SQLite store; its address and process."""
    store.mkdir(exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = store / "log"
    with log.open("a") as file:
        server = subprocess.Popen(
            [
                sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1",
                "--port", str(port), "--workers", "1",
                "--backend-store-uri", f"sqlite:///{store / 'mlflow.db'}",
                "--artifacts-destination", str(store / "artifacts"),
            ],
            cwd=store, stdout=file, stderr=file, text=True, start_new_session=True,
            env=os.environ | dict(project.environment)
            | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(server, f"{address}/health", log)
        yield address, server
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def wait_for(server: "subprocess.Popen[str]", address: str, log: Path) -> None:
    """Wait until a server answers.

    Raises:
        CampaignError: it does not.
    """
    end = time.monotonic() + PATIENCE
    while server.poll() is None and time.monotonic() < end:
        with suppress(OSError), urllib.request.urlopen(address, timeout=5):
            return
        time.sleep(0.2)
    raise CampaignError(f"{address} does not answer:\n{log.read_text()[-3000:]}")
