"""Experiments run through DVC in a small pipeline: resumed, recorded, the work tree as before."""

import re
import shutil
import sys

import pandas as pd
import pytest
from pipelines import clone_repository, list_runs, run

from fuzzyclip.report.tables import read_categories
from stages import paths

METRICS = paths.method_metrics("fuzzyclip", "sdd")

CATALOG = """
auxiliary: {visa: [visa]}
notes: {N: a note}
experiments:
  prompts:
    title: Kinds of prompts
    metrics: [pixel_ap, image_auroc]
    notes: [N]
    rows:
      - {label: other, printed: {sdd: [1.0, null]}}
      - label: precise, by epoch
        tests: {sdd: visa}
        set:
          {csp.partition: 1, efa.train.prompt: precise, efa.train.keep: all, efa.train.epochs: 2,
           efa.test.prompt: test}
        printed: {sdd: [50.0, null]}
      - label: cluster 2 alone
        tests: {sdd: visa}
        set: {csp.partition: 2, efa.test.weights: 2}
  broken:
    title: A cluster that is not there
    metrics: [pixel_ap]
    rows:
      - {label: cluster 9, tests: {sdd: visa}, set: {efa.test.weights: 9}}
"""


@pytest.fixture(scope="module")
def checkout(pipeline, tmp_path_factory):
    folder = clone_repository(pipeline[0], tmp_path_factory.mktemp("experiments") / "checkout")
    (folder / "mine.yaml").write_text(CATALOG)
    with (folder / ".git/info/exclude").open("a") as file:
        file.write("mine.yaml\n")
    return folder


def tables(folder, *arguments, fails=False):
    command = (sys.executable, "-m", "stages.experiments", *arguments, "--catalog", "mine.yaml")
    return run(folder, *command, fails=fails)


def find_reference(folder, words):
    """Git's reference of the DVC experiment with these words in its name."""
    listed = run(folder, "git", "for-each-ref", "--format=%(refname)", "refs/exps").split()
    (reference,) = [name for name in listed if f"/prompts-{words}" in name]
    return reference


def test_an_experiment_runs_once_and_leaves_the_work_tree_as_it_was(checkout):
    params = (checkout / "params.yaml").read_text()
    assert "prompts" in tables(checkout, "list")
    output = tables(checkout, "run", "prompts")
    assert "0 of 2 runs are done already" in output
    assert "| precise, by epoch | KolektorSDD |" in output
    assert "| (50.0) |" in output
    assert "N: a note" in output
    assert (checkout / "params.yaml").read_text() == params
    assert run(checkout, "git", "status", "--porcelain") == ""
    assert run(checkout, "dvc", "status").strip() == "Data and pipelines are up to date."
    names = {record.data.tags["paper.row"] for record in list_runs(checkout)}
    assert names == {"precise, by epoch", "cluster 2 alone"}
    again = tables(checkout, "run", "prompts")
    assert "2 of 2 runs are done already" in again
    assert "Running stage" not in again


def test_its_results_are_those_of_its_settings(checkout):
    values = pd.read_csv(checkout / "experiments/prompts.csv").set_index(["label", "metric"])
    assert values.loc["precise, by epoch", "pixel_ap"]["paper"] == 50.0
    assert pd.isna(values.loc["precise, by epoch", "pixel_ap"]["difference"])  # not the paper's
    precise, alone = (
        read_categories(run(checkout, "git", "show", f"{reference}:{METRICS}")).set_index("variant")
        for reference in (find_reference(checkout, name) for name in ("precise", "cluster-2"))
    )
    assert "fuzzyclip_epoch_1" in precise.index  # two epochs; the second is fuzzyclip
    assert "fuzzyclip_epoch_2" not in precise.index
    ours = precise["pixel_ap"]
    assert ours["fuzzyclip"] != ours["fuzzyclip_epoch_1"]
    assert values.loc["precise, by epoch", "pixel_ap"]["ours"] == pytest.approx(ours["fuzzyclip"])
    assert "|" not in alone["prompt"]["fuzzyclip"]  # one cluster, one prompt


def test_rows_are_compared_on_the_images_that_both_saw(checkout):
    output = tables(checkout, "compare", "prompts", "--to", "cluster 2 alone")
    lines = [line for line in output.splitlines() if "precise, by epoch" in line]
    assert len(lines) == 2
    assert "pixel AP" in lines[0]
    assert "image AUROC" in lines[1]
    shown = float(lines[1].split("AUROC")[1].split()[0])
    values = pd.read_csv(checkout / "experiments/prompts.csv").set_index(["label", "metric"])
    precise, alone = (
        values.loc[label, "image_auroc"]["ours"]
        for label in ("precise, by epoch", "cluster 2 alone")
    )
    assert shown == pytest.approx(precise - alone, abs=0.006)
    refused = {("--in", "broken"): "has not been run", ("--to", "nothing"): "no row 'nothing'"}
    for options, reason in refused.items():
        assert reason in tables(checkout, "compare", "prompts", *options, fails=True)


def test_code_before_the_metrics_decides_and_other_code_does_not(checkout):
    for name, done in (("fuzzyclip/cli/doctor.py", 2), ("fuzzyclip/method/efa.py", 0)):
        with (checkout / name).open("a") as file:
            file.write("# a comment\n")
        listed = tables(checkout, "list")
        assert re.search(rf"^prompts .* {done}/2 ", listed, flags=re.MULTILINE)
        run(checkout, "git", "checkout", "-q", name)


def test_a_failed_run_loses_nothing_and_says_why(checkout):
    params = (checkout / "params.yaml").read_text()
    output = tables(checkout, "run", "broken", fails=True)
    assert "efa.test.weights: 9 names a cluster" in output
    assert "the same command goes on from there" in output
    assert "Traceback" not in output
    assert (checkout / "params.yaml").read_text() == params
    assert run(checkout, "git", "status", "--porcelain") == ""


def test_the_work_tree_of_a_killed_call_is_put_back(checkout):
    params = (checkout / "params.yaml").read_text()
    before = checkout / "scratch/before-experiments"
    before.mkdir(parents=True)
    shutil.copy(checkout / "params.yaml", before)
    shutil.copy(checkout / "dvc.lock", before)
    shutil.copytree(checkout / "metrics", before / "metrics")
    (checkout / "params.yaml").write_text(params.replace("penalty: 0.1", "penalty: 0.7"))
    recorded = find_reference(checkout, "precise")  # DVC has not done so yet
    run(checkout, "git", "update-ref", "-d", recorded)
    output = tables(checkout, "run", "prompts")
    assert "1 of 2 runs are done already" in output
    assert "putting its work tree back first" in output
    assert (checkout / "params.yaml").read_text() == params
    assert run(checkout, "git", "status", "--porcelain") == ""
    assert not before.exists()
