"""Two runs compared in MLflow, made by README's commands in a clone with a store of its own.

The clone is of the work tree as it is. It shares DVC's cache with the checkout, so that what has
run here comes from there, and what the changed run computes is kept for the next time.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from PIL import Image

from tools.pictures.browser import open_page, take_picture
from tools.pictures.sources import PictureError

#: What differs between the runs, and their names.
CHANGE = "csp.penalty=0.3"
RUNS = ("baseline", CHANGE)
#: FuzzyCLIP's means, and what CSP chooses its partition by, under any penalty.
SOURCES = ("metrics/headline.json", "metrics/csp/visa.json", "metrics/csp/mvtec.json")
#: Switches MLflow's assistant off, which else lies over a third of the page.
NO_ASSISTANT = """
localStorage.setItem("mlflow.assistant.fab.autoOpenedOnFirstLoad_v1", "true");
localStorage.setItem("mlflow.assistant.panelOpen_v1", "false");
"""
#: Size of the page, so tall that nothing is scrolled, and pixels of the picture's edge.
WIDTH, HEIGHT, EDGE = 1440, 1200, 12
#: The first metric that is not shown: the headline stands before it, in a list that is cut there.
CUT = "average/pixel_auroc"
#: Seconds in which the server must answer, and in which it must have gone when it is told to.
PATIENCE = 60
#: Who commits in the clone, whatever a person's own configuration of git asks for.
IDENTITY = {"user.name": "pictures", "user.email": "pictures@localhost", "commit.gpgsign": "false"}
#: Variables that would lead DVC and the stages to another place.
ELSEWHERE = ("DVC_", "FUZZYCLIP_", "MLFLOW_", "GIT_")


def draw(root: Path) -> Image.Image:
    """MLflow's page that compares the two runs: names, what differs, headline metrics."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        uri = f"sqlite:///{folder / 'mlflow.db'}"
        environment = prepare_environment(folder / "clone", uri)
        clone(root, folder / "clone", environment)
        run_both(folder / "clone", environment)
        with serve(uri, environment, folder / "server.log") as address:
            return photograph(address)


def prepare_environment(checkout: Path, store: str) -> dict[str, str]:
    """Variables for commands of a checkout, with a store of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ELSEWHERE)}
    programs = os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", "")])
    return kept | {
        "PATH": programs,
        "PYTHONPATH": str(checkout),
        "DVC_NO_ANALYTICS": "1",
        "MLFLOW_TRACKING_URI": store,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }


def clone(root: Path, target: Path, environment: Mapping[str, str]) -> None:
    """A clone of the work tree as it is, all committed there, with the checkout's cache of DVC."""
    cache = run(root, environment, "dvc", "cache", "dir").strip()
    names = run(root, environment, "git", "ls-files", "-zco", "--exclude-standard").split("\0")
    run(root, environment, "git", "clone", "--quiet", ".", str(target))
    for name in filter(None, names):
        (target / name).unlink(missing_ok=True)
        if (root / name).is_file():  # else it was deleted here
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / name, target / name)
    for key, value in IDENTITY.items():
        run(target, environment, "git", "config", key, value)
    run(target, environment, "git", "add", "--all")
    if run(target, environment, "git", "status", "--porcelain"):
        run(target, environment, "git", "commit", "--quiet", "--message", "as in the work tree")
    run(target, environment, "dvc", "cache", "dir", "--local", cache)
    run(target, environment, "dvc", "config", "--local", "cache.type", "hardlink,symlink,copy")
    run(target, environment, "dvc", "checkout", "--quiet", "--allow-missing")


def run_both(checkout: Path, environment: Mapping[str, str]) -> None:
    """Record the result as it is, and that of the change.

    Raises:
        PictureError: the result is not of this code.
    """
    status = run(checkout, environment, "dvc", "status", "--json", "--with-deps", "track")
    if changed := json.loads(status):
        raise PictureError(f"{', '.join(changed)}: not of this work tree: `dvc repro track` first")
    run(checkout, environment, "python", "-m", "stages.track")
    run(checkout, environment, "dvc", "exp", "run", "track", "--set-param", CHANGE)


def run(folder: Path, environment: Mapping[str, str], *command: str) -> str:
    """What a command prints, those of Python's packages by this Python.

    Raises:
        PictureError: it fails; with what it said last.
    """
    program, *arguments = command
    words = {"dvc": [sys.executable, "-m", "dvc"], "python": [sys.executable]}
    done = subprocess.run(
        [*words.get(program, [program]), *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        said = "\n".join((done.stdout + done.stderr).splitlines()[-20:])
        raise PictureError(f"`{' '.join(command)}` failed:\n{said}")
    return done.stdout


@contextmanager
def serve(store: str, environment: Mapping[str, str], log: Path) -> Iterator[str]:
    """The address of MLflow's pages, on a free port of loopback; stopped in the end.

    Raises:
        PictureError: it does not answer; with what it said last.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--backend-store-uri", store, "--host", "127.0.0.1", "--port", str(port)]
    with log.open("w") as file:
        server = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "ui", *options, "--workers", "1"],
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
            cwd=log.parent,
            start_new_session=True,  # with all that it starts
        )
    try:
        address = f"http://127.0.0.1:{port}"
        wait_for(server, address, log)
        yield address
    finally:
        stop(server)


def wait_for(server: "subprocess.Popen[bytes]", address: str, log: Path) -> None:
    """Wait until a server answers."""
    end = time.monotonic() + PATIENCE
    while server.poll() is None and time.monotonic() < end:
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    said = "\n".join(log.read_text().splitlines()[-20:])
    raise PictureError(f"`mlflow ui` does not answer within {PATIENCE} seconds:\n{said}")


def stop(server: "subprocess.Popen[bytes]") -> None:
    """End a server and all that it started."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(server.pid, sign)
            server.wait(PATIENCE)
        except ProcessLookupError:
            break
        except subprocess.TimeoutExpired:
            continue
    server.wait()


def photograph(address: str) -> Image.Image:
    """The comparison of the two runs, without what is the same for all pages of MLflow.

    Raises:
        PictureError: there are other runs, or the page is another than was known.
    """
    experiment, runs = list_runs(address)
    if sorted(runs) != sorted(RUNS):
        raise PictureError(f"the runs are called {', '.join(runs)}, not {', '.join(RUNS)}")
    ids = json.dumps([runs[name] for name in RUNS], separators=(",", ":"))
    page = f"#/compare-runs?runs={quote(ids)}&experiments={quote(json.dumps([experiment]))}"
    with open_page(WIDTH, HEIGHT) as shown:
        shown.add_init_script(NO_ASSISTANT)
        shown.goto(f"{address}/{page}")
        shown.get_by_text("Visualizations", exact=True).click()
        shown.get_by_label("Parameters - Show diff only").click()
        shown.get_by_label("Toggle sidebar").click()
        shown.mouse.move(0, 0)
        shown.wait_for_timeout(1000)  # what folds up takes its time
        first = shown.locator("table").first.locator("tr").first.locator("th, td")
        begin, end = first.first.bounding_box(), first.last.bounding_box()
        title = shown.get_by_role("heading", name="Comparing 2 Runs").bounding_box()
        after = shown.get_by_role("link", name=CUT, exact=True).bounding_box()
        if not (begin and end and title and after):
            raise PictureError("MLflow's page of two runs is another than was known")
        left, top = begin["x"] - EDGE, title["y"]
        width, height = end["x"] + end["width"] + EDGE - left, after["y"] - EDGE - top
        return take_picture(shown, {"x": left, "y": top, "width": width, "height": height})


def list_runs(address: str) -> tuple[str, dict[str, str]]:
    """The experiment, and its runs' ids by name."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(address)
    (experiment,) = client.search_experiments(filter_string="name = 'fuzzyclip'")
    runs = client.search_runs([experiment.experiment_id])
    return experiment.experiment_id, {run.info.run_name: run.info.run_id for run in runs}
