"""Figures from finished runs: what is drawn, the numbers beside it, and what the notes say."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from finished_runs import PAPER, write_table
from imports import ROOT

from fuzzyclip.evaluation.metrics import METRICS
from fuzzyclip.utils.tensor_files import write_tensors
from stages import paths, times
from stages.experiments import maps
from stages.experiments.catalog import CatalogError, read_catalog
from stages.experiments.figures import draw
from stages.experiments.maps import draw_maps
from stages.experiments.plan import plan_runs
from stages.experiments.results import Results
from stages.experiments.stability import find_settled, summarise_stability
from stages.schema import Params

BASE = yaml.safe_load((ROOT / "params.yaml").read_text())
CATALOG = read_catalog()
#: Layers of Figure 1 that are kept, in epochs, but for the last ones.
MOMENTS = [0.25, 0.5, 0.75, *range(1, 15)]


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def finish(run, values):
    """Leave a run's table of one dataset: of each variant, every metric of two categories."""
    folder = Path(run.name)
    (dataset,) = run.row.tests
    variants = {
        variant: {"a": dict.fromkeys(METRICS, mean - 1), "b": dict.fromkeys(METRICS, mean + 1)}
        for variant, mean in values.items()
    }
    write_table(folder / paths.method_metrics("fuzzyclip", dataset), variants)
    return replace(run, results=Results(run.name, folder=folder))


def finish_curve(run, end=50.0):
    """A curve that falls from its end plus 17 to its end, a point a moment."""
    rest = {f"fuzzyclip_epoch_{moment:g}": end + 17 - n for n, moment in enumerate(MOMENTS)}
    return finish(run, {"precise": 1.0, "fuzzyclip": end} | rest)


def test_a_training_is_drawn_from_within_its_first_epoch_to_its_last():
    runs = [finish_curve(run) for run in plan_runs(CATALOG, "figure-1", BASE)]
    drawn = draw(CATALOG.get("figure-1"), runs)
    assert len(drawn.figure.axes) == 3
    assert list(dict.fromkeys(drawn.numbers["label"])) == ["precise", "abstract", "stacked"]
    stacked = drawn.numbers[drawn.numbers["label"] == "stacked"]
    assert stacked["epoch"].tolist() == [*MOMENTS, 15]
    assert stacked["pixel_ap"].tolist() == [*np.arange(67.0, 50.0, -1), 50.0]
    assert drawn.summary["epoch 0.25"].unique().tolist() == ["67.0"]
    assert any("not timed here" in note for note in drawn.notes)
    with pytest.raises(CatalogError, match="nothing of this figure"):
        draw(CATALOG.get("figure-5"), plan_runs(CATALOG, "figure-5", BASE))


def test_only_the_precise_prompt_has_the_batch_of_its_footnote():
    sizes = {
        run.row.label: run.params["efa"]["train"]["batch_size"]
        for run in plan_runs(CATALOG, "figure-1", BASE)
    }
    assert sizes == {"precise": 8, "abstract": 16, "stacked": 16}


def test_stability_is_the_spread_along_a_curve_and_over_seeds():
    epochs, curves = [0.25, 1, 2, 3], {1: [30, 40, 44, 41], 2: [34, 50, 47, 45]}
    frame = pd.DataFrame(
        {"label": "stacked", "epoch": epochs, "seed": seed, "pixel_ap": values}
        for seed, values in curves.items()
    ).explode(["epoch", "pixel_ap"])
    (line,) = summarise_stability(frame.astype({"pixel_ap": float}), ["pixel_ap"]).to_dict(
        "records"
    )
    assert line == {
        "prompt": "stacked",
        "metric": "pixel AP",
        "epoch 0.25": "32.0",
        "highest": "47.0",
        "at epoch": "2, 1",
        "last": "43.0",
        "settled": "3, 2",
        "spread along the curve": f"{(np.std([40, 44, 41]) + np.std([50, 47, 45])) / 2:.1f}",
        "spread over seeds": f"{np.std([41, 45], ddof=1):.1f}",
    }


@pytest.mark.parametrize(
    ("values", "epoch"),
    [
        ([50, 50, 50, 50], 0.25),
        ([48, 52, 48.1, 50], 0.25),  # within two points
        ([20, 49, 48, 50], 0.5),
        ([50, 60, 50, 50], 1),  # what comes back late has settled late
        ([50, 50, 53, 50], 2),
    ],
)
def test_a_curve_has_settled_where_it_never_leaves_its_end_again(values, epoch):
    assert find_settled(pd.Series(values, index=[0.25, 0.5, 1, 2], dtype=float)) == epoch


def test_what_is_undefined_has_not_settled():
    """A map with a single extreme pixel leaves the 200-threshold AUPRO undefined."""
    nan = float("nan")
    for values, epoch in (([nan, 50, 50], 1), ([50, nan, 50], 2), ([50, 50, nan], nan)):
        curve = pd.Series(values, index=[0.25, 1, 2], dtype=float)
        assert find_settled(curve) == pytest.approx(epoch, nan_ok=True)
    frame = pd.DataFrame(
        {"label": label, "epoch": [0.25, 1.0, 2.0], "seed": 1, "pixel_ap": values}
        for label, values in (("late", [nan, 40.0, 41.0]), ("never", [nan] * 3))
    ).explode(["epoch", "pixel_ap"])
    late, never = summarise_stability(
        frame.astype({"epoch": float, "pixel_ap": float}), ["pixel_ap"]
    ).to_dict("records")
    assert (late["epoch 0.25"], late["at epoch"], late["last"], late["settled"]) == (
        "-", "2", "41.0", "1"
    )  # fmt: skip
    assert {never[name] for name in never if name not in ("prompt", "metric")} == {"-"}


def test_a_curve_ends_at_the_epochs_of_its_auxiliary_set():
    """Where params.yaml gives epochs as a table, and the row says nothing else."""
    (run, *_) = plan_runs(CATALOG, "figure-1", BASE)
    run.params["efa"]["train"]["epochs"] = {"default": 2, "visa": 15}
    drawn = draw(CATALOG.get("figure-1"), [finish_curve(run)])
    assert drawn.numbers["epoch"].max() == 15


def test_lengths_that_a_short_sentence_has_cut_stand_on_the_axis_and_in_a_note():
    runs = []
    for run in plan_runs(CATALOG, "figure-5", BASE):
        done, rpl = finish(run, {"fuzzyclip": 50.0}), run.params["rpl"]
        lengths = {"deep_tokens": min(rpl["deep_tokens"], 17), "depth": min(rpl["depth"], 4)}
        lengths["words"] = [rpl["words"], rpl["words"] + 1]
        path = done.results.folder / paths.method_facts("fuzzyclip", "visa")
        path.write_text(json.dumps({"lengths": lengths}))
        runs.append(done)
    drawn = draw(CATALOG.get("figure-5"), runs)
    ran = drawn.numbers.set_index(["parameter", "value"])["ran"]
    assert ran["L"].to_dict() == {5: 5, 10: 10, 15: 15, 20: 17, 25: 17}
    assert ran["M"].to_dict() == {3: 3, 6: 4, 9: 4, 12: 4}
    assert (ran["E"] == ran["E"].index).all()
    (note,) = drawn.notes
    assert "L=20 was cut to 17, L=25 was cut to 17, M=6 was cut to 4" in note
    assert "E=" not in note
    ticks = [tick.get_text() for tick in drawn.figure.axes[1].get_xticklabels()]
    assert ticks == ["5", "10", "15", "20\n(17)", "25\n(17)"]
    for done in runs:
        path = done.results.folder / paths.method_facts("fuzzyclip", "visa")
        path.write_text("{}")  # of code that did not say
    drawn = draw(CATALOG.get("figure-5"), runs)
    assert (drawn.numbers["ran"] == drawn.numbers["value"]).all()
    assert not drawn.notes


def finish_strip(run, categories):
    """Leave a run's pictures, two of each category."""
    count = 2 * len(categories)
    tensors = {
        "images": torch.zeros(count, 16, 16, 3, dtype=torch.uint8),
        "masks": torch.zeros(count, 16, 16, dtype=torch.bool),
        "maps": torch.linspace(0, 1, count)[:, None, None].repeat(1, 16, 16).half(),
    }
    titles = [f"{name}\n{defect}" for name in categories for defect in ("hole", "cut")]
    path = Path(run.name) / paths.overlays("fuzzyclip", "mvtec")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_tensors(path, tensors, {"titles": titles})
    return replace(run, results=Results(run.name, folder=Path(run.name)))


def test_a_category_that_the_sample_lacks_has_a_stand_in_that_is_named():
    experiment = CATALOG.get("figure-11")
    (run,) = plan_runs(CATALOG, "figure-11", BASE)
    drawn = draw(experiment, [finish_strip(run, ["bottle", "hazelnut"])], CATALOG.shown)
    assert not drawn.notes
    assert drawn.numbers["peak"].round(2).tolist() == [0.67, 1.0]
    done = finish_strip(run, ["bottle", "metal_nut", "tile"])
    drawn = draw(experiment, [done], CATALOG.shown)
    assert drawn.notes == ["The drawn sample has no hazelnut: metal_nut stands in for it."]
    assert drawn.notes[0] in drawn.figure.get_suptitle()
    assert drawn.numbers["peak"].round(1).tolist() == [0.4, 0.6]  # the second category's
    done = finish_strip(run, ["bottle", "tile"])
    assert "bottle stands in" in draw(experiment, [done], CATALOG.shown).notes[0]
    (run,) = plan_runs(CATALOG, "figure-11", PAPER)
    with pytest.raises(CatalogError, match="no category hazelnut; there are bottle, tile"):
        draw(experiment, [finish_strip(run, ["bottle", "tile"])], CATALOG.shown)


def test_categories_of_a_figure_are_several_and_have_anomalous_images(monkeypatch):
    names = [f"c{number}" for number in range(9)]
    rows = pd.DataFrame({"label": [0, 1, 1, 1, 0]})
    counts = {name: {"test_anomalous": 3 if name != "c4" else 0} for name in names}
    monkeypatch.setattr(maps, "read_rows", lambda dataset, split, category: rows)
    for there in range(1, 10):
        info = {"prompts": dict.fromkeys(names[:there], "x"), "counts": counts}
        monkeypatch.setattr(maps, "read_info", lambda path, info=info: info)
        usable = [name for name in names[:there] if name != "c4"]
        for asked in range(1, 10):
            chosen = maps.choose("mine", asked)
            categories = [choice.category for choice in chosen]
            assert categories == sorted({*categories})
            assert len(categories) == min(asked, len(usable))
            assert set(categories) <= {*usable}
            assert {choice.place for choice in chosen} <= {1, 2, 3}
    gaps = np.diff([names.index(choice.category) for choice in maps.choose("mine", 4)])
    assert gaps.max() - gaps.min() <= 1


def train(path, content, checkpoint, clock):
    """A training that takes as many seconds as `clock` says."""
    with times.watch_training([checkpoint]) as watch:
        clock()
    path.write_text(content)
    times.keep_time(path, watch)


@pytest.fixture
def clock(monkeypatch):
    """Clocks that go on where they are told to: `clock(seconds)`, the processors' by half."""
    now = [100.0]
    monkeypatch.setattr(times.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(times.time, "process_time", lambda: now[0] / 2)

    def go_on(seconds):
        now[0] += seconds

    return go_on


def test_a_time_belongs_to_the_content_that_was_trained(tmp_path, clock):
    path, checkpoint = tmp_path / "efa.safetensors", tmp_path / "efa.pt"
    assert times.read_time(path) is None
    train(path, "first settings", checkpoint, lambda: clock(7.5))
    assert times.read_time(path) == (7.5, 3.75)
    train(path, "other settings", checkpoint, lambda: clock(2))
    assert times.read_time(path) == (2, 1)
    path.write_text("first settings")  # DVC brings it back from its cache
    assert times.read_time(path) == (7.5, 3.75)
    path.write_text("made elsewhere")
    assert times.read_time(path) is None


def test_what_went_on_after_a_kill_has_no_time(tmp_path, clock):
    path, checkpoint = tmp_path / "efa.safetensors", tmp_path / "efa.pt"
    checkpoint.touch()
    train(path, "settings", checkpoint, lambda: clock(3))
    assert times.read_time(path) is None
    checkpoint.unlink()
    train(path, "settings", checkpoint, lambda: clock(30))
    assert times.read_time(path) == (30, 15)


def test_times_are_told_apart_from_what_is_not_known_and_what_needs_none():
    short, long = times.Time(0.0, 2.0), times.Time(12.34, 5.0)
    assert times.add_times(short, long) == (12.34, 7.0)
    assert times.add_times(short, None) is None
    note = times.describe_times(
        {"EFA": {"visa": long, "mvtec": short}, "CLIP": {}, "CoOp": {"visa": long, "mvtec": None}},
        "auxiliary set",
    )
    assert "by auxiliary set: EFA (visa 12.3 / 5.0, mvtec 0.0 / 2.0); not timed here" in note
    assert note.endswith(": CoOp; nothing is trained: CLIP.")


def test_maps_of_what_has_not_run_name_the_way():
    with pytest.raises(CatalogError, match=r"mvtec\.json is not there: `dvc repro track"):
        draw_maps(CATALOG.get("figure-3"), Params.model_validate(BASE))
