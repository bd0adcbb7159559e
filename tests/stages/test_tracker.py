"""The tracking store: in the main checkout, and what is found in it."""

import pytest

from stages.track import describe_ui, find_run, open_experiment


@pytest.fixture(autouse=True)
def _own_store(tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def test_artifacts_lie_in_the_main_checkout_also_from_a_copy(tmp_path, monkeypatch):
    copy = tmp_path / "copy"
    copy.mkdir()
    monkeypatch.chdir(copy)  # as `dvc exp run --temp` does
    client, experiment = open_experiment("fuzzyclip")
    location = client.get_experiment(experiment).artifact_location
    assert location == (tmp_path / "mlartifacts").as_uri()
    assert str(tmp_path / "mlflow.db") in describe_ui(experiment)
    assert not list(copy.iterdir())


def test_a_finished_run_is_found_by_its_tags_and_a_failed_one_is_not():
    client, experiment = open_experiment("fuzzyclip")
    tags = {"dvc.lock_sha256": "a" * 64, "dvc.exp_name": ""}
    failed = client.create_run(experiment, tags=tags)
    client.set_terminated(failed.info.run_id, status="FAILED")
    assert find_run(client, experiment, tags) is None
    done = client.create_run(experiment, tags=tags)
    client.set_terminated(done.info.run_id)
    assert find_run(client, experiment, tags) == done.info.run_id
    assert find_run(client, experiment, tags | {"dvc.exp_name": "other"}) is None
