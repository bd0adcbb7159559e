"""Stages of a finished pipeline run again, in this process, with other settings and data."""

import itertools
import json
import re
import shutil
from contextlib import chdir

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from mlflow.tracking import MlflowClient
from pipelines import OWN, copy_pipeline, list_runs, make_own_images, run_stages, shorten_methods
from safetensors import safe_open
from scipy.special import expit
from sklearn.metrics import average_precision_score

from fuzzyclip.baselines.registry import BASELINES
from fuzzyclip.method import OWN as METHOD
from fuzzyclip.utils.files import compute_sha256
from fuzzyclip.utils.tensor_files import read_arrays, read_tensors, write_tensors
from stages import paths
from stages.experiments import maps
from stages.experiments.catalog import PaperExperiment
from stages.experiments.maps import draw_maps
from stages.params import read_params
from stages.times import read_time

#: Features that the methods of the tables read besides the run's patch tokens.
VIEWS = ("openai", "windows", "vv", "vv_stages")


@pytest.fixture
def folder(kept_pipeline, tmp_path):
    """A copy of the finished pipeline, to be changed."""
    return copy_pipeline(kept_pipeline, tmp_path / "copy")


def read_categories(folder, dataset="sdd"):
    return pd.read_csv(folder / f"metrics/methods/fuzzyclip/{dataset}.csv", dtype={"prompt": str})


def test_streaming_metrics_bound_the_exact_ones(folder):
    exact = read_categories(folder)

    def stream(params):
        params["evaluation"]["pixel_metrics"] = "streaming"

    run_stages(folder, "evaluate@sdd", "report", change=stream)
    bounds = pd.read_csv(folder / "results/fuzzyclip/sdd/bounds.csv")
    measured = exact[[name for name in exact if name.startswith("pixel_")]].notna()
    assert len(bounds) == measured.sum().sum() > 4 * len(exact)
    for line in bounds.itertuples():
        value = exact.loc[exact["variant"] == line.variant, line.metric].item()
        assert line.low - 1e-4 <= value <= line.high + 1e-4
        assert line.high - line.low < 1
    assert read_categories(folder)["image_auroc"].tolist() == exact["image_auroc"].tolist()
    gains = json.loads((folder / "metrics/methods/fuzzyclip/sdd.json").read_text())["gains"]
    assert gains["pixel_ap"]["low"] is None  # maps of variants without training are not kept
    assert gains["image_ap"]["low"] <= gains["image_ap"]["high"]
    assert "Pixel metrics are estimates" in (folder / "metrics/tables/summary.md").read_text()
    assert not list((folder / "scratch").glob("maps-*"))


def test_a_variant_with_good_images_stands_in_every_table_and_moves_no_other(folder):
    before = read_categories(folder)

    def remember(params):
        params["evaluation"]["shots"] = [1]

    run_stages(folder, "evaluate@sdd", "report", "page", change=remember)
    after = read_categories(folder)
    assert set(after["variant"]) - set(before["variant"]) == {"fuzzyclip_1shot"}
    others = after[after["variant"] != "fuzzyclip_1shot"].reset_index(drop=True)
    pd.testing.assert_frame_equal(others, before)
    summary = (folder / "metrics/tables/summary.md").read_text()
    assert "FuzzyCLIP + 1 normal image" in summary
    assert "not zero-shot" in summary
    assert "FuzzyCLIP + 1 normal image" in (folder / "page/index.html").read_text()


def test_a_forced_partition_trains_as_many_sets_of_layers(folder):
    prompts = compute_sha256(folder / "models/visa/rpl.safetensors")

    def force(params):
        params["csp"]["partition"] = 2
        params["efa"]["train"] |= {"prompt": "precise", "keep": "all", "epochs": 2}

    run_stages(folder, "csp@visa", "efa@visa", "package@visa", "evaluate@sdd", change=force)
    partition = json.loads((folder / "models/visa/partition.json").read_text())
    assert len(partition["clusters"]) == 2
    with safe_open(folder / "models/visa/efa.safetensors", framework="np") as file:
        names = {name.split(".layers")[0] for name in file.keys()}  # noqa: SIM118
    moments = ("", "epoch0.25.", "epoch0.5.", "epoch0.75.", "epoch1.")
    assert names == {f"{moment}cluster{number}" for moment in moments for number in range(2)}
    assert compute_sha256(folder / "models/visa/rpl.safetensors") == prompts
    scores = pd.read_csv(folder / "results/fuzzyclip/sdd/scores.csv")
    weights = scores[["weight_0", "weight_1"]].to_numpy()
    assert np.allclose(weights.sum(axis=1), 1, atol=1e-6)
    pixel_ap = read_categories(folder).set_index("variant")["pixel_ap"]
    assert pixel_ap["fuzzyclip"] != pixel_ap["fuzzyclip_epoch_1"]
    assert "fuzzyclip_epoch_0.25" in pixel_ap
    assert "fuzzyclip_epoch_2" not in pixel_ap  # the last of two is fuzzyclip itself


def test_a_cluster_that_is_not_there_is_refused(folder):
    def choose(params):
        params["efa"]["test"]["weights"] = 9

    with pytest.raises(ValueError, match=r"efa\.test\.weights: 9 names a cluster"):
        run_stages(folder, "evaluate@sdd", change=choose)


def test_features_that_are_still_right_are_taken_over(folder, caplog):
    def read():
        return {path: path.read_bytes() for path in (folder / "features/tokens/sdd").rglob("*.*")}

    before = read()
    for path in before:  # DVC removes outputs before it runs a stage
        path.unlink()
    with caplog.at_level("INFO"):
        run_stages(folder, "features@sdd")
    assert "0 images to encode" in caplog.text
    assert read() == before


def test_own_images_with_and_without_masks(folder):
    make_own_images(folder / "mine")

    def add(params):
        params["datasets"]["parts"] = OWN | {"names": {"bracket black": "black metal bracket"}}
        params["pairs"]["parts"] = "visa"
        params["auxiliary"]["parts"] = ["parts"]

    keys = ("download", "index", "features", "evaluate", "auxiliary")
    run_stages(folder, "sample", *(f"{name}@parts" for name in keys), change=add)
    lines = read_categories(folder, "parts").query("variant == 'fuzzyclip'").set_index("category")
    assert "black metal bracket" in lines.loc["bracket black", "prompt"]
    assert lines.loc["bracket black"].filter(like="pixel").isna().all()  # absent, never zero
    assert lines.filter(like="image").notna().all(axis=None)
    assert lines.loc["hinge", "pixel_auroc"] > 0
    with pytest.raises(ValueError, match="parts/bracket black has anomalous images without masks"):
        run_stages(folder, "csp@parts", "efa@parts")


@pytest.fixture(scope="module")
def tested(kept_pipeline, tmp_path_factory):
    """A copy in which every method has run, each with next to no training."""
    folder = copy_pipeline(kept_pipeline, tmp_path_factory.mktemp("methods") / "copy")

    views = [f"views@{name}" for name in VIEWS]
    each = [f"{stage}@{name}" for name in BASELINES for stage in ("train", "evaluate_baseline")]
    run_stages(folder, *views, *each, "method_tables", "baselines", change=shorten_methods)
    return folder


def read_method(folder, name):
    return pd.read_csv(folder / f"metrics/methods/{name}/sdd.csv")


def test_every_method_is_tested_tabled_and_recorded(tested):
    for name in BASELINES:
        (line,) = read_method(tested, name).to_dict("records")
        assert (line["variant"], line["normal"], line["anomalous"]) == (name, 4, 4)
        assert 0 <= line["image_auroc"] <= 100
        assert 0 < line["pixel_ap"] <= 100
    assert {path.name for path in (tested / "features").iterdir()} == {"tokens", *VIEWS}
    means = pd.read_csv(tested / "metrics/method_tables/means.csv").set_index("variant")
    assert set(means.index) == {*BASELINES, METHOD}
    own = json.loads((tested / "metrics/datasets/sdd.json").read_text())
    assert means.loc[METHOD, "pixel_ap"] == pytest.approx(own["pixel_ap"])
    text = (tested / "metrics/method_tables/table-3.md").read_text()
    for title in ("WinCLIP", "APRIL-GAN", "SDP+", "CoCoOp", "AnomalyCLIP", "SAA+", "FuzzyCLIP"):
        assert f"| {title} |" in text
    assert "random" in text  # SAA+'s models
    recorded = {run.data.tags["method"]: run for run in list_runs(tested)}
    assert set(recorded) - {METHOD} == set(BASELINES)
    for name in BASELINES:
        kept = recorded[name].data.metrics["pixel_ap/sdd"]
        assert kept == pytest.approx(means.loc[name, "pixel_ap"])
    winclip = recorded["winclip"]
    assert winclip.data.params["settings.temperature"] == "0.07"
    client = MlflowClient(f"sqlite:///{tested / 'mlflow.db'}")
    files = {file.path for file in client.list_artifacts(winclip.info.run_id)}
    assert {"metrics", "method_tables"} <= files


def test_what_was_trained_has_a_time(tested):
    with chdir(tested):
        times = {name: read_time(paths.learned(name, "visa")) for name in BASELINES}
    trained = {name for name in BASELINES if (tested / f"baselines/{name}/visa.csv").is_file()}
    assert {name for name, seconds in times.items() if seconds} == trained
    assert {"april_gan", "sdp_plus", "coop", "cocoop", "anomaly_clip"} == trained


def test_maps_of_several_methods_are_those_of_the_evaluation(tested, monkeypatch):
    """Figure 3 on the work tree's files: FuzzyCLIP's map is the one that its evaluation kept."""
    rows = [{"label": name, "method": name} for name in (*BASELINES, "not_run")]
    rows.append({"label": "FuzzyCLIP", "tests": {"sdd": "visa"}})
    experiment = PaperExperiment(title="maps", kind="maps", categories=1, rows=rows)
    shown = {}

    def keep(photos, columns, title):
        shown.update(columns, photos=photos)
        return Figure()

    monkeypatch.setattr(maps, "draw_side_by_side", keep)
    with chdir(tested):
        drawn = draw_maps(experiment, read_params())
    numbers = drawn.numbers.set_index("method")
    assert list(numbers.index) == [*BASELINES, "FuzzyCLIP"]
    assert len(set(numbers["image"])) == 1
    assert numbers[["pixel_auroc", "pixel_ap"]].notna().all(axis=None)
    arrays, _ = read_arrays(tested / "results/fuzzyclip/sdd/overlays.safetensors")
    (photo,) = shown.pop("photos")
    assert (photo.image == arrays["images"][0]).all()  # of one image both keep the same
    assert (photo.mask == arrays["masks"][0]).all()
    (own,) = shown["FuzzyCLIP"]
    assert expit(own) == pytest.approx(arrays["maps"][0], abs=1e-3)
    truth = photo.mask.ravel()
    assert numbers["pixel_ap"]["FuzzyCLIP"] == pytest.approx(
        100 * average_precision_score(truth, own.ravel())
    )
    assert [title for title in shown if "random weights" in title] == ["saa\n(random weights)"]
    assert shown["not_run\n(left out)"] == [None]
    assert drawn.notes == ["not_run: params.yaml has no block methods.not_run"]


def test_a_method_says_all_that_made_its_result(tested):
    facts = json.loads((tested / "metrics/methods/anomaly_clip/sdd.json").read_text())
    assert facts["auxiliary"] == "visa"
    known = {"as": "mended", "sigma": 1.1, "epochs": 1}
    assert facts["settings"] | known == facts["settings"]
    assert facts["kind"] == "vv"
    assert facts["random"] is False
    assert facts["text"]["ensemble"] == "full"
    untrained = json.loads((tested / "metrics/methods/winclip/sdd.json").read_text())
    assert untrained["auxiliary"] is None
    own = json.loads((tested / "metrics/methods/fuzzyclip/sdd.json").read_text())
    assert set(own) >= set(facts) - {"datasets", "backbone"}
    assert set(own["settings"]) == {"efa", "rpl", "test"}


def test_a_killed_training_of_a_method_goes_on_and_gives_the_same(tested, tmp_path):
    folder = copy_pipeline(tested, tmp_path / "copy")
    path = folder / "baselines/cocoop/visa.safetensors"
    before = path.read_bytes()
    shutil.rmtree(path.parent)
    run_stages(folder, "train@cocoop")
    assert path.read_bytes() == before
    assert not list((folder / "scratch").glob("method-*"))


def test_what_was_trained_on_the_tested_data_or_for_another_clip_is_refused(tested, tmp_path):
    folder, own = copy_pipeline(tested, tmp_path / "copy"), "evaluate@sdd"
    stages = {"models/visa/efa": own, "models/visa/rpl": own}
    stages |= {"baselines/coop/visa": "evaluate_baseline@coop"}
    changes = {"on sdd": {"datasets": ["visa", "sdd"]}, "with another": {"backbone": "0" * 64}}
    for part, reason in itertools.product(stages, changes):
        path = folder / f"{part}.safetensors"
        whole, (tensors, header) = path.read_bytes(), read_tensors(path)
        write_tensors(path, tensors, header | changes[reason])
        with pytest.raises(ValueError, match=rf"{part}\.safetensors was trained {reason}"):
            run_stages(folder, stages[part])
        path.write_bytes(whole)


def read_facts(folder, name):
    return json.loads((folder / f"metrics/methods/{name}/sdd.json").read_text())


def test_a_tower_gives_its_methods_another_clip(tested, tmp_path):
    folder = copy_pipeline(tested, tmp_path / "copy")
    before, values = read_facts(folder, "clip"), read_method(folder, "clip")

    def change(params):
        params["towers"]["openai"] = {"sample": {"activation": "quickgelu"}}

    run_stages(folder, "views@openai", "train@clip", "evaluate_baseline@clip", change=change)
    after = read_facts(folder, "clip")
    assert (before["clip"], after["clip"]) == ("sample", "openai")
    assert before["backbone"] != after["backbone"]
    assert not read_method(folder, "clip").equals(values)

    def mix(params):
        params["methods"]["april_gan"]["features"] = "openai"  # its own tower is the run's

    with pytest.raises(ValueError, match="made with another backbone"):
        run_stages(folder, "train@april_gan", change=mix)


def test_a_published_form_says_so_and_that_it_uses_the_test_set(tested, tmp_path):
    folder = copy_pipeline(tested, tmp_path / "copy")

    def publish(params):
        params["methods"]["sdp"]["as"] = "published"

    stages = ("views@vv_stages", "train@sdp", "evaluate_baseline@sdp", "method_tables")
    run_stages(folder, *stages, change=publish)
    facts = read_facts(folder, "sdp")
    assert (facts["settings"]["as"], facts["kind"]) == ("published", "sdp-late")
    text = (folder / "metrics/method_tables/table-2.md").read_text()
    assert "- SDP: as published, an image's score uses the whole test set" in text


def test_features_of_another_kind_are_refused_with_the_way_out(tested, tmp_path):
    folder = copy_pipeline(tested, tmp_path / "copy")

    def mix(params):
        params["methods"]["winclip"]["features"] = "vv"

    with pytest.raises(ValueError, match=r"made with another .*kind"):
        run_stages(folder, "train@winclip", "evaluate_baseline@winclip", change=mix)


def test_saa_without_models_is_left_out_and_the_tables_say_so(tested, tmp_path, caplog):
    folder = copy_pipeline(tested, tmp_path / "copy")

    def take_models(params):
        params["methods"]["saa"]["tiny_seed"] = None

    with caplog.at_level("INFO"):
        stages = ("train@saa", "evaluate_baseline@saa", "method_tables", "baselines")
        run_stages(folder, *stages, change=take_models)
    assert "SAA+ is left out" in caplog.text
    assert "saa" not in pd.read_csv(folder / "metrics/method_tables/means.csv")["variant"].tolist()
    assert read_method(folder, "saa").empty
    text = (folder / "metrics/method_tables/table-3.md").read_text()
    assert re.search(r"^- SAA\+: .*detector_folder", text, flags=re.MULTILINE)


def test_a_tower_without_text_serves_the_methods_that_read_none(folder, caplog):
    """Those that read text are left out by name, trained or not; the others have results."""
    tower = {"model": "timm/test_vit", "weights": "random", "image_size": 32, "blocks": [2, 4]}

    def take_tower(params):
        like = next(iter(params["backbones"].values()))
        params["backbones"]["alone"] = like | {"sha256": None} | tower
        params["backbone"] = "alone"
        shorten_methods(params)

    stages = ["features@visa", "features@sdd", "views@openai"]
    for method in ("clip", "april_gan", "text_free"):
        stages += [f"train@{method}", f"evaluate_baseline@{method}"]
    with caplog.at_level("INFO"):
        run_stages(folder, *stages, "method_tables", change=take_tower)
    for method in ("clip", "april_gan"):
        assert read_method(folder, method).empty
        assert "image tower without text" in read_facts(folder, method)["left_out"]
    assert len(read_method(folder, "text_free")) == len(
        read_categories(folder)["category"].unique()
    )
    assert read_facts(folder, "text_free")["model"] == "timm/test_vit"
    with pytest.raises(ValueError, match="image tower without text"):
        run_stages(folder, "csp@visa")


@pytest.mark.parametrize(
    ("method", "setting", "message"),
    [
        ("april_gan", {"epochs": 0}, r"methods\.april_gan: .*epochs"),
        ("clip", {"sgima": 1}, r"methods\.clip: clip has no setting sgima"),
        ("patchcore", {"sigma": 1}, "no method 'patchcore'"),
    ],
)
def test_settings_that_are_refused_are_named(folder, method, setting, message):
    def change(params):
        params["methods"].setdefault(method, {}).update(setting)

    with pytest.raises(ValueError, match=message):
        run_stages(folder, f"train@{method}", change=change)
