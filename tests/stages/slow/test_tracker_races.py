"""The tracking store when several processes start at once."""

import os
import subprocess
import sys

from imports import ROOT
from mlflow.tracking import MlflowClient

START = """
from stages.tracking.store import find_store, open_experiment
client, experiment = open_experiment(find_store(), "together")
run = client.create_run(experiment)
client.log_metric(run.info.run_id, "pixel_aupro/mvtec", 1.0)
client.set_terminated(run.info.run_id)
"""


#: Records a result that another process may record at the same moment, after a slow look-up.
RECORD = """
import logging, sys, time
from pathlib import Path
from stages.tracking import runs
from stages.tracking.runs import Number, TrackedResult, record
logging.basicConfig(level=logging.INFO, format="%(message)s")
find = runs.find_run
def find_slowly(*arguments):
    there = find(*arguments)
    time.sleep(3)
    return there
runs.find_run = find_slowly
barrier, mine = Path(sys.argv[1]), Path(sys.argv[1]) / sys.argv[2]
open_alone = runs.open_experiment
def open_together(*arguments):
    opened = open_alone(*arguments)
    mine.touch()
    while len(list(barrier.iterdir())) < 3:
        time.sleep(0.01)
    return opened
runs.open_experiment = open_together
record("together", [TrackedResult(
    name="it's", identity=("digest", "dvc.exp_name"),
    tags={"digest": "0" * 64, "dvc.exp_name": "it's"}, params=[("seed", "it's")],
    metrics=[Number("average/pixel_ap", 1.0)], describe=lambda _: "it's",
)])
"""


def test_the_same_result_is_recorded_once_by_three_at_once(tmp_path):
    barrier, root = tmp_path / "barrier", tmp_path / "root"
    barrier.mkdir()
    root.mkdir()
    environment = os.environ | {"DVC_ROOT": str(root), "MLFLOW_DISABLE_TELEMETRY": "true"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    started = [
        subprocess.Popen(
            [sys.executable, "-c", RECORD, str(barrier), str(number)],
            cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True,
        )
        for number in range(3)
    ]  # fmt: skip
    told = [process.communicate(timeout=600)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0, 0], told
    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("together")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.tags["dvc.exp_name"] == "it's"
    assert sum("recorded as MLflow run it's" in text for text in told) == 1
    assert sum("it's is recorded already" in text for text in told) == 2
    assert sum("another process records into sqlite:" in text for text in told) == 2


def test_four_processes_may_start_on_a_fresh_store(tmp_path):
    environment = os.environ | {"DVC_ROOT": str(tmp_path), "MLFLOW_DISABLE_TELEMETRY": "true"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    started = [
        subprocess.Popen([sys.executable, "-c", START], cwd=ROOT, env=environment) for _ in range(4)
    ]
    assert [process.wait() for process in started] == [0, 0, 0, 0]
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("together")
    assert len(client.search_runs([experiment.experiment_id])) == 4
