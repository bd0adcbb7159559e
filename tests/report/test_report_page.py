"""The report's numbers, pictures and pages: right, escaped, without any request, and repeatable."""

import base64
import hashlib
import io
import re
from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matplotlib.path import Path as Polygon
from PIL import Image
from reports import HOSTILE, Reader, make_categories, make_experiment
from sklearn.metrics import (
    average_precision_score,
    precision_recall_curve,
    roc_auc_score,
    roc_curve,
)

from fuzzyclip.evaluation.metrics import IMAGE_METRICS, METRICS, PIXEL_METRICS
from fuzzyclip.evaluation.summaries import summarise_pixels
from fuzzyclip.method import VARIANTS, get_title, list_titles
from fuzzyclip.report import charts, gallery
from fuzzyclip.report.curves import average_curves, trace_pixels, trace_scores
from fuzzyclip.report.page import build_bars, render_page
from fuzzyclip.report.tables import format_score

PAIRS = st.lists(
    st.tuples(st.sampled_from([0.0, 0.2, 0.4, 0.6, 0.8, 1.0]), st.booleans()), min_size=2
).filter(lambda pairs: len({label for _, label in pairs}) == 2)


@pytest.fixture(scope="module")
def page():
    return render_page(make_experiment())


@given(PAIRS)
def test_curves_of_scores_are_scikit_learns(pairs):
    scores, labels = (np.array(column) for column in zip(*pairs, strict=True))
    curve = trace_scores(scores, labels)
    assert np.trapezoid(curve.tpr, curve.fpr) == pytest.approx(roc_auc_score(labels, scores))
    fpr, tpr, _ = roc_curve(labels, scores, drop_intermediate=False)
    ours = {(round(x, 9), round(y, 9)) for x, y in zip(curve.fpr, curve.tpr, strict=True)}
    above = np.concatenate([[False], np.diff(tpr) > 0])  # at scores that a positive has
    for x, y in zip(fpr[above], tpr[above], strict=True):
        assert (round(x, 9), round(y, 9)) in ours
    steps = np.diff(curve.recall, prepend=0) @ curve.precision
    assert steps == pytest.approx(average_precision_score(labels, scores))
    precision, recall, _ = precision_recall_curve(labels, scores)
    for p, r in zip(precision[:-1], recall[:-1], strict=True):
        if r > 0:  # scikit-learn's points between positives lie below the step
            assert curve.read_precision(r) >= p - 1e-9


def test_a_curve_is_read_at_the_top_of_its_stairs():
    assert trace_scores([0.1, 0.2], [1, 1]) is None  # one class is missing
    perfect = trace_scores([0.1, 0.2, 0.3, 0.4], [0, 0, 1, 1])
    assert perfect.read_tpr([0, 0.5, 1]).tolist() == [1, 1, 1]
    mixed = trace_scores([0.1, 0.2, 0.3, 0.4], [0, 1, 0, 1])
    assert mixed.read_tpr([0, 0.25, 0.5, 1]).tolist() == [0.5, 0.5, 1, 1]
    tied = trace_scores([0.1, 0.3, 0.3, 0.4], [0, 1, 0, 1])
    assert tied.read_tpr([0, 0.25, 0.5, 1]).tolist() == [0.5, 0.75, 1, 1]  # ties slant
    assert mixed.read_precision([0.5, 0.51, 1]).tolist() == [1, 2 / 3, 2 / 3]


def test_the_mean_curves_area_is_the_mean_of_the_areas():
    rng, labels = np.random.default_rng(0), np.arange(400) % 2
    drawn = [rng.normal(size=400) + 0.3 * number * labels for number in range(5)]
    mean = average_curves([trace_scores(scores, labels) for scores in drawn])
    areas = [roc_auc_score(labels, scores) for scores in drawn]
    precisions = [average_precision_score(labels, scores) for scores in drawn]
    assert np.trapezoid(mean.tpr, mean.fpr) == pytest.approx(np.mean(areas), abs=0.005)
    assert mean.precision.mean() == pytest.approx(np.mean(precisions), abs=0.005)
    assert (np.diff(mean.tpr) >= 0).all()


def test_curves_of_pixels_come_from_the_counts_that_were_kept():
    rng = np.random.default_rng(1)
    masks = rng.uniform(size=(4, 16, 16)) < 0.1
    maps = (rng.integers(0, 30, (4, 16, 16)) + 8 * masks).astype(np.float32)
    curve = trace_pixels(summarise_pixels(maps, masks, list("abcd")))
    area = np.trapezoid(curve.tpr, curve.fpr)
    assert area == pytest.approx(roc_auc_score(masks.ravel(), maps.ravel()))
    steps = np.diff(curve.recall, prepend=0) @ curve.precision
    assert steps == pytest.approx(average_precision_score(masks.ravel(), maps.ravel()))
    assert trace_pixels(summarise_pixels(maps, np.zeros_like(masks), list("abcd"))) is None


def test_maps_and_their_bar_have_the_colours_of_the_reports_pictures():
    values = np.linspace(0, 1, 900, dtype=np.float32).reshape(30, 30)
    colours = mpl.colormaps["inferno"](values)[..., :3] * 255
    _, _, data = gallery.encode_map(values).partition("base64,")
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))
    assert np.abs(shown - colours).max() < 5  # of 255: half a step of the scale
    example = gallery.Example("a", np.zeros((30, 30, 3), np.uint8), values > 2, values)
    panels = [axes for axes in gallery.draw_heatmaps([example], "a").axes if axes.images]
    strip = panels[2].images[0]
    drawn = strip.to_rgba(strip.get_array())[..., :3] * 255
    assert np.abs(drawn - colours).max() < 1e-9
    ticks = gallery.describe_scale().ticks
    assert [text for _, text in ticks] == ["0", "0.25", "0.5", "0.75", "1"]
    for share, text in ticks:
        graded = gallery.grade_map(np.array([[float(text)]]))[0, 0]
        assert graded / (gallery.COLOURS - 1) == pytest.approx(share, abs=0.005)


@given(arrays(bool, (6, 7)))
def test_an_outline_parts_the_mask_from_the_rest(mask):
    pieces = [piece for piece in gallery.trace_outline(mask).split("Z") if piece]
    inside = np.zeros(mask.shape, dtype=int)
    centres = np.stack(np.meshgrid(np.arange(7) + 0.5, np.arange(6) + 0.5), axis=-1).reshape(-1, 2)
    for piece in pieces:
        points = [[float(n) for n in pair.split()] for pair in piece[1:].split("L")]
        assert min(min(pair) for pair in points) >= 0
        inside += Polygon([*points, points[0]]).contains_points(centres).reshape(mask.shape)
    assert ((inside % 2 == 1) == mask).all()


def test_scores_whose_probabilities_are_one_can_be_told_apart():
    assert format_score(0.27029812) == "+0.27"
    assert format_score(-3.14159) == "−3.14"
    assert format_score(20.0) == "+20.00"
    assert format_score(20.04) == "+20.04"


def test_verdicts_follow_the_threshold():
    (first, *_) = make_experiment().datasets["own"].examples
    verdicts = {0: ("passed", "false alarm"), 1: ("missed", "found")}
    for label, expected in verdicts.items():
        for score, verdict in zip((0.39, 0.4), expected, strict=True):
            assert gallery.judge(replace(first, label=label, score=score)) == verdict
    assert gallery.judge(replace(first, threshold=None)) == "no threshold"


def test_a_path_leaves_out_only_what_nobody_sees():
    x = np.linspace(0, 300, 5000)
    y = 100 + 90 * np.sin(x / 30)
    points = np.array(
        [[float(n) for n in pair.split()] for pair in charts.write_path(x, y)[1:].split("L")]
    )
    assert len(points) < 1500
    assert np.abs(np.interp(x, points[:, 0], points[:, 1]) - y).max() < 0.6
    assert points[-1] == pytest.approx([300, y[-1]], abs=0.05)
    assert charts.write_path(np.array([np.nan, 1, 2]), np.array([1, 2, np.inf])) == "M1.0 2.0"


def test_charts_place_values_between_their_margins():
    lines = [charts.Line("a", [1, 3], [10, 1000]), charts.Line("b", [2, 2], [np.nan, 100])]
    chart = charts.draw_chart("t", lines, x_label="x", y_label="y", log=True)
    first, last = ([float(n) for n in pair.split()] for pair in chart.paths[0][1][1:].split("L"))
    assert (first[0], last[0]) == (charts.LEFT, charts.WIDTH - charts.RIGHT)
    middle = float(chart.paths[1][1].split()[1])
    assert middle == pytest.approx((first[1] + last[1]) / 2)  # logarithmic
    assert {"10", "100", "1000"} <= {tick.text for tick in chart.y_ticks}
    flat = charts.draw_chart("t", [charts.Line("a", [1, 1], [0, 0])], x_label="x", y_label="y")
    assert "nan" not in flat.paths[0][1]


def test_bars_hold_the_results_and_leave_out_what_is_absent():
    frame = make_categories(["a", "b"])
    panels = {panel.metric: panel for panel in build_bars("own", "Own", frame)}
    assert list(panels) == list(METRICS)
    own = frame[frame["variant"] == "fuzzyclip"].set_index("category")
    bars = panels["image_ap"]
    assert bars.head[0].startswith("FuzzyCLIP")
    assert bars.lines["a"][0][1] == pytest.approx(own.loc["a", "image_ap"], abs=0.006)
    assert float(bars.lines["mean"][0][0].striptags()) == pytest.approx(
        own["image_ap"].mean(), abs=0.06
    )
    assert panels["pixel_ap"].lines["b"][0] == ("-", 0.0)
    no_masks = frame.assign(**dict.fromkeys(PIXEL_METRICS, np.nan))
    assert [panel.metric for panel in build_bars("own", "Own", no_masks)] == [*IMAGE_METRICS]


def test_variants_have_the_titles_of_the_tables():
    titles = list_titles([*VARIANTS], [1, 16])
    assert {variant: get_title(variant) for variant in titles} == titles
    assert get_title("fuzzyclip_epoch_1") == "fuzzyclip_epoch_1"


def test_labels_cover_no_other_label_where_there_is_room():
    rng = np.random.default_rng(2)
    names = [f"category {n}" for n in range(9)]
    xs, ys = rng.uniform(60, 250, 9).tolist(), rng.uniform(30, 200, 9).tolist()
    ys[1], xs[1] = ys[0], xs[0]  # two points in one place
    placed = charts.place_labels(names, xs, ys)
    boxes = [
        (x, y - charts.LINE_HEIGHT + 2, x + charts.LETTER * len(name), y + 2)
        for name, (x, y) in zip(names, placed, strict=True)
    ]
    for number, (a, b, c, d) in enumerate(boxes):
        for left, top, right, bottom in boxes[number + 1 :]:
            assert min(c, right) <= max(a, left) or min(d, bottom) <= max(b, top)


def test_a_partition_that_no_k_gave_has_its_own_picture():
    outcome = make_experiment().partitions["visa"]
    panel = charts.build_clusters("visa", outcome)
    usual = [(1, False), (2, True), (3, False)]
    assert [(picture.k, picture.chosen) for picture in panel.pictures] == usual
    assert len(panel.scores.marks) == 1
    names = [name for group in outcome["clusters"] for name in group]
    forced = charts.build_clusters("visa", outcome | {"clusters": [names[:3], names[3:]]})
    chosen = [(picture.k, picture.chosen) for picture in forced.pictures]
    assert chosen == [(1, False), (2, False), (3, False), (2, True)]
    assert not forced.scores.marks


def test_hostile_names_are_text(page):
    read = Reader(page)
    assert read.text.count(HOSTILE) > 10
    scripts = [attrs for tag, attrs in read.elements if tag == "script"]
    assert scripts == [{}]
    for tag, attrs in read.elements:
        assert not [name for name in attrs if name.startswith("on") or name == "style"], tag
    alts = {attrs.get("alt", "")[:5] for tag, attrs in read.elements if tag == "img"}
    assert alts == {"MVTEC", "OWN &", "its a"}


def test_a_page_asks_for_nothing(page):
    read = Reader(page)
    for tag, attrs in read.elements:
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            value = attrs.get(name) or "#"
            assert value.startswith(("#", "data:image/png;", "data:image/webp;")), (tag, value)
    assert "url(" not in page.replace("url(#heat)", "")
    assert "@import" not in page
    policy = next(a["content"] for t, a in read.elements if "http-equiv" in a)
    assert policy.startswith("default-src 'none'; img-src data:; ")
    for tag, kind in (("style", "style-src"), ("script", "script-src")):
        (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, flags=re.S)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind} 'sha256-{digest}'" in policy
    assert "unsafe" not in policy


def test_a_page_is_repeatable_and_names_thresholds_for_what_they_are(page):
    assert render_page(make_experiment()) == page
    text = " ".join(Reader(page).text.split())
    assert "chosen on the test set itself" in text
    assert "No threshold here was fixed in advance" in text
    facts = [a["data-facts"] for _, a in Reader(page).elements if "data-facts" in a]
    assert all("F1-max threshold, chosen on the test set" in text for text in facts)


def test_a_page_without_pictures_and_pixels_is_whole():
    datasets = make_experiment().datasets
    bare = {key: replace(datasets[key], examples=[], pixels={}) for key in datasets}
    text = Reader(render_page(make_experiment(datasets=bare, tables={}))).text
    assert "No pictures were kept" in text
    assert "Pixels, FuzzyCLIP" not in text
