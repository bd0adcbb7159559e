"""Comparisons of methods: places and ranks against slow references, marks, hostile input."""

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata

from fuzzyclip.report.ranking import (
    PLAIN,
    build_ranked_table,
    describe_level,
    place_ranks,
    place_values,
    rank_methods,
    select_level,
)
from stages.experiments.catalog import read_catalog

COLUMNS = ["label", "dataset", "metric", "ours", "paper"]
METRICS = ("pixel_aupro", "pixel_ap", "pixel_f1_max")
NAN = float("nan")


def make_values(*lines):
    """Long form from lines of label, dataset, metric, ours, paper."""
    return pd.DataFrame(lines, columns=COLUMNS)


def make_column(**ours):
    """One metric of one dataset, by method."""
    return make_values(*((label, "d", "image_ap", value, NAN) for label, value in ours.items()))


def read_printed(name):
    """A table as the paper prints it, nothing of ours."""
    experiment = read_catalog().get(name)
    return make_values(
        *(
            (row.label, dataset, metric, NAN, value)
            for row in experiment.rows
            for dataset, printed in row.printed.items()
            for metric, value in zip(experiment.metrics, printed, strict=True)
        )
    )


@st.composite
def tables(draw, absent=True):
    """One level's table; few distinct values, so that many tie before or after rounding."""
    methods, datasets = draw(st.integers(1, 6)), draw(st.integers(1, 3))
    number = st.sampled_from([10.0, 10.04, 10.06, 10.1, 20.0, 33.33, 99.96, 100.0])
    cell = st.one_of(number, st.just(NAN)) if absent else number
    lines = [
        (f"method {i}", f"dataset {j}", metric, draw(cell), NAN)
        for i, j, metric in itertools.product(range(methods), range(datasets), METRICS)
    ]
    return select_level(make_values(*lines), "Pixel", "ours")


@given(tables(absent=False))
def test_average_ranks_are_those_of_scipy(table):
    expected = np.mean(
        [rankdata(-np.round(table[column], 1), method="min") for column in table], axis=0
    )
    np.testing.assert_allclose(rank_methods(table), expected)


@given(tables())
def test_average_ranks_count_the_better_methods_among_the_complete_ones(table):
    datasets = dict.fromkeys(dataset for dataset, _ in table.columns)
    complete = [
        label for label in table.index if all(table.loc[label, d].notna().any() for d in datasets)
    ]
    ranks = rank_methods(table)
    for label in table.index:
        if label not in complete:
            assert np.isnan(ranks[label])
            continue
        expected = []
        for column in table:
            own = table.loc[label, column]
            others = [table.loc[other, column] for other in complete]
            better = [x for x in others if x > own or (np.isnan(own) and not np.isnan(x))]
            expected.append(1 + len(better))
        assert ranks[label] == pytest.approx(sum(expected) / len(expected))


@given(tables())
def test_best_and_second_are_the_two_highest_distinct_values(table):
    places = place_values(table)
    for column in table:
        distinct = sorted({value for value in table[column] if value == value}, reverse=True)[:2]
        for label, value in table[column].items():
            expected = distinct.index(value) + 1 if value in distinct else 0
            assert places.loc[label, column] == expected


@pytest.mark.parametrize(
    ("level", "expected"), [("Pixel", [2.87, 1.73, 1.40]), ("Image", [2.4, 1.9, 1.7])]
)
def test_ranks_of_the_printed_table_3(level, expected):
    ranks = rank_methods(select_level(read_printed("table-3"), level, "paper"))
    assert ranks[["APRIL-GAN", "AnomalyCLIP", "FuzzyCLIP"]].round(2).tolist() == expected


def test_marks_of_the_printed_table_2():
    table = build_ranked_table(read_printed("table-2"), "Image", {"mvtec": "MVTec"})
    cells = table.set_index("method")["MVTec, paper"]
    assert cells["SDP+"] == "(**92.2**, **96.6**, **93.4**)"
    assert cells["FuzzyCLIP"] == "(91.7, **96.6**, 92.7)"  # three methods share the best AP
    assert cells["WinCLIP"] == "(<u>91.8</u>, <u>96.5</u>, <u>92.9</u>)"
    assert set(table["MVTec, ours"]) == set(table["average rank, ours"]) == {"-"}


def test_values_are_rounded_as_printed_and_those_that_look_equal_share_a_place():
    table = build_ranked_table(make_column(A=90.04, B=89.96, C=89.94), "Image", {}, PLAIN)
    assert table["d, ours"].tolist() == ["(90.0*)", "(90.0*)", "(89.9+)"]
    assert table["average rank, ours"].tolist() == ["1.0*", "1.0*", "3.0+"]
    table = select_level(make_values(("a", "x", "pixel_ap", 0.35, NAN)), "Pixel", "ours")
    assert f"{0.35:.1f}" == "0.3"  # a little below the half; numpy rounds it to 0.4
    assert table.to_numpy().item() == 0.3


def test_a_metric_that_a_method_leaves_undefined_counts_as_last():
    values = make_values(
        ("A", "d", "image_auroc", 90.0, NAN),
        ("A", "d", "image_ap", NAN, NAN),
        ("B", "d", "image_auroc", 80.0, NAN),
        ("B", "d", "image_ap", 1.0, NAN),
    )
    assert rank_methods(select_level(values, "Image", "ours")).tolist() == [1.5, 1.5]
    assert build_ranked_table(values, "Image", {})["d, ours"][0] == "(**90.0**, -)"


def test_ranks_are_marked_as_printed_lowest_first():
    ranks = pd.Series([1.52, 1.48, 2.0, NAN, 3.0], index=list("ABCDE"))
    assert place_ranks(ranks).tolist() == [1, 1, 2, 0, 0]


def test_a_table_keeps_the_order_given_and_ignores_other_columns():
    pairs = itertools.product("ZA", ("visa", "btad"))
    values = make_values(*((*pair, "image_ap", 1.0, 2.0) for pair in pairs)).assign(seeds=1)
    table = build_ranked_table(values, "Image", {"visa": "VisA"})
    assert table["method"].tolist() == ["Z", "A"]
    assert list(table.columns) == [
        "method", "VisA, ours", "VisA, paper", "btad, ours", "btad, paper",
        "average rank, ours", "average rank, paper",
    ]  # fmt: skip


def test_printed_ranks_stand_beside_those_of_the_printed_values():
    ranks = read_catalog().get("table-3").list_printed_ranks("pixel")
    table = build_ranked_table(read_printed("table-3"), "Pixel", {}, {}, ranks)
    shown = table.set_index("method")[["average rank, paper", "average rank, as printed"]]
    assert shown.loc["APRIL-GAN"].tolist() == ["2.9", "2.9"]
    assert shown.loc["AnomalyCLIP"].tolist() == ["1.7", "1.8"]  # does not recompute
    assert shown.loc["FuzzyCLIP"].tolist() == ["1.4", "1.4"]
    plain = build_ranked_table(read_printed("table-2"), "Pixel", {})
    assert not [column for column in plain if "as printed" in column]


def test_a_heading_names_the_metrics_in_their_order():
    values = read_printed("table-3")
    assert describe_level(values, "Pixel") == "Pixel (AUPRO, AP, F1-max)"
    assert describe_level(values, "Image") == "Image (AUROC, AP)"


def test_what_can_not_be_compared_is_refused_by_name():
    line = ("WinCLIP", "visa", "image_ap", 1.0, NAN)
    with pytest.raises(ValueError, match="WinCLIP has two values of image_ap on visa"):
        build_ranked_table(make_values(line, line), "Image", {})
    with pytest.raises(ValueError, match="there is no Pixel table"):
        build_ranked_table(make_values(line), "Pixel", {})
    for nothing in (make_values(), pd.DataFrame()):
        with pytest.raises(ValueError, match="no methods"):
            build_ranked_table(nothing, "Image", {})


def test_random_weights_have_no_mark_and_no_rank_and_take_none_from_others():
    values = make_values(
        ("a", "d", "pixel_ap", 50.0, 10.0),
        ("r", "d", "pixel_ap", 90.0, 30.0),
        ("b", "d", "pixel_ap", 40.0, 20.0),
    ).assign(random=[False, True, False])
    table = build_ranked_table(values, "Pixel", {}, PLAIN).set_index("method")
    assert list(table["d, ours"]) == ["(50.0*)", "(90.0)", "(40.0+)"]
    assert list(table["average rank, ours"]) == ["1.0*", "-", "2.0+"]
    # printed values are of its own weights
    assert list(table["d, paper"]) == ["(10.0)", "(30.0*)", "(20.0+)"]
    assert list(table["average rank, paper"]) == ["3.0", "1.0*", "2.0+"]
    alone = values[values["random"]]
    assert list(build_ranked_table(alone, "Pixel", {}, PLAIN)["average rank, ours"]) == ["-"]


def test_one_method_is_best_everywhere_and_methods_without_any_value_are_dashes():
    table = build_ranked_table(make_column(A=0.0), "Image", {})
    assert table.loc[0, ["d, ours", "average rank, ours"]].tolist() == ["(**0.0**)", "**1.0**"]
    table = build_ranked_table(make_column(A=NAN, B=None), "Image", {})
    assert set(table.drop(columns="method").to_numpy().ravel()) == {"-"}


def test_what_is_not_zero_shot_is_shown_in_its_group_and_takes_no_rank():
    values = make_values(
        ("a", "d", "pixel_ap", 50.0, None),
        ("b", "d", "pixel_ap", 40.0, None),
        ("with good parts", "d", "pixel_ap", 90.0, None),
    ).assign(beside=[False, False, True], group=["trained", "trained", "few-shot"])
    table = build_ranked_table(values, "Pixel", {}, PLAIN)
    assert list(table["group"]) == ["trained", "trained", "few-shot"]
    assert list(table["d, ours"]) == ["(50.0*)", "(40.0+)", "(90.0)"]
    assert list(table["average rank, ours"]) == ["1.0*", "2.0+", "-"]
