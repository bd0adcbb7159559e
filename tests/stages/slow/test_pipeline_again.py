"""A finished pipeline run again by DVC: with other parameters, another metric, real archives."""

import os
import re
import sys

import pytest
from pipelines import clone_repository, list_runs, make_repository, ran, run, run_stages, shrink

REAL = os.environ.get("FUZZYCLIP_REAL_DATA")
DATA = ("download", "index", "features")
TRAINING = ("auxiliary", "csp", "efa", "rpl", "package")
COMPARE = (sys.executable, "-m", "stages.experiments", "report")


@pytest.fixture(scope="module")
def folder(pipeline, tmp_path_factory):
    """A clone of the finished pipeline, with its data and its recorded run."""
    folder = clone_repository(pipeline[0], tmp_path_factory.mktemp("again") / "clone")
    run(folder, sys.executable, "-m", "stages.track")
    return folder


def test_two_results_are_compared_in_one_page(folder):
    output = run(folder, *COMPARE, "HEAD", "--out", "scratch/compare.html")
    assert "scratch/compare.html written" in output
    assert "No parameter differs" in (folder / "scratch/compare.html").read_text()
    output = run(folder, *COMPARE, "elsewhere", fails=True)
    assert "no revision and no experiment 'elsewhere'" in output
    assert "Traceback" not in output


def test_penalty_reruns_only_what_its_partition_changes(folder):
    before = (folder / "models/visa/partition.json").read_text()
    output = run(folder, "dvc", "exp", "run", "-n", "penalty", "-S", "csp.penalty=0.2")
    assert "csp@visa" in ran(output)
    assert not [stage for stage in ran(output) if stage.startswith(("download", "features", "rpl"))]
    changed = (folder / "models/visa/partition.json").read_text() != before
    # another test may have trained on that partition, and DVC has it in its cache of runs then
    made = [*ran(output), *re.findall(r"Stage '(\S+)' is cached", output)]
    assert ("efa@visa" in made) == changed
    assert ("evaluate@sdd" in made) == changed
    # the scores changed in any case, so the experiment is recorded
    recorded = list_runs(folder)
    assert [run.data.params["csp.penalty"] for run in recorded] == ["0.1", "0.2"]
    assert recorded[1].data.tags["dvc.exp_name"] == "penalty"
    run(folder, *COMPARE, "HEAD", "--out", "scratch/penalty.html")
    page = (folder / "scratch/penalty.html").read_text()
    assert "csp.penalty" in page
    assert ('<rect class="band"' in page) == changed
    assert "No interval on" not in page  # the scores of both are in DVC's cache


def test_other_pixel_metrics_rerun_the_evaluation_alone(folder):
    arguments = ("-S", "evaluation.pixel_metrics=streaming")
    output = run(folder, "dvc", "exp", "run", "-n", "streaming", *arguments)
    assert set(ran(output)) == {"check", "evaluate@sdd", "report", "page", "track"}
    assert (folder / "results/fuzzyclip/sdd/bounds.csv").is_file()
    run(folder, "git", "checkout", "-q", "HEAD", "--", ".")
    run(folder, "dvc", "checkout")


@pytest.mark.skipif(not REAL, reason="FUZZYCLIP_REAL_DATA names no folder with real archives")
def test_real_archives_from_file_to_table(tmp_path):
    def use_real(params):
        shrink(params)
        params["data"] |= {"source": "official", "archives": REAL, "download": False}
        params["allow_unverified"] = True  # cuts of the archives: no published checksum fits
        params["datasets"]["visa"] |= {"categories": ["capsules"], "counts": "any"}
        params["datasets"]["sdd"]["counts"] = "any"

    folder = make_repository(tmp_path, use_real)
    run_stages(folder, "sample", *(f"{name}@{key}" for key in ("visa", "sdd") for name in DATA))
    run_stages(folder, *(f"{name}@visa" for name in TRAINING), "evaluate@sdd")
    run_stages(folder, "report", "page")
    table = (folder / "metrics/tables/table_3.md").read_text()
    assert "KolektorSDD" in table
    scores = (folder / "results/fuzzyclip/sdd/scores.csv").read_text().splitlines()
    assert len(scores) == 1 + 58 + 11  # the cut's thirds: normal and anomalous test images
    assert "not comparable" not in (folder / "metrics/tables/summary.md").read_text()
    assert "paper, FuzzyCLIP" not in table  # another backbone and a subset: not the paper's setting


@pytest.mark.skipif(not REAL, reason="FUZZYCLIP_REAL_DATA names no folder with real archives")
def test_partial_archives_are_never_taken_silently(tmp_path):
    def use_real(params):
        shrink(params)
        params["data"] |= {"source": "official", "archives": REAL, "download": False}

    folder = make_repository(tmp_path, use_real)
    output = run(folder, "dvc", "repro", "download@visa", fails=True)
    assert "sha256" in output
    assert "allow_unverified" in output
