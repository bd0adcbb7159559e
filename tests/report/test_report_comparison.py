"""Two results on one page: what is compared, where it comes from, and what is refused."""

import re
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from imports import ROOT
from reports import CATEGORIES, HOSTILE, Reader, make_categories
from typer.testing import CliRunner

from fuzzyclip.cli import app
from fuzzyclip.evaluation.metrics import METRICS
from fuzzyclip.report.comparison import (
    SCALE,
    Noise,
    Side,
    choose_opening,
    compare_headline,
    compare_params,
    join_results,
    list_changed_variants,
    list_changes,
    list_gaps,
    render_comparison,
)
from stages.experiments.catalog import CatalogError
from stages.experiments.history import read_side


def make_side(name="A", seed=0, **params):
    tables = {key: make_categories(names, seed) for key, names in CATEGORIES.items()}
    return Side(name, {"seed": "1", "csp.penalty": "0.1"} | params, tables)


def test_a_comparison_is_the_second_minus_the_first():
    sides = make_side(), make_side("B", seed=5)
    changes = list_changes(join_results(*sides), {})
    first, second = (
        pd.concat(side.categories).set_index(["variant", "category"], append=True).droplevel(1)
        for side in sides
    )
    assert len(changes) == first[[*METRICS]].notna().to_numpy().sum()
    for change in changes.itertuples():
        place = (change.dataset, change.variant, change.category)
        expected = second.loc[place, change.metric] - first.loc[place, change.metric]
        assert change.size == pytest.approx(expected)
        assert change.sign == ("better" if expected > 0 else "worse")
        assert change.start + (change.length if expected < 0 else 0) == pytest.approx(50)
        assert change.length == pytest.approx(min(abs(expected), SCALE) * 50 / SCALE, abs=0.011)
        assert change.cut == (abs(expected) > SCALE)
        assert np.isnan(change.low)
        assert not change.unsure
    for _, group in changes.groupby("metric"):
        assert group["size"].abs().is_monotonic_decreasing


def test_a_page_opens_on_a_headline_metric_that_changed_and_has_its_mean():
    names = ["dataset", "variant", "metric", "first", "second"]
    means = pd.DataFrame(
        [
            ("a", "fuzzyclip", "pixel_ap", 50.0, 50.0),
            ("a", "fuzzyclip", "pixel_aupro_std", 70.0, 60.0),
            ("b", "fuzzyclip", "pixel_aupro_std", 80.0, 84.0),
            ("a", "precise", "pixel_aupro_std", 1.0, 2.0),
            ("a", "fuzzyclip", "image_f1_max", 1.0, 9.0),
        ],
        columns=names,
    )
    assert choose_opening(means) == "pixel_aupro_std"
    assert choose_opening(means.assign(second=means["first"])) == "pixel_ap"
    table = compare_headline(means, "A", "B")
    assert table.head == ["metric", "A", "B", "difference"]
    numbers = [line[1:] for line in table.lines]
    assert numbers == [["50.00", "50.00", "+0.00"], ["75.00", "72.00", "−3.00"]]


def test_bands_lie_on_the_scale_of_the_bars_and_take_the_colour_of_what_holds_zero():
    first, second = make_side(), make_side("B", seed=5)
    table = join_results(first, second)
    table = table[(table["metric"] == "image_ap") & (table["variant"] == "fuzzyclip")]
    place = table.iloc[0]
    key = (place["dataset"], place["variant"], place["category"], "image_ap")
    for low, high, band, width, unsure in (
        (-5, 2.5, 25, 37.5, True),
        (1, 40, 55, 45, False),
        (-40, -20, 0, 0, False),
        (0, 0, 50, 0, True),
    ):
        changes = list_changes(table, {key: (low, high)})
        known = changes[changes["low"].notna()]
        assert len(known) == 1
        line = known.iloc[0]
        assert (line["category"], line["band"], line["width"]) == (place["category"], band, width)
        assert line["unsure"] == unsure
    means = table.groupby(["dataset", "variant", "metric"])[["first", "second"]].mean()
    key = ("mvtec", "fuzzyclip", None, "image_ap")
    changes = list_changes(means.reset_index(), {key: (-1.0, 1.0)})
    widths = changes.set_index("dataset")["width"]
    assert widths["mvtec"] == 10
    assert np.isnan(widths["own"])


def test_a_page_says_the_interval_or_that_there_is_none():
    first, second = make_side(), make_side("B", seed=5)
    key = ("mvtec", "fuzzyclip", "01", "image_ap")
    noise = Noise({key: (-1.25, 33.3)}, ["No interval on own: gone."])
    page = render_comparison(first, second, noise)
    text = " ".join(Reader(page).text.split())
    assert text.count("(−1.25 to +33.30)") == 1
    assert "No interval on own: gone." in text
    sizes = [float(size.replace("−", "-")) for size in re.findall(r'"value">([^<]+)<', page)]
    assert page.count('class="ends">no interval') == len(sizes) - 1
    assert page.count('<rect class="band"') == 1
    assert page.count('class="cut"') == sum(abs(size) > SCALE for size in sizes) > 0


def test_variants_that_are_the_same_are_left_out():
    first, second = make_side(), make_side("B")
    assert list_changed_variants(join_results(first, second)) == ["fuzzyclip"]
    second.categories["own"].loc[0, "image_ap"] += 1
    assert list_changed_variants(join_results(first, second)) == ["fuzzyclip", "precise"]
    same = list_changes(join_results(first, make_side("C")), {})
    assert set(same["sign"]) == {"equal"}
    assert set(same["length"]) == {0}


def test_what_only_one_side_has_is_named():
    first, second = make_side(), make_side("B", **{"csp.penalty": "0.2", "new": HOSTILE})
    del second.categories["mvtec"]
    own = second.categories["own"]
    second.categories["own"] = own[own["category"] != "lid"]
    assert [*list_gaps(first, second)] == ["Only A has mvtec.", "Of own only A has lid."]
    assert compare_params(first, second).lines == [
        ["csp.penalty", "0.1", "0.2"], ["new", "-", HOSTILE],
    ]  # fmt: skip
    read = Reader(render_comparison(first, second))
    assert HOSTILE in read.text
    assert [attrs for tag, attrs in read.elements if tag == "script"] == [{}]
    del second.categories["own"]
    with pytest.raises(ValueError, match="A and B have no tested dataset in common"):
        render_comparison(first, second)


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """Two commits with results, an experiment of DVC's, and a changed work tree."""
    monkeypatch.chdir(tmp_path)
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    git("init", "-q", "-b", "main")
    git("commit", "-q", "--allow-empty", "-m", "nothing yet")
    old, new = Path("metrics/categories"), Path("metrics/methods/fuzzyclip")
    old.mkdir(parents=True)
    new.mkdir(parents=True)
    old_names = {"variant": "row", "normal": "good", "anomalous": "bad"}
    for penalty in ("0.1", "0.2", "0.3"):
        Path("params.yaml").write_text(
            f"seed: 1\nmachine: {{workers: 3}}\nbackbone: a\ncsp: {{penalty: {penalty}, l: [1]}}\n"
            "backbones: {a: {size: null}, b: {size: 2}}\n"
        )
        frame = make_categories(["01", "é"]).assign(image_ap=100 * float(penalty))
        if penalty == "0.1":  # as earlier versions committed them
            frame.rename(columns=old_names).to_csv(old / "own.csv", index=False)
        else:
            frame.to_csv(new / "own.csv", index=False)
        if penalty != "0.3":
            git("add", "-A")
            git("commit", "-q", "-m", penalty)
    git("update-ref", "refs/exps/ab/cdef0123/smoky-bass", "HEAD~1")


def git(*arguments):
    settings = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    return subprocess.check_output(["git", *settings, *arguments], text=True).strip()


@pytest.mark.usefixtures("repository")
def test_revisions_experiments_and_the_work_tree_are_read():
    expected = {"HEAD": 20, "main": 20, "smoky-bass": 10, "workspace": 30}
    for name, value in expected.items():
        side = read_side(name)
        assert set(side.categories["own"]["image_ap"]) == {value}
        assert set(side.categories["own"]["category"]) == {"01", "é"}
        assert side.params == {
            "seed": "1", "backbone": "a", "csp.penalty": f"{value / 100}", "csp.l": "[1]",
            "backbones.a.size": "null",
        }  # fmt: skip
    assert read_side("smoky-bass").name == f"smoky-bass ({git('rev-parse', 'HEAD~1')[:7]})"


@pytest.mark.usefixtures("repository")
def test_revisions_that_are_none_are_refused():
    with pytest.raises(CatalogError, match=r"no revision.*'nothing'.*there are: smoky-bass"):
        read_side("nothing")
    with pytest.raises(CatalogError, match="no revision"):
        read_side("--output=stolen")
    with pytest.raises(CatalogError, match="HEAD~2 holds no results"):
        read_side("HEAD~2")
    git("update-ref", "refs/exps/99/cdef0123/smoky-bass", "HEAD")
    with pytest.raises(CatalogError, match=f"several.*{git('rev-parse', 'HEAD')}"):
        read_side("smoky-bass")


def test_outside_of_a_repository_it_is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(CatalogError, match="no git repository"):
        read_side("HEAD")
    with pytest.raises(CatalogError, match="workspace holds no results"):
        read_side()


def test_the_command_hands_over_to_the_checkout(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    outside = CliRunner().invoke(app, ["compare", "HEAD"])
    assert (outside.exit_code, "change into a checkout" in outside.output) == (2, True)
    monkeypatch.chdir(ROOT)
    refused = CliRunner().invoke(app, ["compare", "no-such-name", "--out", f"{tmp_path}/c.html"])
    assert refused.exit_code == 1
    assert "no revision and no experiment 'no-such-name'" in capfd.readouterr().err
    assert not (tmp_path / "c.html").exists()
