"""A store of MLflow, made once: a fresh one takes seconds."""

import pytest

from stages.tracking.store import find_store, open_experiment


@pytest.fixture(scope="session")
def made_store(tmp_path_factory):
    """A folder with a store that holds an experiment: made once, since that takes seconds."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DVC_ROOT", str(folder))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        client, experiment = open_experiment(find_store(), "fuzzyclip")
        run = client.create_run(experiment)
        client.log_text(run.info.run_id, "kept", "note.txt")
        client.set_terminated(run.info.run_id)
    return folder
