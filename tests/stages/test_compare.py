"""FuzzyCLIP against methods: results are files, the mean of datasets has the interval it should."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from imports import ROOT
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

from fuzzyclip.utils.files import write_json
from fuzzyclip.utils.tables import write_csv
from stages import paths
from stages.experiments import __main__ as command
from stages.experiments.compare import compare_methods
from stages.experiments.results import WORKSPACE, MissingResultError, Results

DATASETS = ("visa", "btad", "mpdd")


@pytest.fixture
def results(tmp_path):
    """Scores of FuzzyCLIP and two methods; one was left out of `mpdd`."""
    rng = np.random.default_rng(5)
    for dataset in DATASETS:
        labels = np.repeat([1, 0], 30)
        for method, lift in (("fuzzyclip", 1.5), ("clip", 0.6), ("coop", 1.4)):
            frame = pd.DataFrame(
                {
                    "image_path": [f"{dataset}/{number}.png" for number in range(60)],
                    "category": np.tile(["NA", "1"], 30),
                    "label": labels,
                    method: rng.normal(lift * labels),
                }
            )
            if (method, dataset) == ("coop", "mpdd"):
                frame = pd.DataFrame()  # as the evaluation leaves it
            path = tmp_path / paths.scores(method, dataset)
            path.parent.mkdir(parents=True)
            write_csv(path, frame)
    return Results(WORKSPACE, folder=tmp_path)


def read(results, method, dataset):
    return pd.read_csv(results.folder / paths.scores(method, dataset), keep_default_na=False)


def test_differences_and_their_mean_against_a_slow_bootstrap(results):
    lines = [*compare_methods(results, {"clip": "CLIP"}, DATASETS, ["image_auroc"], seed=3)]
    assert [line["dataset"] for line in lines] == [*DATASETS, "mean of 3"]
    assert {line["against"] for line in lines} == {"CLIP"}
    rng, drawn, plain = np.random.default_rng(0), [], []
    for dataset in DATASETS:
        ours, theirs = (read(results, method, dataset) for method in ("fuzzyclip", "clip"))
        groups = [*ours.groupby(["category", "label"]).indices.values()]

        def differ(rows, ours=ours, theirs=theirs):
            a, b = ours.iloc[rows], theirs.iloc[rows]
            return np.mean(
                [
                    roc_auc_score(a["label"][own], a["fuzzyclip"][own])
                    - roc_auc_score(b["label"][own], b["clip"][own])
                    for own in (a["category"] == name for name in ("NA", "1"))
                ]
            )

        plain.append(differ(np.arange(60)))
        drawn.append(
            [
                differ(np.concatenate([rng.choice(group, len(group)) for group in groups]))
                for _ in range(150)
            ]
        )
    for line, expected in zip(lines, [*plain, np.mean(plain)], strict=True):
        assert line["difference"] == f"{100 * expected:+.2f}"
    spread = 100 * np.std(np.mean(drawn, axis=0))
    low, high = map(float, lines[-1]["95 % interval"].split(" to "))
    assert (high - low) / 2 == pytest.approx(1.96 * spread, rel=0.2)
    assert (high + low) / 2 == pytest.approx(float(lines[-1]["difference"]), abs=0.02)


def test_of_a_table_of_methods_the_work_tree_is_compared(results, monkeypatch):
    monkeypatch.chdir(results.folder)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    pairs = {dataset: params["pairs"][dataset] for dataset in DATASETS}
    Path("params.yaml").write_text(yaml.safe_dump(params | {"pairs": pairs}))
    for dataset in DATASETS:
        write_json(paths.method_facts("clip", dataset), {"title": "CLIP"})
        write_json(paths.method_facts("coop", dataset), {"title": "Co", "random": True})
    result = CliRunner().invoke(command.app, ["compare", "table-2"])
    assert result.exit_code == 0, result.exception
    assert result.output.count("mean of ") == 2 * 3
    frame = pd.read_csv(paths.EXPERIMENTS / "methods-compare.csv")
    assert frame["against"].value_counts().to_dict() == {"CLIP": 12, "Co (random weights)": 9}
    line = frame.query("against == 'CLIP' and dataset == 'mean of 3' and metric == 'image AP'")
    assert f"{line['difference'].item():+.2f}" in result.output


def test_what_was_left_out_is_left_out_and_what_is_missing_is_said(results):
    lines = [*compare_methods(results, {"coop": "CoOp"}, DATASETS, ["image_auroc"], seed=3)]
    assert [line["dataset"] for line in lines] == ["visa", "btad", "mean of 2"]
    alone = [*compare_methods(results, {"coop": "CoOp"}, ["visa", "mpdd"], ["image_ap"], seed=3)]
    assert [line["dataset"] for line in alone] == ["visa"]
    with pytest.raises(MissingResultError, match=r"saa.* `dvc repro track baselines`"):
        [*compare_methods(results, {"saa": "SAA+"}, DATASETS, ["image_auroc"], seed=3)]
