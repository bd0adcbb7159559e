"""Keys that are commands or paths, as DVC itself takes them: nothing runs and nothing is lost."""

import pytest
from pipelines import change_params, make_repository, ran, run, shrink


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    folder = make_repository(tmp_path_factory.mktemp("keys"), shrink)
    assert ran(run(folder, "dvc", "repro", "check")) == ["check"]
    return folder


@pytest.mark.parametrize("section", ["datasets", "pairs"])
@pytest.mark.parametrize(
    "key",
    [
        "x; touch PWNED; echo ", "$(touch PWNED)", "x' ; touch PWNED ; '", "a\ntouch PWNED",
        "-m", "a.b", "../mine", "../../mine", "..",
    ],
)  # fmt: skip
def test_dvc_runs_nothing_and_removes_nothing(repository, section, key):
    folder = repository
    kept = folder / "mine/only copy.png"
    kept.parent.mkdir(exist_ok=True)
    kept.write_bytes(b"1")

    def add(params):
        params[section] = {key: next(iter(params[section].values())), **params[section]}

    try:
        change_params(folder, add)
        output = run(folder, "dvc", "repro", fails=True)
    finally:
        run(folder, "git", "checkout", "-q", "--", "params.yaml")
    assert set(ran(output)) <= {"check"}
    assert kept.exists()
    assert not list(folder.rglob("PWNED"))


@pytest.mark.parametrize("key", ["x; touch PWNED; echo ", "x' ; touch PWNED ; '", "`touch PWNED`"])
def test_a_single_stage_is_no_way_around(repository, key):
    """`-s` leaves out what runs before."""
    folder = repository

    def add(params):
        params["datasets"][key] = params["datasets"]["visa"]

    try:
        change_params(folder, add)
        output = run(folder, "dvc", "repro", "-s", "-f", f"download@{key}", fails=True)
    finally:
        run(folder, "git", "checkout", "-q", "--", "params.yaml")
    assert "can not be a key" in output
    assert not list(folder.rglob("PWNED"))
