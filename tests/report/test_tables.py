"""The paper's table layout: unweighted means, tuples with their names, and Markdown."""

import numpy as np
import pandas as pd
import pytest

from fuzzyclip.evaluation.metrics import METRICS, TIED_SHARE
from fuzzyclip.report.tables import (
    GAIN,
    LABELS,
    MEAN,
    PAIRS,
    TABLES,
    TUPLES,
    add_means,
    average_datasets,
    build_headline,
    build_table,
    collect_means,
    format_tuple,
    list_partial_means,
    list_short_clusters,
    list_ties,
    read_categories,
    to_markdown,
)
from stages.experiments.catalog import collect_printed, read_catalog

PRINTED = collect_printed(read_catalog())


def make_categories(values, variant="fuzzyclip"):
    """A category table: category to (normal, anomalous, value of every metric)."""
    columns = ["normal", "anomalous", "value"]
    frame = pd.DataFrame.from_dict(values, "index", columns=columns).rename_axis("category")
    frame = frame.reset_index().assign(variant=variant, prompt=[*values])
    metrics = {metric: frame["value"] + place for place, metric in enumerate(METRICS)}
    return frame.assign(**metrics).drop(columns="value")


@pytest.fixture
def results():
    """Two datasets with two variants; one category is much larger than the other."""
    own = make_categories({"pill": (1, 1, 10.0), "wood": (500, 400, 30.0)})
    precise = make_categories({"pill": (1, 1, 1.0), "wood": (500, 400, 2.0)}, "precise")
    alone = make_categories({"01": (5, 6, 60.0)})
    return {"mvtec": pd.concat([precise, own]), "btad": alone}


def test_means_do_not_weigh_categories_by_their_images_and_counts_add_up(results):
    with_means = add_means(results["mvtec"])
    assert len(with_means) == 4 + 2
    assert list(with_means.columns) == list(results["mvtec"].columns)
    means = with_means[with_means["category"] == MEAN].set_index("variant")
    assert list(means.index) == ["precise", "fuzzyclip"]
    assert means.loc["fuzzyclip", list(METRICS)].tolist() == [20.0 + i for i in range(len(METRICS))]
    assert means.loc["precise", METRICS[0]] == 1.5
    assert means.loc["fuzzyclip", ["normal", "anomalous"]].tolist() == [501, 401]
    categories = count_ties(results, {"mvtec": [0, 0, 2, 5], "btad": [0]})["mvtec"]
    tied = add_means(categories).query("category == @MEAN").set_index("variant")["tied"]
    assert tied.to_dict() == {"precise": 0, "fuzzyclip": 7}


def test_a_headline_has_a_column_a_dataset_their_mean_and_the_gain_below(results):
    means = collect_means(results)
    variants = {"precise": "Precise", "stacked": "Stacked", "fuzzyclip": "Ours"}
    titles = {"mvtec": "MVTec AD", "btad": "BTAD"}
    gain = {"over": "precise", "difference": 18.5, "low": -1.25, "high": 40.06}
    table = build_headline(means, METRICS[0], variants, titles, {"mvtec": gain})
    assert table.to_numpy().tolist() == [
        ["Precise", "1.5", "-", "1.5"],
        ["Ours", "20.0", "60.0", "40.0"],
        [GAIN, "+18.5 (-1.2 to +40.1)", "-", "+18.5"],
    ]
    assert [*table] == ["variant", "MVTec AD", "BTAD", MEAN]
    both = {"mvtec": gain, "btad": gain | {"difference": 1.5, "low": None, "high": None}}
    last = build_headline(means, METRICS[0], variants, titles, both).iloc[-1]
    assert last.tolist() == [GAIN, "+18.5 (-1.2 to +40.1)", "+1.5", "+10.0"]
    assert len(build_headline(means, METRICS[0], variants, titles, {})) == 2


def test_means_over_some_categories_are_told(results):
    """Of two categories; one row of two lacks a metric in one, another has it in none."""
    variants, metric = {"precise": "Precise", "fuzzyclip": "Ours"}, "pixel_aupro"
    assert list_partial_means(results, variants, {}) == []
    frame = results["mvtec"].reset_index(drop=True)
    of_plain = frame["variant"] == "precise"
    frame.loc[of_plain, "image_ap"] = float("nan")  # its mean is absent too
    frame.loc[of_plain.idxmax(), metric] = float("nan")
    (note,) = list_partial_means(results | {"mvtec": frame}, variants, {"mvtec": "MVTec AD"})
    assert note.startswith("pixel AUPRO is undefined in some categories")
    assert note.endswith(f": 1 of {of_plain.sum()} on MVTec AD.")
    assert list_partial_means({"mvtec": frame}, {"fuzzyclip": "Ours"}, {}) == []


def test_clusters_with_too_few_images_are_named_once_for_each_auxiliary_set():
    short = [{"names": ["wood"], "steps": 6}, {"names": ["a", "b"], "steps": 1}]
    facts = {
        "visa": {"auxiliary": "mvtec", "short_clusters": short},
        "mpdd": {"auxiliary": "mvtec", "short_clusters": short},
        "mvtec": {"auxiliary": "visa", "short_clusters": []},
        "btad": {"auxiliary": "old"},
    }
    (note,) = list_short_clusters(facts)
    assert "on mvtec" in note
    assert note.endswith(": {wood} made 6 steps; {a, b} made 1 steps.")


def count_ties(results, tied):
    """The same tables with as many tied scores in each of their lines."""
    return {name: frame.assign(tied=tied[name]) for name, frame in results.items()}


def test_variants_with_many_tied_scores_are_named(results):
    variants, titles = {"fuzzyclip": "ours", "precise": "precise prompt"}, {"mvtec": "MVTec"}
    assert TIED_SHARE == 0.01

    def say(mvtec, btad, variants=variants):
        return list_ties(count_ties(results, {"mvtec": mvtec, "btad": btad}), variants, titles)

    assert say([0, 0, 0, 0], [0]) == []
    assert say([0, 0, 0, 9], [0]) == []  # of 902 images, just below a hundredth
    assert say([0, 0, 0, 10], [0]) == [
        "ours: image scores tie at an end of their scale, 10 of 902 on MVTec."
    ]
    assert say([2, 900, 4, 6], [11]) == [
        "ours: image scores tie at an end of their scale, 10 of 902 on MVTec, 11 of 11 on btad.",
        "precise prompt: image scores tie at an end of their scale, 902 of 902 on MVTec.",
    ]
    assert say([2, 900, 0, 0], [0], {"fuzzyclip": "ours"}) == []
    assert list_ties({}, variants, titles) == []


def test_results_of_old_are_read_by_todays_names(tmp_path):
    today = make_categories({"01": (5, 6, 60.0), "NUT": (1, 2, 3.0)})
    old = today.rename(columns={"variant": "row", "normal": "good", "anomalous": "bad"})
    (path := tmp_path / "parts.csv").write_text(text := old.to_csv(index=False))
    for source in (path, text, today.to_csv(index=False)):
        pd.testing.assert_frame_equal(read_categories(source), today)
    path.write_text("category,pixel_ap\n01,3\n")
    with pytest.raises(ValueError, match=r"parts\.csv: no column variant"):
        read_categories(path)


def test_a_metric_that_one_category_lacks_is_the_mean_of_the_others(results):
    frame = results["mvtec"].reset_index(drop=True)
    frame.loc[frame["category"] == "pill", "pixel_ap"] = np.nan
    means = add_means(frame).set_index(["variant", "category"])
    place = METRICS.index("pixel_ap")
    assert means.loc[("fuzzyclip", MEAN), "pixel_ap"] == 30.0 + place


def test_datasets_count_alike(results):
    means = collect_means(results)
    assert means[["dataset", "variant", "images"]].to_numpy().tolist() == [
        ["mvtec", "precise", 902],
        ["mvtec", "fuzzyclip", 902],
        ["btad", "fuzzyclip", 11],
    ]
    average = average_datasets(means).set_index("variant")
    assert average.loc["fuzzyclip", METRICS[0]] == (20.0 + 60.0) / 2
    assert average.loc["precise", METRICS[0]] == 1.5


def test_tuples_have_one_decimal_and_a_dash_for_what_is_absent():
    values = {"pixel_aupro": 86.449, "pixel_ap": float("nan"), "pixel_f1_max": 100.0}
    assert format_tuple(values, TUPLES["Pixel"]) == "(86.4, -, 100.0)"
    assert format_tuple({}, TUPLES["Image"]) == "(-, -, -)"
    assert format_tuple(pd.Series({"image_auroc": 5.0}), TUPLES["Image"]) == "(5.0, -, -)"


def test_a_table_has_the_papers_layout(results):
    variants = {"precise": "precise prompt", "fuzzyclip": "ours"}
    titles = {"mvtec": "MVTec", "btad": "BTAD", "visa": "VisA"}
    table = build_table(
        collect_means(results), ["visa", "mvtec", "btad"], variants, titles, PRINTED
    )
    assert list(table.columns) == [
        "level", "dataset", "precise prompt", "ours", "paper, FuzzyCLIP",
    ]  # fmt: skip
    assert table["level"].tolist() == 2 * ["Pixel (AUPRO, AP, F1-max)"] + 2 * [
        "Image (AUROC, AP, F1-max)"
    ]
    assert table["dataset"].tolist() == ["MVTec", "BTAD"] * 2  # VisA was not evaluated
    cells = [20.0 + METRICS.index(metric) for metric in TUPLES["Pixel"]]
    assert table.loc[0, "ours"] == "({:.1f}, {:.1f}, {:.1f})".format(*cells)
    assert table.loc[0, "paper, FuzzyCLIP"] == "(86.4, 46.0, 47.6)"
    assert table.loc[3, "paper, FuzzyCLIP"] == "(83.2, 83.5, -)"  # Table 3 prints no F1-max
    line = next(line for line in to_markdown(table).splitlines() if "BTAD" in line)
    assert "| - |" in line  # a variant that was not tested there
    without = build_table(collect_means(results), ["mvtec"], variants, titles)
    assert "paper, FuzzyCLIP" not in without.columns


def test_markdown_escapes_bars_and_shows_numbers_shortly():
    frame = pd.DataFrame({"a": [1.25, np.nan], "n": [3, 4], "prompt": ["pill | wood", "x"]})
    assert to_markdown(frame).splitlines() == [
        "| a | n | prompt |",
        "| --- | --- | --- |",
        "| 1.2 | 3 | pill \\| wood |",
        "| - | 4 | x |",
    ]
    assert to_markdown(frame).endswith("|\n")


def test_every_metric_has_a_label_and_every_dataset_printed_values():
    assert set(LABELS) == set(METRICS)
    shown = [dataset for table in TABLES.values() for dataset in table]
    assert sorted(shown) == sorted(PRINTED) == sorted(PAIRS)
    assert PRINTED["visa"]["pixel_aupro"] == 89.8
    assert "image_f1_max" not in PRINTED["sdd"]
