"""Which runs are done, as DVC and git have recorded them, in a small pipeline that DVC runs."""

import shutil
from pathlib import Path

import pytest
import yaml
from pipelines import commit, run

from stages import paths
from stages.experiments.catalog import TableRow
from stages.experiments.history import locate
from stages.experiments.plan import Run
from stages.experiments.results import MissingResultError, read_method

METRICS = paths.method_metrics("fuzzyclip", "own").as_posix()
RESULTS = paths.results("fuzzyclip", "own").as_posix()
MADE = [paths.csp_scores("aux"), paths.curve("efa", "aux"), paths.curve("rpl", "aux")]
CODE = """
import sys
import yaml
from pathlib import Path
params = yaml.safe_load(Path("params.yaml").read_text())
for name in sys.argv[1:]:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(f"variant,category,image_ap\\nfuzzyclip,a,{params['csp']['penalty']}\\n")
"""
ROW = TableRow(label="own", tests={"own": "aux"})
PARAMS = {
    "seed": 1, "backbone": "a", "backbones": {"a": {"size": 1}}, "csp": {"penalty": 0.1},
    "machine": {"workers": 1}, "datasets": {"own": {"path": "x"}, "more": {"path": "y"}},
    "auxiliary": {"aux": ["own"]}, "pairs": {"own": "aux"},
}  # fmt: skip
PIPELINE = f"""
stages:
  learn:
    desc: Learns.
    cmd: python fuzzyclip/method/learn.py {" ".join(map(str, MADE))}
    deps: [fuzzyclip/method]
    params: [csp]
    outs: [{", ".join(f"{path}: {{cache: false}}" for path in MADE)}]
  evaluate:
    foreach: {{own: aux}}
    do:
      cmd: python fuzzyclip/method/learn.py {METRICS} {RESULTS}/scores.csv
      deps: [fuzzyclip/method, {", ".join(map(str, MADE))}]
      params: [csp, "pairs.${{key}}"]
      outs: [{METRICS}: {{cache: false}}, {RESULTS}]
  track:
    cmd: echo
    deps: [{METRICS}, fuzzyclip/deploy.py]
    params: [{{params.yaml: null}}]
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A checkout in which the experiment `strong`, with a penalty of 0.2, has been run."""
    folder = tmp_path_factory.mktemp("made")
    for name in ("fuzzyclip/method/learn.py", "fuzzyclip/cli.py", "fuzzyclip/deploy.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(CODE)
    (folder / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    (folder / "dvc.yaml").write_text(PIPELINE)
    (folder / ".gitignore").write_text("/results/\n")
    for command in ("git init", "dvc init", "dvc config core.autostage true", "dvc repro"):
        run(folder, *command.split())
    commit(folder, "done")
    strong = "dvc exp run -n strong -S csp.penalty=0.2 track"
    for command in (strong, "git checkout .", "dvc checkout"):
        run(folder, *command.split())
    return folder


@pytest.fixture
def checkout(made, tmp_path, monkeypatch):
    """A copy of it to change."""
    shutil.copytree(made, tmp_path / "checkout", symlinks=True)
    monkeypatch.chdir(tmp_path / "checkout")
    return tmp_path / "checkout"


def find(penalty, list_files=lambda _: (), **changed):
    """Where a run with this penalty is done; None where it is not."""
    params = PARAMS | {"csp": {"penalty": penalty}} | changed
    params["datasets"] = {"own": params["datasets"]["own"]}  # a run names no more than it needs
    (located,) = locate([Run("table", ROW, 1, params)], list_files)
    return located.results


def append(name, text="# a comment\n"):
    with Path(name).open("a") as file:
        file.write(text)


@pytest.mark.usefixtures("checkout")
def test_a_run_is_done_where_its_parameters_are():
    strong = find(0.2)
    assert strong.name == "strong"
    assert read_method(strong, "own")["image_ap"].tolist() == [0.2]
    assert strong.fetch(Path(RESULTS, "scores.csv")).read_text().endswith("fuzzyclip,a,0.2\n")
    committed = find(0.1)
    assert committed.name == "HEAD"
    assert read_method(committed, "own")["image_ap"].tolist() == [0.1]
    assert find(0.2, machine={"workers": 9}) is not None
    assert find(0.2, backbones={"a": {"size": 1}, "b": {}}) is not None
    assert find(0.3) is None
    assert find(0.2, backbones={"a": {"size": 2}}) is None
    assert find(0.2, datasets={"own": {"path": "z"}}) is None


@pytest.mark.usefixtures("checkout")
@pytest.mark.parametrize(
    ("change", "done"),
    [
        (lambda: append("fuzzyclip/cli.py"), True),
        (lambda: append("fuzzyclip/deploy.py"), True),  # of `track` alone
        (lambda: append("dvc.yaml"), True),
        (lambda: write_pipeline(desc="Other words."), True),
        (lambda: append("fuzzyclip/method/learn.py"), False),
        (lambda: append("fuzzyclip/method/more.py"), False),
        (lambda: Path("fuzzyclip/method/learn.py").unlink(), False),
        (lambda: write_pipeline(deps=["fuzzyclip/method", "fuzzyclip/cli.py"]), False),
        (lambda: write_pipeline(cmd="python fuzzyclip/method/learn.py"), False),
    ],
)
def test_code_decides_where_dvc_has_it_before_the_metrics(change, done):
    change()
    assert [find(penalty) is not None for penalty in (0.1, 0.2)] == [done, done]


def write_pipeline(**changed):
    pipeline = yaml.safe_load(PIPELINE)
    pipeline["stages"]["learn"] |= changed
    Path("dvc.yaml").write_text(yaml.safe_dump(pipeline))


def test_the_work_tree_counts_where_dvc_says_that_it_is_up_to_date(checkout):
    (checkout / "params.yaml").write_text(yaml.safe_dump(PARAMS | {"csp": {"penalty": 0.4}}))
    assert find(0.4) is None
    run(checkout, "dvc", "repro")
    assert find(0.4).name == "workspace"
    append("fuzzyclip/method/learn.py")
    assert find(0.4) is None


def test_a_commit_counts_where_its_metrics_are_those_of_its_lock(checkout):
    append(METRICS, "edited,b,1\n")
    commit(checkout, "edited")
    assert find(0.1) is None
    run(checkout, "git", "checkout", "-q", "HEAD~1", "--", METRICS)
    (checkout / "params.yaml").write_text(yaml.safe_dump(PARAMS | {"csp": {"penalty": 0.5}}))
    commit(checkout, "parameters that nothing was run with")
    assert find(0.5) is None
    assert find(0.2).name == "strong"  # of an older commit


def test_a_commit_of_which_only_a_part_was_made_anew_does_not_count(checkout):
    lock = yaml.safe_load(paths.LOCK.read_text())
    (curve,) = [out for out in lock["stages"]["learn"]["outs"] if out["path"] == str(MADE[1])]
    deps = lock["stages"]["evaluate@own"]["deps"]
    (read,) = [dep for dep in deps if dep["path"] == curve["path"]]
    assert read["md5"] == curve["md5"]
    read["md5"] = "0" * 32  # as of an earlier curve
    paths.LOCK.write_text(yaml.safe_dump(lock))
    commit(checkout, "half")
    assert find(0.1) is None


def test_results_gone_from_the_cache_are_missed_where_they_are_needed(checkout, caplog):
    scores = Path(RESULTS, "scores.csv")
    assert find(0.2, lambda _: [scores]).name == "strong"
    shutil.rmtree(checkout / ".dvc/cache/files")
    strong = find(0.2)
    assert read_method(strong, "own")["image_ap"].tolist() == [0.2]
    assert find(0.2, lambda _: [scores]) is None
    assert f"{scores} of strong is not there, nor in DVC's cache" in caplog.text
    assert "`dvc exp remove strong`" in caplog.text
    with pytest.raises(MissingResultError):
        strong.fetch(scores)
    assert find(0.1).name == "HEAD"
