"""What decides an image: each kind of score against the map that is shown, or a slow version."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from ray_jobs import build_detector
from scipy.ndimage import gaussian_filter
from scipy.special import expit, logit
from sklearn.metrics import roc_auc_score
from tiny_models import make_model
from trees import write_picture

from fuzzyclip import FuzzyCLIP
from fuzzyclip.clip.encoding import encode_images, preprocess
from fuzzyclip.method import Scale
from fuzzyclip.method.scorer import Scorer
from fuzzyclip.model.calibration import calibrate, choose_by_quantile
from fuzzyclip.model.card import Calibration, ModelError, Threshold, Tiling, read_card
from fuzzyclip.model.inference import CategoryModel, detect_files
from fuzzyclip.model.score_kinds import SCORE_KINDS
from fuzzyclip.model.storing import digest_memory, store
from fuzzyclip.model.tiles import plan_tiles

KINDS = ("class", "map", "both")
SIDE = 32  # of the tiny model: a map of such an image is not resized


def draw_image(width=SIDE, height=SIDE, seed=0):
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiny_config):
    return make_model(tmp_path_factory.mktemp("made"), tiny_config)[0]


@pytest.fixture(scope="module")
def detector(made):
    return FuzzyCLIP.load(made, device="cpu")


@pytest.fixture
def copied(tmp_path, tiny_config):
    return make_model(tmp_path, tiny_config)[0]


def combine(kind, class_score, peak):
    return {"class": class_score, "map": peak, "both": (class_score + peak) / 2}[kind]


def assert_by_the_shown_map(detector, images, **ways):
    """Scores of each kind are those of the class score and of the map's highest probability."""
    for image in images:
        plain, *others = (detector(image, "gear", score=kind, **ways) for kind in KINDS)
        peak = logit(float(plain.anomaly_map.max()))
        assert abs(peak - plain.image_score) > 1e-2  # there is something to compare
        for kind, other in zip(KINDS[1:], others, strict=True):
            expected = combine(kind, plain.image_score, peak)
            assert other.image_score == pytest.approx(expected, abs=1e-4)
            assert np.array_equal(other.anomaly_map, plain.anomaly_map)
            assert other.label == (other.image_score >= 0)


def test_a_score_is_of_the_class_feature_the_map_or_both(detector):
    images = [draw_image(seed=seed) for seed in range(4)]
    assert_by_the_shown_map(detector, images)
    assert detector(images[0], "gear").image_score == (
        detector(images[0], "gear", score="class").image_score
    )


def test_a_category_moves_a_score_that_sees_the_map_and_no_other(detector):
    image = draw_image()
    for kind in KINDS:
        gear, brush = (detector(image, name, score=kind) for name in ("gear", "brush"))
        assert (gear.image_score == brush.image_score) == (kind == "class")


def test_the_map_counts_before_it_is_resized(detector):
    image = draw_image(90, 200)
    pixels = preprocess(image, detector.backbone)[None]
    maps, (class_score,) = detector.build_category_model("gear")(pixels)
    peak = logit(float(maps[0].max()))
    for kind in KINDS:
        score = detector(image, "gear", score=kind).image_score
        assert score == pytest.approx(combine(kind, class_score, peak), abs=1e-4)


def test_normal_parts_to_compare_with_take_part_in_each_kind(detector):
    images = [draw_image(seed=seed) for seed in range(3)]
    assert_by_the_shown_map(detector, images, references=images[1:])
    shown = detector(images[1], "gear", score="map", references=images[1:])
    assert shown.image_score < detector(images[1], "gear", score="map").image_score


def test_a_tiled_image_has_the_score_of_its_worst_tile(detector):
    image, tiling = draw_image(70, 50), Tiling(side=SIDE, overlap=8)
    tiles = [image.crop(box) for box in plan_tiles(*image.size, SIDE, 8)]
    for kind in KINDS:
        alone = [detector(tile, "gear", score=kind).image_score for tile in tiles]
        whole = detector(image, "gear", score=kind, tiling=tiling)
        assert whole.image_score == pytest.approx(max(alone), abs=1e-4)


def test_a_smoothed_map_counts_as_it_is_smoothed(tiny):
    pixels = preprocess(draw_image(), tiny)[None]
    sharp = build_detector(lambda: tiny, sigma=0.0)
    tokens = encode_images(tiny, pixels)[1]
    fine = sharp.scorer.compute_map(tokens, torch.empty(0))[0].double().numpy()
    peak = logit(gaussian_filter(expit(fine), 2.0).max())
    _, (class_score,) = sharp(pixels)
    for kind in KINDS:
        _, (score,) = replace(sharp, sigma=2.0, score=kind)(pixels)
        assert score == pytest.approx(combine(kind, class_score, peak), abs=1e-4)
    assert abs(peak - fine.max()) > 1e-2


def test_maps_that_show_as_one_are_told_apart(tiny):
    """Log-odds of 30 and 40 are the same probability in float32."""
    peaks = torch.tensor([30.0, 40.0], dtype=torch.float64)

    def compute_map(tokens, embed):
        return peaks[:, None, None].expand(-1, SIDE, SIDE)

    scorer = Scorer("", compute_map, lambda embed, maps: torch.zeros(2), Scale.LOG_ODDS)
    pixels = torch.zeros(2, 3, SIDE, SIDE)
    maps, scores = CategoryModel(tiny, scorer, score="map")(pixels)
    assert maps.min() == maps.max() == 1
    assert scores.tolist() == [30, 40]
    assert scores.dtype == np.float32
    assert CategoryModel(tiny, scorer, score="both")(pixels)[1].tolist() == [15, 20]


def test_files_are_judged_by_the_kind_of_their_model(detector, tmp_path):
    """What Ray's actors run, each with a model of its own."""
    paths = [tmp_path / f"{seed}.png" for seed in range(3)]
    for seed, path in enumerate(paths):
        draw_image(seed=seed).save(path)
    for kind in KINDS:
        category_model = detector.build_category_model("gear", kind)
        scores = [finding.score for finding in detect_files(paths, category_model, batch_size=2)]
        single = [detector(path, "gear", score=kind).image_score for path in paths]
        assert scores == pytest.approx(single, abs=1e-5)


def test_what_is_no_kind_and_what_has_no_log_odds_is_refused(detector, tiny):
    for call in (
        lambda: detector(draw_image(), "gear", score="max"),
        lambda: detector.build_category_model("gear", "max"),
        lambda: detector.evaluate("absent", score="max"),
        lambda: CategoryModel(tiny, build_detector(lambda: tiny).scorer, score="max"),
    ):
        with pytest.raises(ValueError, match="score: 'max' is none of class, map, both"):
            call()
    scorer = build_detector(lambda: tiny).scorer
    joined = replace(scorer, join=lambda scores, peaks: peaks)
    for other in (replace(scorer, scale=Scale.PLAIN), joined):
        assert CategoryModel(tiny, other).judging is other
        with pytest.raises(ValueError, match="score: 'both' takes a map of log-odds"):
            CategoryModel(tiny, other, score="both")


def make_calibration(**changes):
    threshold = Threshold(value=0.25, method="f1_max", normal=3, anomalous=4, f1=0.5)
    return Calibration(image=threshold, pixel=threshold, **changes)


def test_a_threshold_stays_with_its_kind(copied):
    image = draw_image()
    store(copied, "gear", make_calibration(score="map"))
    store(copied, "rope", make_calibration())
    assert read_card(copied).calibrations["gear"].score == "map"
    loaded = FuzzyCLIP.load(copied, device="cpu")
    assert [loaded.choose_score(name) for name in ("gear", "rope", "nut")] == [
        "map", "class", "class",
    ]  # fmt: skip
    unsaid, said = loaded(image, "gear"), loaded(image, "gear", score="map")
    assert unsaid.image_score == said.image_score
    assert (unsaid.threshold.value, unsaid.threshold.method) == (0.25, "f1_max")
    assert loaded.build_category_model("gear").score == "map"  # on Ray
    for name, own, other in (("gear", "map", "class"), ("gear", "map", "both"),
                             ("rope", "class", "map")):  # fmt: skip
        told = f"{name!r} was calibrated for the score {own!r}, not for {other!r}"
        with pytest.raises(ValueError, match=told):
            loaded(image, name, score=other)
        given = loaded(image, name, score=other, threshold=1)
        plain = FuzzyCLIP.load(copied, device="cpu").build_category_model(name, other)
        (score,) = plain(preprocess(image, loaded.backbone)[None])[1]
        assert given.image_score == pytest.approx(float(score), abs=1e-5)
        assert given.threshold.value == 1


def test_a_card_without_the_field_is_of_class_scores_and_another_kind_is_refused(copied):
    store(copied, "gear", make_calibration(score="both"))
    path = copied / "model.json"
    card = json.loads(path.read_text())
    assert card["calibrations"]["gear"].pop("score") == "both"
    path.write_text(json.dumps(card))
    assert read_card(copied).calibrations["gear"] == make_calibration()
    card["calibrations"]["gear"]["score"] = "median"
    path.write_text(json.dumps(card))
    with pytest.raises(ModelError, match=r"calibrations\.gear\.score: .*'class', 'map' or 'both'"):
        read_card(copied)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shots", [0, 2])
def test_calibration_chooses_from_scores_of_its_kind(copied, tmp_path, kind, shots):
    paths = [tmp_path / f"{seed}.png" for seed in range(6)]
    for seed, path in enumerate(paths):
        draw_image(seed=seed).save(path)
    loaded = FuzzyCLIP.load(copied, device="cpu")
    if shots:
        loaded = loaded.remember(paths[:shots], "gear")
    normal = paths[shots:]
    chosen = calibrate(loaded, "gear", normal, score=kind, false_alarm_rate=0.3).calibration
    assert chosen.score == kind
    scores = [loaded(path, "gear", score=kind).image_score for path in normal]
    expected = choose_by_quantile(scores, 0.3)
    assert chosen.image.value == pytest.approx(expected.value, abs=1e-5)
    memory = loaded.memories.get("gear")
    assert chosen.memory == (digest_memory(memory) if memory else None)
    store(copied, "gear", chosen, memory=memory, references=["a"] if memory else [])
    again = FuzzyCLIP.load(copied, device="cpu")
    assert calibrate(again, "gear", normal).calibration.score == kind  # asked for nothing
    prediction = again(normal[0], "gear")
    assert prediction.image_score == pytest.approx(scores[0], abs=1e-5)
    assert prediction.threshold == chosen.image


def test_labelled_parts_compare_the_kinds(copied, tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / "gear"
    for defect, count in (("good", 5), ("scratch", 4)):
        for number in range(count):
            pixels = rng.integers(0, 256, (24, 20, 3), dtype=np.uint8)
            write_picture(folder / defect / f"{number}.png", pixels)
    paths = sorted(folder.glob("good/*")) + sorted(folder.glob("scratch/*"))
    loaded = FuzzyCLIP.load(copied, device="cpu")
    measured = {}
    for kind in KINDS:
        scores = [loaded(path, "gear", score=kind).image_score for path in paths]
        measured[kind] = loaded.evaluate(folder, score=kind)["image_auroc"].item()
        assert measured[kind] == pytest.approx(100 * roc_auc_score([0] * 5 + [1] * 4, scores))
    assert len(set(measured.values())) > 1
    store(copied, "gear", make_calibration(score="map"))
    calibrated = FuzzyCLIP.load(copied, device="cpu").evaluate(folder)
    assert calibrated["image_auroc"].item() == measured["map"]


def test_every_kind_is_explained():
    assert tuple(SCORE_KINDS) == KINDS
