"""`mlflow models serve`, really started, and what is asked of it."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import requests

#: Seconds for a server to start, and for an answer.
PATIENCE = 120


class Server:
    """A running server."""

    def __init__(self, process, address, log):
        self.process, self.address, self.log = process, address, log

    def post(self, body, kind="application/json"):
        if not isinstance(body, str | bytes):
            body = json.dumps(body)
        address, headers = f"{self.address}/invocations", {"Content-Type": kind}
        return requests.post(address, data=body, headers=headers, timeout=PATIENCE)

    def ask(self, *rows, **params):
        """Answers to rows."""
        body = {"dataframe_records": list(rows)} | ({"params": params} if params else {})
        answer = self.post(body)
        assert answer.status_code == 200, (answer.text, self.log.read_text())
        return answer.json()["predictions"]

    def is_ready(self):
        with contextlib.suppress(requests.ConnectionError):
            return requests.get(f"{self.address}/ping", timeout=5).status_code == 200
        return False


@contextlib.contextmanager
def start_server(model, place, variables):
    """A server in a process group of its own, in a folder; it is gone afterwards."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "FUZZYCLIP_DEVICE": "cpu",
        "OMP_NUM_THREADS": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    }
    command = [
        "mlflow", "models", "serve", "-m", str(model), "--env-manager", "local",
        "-h", "127.0.0.1", "-p", str(port),
    ]  # fmt: skip
    log = place / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=place, env=environment | variables, stdout=output, stderr=output,
            start_new_session=True,
        )  # fmt: skip
    server = Server(process, f"http://127.0.0.1:{port}", log)
    try:
        end = time.monotonic() + PATIENCE
        while not server.is_ready():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.1)
        yield server
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
