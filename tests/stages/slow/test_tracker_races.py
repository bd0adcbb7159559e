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
