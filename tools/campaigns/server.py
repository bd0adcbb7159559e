"""A server of MLflow's, started for a campaign and gone with all that it started."""

import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tools.campaigns.project import CampaignError, Project

#: Seconds in which a server must answer.
PATIENCE = 120


@contextmanager
def start_server(
    project: Project, command: Sequence[str], log: Path, health: str
) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    """A command that serves on a free port of this machine; its address and process.

    Args:
        command: without host and port.
        log: takes its output.
        health: page that answers when it is ready.

    Raises:
        CampaignError: it does not answer.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    variables = dict(project.environment) | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with log.open("ab") as file:
        server = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            cwd=log.parent, env=os.environ | variables, stdout=file, stderr=file,
            start_new_session=True,
        )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_for(server, f"{address}/{health}", log)
        yield address, server
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _wait_for(server: "subprocess.Popen[bytes]", address: str, log: Path) -> None:
    end = time.monotonic() + PATIENCE
    while server.poll() is None and time.monotonic() < end:
        with suppress(OSError), urllib.request.urlopen(address, timeout=5):
            return
        time.sleep(0.2)
    raise CampaignError(f"{address} does not answer:\n{log.read_text()[-3000:]}")
