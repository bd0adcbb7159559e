"""The tracking store: where it is, what is found in it, and what is said of one that is away."""

import dataclasses
import logging
import os
import shutil
import socket
import time
from contextlib import chdir
from pathlib import Path

import mlflow
import pytest
from imports import ROOT
from mlflow.exceptions import MlflowException, RestException
from mlflow.tracking import MlflowClient

from fuzzyclip.utils.endings import BUG, judge
from stages.tracking import runs
from stages.tracking import store as tracking
from stages.tracking.runs import Number, TrackedResult, record
from stages.tracking.store import (
    NotRecordedError,
    Store,
    find_root,
    find_run,
    find_store,
    open_experiment,
    tag_recorder,
)

RESULT = TrackedResult(
    name="a result",
    identity=("method",),
    tags={"method": "fuzzyclip", "dvc.exp_name": ""},
    params=[("seed", "111")],
    metrics=[Number("average/pixel_ap", 50.0), Number("pixel_ap/visa", float("nan"))],
    describe=lambda artifacts: f"see {artifacts}",
)
OUTSIDE = ("MLFLOW_TRACKING_URI", "DVC_STAGE", "DVC_EXP_NAME", "DVC_EXP_BASELINE_REV")


@pytest.fixture
def root(tmp_path, monkeypatch, made_store):
    """A main checkout to which the store was moved, as MLflow knows it before anything is set."""
    for name in OUTSIDE:
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "main checkout"
    shutil.copytree(made_store, folder)
    monkeypatch.setenv("DVC_ROOT", str(folder))
    monkeypatch.chdir(folder)
    return folder


def test_artifacts_lie_in_the_main_checkout_also_from_a_copy(root, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    with chdir(copy):  # as `dvc exp run --temp` does
        client, experiment = open_experiment(find_store(), "another")
    location = client.get_experiment(experiment).artifact_location
    assert location == (root / "mlartifacts").as_uri()
    assert not list(copy.iterdir())


def test_the_hint_is_the_same_before_and_after_mlflow_set_its_variable(root, monkeypatch):
    before = find_store().open_ui("1")
    open_experiment(find_store(), "fuzzyclip")
    assert mlflow.get_tracking_uri() == f"sqlite:///{root / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow.get_tracking_uri())  # as MLflow may
    assert find_store().open_ui("1") == before
    command, _, address = before.splitlines()
    assert command.endswith(f"mlflow ui --backend-store-uri 'sqlite:///{root / 'mlflow.db'}'")
    assert address.strip().startswith(
        "http://127.0.0.1:5000/#/experiments/1/runs?workflowType=machine_learning"
    )


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("http://server:5000/", "http://server:5000/#/experiments/7/runs?workflowType="),
        ("https://me:secret@server/mlflow", "https://server/mlflow/#/experiments/7/runs?"),
        ("postgresql://me:secret@server/runs", '--backend-store-uri "$MLFLOW_TRACKING_URI"'),
    ],
)
def test_servers_are_named_without_passwords(monkeypatch, uri, expected):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    shown = find_store().open_ui("7")
    assert expected in shown
    assert "secret" not in shown + tracking.describe_retry(find_store())


def test_a_relative_file_is_one_of_the_main_checkout(root, tmp_path, monkeypatch):
    """docs/serving.md sets it so; from a copy it would be lost with the copy."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    with chdir(tmp_path):
        assert find_store().file == root / "mlflow.db"
        assert find_store().artifacts == (root / "mlartifacts").as_uri()


def test_pages_say_the_command_and_the_address_that_track_prints(root):
    command, _, address = find_store().open_ui("1").splitlines()
    command = command.replace(f"'sqlite:///{root / 'mlflow.db'}'", "sqlite:///mlflow.db")
    for name in ("README.md", "docs/tracking.md"):
        text = (ROOT / name).read_text()
        assert command in text, name
        assert address.strip() in text, name
    makefile = (ROOT / "Makefile").read_text()
    assert "mlflow ui" not in makefile  # its last command prints both
    recipe = makefile.partition("\nrepro:")[2].partition("\n\n")[0]
    assert recipe.endswith("python -m stages.track")


def test_a_finished_run_is_found_by_its_tags_and_a_failed_one_is_not(root):
    client, experiment = open_experiment(find_store(), "fuzzyclip")
    digest = {"dvc.lock_sha256": "a" * 64}
    tags = digest | {"dvc.exp_name": ""}
    failed = client.create_run(experiment, tags=digest)
    client.set_terminated(failed.info.run_id, status="FAILED")
    assert find_run(client, experiment, tags) is None
    for kept in (digest, tags):  # earlier versions kept empty tags
        done = client.create_run(experiment, tags=kept)
        client.set_terminated(done.info.run_id)
        assert find_run(client, experiment, tags) == done.info.run_id
        assert find_run(client, experiment, tags | {"dvc.exp_name": "other"}) is None
        client.delete_run(done.info.run_id)
    named = client.create_run(experiment, tags=digest | {"dvc.exp_name": "other"})
    client.set_terminated(named.info.run_id)
    assert find_run(client, experiment, tags) is None


def test_a_result_is_recorded_once_and_without_what_is_empty(root):
    for _ in range(2):
        record("fuzzyclip", [RESULT])
    client = MlflowClient(find_store().uri)
    (run,) = client.search_runs(["1"], "tags.method = 'fuzzyclip'")
    assert run.info.run_name == "a result"
    assert run.data.metrics == {"average/pixel_ap": 50.0}
    assert all(run.data.tags.values())
    assert "dvc.exp_name" not in run.data.tags
    page = f"#/experiments/1/runs/{run.info.run_id}/artifacts"
    assert run.data.tags["mlflow.note.content"] == f"see {page}"


def list_artifacts():
    """Content of the run's note, and the places that the store names; as in a new process."""
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    client, experiment = open_experiment(find_store(), "fuzzyclip")
    (run,) = client.search_runs([experiment])
    kept = Path(client.download_artifacts(run.info.run_id, "note.txt")).read_text()
    return kept, {client.get_experiment(experiment).artifact_location, run.info.artifact_uri}


def test_what_a_kill_left_half_recorded_is_marked_when_it_is_recorded_again(root):
    client, experiment = open_experiment(find_store(), "killed")
    half = client.create_run(experiment, tags={"method": "fuzzyclip"}).info.run_id
    other = client.create_run(experiment, tags={"method": "coop"}).info.run_id
    record("killed", [RESULT])
    states = {run.info.run_id: run.info.status for run in client.search_runs([experiment])}
    assert states.pop(half) == "KILLED"
    assert states.pop(other) == "RUNNING"  # of another result, which somebody may be recording
    assert [*states.values()] == ["FINISHED"]


def test_of_a_server_only_what_this_checkout_left_is_marked(root, tmp_path, monkeypatch):
    served = Store(find_store().uri, None)  # a file of ours in a server's place
    monkeypatch.setattr(runs, "find_store", lambda: served)
    monkeypatch.setattr(tracking, "check_answer", lambda store: None)
    client, experiment = open_experiment(served, "killed")
    half, elsewhere = [], tmp_path / "clone"
    for place in (find_root(), elsewhere):
        monkeypatch.setenv("DVC_ROOT", str(place))
        tags = {"method": "fuzzyclip", **tag_recorder(served)}
        half.append(client.create_run(experiment, tags=tags).info.run_id)
    elsewhere.mkdir()
    record("killed", [RESULT])
    states = {run.info.run_id: run.info.status for run in client.search_runs([experiment])}
    assert [states.pop(run) for run in half] == ["RUNNING", "KILLED"]
    assert [*states.values()] == ["FINISHED"]


def test_a_run_is_known_by_its_identity_from_its_first_moment(root, monkeypatch):
    def stop(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        record("killed", [dataclasses.replace(RESULT, describe=stop)])
    client, experiment = open_experiment(find_store(), "killed")
    (run,) = client.search_runs([experiment])
    assert run.data.tags["method"] == "fuzzyclip"
    assert run.info.status != "FINISHED"


def test_artifacts_move_with_the_checkout(root, tmp_path, monkeypatch, caplog):
    before = list_artifacts()
    moved = tmp_path / "moved"
    root.rename(moved)
    monkeypatch.setenv("DVC_ROOT", str(moved))
    caplog.clear()
    kept, places = list_artifacts()
    assert kept == before[0] == "kept"
    assert all(place.startswith((moved / "mlartifacts").as_uri()) for place in places)
    assert not root.exists()
    (warning,) = [line.getMessage() for line in caplog.records if "artifacts of" in line.message]
    assert (root / "mlartifacts").as_uri() in warning
    caplog.clear()
    list_artifacts()
    assert not caplog.records


def test_a_copied_checkout_has_artifacts_of_its_own(root, made_store):
    _, places = list_artifacts()  # `root` is a copy of `made_store`, which is still there
    assert all(place.startswith((root / "mlartifacts").as_uri()) for place in places)
    assert (made_store / "mlartifacts").is_dir()


def test_without_their_files_earlier_runs_stay_where_they_were(root, caplog):
    shutil.rmtree(root / "mlartifacts")
    kept, places = list_artifacts()
    assert kept == "kept"
    assert (root / "mlartifacts").as_uri() in places
    assert "those of earlier runs stay where they were" in caplog.text


def test_a_place_that_somebody_chose_is_left_alone(root, tmp_path):
    for name in ("elsewhere", "shared/mlartifacts"):
        chosen = tmp_path / name
        chosen.mkdir(parents=True)
        client, _ = open_experiment(find_store(), "fuzzyclip")
        made = client.create_experiment(name.replace("/", "-"), artifact_location=chosen.as_uri())
        open_experiment(find_store(), "fuzzyclip")
        assert client.get_experiment(made).artifact_location == chosen.as_uri()


@pytest.fixture(params=["refuses", "is silent"])
def server(request, monkeypatch):
    """The address of a server that does not answer, in one of two ways."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        if request.param == "is silent":
            listening.listen()
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        yield address


def test_a_server_that_does_not_answer_is_said_in_time_with_the_way_to_record_later(
    root, server, monkeypatch
):
    assert tracking.PATIENCE == 10
    monkeypatch.setattr(tracking, "PATIENCE", 1)
    monkeypatch.setenv("DVC_STAGE", "baselines")
    start = time.monotonic()
    with pytest.raises(NotRecordedError) as caught:
        record("fuzzyclip", [RESULT])
    assert time.monotonic() - start < 4
    message = str(caught.value)
    assert server in message
    assert message.endswith(f"MLFLOW_TRACKING_URI={server} python -m stages.track baselines")


@pytest.mark.parametrize("fault", [NotADirectoryError("files"), RuntimeError("no such bucket")])
def test_whatever_a_storage_raises_keeps_an_experiment_of_dvcs(root, monkeypatch, caplog, fault):
    def fail(*_):
        raise fault

    monkeypatch.setattr(runs, "_record_all", fail)
    with pytest.raises(NotRecordedError if isinstance(fault, OSError) else RuntimeError):
        record("fuzzyclip", [RESULT])
    monkeypatch.setenv("DVC_EXP_NAME", "it's")
    record("fuzzyclip", [RESULT])
    (warning,) = [line.getMessage() for line in caplog.records if line.levelname == "WARNING"]
    assert warning.startswith("NOT RECORDED")
    assert str(fault) in warning
    assert """dvc exp apply 'it'"'"'s' && """ in warning


def test_a_run_is_found_by_a_tag_that_holds_a_quote(root):
    client, experiment = open_experiment(find_store(), "fuzzyclip")
    tags = {"dvc.lock_sha256": "b" * 64, "dvc.exp_name": "it's"}
    run = client.create_run(experiment, tags=tags)
    client.set_terminated(run.info.run_id)
    assert find_run(client, experiment, tags) == run.info.run_id
    assert find_run(client, experiment, tags | {"dvc.exp_name": "its"}) is None


def test_an_experiment_of_dvcs_is_kept_when_its_recording_fails(root, server, monkeypatch, caplog):
    """A failed stage would lose the results of `--temp`, which are finished."""
    monkeypatch.setattr(tracking, "PATIENCE", 1)
    monkeypatch.setenv("DVC_EXP_NAME", "tawny-jaws")
    monkeypatch.setenv("DVC_EXP_BASELINE_REV", "f" * 40)
    with caplog.at_level(logging.WARNING):
        record("fuzzyclip", [RESULT])
    (warning,) = [line.getMessage() for line in caplog.records if line.levelname == "WARNING"]
    assert warning.startswith("NOT RECORDED")
    assert (
        f"dvc exp apply tawny-jaws && DVC_EXP_NAME=tawny-jaws DVC_EXP_BASELINE_REV={'f' * 40} "
        f"MLFLOW_TRACKING_URI={server} python -m stages.track"
    ) in warning


def test_a_store_that_refuses_is_told_in_words(root, monkeypatch):
    def refuse(*_, **__):
        raise RestException({"error_code": "PERMISSION_DENIED", "message": "for readers alone"})

    monkeypatch.setattr(MlflowClient, "log_batch", refuse)
    with pytest.raises(NotRecordedError, match=r"(?s)Nothing is lost.*python -m stages.track$"):
        record("fuzzyclip", [RESULT])


def test_what_mlflow_says_of_our_own_call_is_a_bug_of_ours(root):
    wrong = TrackedResult(**vars(RESULT) | {"metrics": [Number("pixel_ap@0.3", 1.0)]})
    with pytest.raises(MlflowException, match=r"pixel_ap@0\.3") as caught:
        record("fuzzyclip", [wrong])
    assert judge(caught.value).code == BUG
    client = MlflowClient(find_store().uri)
    assert find_run(client, "1", {"method": "fuzzyclip"}) is None  # so that it is tried again


def test_a_file_that_is_no_store_is_told_in_words(root):
    (root / "mlflow.db").write_bytes(b"no database" * 100)
    with pytest.raises(NotRecordedError, match=r"mlflow.db: file is not a database"):
        record("fuzzyclip", [RESULT])
