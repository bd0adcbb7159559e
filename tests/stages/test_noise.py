"""Intervals of a comparison's page are those of a slow bootstrap; what has none says why."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from fuzzyclip.evaluation.summaries import summarise_pixels, write_summaries
from fuzzyclip.report.comparison import Side, join_results
from fuzzyclip.utils.tables import write_csv
from stages import paths
from stages.experiments.noise import measure_noise
from stages.experiments.results import WORKSPACE, Results

LABELS = np.repeat([1, 0], 20)


def make_results(folder, lifts, *, first_image=0, with_pixels=True):
    """Scores, pixel summaries and the table of two categories."""
    lines, scores = [], []
    for number, (name, lift) in enumerate(lifts.items()):
        rng = np.random.default_rng(number)
        images = [f"{name}/{first_image + image}.png" for image in range(len(LABELS))]
        drawn = {"fuzzyclip": rng.normal(lift * LABELS), "precise": rng.normal(LABELS)}
        facts = {"image_path": images, "category": name, "label": LABELS}
        scores.append(pd.DataFrame(facts | drawn))
        auroc = 100 * roc_auc_score(LABELS, drawn["fuzzyclip"])
        lines.append({"variant": "fuzzyclip", "category": name, "image_auroc": auroc})
        lines[-1]["pixel_ap"] = 10 * lift
        lines.append({"variant": "precise", "category": name, "image_auroc": 50, "pixel_ap": 2})
        if with_pixels:
            masks = np.zeros((len(LABELS), 8, 8), dtype=bool)
            masks[LABELS == 1, 2:5, 2:5] = True
            maps = rng.uniform(0, 0.5, masks.shape) + 0.2 * lift * masks
            summary = summarise_pixels(maps.astype(np.float32), masks, images)
            path = folder / paths.summaries("fuzzyclip", "own", name)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_summaries(path, summary)
    path = folder / paths.scores("fuzzyclip", "own")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_csv(path, pd.concat(scores))
    table = {"own": pd.DataFrame(lines)}
    return Results(WORKSPACE, folder=folder), Side(folder.name, {}, table)


@pytest.fixture
def sides(tmp_path):
    first = make_results(tmp_path / "first", {"1": 0.5, "NA": 1.0})
    second = make_results(tmp_path / "second", {"1": 1.0, "NA": 1.2})
    return first, second


def measure(first, second):
    return measure_noise(first[0], second[0], join_results(first[1], second[1]))


def read(results):
    return pd.read_csv(results.folder / paths.scores("fuzzyclip", "own"), keep_default_na=False)


def test_intervals_are_those_of_a_slow_bootstrap(sides):
    noise = measure(*sides)
    assert not noise.notes
    theirs, ours = (read(results) for results, _ in sides)
    rng, drawn = np.random.default_rng(7), {"1": [], "NA": []}
    for name, values in drawn.items():
        rows = np.flatnonzero(ours["category"] == name)
        groups = [rows[ours["label"][rows] == label] for label in (0, 1)]
        for _ in range(150):
            chosen = np.concatenate([rng.choice(group, len(group)) for group in groups])
            pair = [
                roc_auc_score(frame["label"][chosen], frame["fuzzyclip"][chosen])
                for frame in (ours, theirs)
            ]
            values.append(100 * (pair[0] - pair[1]))
    for place, values in (*drawn.items(), (None, np.mean([*drawn.values()], axis=0))):
        expected = np.quantile(values, [0.025, 0.975])
        found = noise.intervals["own", "fuzzyclip", place, "image_auroc"]
        assert found == pytest.approx(expected, abs=0.2 * np.ptp(expected))


def test_pixels_have_an_interval_where_their_summaries_are_kept(sides, tmp_path):
    low, high = measure(*sides).intervals["own", "fuzzyclip", None, "pixel_ap"]
    assert 0 < low < high  # the second side's maps stand out more
    bare = make_results(tmp_path / "bare", {"1": 1.0, "NA": 1.2}, with_pixels=False)
    noise = measure(sides[0], bare)
    metrics = {metric for *_, metric in noise.intervals}
    assert metrics == {"image_auroc", "image_ap", "image_f1_max"}
    assert not noise.notes


def test_what_did_not_change_is_not_drawn(sides):
    assert {variant for _, variant, *_ in measure(*sides).intervals} == {"fuzzyclip"}
    assert not measure(sides[0], sides[0]).intervals


def test_scores_that_are_gone_or_of_other_images_are_named(sides, tmp_path):
    others = make_results(tmp_path / "others", {"1": 2.0, "NA": 2.0}, first_image=1)
    noise = measure(sides[0], others)
    assert not noise.intervals
    assert noise.notes == ["No interval on own: 1: A and B were evaluated on different images."]
    (tmp_path / "second" / paths.scores("fuzzyclip", "own")).unlink()
    (note,) = measure(*sides).notes
    assert "results/fuzzyclip/own/scores.csv of workspace is not there" in note
