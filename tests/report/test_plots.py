"""Points of plots: few, and the curves that they stand for."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from fuzzyclip.report.curves import trace_scores
from fuzzyclip.report.plots import (
    POINTS,
    PRECISION_RECALL,
    ROC,
    tabulate_curves,
    tabulate_datasets,
    tabulate_losses,
    tabulate_partitions,
)


def test_the_area_under_the_points_is_the_mean_over_categories():
    rng, labels = np.random.default_rng(3), np.arange(600) % 2
    scores = [rng.normal(size=600) + shift * labels for shift in (0.3, 1.0, 2.5)]
    curves = [trace_scores(category, labels) for category in scores]
    roc, recalls = tabulate_curves({("mvtec", "images"): curves, ("visa", "pixels"): curves[:1]})
    assert [*roc.columns] == [*ROC]
    assert [*recalls.columns] == [*PRECISION_RECALL]
    for dataset, ranked, number in (("mvtec", "images", 3), ("visa", "pixels", 1)):
        points = roc[(roc["dataset"] == dataset) & (roc["of"] == ranked)]
        assert points["fpr"].tolist() == pytest.approx([step / 100 for step in range(101)])
        aurocs = [roc_auc_score(labels, category) for category in scores[:number]]
        assert np.trapezoid(points["tpr"], points["fpr"]) == pytest.approx(
            np.mean(aurocs), abs=5e-3
        )
        points = recalls[(recalls["dataset"] == dataset) & (recalls["of"] == ranked)]
        assert points["recall"].tolist() == pytest.approx([step / 100 for step in range(1, 101)])
        aps = [average_precision_score(labels, category) for category in scores[:number]]
        assert points["precision"].mean() == pytest.approx(np.mean(aps), abs=5e-3)


def test_without_curves_there_are_columns_and_no_points():
    for table, columns in zip(
        tabulate_curves({("mine", "pixels"): []}), (ROC, PRECISION_RECALL), strict=True
    ):
        assert [*table.columns] == [*columns]
        assert table.empty


def test_losses_are_means_over_equal_shares_of_the_steps_of_each_cluster():
    def make(steps, cluster):
        losses = np.random.default_rng(cluster).random(steps)
        known = {"cluster": cluster, "epoch": 1, "step": np.arange(1, steps + 1), "loss": losses}
        return pd.DataFrame(known)

    long, short = make(250, 0), make(7, 1)
    table = tabulate_losses({"visa": pd.concat([long, short], ignore_index=True)})
    assert [*table.columns] == ["auxiliary", "cluster", "step", "loss"]
    assert table["cluster"].value_counts().to_dict() == {1: POINTS, 2: 7}
    kept = table[table["cluster"] == 2]
    assert kept["step"].tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert kept["loss"].tolist() == pytest.approx(short["loss"].tolist())
    before = 0
    for line in table[table["cluster"] == 1].itertuples():
        assert line.step - before in (2, 3)
        assert line.loss == pytest.approx(long["loss"][before : line.step].mean())
        before = line.step
    assert before == 250


def test_curves_without_clusters_have_no_such_column():
    curve = pd.DataFrame({"epoch": [1, 1], "step": [1, 2], "loss": [3.0, 2.0], "cls": [1.0, 0.5]})
    table = tabulate_losses({"visa": curve, "mvtec": curve})
    assert [*table.columns] == ["auxiliary", "step", "loss", "cls"]
    assert table["auxiliary"].tolist() == ["visa", "visa", "mvtec", "mvtec"]
    assert table["loss"].tolist() == [3.0, 2.0, 3.0, 2.0]


def test_scores_of_partitions_name_the_chosen_one():
    candidates = [{"k": k, "score": score, "spread": 0.0} for k, score in ((1, 2.0), (2, 1.0))]
    table = tabulate_partitions({"visa": {"k": 2, "candidates": candidates}})
    assert table.to_dict("list") == {
        "auxiliary": ["visa", "visa"], "k": [1, 2], "score": [2.0, 1.0], "chosen": [0, 1]
    }  # fmt: skip


def test_a_metric_that_a_dataset_does_not_define_has_no_bar():
    means = pd.DataFrame({"dataset": ["a", "b"], "ap": [50.0, np.nan], "auroc": [90.0, 80.0]})
    lines = [tuple(line) for line in tabulate_datasets(means, ("ap", "auroc")).to_numpy()]
    assert lines == [("a", "ap", 50.0), ("a", "auroc", 90.0), ("b", "auroc", 80.0)]
