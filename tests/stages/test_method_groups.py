"""Groups of methods in the comparisons, by what their results rest on."""

import pytest

from fuzzyclip.method import OWN
from stages.experiments.catalog import PaperExperiment
from stages.method_tables import GROUPS, collect_comparison, name_group

FACTS = {
    "clip": {"visa": {"title": "CLIP", "auxiliary": None, "settings": {"sigma": 0.0}}},
    "coop": {"visa": {"title": "CoOp", "auxiliary": "mvtec", "settings": {"words": 4}}},
    "nearest": {"visa": {"title": "Parts", "auxiliary": None, "settings": {"shots": 4}}},
    "mutual": {"visa": {"title": "Batch", "auxiliary": None, "batch": True}},
}


@pytest.mark.parametrize(
    ("method", "group"),
    [
        ("clip", "training-free"),
        ("coop", "trained"),
        ("nearest", "few-shot"),
        ("mutual", "batch"),
        (OWN, "trained"),
    ],
)
def test_a_group_is_told_by_how_a_result_came_about(method, group):
    assert name_group(FACTS, method) == group


def test_comparisons_are_in_the_groups_order_and_fuzzyclip_last_in_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [
        {"label": "CoOp", "method": "coop", "printed": {"visa": [1.0]}},
        {"label": "FuzzyCLIP", "tests": {"visa": "mvtec"}, "printed": {"visa": [2.0]}},
    ]
    experiment = PaperExperiment(title="two", metrics=["pixel_ap"], rows=rows)
    values = collect_comparison(experiment, FACTS)
    assert list(values["label"].unique()) == ["CLIP", "CoOp", "FuzzyCLIP", "Parts", "Batch"]
    assert list(values["group"].unique()) == [*GROUPS]
    assert values.groupby("label")["beside"].any().to_dict() == {
        "CLIP": False, "CoOp": False, "FuzzyCLIP": False, "Parts": True, "Batch": True,
    }  # fmt: skip
