"""The best value is bold, whoever has it, in every table of a page."""

import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup
from reports import HOSTILE, make_categories, make_experiment

from fuzzyclip.evaluation.metrics import METRICS, PIXEL_METRICS
from fuzzyclip.method import OWN
from fuzzyclip.report.best import mark_best, mark_table
from fuzzyclip.report.page import DatasetResult, build_bars, render_page
from fuzzyclip.report.tables import GAIN, PRINTED

CELLS = st.lists(st.one_of(st.just("-"), st.floats(0, 100).map(lambda x: f"{x:.1f}")), max_size=6)


def is_bold(cell):
    return "<b>" in cell


@given(CELLS)
def test_the_highest_printed_values_are_bold_and_no_others(cells):
    numbers = [float(cell) for cell in cells if cell != "-"]
    best = max(numbers) if len(numbers) > 1 else None
    marked = mark_best(cells)
    assert [cell.striptags() for cell in marked] == cells
    assert [is_bold(cell) for cell in marked] == [
        cell != "-" and best is not None and float(cell) == best for cell in cells
    ]


def test_each_place_of_a_tuple_has_its_own_best():
    marked = mark_best(["(1.0, 9.0, -)", "(2.0, 10.0, -)", "-", "(2.0, 8.5, 3.0)"])
    assert marked == [
        "(1.0, 9.0, -)",
        "(<b>2.0</b>, <b>10.0</b>, -)",
        "-",
        "(<b>2.0</b>, 8.5, 3.0)",
    ]
    assert mark_best([HOSTILE, "1.0"])[0] == Markup.escape(HOSTILE)


def test_variants_are_compared_whichever_way_they_stand():
    down = pd.DataFrame(
        {
            "variant": ["a", "FuzzyCLIP", GAIN],
            "d1": ["2.0", "1.0", "+9.0"],
            "d2": ["1.0", "3.0", "-"],
        }
    )
    table = mark_table(down, "c")
    bold = [[is_bold(cell) for cell in line] for line in table.lines]
    assert bold == [[False, True, False], [False, False, True], [False] * 3]
    across = {"level": ["Pixel"], "dataset": ["1.0"], "a": ["(2.0, 5.0)"], "b": ["(3.0, 4.0)"]}
    table = mark_table(pd.DataFrame(across | {PRINTED: ["(9.0, 9.0)"]}), "c")
    assert table.lines == [["Pixel", "1.0", "(2.0, <b>5.0</b>)", "(<b>3.0</b>, 4.0)", "(9.0, 9.0)"]]


def test_bars_and_their_bold_value_follow_the_numbers():
    frame = make_categories(["a", "b"])
    for panel in build_bars("own", "Own", frame):
        wide = frame.pivot_table(panel.metric, "category", "variant", dropna=False)
        for name in ("a", "b"):
            own = wide.loc[name][[OWN, "precise", "fuzzyclip_epoch_1"]].to_numpy()
            bold = [is_bold(text) for text, _ in panel.lines[name]]
            assert bold == [value == own.max() for value in own]


def show(categories, **changes):
    """The summary of a page of one dataset, as lines of HTML."""
    (dataset,) = list(make_experiment().datasets.values())[:1]
    shown = DatasetResult(**(vars(dataset) | {"categories": categories} | changes))
    page = render_page(make_experiment(datasets={"mvtec": shown}))
    body = page.partition('<section id="summary"')[2].partition("<tbody>")[2]
    return [line for line in body.partition("</tbody>")[0].splitlines() if line.startswith("<tr")]


def test_the_summary_sets_the_best_without_training_beside_fuzzyclip():
    frame = make_categories(["a", "b", "c"], seed=4)
    object_ = frame[frame["variant"] == "precise"].assign(variant="object")
    object_[[*METRICS]] = 100 - object_[[*METRICS]]
    lines = show(pd.concat([frame, object_]))
    assert len(lines) == 2
    means = pd.concat([frame, object_]).groupby("variant")[[*METRICS]].mean()
    expected = {"FuzzyCLIP": means.loc[OWN], "without": means.loc[["precise", "object"]].max()}
    for line, (name, values) in zip(lines, expected.items(), strict=True):
        other = expected["without" if name == "FuzzyCLIP" else "FuzzyCLIP"]
        assert name in line
        for metric in METRICS:
            text = f"{values[metric]:.1f}"
            wanted = f"<b>{text}</b>" if values[metric] > other[metric] else text
            assert f"<td>{wanted}</td>" in line


def test_a_summary_of_fuzzyclip_alone_compares_nothing():
    frame = make_categories(["a", "b", "c"])
    lines = show(frame[frame["variant"] == OWN])
    assert len(lines) == 1
    assert "<b>" not in lines[0]


def test_a_mean_is_over_the_datasets_that_fuzzyclips_is_over():
    datasets = make_experiment().datasets
    page = render_page(make_experiment())
    assert page.count('scope="rowgroup"') == len(datasets) + 1
    hidden = datasets["own"].categories.copy()
    hidden.loc[hidden["variant"] != OWN, [*PIXEL_METRICS]] = np.nan
    changed = DatasetResult(**(vars(datasets["own"]) | {"categories": hidden}))
    page = render_page(make_experiment(datasets=datasets | {"own": changed}))
    body = page.partition('<section id="summary"')[2].partition("</tbody>")[0]
    last = body.splitlines()[-1]
    assert "without training" in last
    assert last.count("<td>-</td>") == len(PIXEL_METRICS)


@pytest.mark.parametrize("who", ["own", "rivals", "all"])
def test_a_dataset_without_fuzzyclips_value_moves_no_mean(who):
    """What is left of two datasets is the other's line, for both; or nothing to compare."""
    datasets = dict([*make_experiment().datasets.items()][:2])
    name = [*datasets][1]
    hidden = datasets[name].categories.copy()
    variants = {*hidden["variant"]}
    chosen = {"rivals": variants - {OWN}, "all": variants}.get(who, {OWN})
    hidden.loc[hidden["variant"].isin(chosen), [*METRICS]] = np.nan
    datasets[name] = DatasetResult(**(vars(datasets[name]) | {"categories": hidden}))
    body = render_page(make_experiment(datasets=datasets)).partition('<section id="summary"')[2]
    lines = body.partition("<tbody>")[2].partition("</tbody>")[0].splitlines()
    lines = [re.sub("</?b>", "", line) for line in lines if line.startswith("<tr")]
    cells = [re.findall(r"<td>([\d.-]+)</td>", line)[: len(METRICS)] for line in lines]
    assert len(cells) == 6
    if who == "rivals":
        assert cells[-1] == ["-"] * len(METRICS)
    else:
        assert cells[-2:] == cells[:2]


@pytest.mark.parametrize("source", ["summary", "tables"])
def test_bold_is_explained_once(source):
    page = render_page(make_experiment())
    text = page.partition(f'<section id="{source}"')[2].partition("</section>")[0]
    assert text.count("is the best of the values") == (1 if source == "summary" else 0)
