"""A model's directory and what is loaded from it: whole, equal, refused where it is not itself."""

import copy
import io
import json
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from schemas import SENSELESS, list_numbers, list_unbounded, put
from scipy.special import expit, logit
from tiny_models import CLUSTERS, TEMPERATURE, break_part, break_scorer, make_model, write_parts

from fuzzyclip import FuzzyCLIP
from fuzzyclip.clip.encoding import encode_images, encode_text, preprocess
from fuzzyclip.clip.name_encoder import NameEncoder
from fuzzyclip.clip.weights import WeightsError
from fuzzyclip.method.efa import compute_ensemble_map, compute_weights
from fuzzyclip.method.fuzzyclip import TrainedParts
from fuzzyclip.method.interface import Learned
from fuzzyclip.model.card import (
    NATURAL,
    NATURAL_PIXEL,
    Calibration,
    Card,
    ModelError,
    Threshold,
    Tiling,
    read_card,
)
from fuzzyclip.model.directory import EFA, RPL
from fuzzyclip.model.inference import Opener
from fuzzyclip.model.prediction import resize_map
from fuzzyclip.model.storing import digest_memory, store
from fuzzyclip.report.heatmaps import draw_overlay
from fuzzyclip.utils.files import compute_sha256
from fuzzyclip.utils.settings import TextSettings

SIZES = [(40, 30), (32, 32), (90, 200), (33, 8)]


def draw_image(size, seed=0):
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiny_config):
    return make_model(tmp_path_factory.mktemp("made"), tiny_config)


@pytest.fixture(scope="module")
def detector(made):
    return FuzzyCLIP.load(made[0], device="cpu")


@pytest.fixture
def copied(tmp_path, tiny_config):
    """A model's directory that a test may break."""
    return make_model(tmp_path, tiny_config)[0]


@pytest.fixture(scope="module")
def images():
    return [draw_image(size, seed) for seed, size in enumerate(SIZES)]


def compute_by_hand(made, image, category):
    """Eq. 9 to 11 and RPL's score from the parts' files, without the model's own code."""
    folder, backbone = made
    encode = NameEncoder(
        backbone, lambda prompts: encode_text(backbone, prompts), TextSettings(ensemble="single")
    )
    facts = {"clusters": CLUSTERS, "temperature": TEMPERATURE}
    learned = Learned(load_file(folder / EFA), facts)
    parts = TrainedParts(encode, learned, read_card(folder).test)
    image_embed, tokens = encode_images(backbone, preprocess(image, backbone)[None])
    unit = torch.nn.functional.normalize(image_embed, dim=-1)
    texts = torch.stack([encode(names, category) for names in CLUSTERS])  # (K, D, 2)
    weights = compute_weights(unit, texts[:, :, 0])
    anomaly_map = compute_ensemble_map(parts.heads, tokens, texts, weights, backbone.grid, (32, 32))
    prompts = load_file(folder / RPL)["text_embed"].double()
    probability = (TEMPERATURE * unit.double() @ prompts.T).softmax(dim=-1)[0, 1]
    return anomaly_map[0].sigmoid().float().numpy(), float(probability)


def test_an_image_gets_the_papers_map_and_score_at_its_own_size(made, detector, images):
    for image, size in zip(images, SIZES, strict=True):
        prediction = detector(image, category="gear")
        anomaly_map, probability = compute_by_hand(made, image, "gear")
        assert prediction.anomaly_map.shape == (size[1], size[0])
        assert prediction.anomaly_map.dtype == np.float32
        assert prediction.probability == expit(prediction.image_score)
        assert prediction.probability == pytest.approx(probability, abs=1e-6)
        assert prediction.image_score == pytest.approx(logit(probability), abs=1e-5)
        assert np.allclose(prediction.anomaly_map, resize_map(anomaly_map, size), atol=1e-5)
        assert 0 <= prediction.anomaly_map.min() <= prediction.anomaly_map.max() <= 1
    assert prediction.prompt == "gear nut bolt | gear cable"


def test_category_decides_and_object_stands_for_none(detector, images):
    gear, other = (detector(images[0], category=name) for name in ("gear", "brush"))
    assert not np.allclose(gear.anomaly_map, other.anomaly_map, atol=1e-4)
    assert np.array_equal(
        detector(images[0]).anomaly_map, detector(images[0], "object").anomaly_map
    )


def test_all_ways_to_give_an_image_are_one(detector, images, tmp_path):
    path = tmp_path / "part.png"
    images[0].save(path)
    array = np.asarray(images[0])
    content = path.read_bytes()
    ways = [images[0], path, str(path), content, array, bytearray(content), memoryview(content)]
    first, *others = (detector(way, "gear") for way in [*ways, io.BytesIO(content)])
    with path.open("rb") as opened:
        from_file = detector(opened, "gear")
    assert from_file.name == str(path)
    for other in [*others, from_file, *detector([io.BytesIO(content)], "gear")]:
        assert other.image_score == first.image_score
        assert np.array_equal(other.anomaly_map, first.anomaly_map)
    gray = Image.fromarray(array[..., 0])
    assert detector(gray, "gear").image_score == detector(array[..., 0], "gear").image_score


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("mode", "suffix"),
    [
        ("RGB", "jpg"),
        ("L", "jpg"),
        ("RGB", "png"),
        ("RGBA", "png"),
        ("RGB", "tif"),
        ("L", "webp"),
        ("L", "tif"),
        ("I;16", "tif"),
        ("RGBA", "tif"),
        ("I;16", "png"),
    ],
)
def test_a_path_and_its_opened_image_are_one(detector, tmp_path, orientation, mode, suffix):
    path = tmp_path / f"part.{suffix}"
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    transparent = {"transparency": (0, 0, 0)} if (mode, suffix) == ("RGB", "png") else {}
    image = draw_image((24, 16), 3).convert("L" if mode == "I;16" else mode)
    image.paste(0, (0, 0, 9, 5))
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image).astype(np.uint16) * 200)
    image.save(path, exif=exif, **transparent)
    opened = Opener()(Image.open(path)).picture
    assert np.array_equal(opened, Opener()(path).picture)
    with path.open("rb") as file:
        assert np.array_equal(opened, Opener()(Image.open(file)).picture)
    assert opened.size == ((24, 16) if orientation < 5 else (16, 24))
    if orientation == 6:
        own, other = detector(path, "gear"), detector(Image.open(path), "gear")
        assert np.array_equal(own.anomaly_map, other.anomaly_map)


def test_pixels_have_the_limit_of_files(detector, tmp_path, monkeypatch):
    """Which is looked at first: a picture of a file is not decoded, and none is converted."""
    image, path = draw_image((40, 30)), tmp_path / "part.png"
    image.save(path)
    allowed, small = Opener(max_pixels=40 * 30), Opener(max_pixels=40 * 30 - 1)
    ways = [path, np.asarray(image), np.asarray(image)[..., 0], image, Image.open(path)]
    for way in ways:
        assert detector(way, "gear", opener=allowed).picture.size == (40, 30)
    ways[-1] = Image.open(path)
    monkeypatch.setattr(Image, "fromarray", None)
    for way in ways:
        with pytest.raises(OSError, match=r"40 x 30 pixels, the limit is 1,199 in all"):
            detector(way, "gear", opener=small)
    assert ways[-1].tile


def test_tile_and_references_are_as_on_the_command_line(detector, images):
    whole = detector(images[2], "gear", tiling=Tiling(side=64, overlap=16))
    assert np.array_equal(detector(images[2], "gear", tile=64).anomaly_map, whole.anomaly_map)
    (other,) = detector([images[2]], "gear", tile=64, overlap=50)
    assert not np.array_equal(other.anomaly_map, whole.anomaly_map)
    seen = detector(images[0], "gear", references=images[:2])
    assert seen.image_score == detector.remember(images[:2], "gear")(images[0], "gear").image_score
    single = detector(images[0], "gear", references=images[1])
    assert single.image_score == detector(images[0], "gear", references=[images[1]]).image_score
    for wrong, message in (
        ({"overlap": 3}, "needs a tile"),
        ({"tile": 5}, "tile must be from 32"),
        ({"tile": 40, "overlap": 40}, "overlap must be from 0 to 39"),
        ({"tile": 40, "tiling": Tiling(side=40, overlap=0)}, "not both"),
        ({"batch_size": 0}, "batch_size must be from 1"),
        ({"batch_size": -1}, "batch_size must be from 1"),
    ):
        with pytest.raises(ValueError, match=message):
            detector(images[0], "gear", **wrong)
    with pytest.raises(ValueError, match="batch_size must be from 1"):
        detector.detect(images, "gear", batch_size=0)  # at once, not when it is gone through


def test_references_are_opened_as_what_is_compared_with_them(detector, tmp_path):
    """A 12-bit camera's own picture as its reference: the same as if both were in 8 bits."""
    pixels, path = np.asarray(draw_image((40, 30)).convert("L")), tmp_path / "part.png"
    Image.fromarray(pixels.astype(np.uint16) * 16).save(path)
    opener = Opener(white=255 * 16)
    expected = detector(pixels, "gear", references=pixels)
    (own,) = detector.detect([path], "gear", references=(p for p in [path]), opener=opener)
    assert own.image_score == expected.image_score != detector(pixels, "gear").image_score
    small = Opener(max_pixels=100)
    for references in (path, [path]):
        with pytest.raises(OSError, match=r"part\.png: .*the limit is 100 in all"):
            detector.detect([], "gear", references=references, opener=small)


def test_a_prediction_is_one_line_and_a_picture(detector, images, tmp_path):
    prediction = detector(images[0], "gear")
    score, size = f"{prediction.image_score:+.2f}", "x".join(map(str, images[0].size))
    assert repr(prediction) == (
        f"<Prediction 'image' as 'gear': {prediction.decision}, score {score} (threshold +0.00), "
        f"{size.replace('x', ' x ')}>"
    )
    drawn = draw_overlay(
        np.asarray(images[0]), prediction.anomaly_map, threshold=prediction.pixel_threshold.value
    ).picture
    assert np.array_equal(prediction.overlay(), drawn)
    shown = Image.open(io.BytesIO(prediction._repr_png_()))
    assert np.array_equal(shown, drawn)
    for name in ("a/new/overlay.png", "overlay.jpg"):
        prediction.save(tmp_path / name)
        saved = np.asarray(Image.open(tmp_path / name).convert("RGB"), dtype=float)
        assert np.abs(saved - np.asarray(drawn)).mean() < (1e-9 if name.endswith("png") else 6)
    with pytest.raises(ValueError, match=r"ends in \.jpg, \.jpeg, \.png"):
        prediction.save(tmp_path / "overlay.gif")
    (bare,) = detector.detect(images[:1], "gear")
    assert bare._repr_png_() is None
    with pytest.raises(ValueError, match="keep_pictures"):
        bare.overlay()


def test_a_detector_goes_to_another_process(detector, images, tmp_path):
    assert "calibrated: nothing" in repr(detector)
    for loaded in (detector, detector.remember(images[:1], "gear")):
        again = pickle.loads(pickle.dumps(loaded))
        own, other = loaded(images[1], "gear"), again(images[1], "gear")
        assert own.image_score == other.image_score
        assert np.array_equal(own.anomaly_map, other.anomaly_map)


def test_several_images_come_back_in_order_whatever_the_batch(detector, images):
    alone = [detector(image, "gear") for image in images]
    for batch_size in (1, 3, 8):
        together = detector(images, "gear", batch_size=batch_size)
        for prediction, other in zip(together, alone, strict=True):
            assert prediction.image_score == pytest.approx(other.image_score, abs=1e-5)
            assert np.allclose(prediction.anomaly_map, other.anomaly_map, atol=1e-5)
    assert detector([], "gear") == []


def test_what_is_no_image_is_refused(detector, tmp_path):
    with pytest.raises(OSError, match=r"absent\.png"):
        detector(tmp_path / "absent.png")
    with pytest.raises(OSError, match="bytes"):
        detector(b"no image")
    for array in (np.zeros((40, 40, 3)), np.zeros((40, 40, 4), np.uint8), np.zeros(9, np.uint8)):
        with pytest.raises(ValueError, match="is no image"):
            detector(array)
    for other, message in (
        (torch.zeros(3, 40, 40), r"a tensor does not say .*\.permute\(1, 2, 0\)"),
        (None, "NoneType is no image: give a path"),
        (7, "int is no image"),
        ([7], "int is no image"),
        (io.StringIO("text"), "mode 'rb'"),
    ):
        with pytest.raises(ValueError, match=message):
            detector(other)
    with pytest.raises(ValueError, match="detect takes several"):
        detector.detect(b"bytes of one")
    with pytest.raises(OSError, match="1 x 1"):
        detector(draw_image((1, 1)))
    for name in ("", "  "):
        with pytest.raises(ValueError, match="category"):
            detector(draw_image((40, 40)), category=name)


def test_threads_get_what_one_gets(detector, images):
    names = [f"part {number}" for number in range(6)]
    alone = [detector(images[0], name) for name in names]
    with ThreadPoolExecutor(18) as pool:
        together = list(pool.map(lambda name: detector(images[0], name), names * 3))
    for prediction, other in zip(together, alone * 3, strict=True):
        assert prediction.image_score == other.image_score
        assert np.array_equal(prediction.anomaly_map, other.anomaly_map)


def test_labels_follow_the_threshold(detector, images):
    natural = detector(images[0], "gear")
    assert (natural.threshold, natural.pixel_threshold) == (NATURAL, NATURAL_PIXEL)
    exact = detector(images[0], "gear", threshold=natural.image_score)
    above = detector(images[0], "gear", threshold=natural.image_score + 1e-6)
    assert (exact.label, exact.decision) == (1, "anomalous")
    assert (above.label, above.decision) == (0, "normal")
    assert exact.threshold.method == "given"
    assert np.array_equal(natural.mask, natural.anomaly_map >= 0.5)
    assert natural.label == (natural.probability >= 0.5)


def calibrate(tiling=None, memory=None):
    threshold = Threshold(value=0.25, method="f1_max", normal=3, anomalous=4, f1=0.5)
    return Calibration(image=threshold, pixel=threshold, tiling=tiling, memory=memory)


def test_thresholds_stay_with_their_category_and_way_of_looking(copied, images):
    tiling = Tiling(side=32, overlap=8)
    before = read_card(copied)
    store(copied, "gear", calibrate())
    store(copied, "rope", calibrate(tiling))
    loaded = FuzzyCLIP.load(copied, device="cpu")
    assert loaded(images[0], "gear").threshold.value == 0.25
    assert loaded(images[0], " GEAR").category == "gear"
    with pytest.raises(
        ValueError, match=r"'nut' is not calibrated, but 'gear', 'rope': name one .*, or give a th"
    ):
        loaded(images[0], "nut")
    with pytest.raises(ValueError, match="say which, this model is calibrated for 'gear', 'rope'"):
        loaded(images[0])
    assert loaded(images[0], "nut", threshold=1).threshold.value == 1
    assert loaded(images[0], "rope", tiling=tiling).threshold.method == "f1_max"
    with pytest.raises(ValueError, match=r"'rope' was calibrated on tiles of 32 px.*or give a thr"):
        loaded(images[0], "rope")
    with pytest.raises(ValueError, match=r"'gear' was calibrated on the whole image"):
        loaded(images[0], "gear", tiling=tiling)
    kept, other = calibrate().pixel, NATURAL_PIXEL
    for change, pixel in (({}, other), ({"tiling": tiling}, kept), ({"tile": 40}, other),
                          ({"tiling": tiling, "score": "map"}, kept),
                          ({"tiling": tiling, "references": images[1]}, other)):  # fmt: skip
        given = loaded(images[0], "rope", threshold=0.9, **change)
        assert (given.threshold.value, given.pixel_threshold) == (0.9, pixel), change
    after = read_card(copied)
    assert after.model_copy(update={"calibrations": {}}) == before


def test_the_only_calibrated_category_needs_no_name(copied, images):
    plain = FuzzyCLIP.load(copied, device="cpu")
    assert (plain(images[0]).category, plain.choose_category("Gear")) == ("object", "Gear")
    store(copied, "gear", calibrate())
    loaded = FuzzyCLIP.load(copied, device="cpu")
    assert (loaded(images[0]).category, loaded(images[0]).threshold.value) == ("gear", 0.25)
    store(copied, "GEAR", calibrate())  # two that differ in nothing else: as it is written
    both = FuzzyCLIP.load(copied, device="cpu")
    assert both.choose_category("GEAR") == "GEAR"
    with pytest.raises(ValueError, match="'Gear' is not calibrated"):
        both.choose_category("Gear")
    assert plain.remember(images[:1], "gear").choose_category("Gear") == "gear"


def test_a_copy_leaves_the_model_alone(copied, tmp_path):
    before = (copied / "model.json").read_bytes()
    store(copied, "gear", calibrate(), out=tmp_path / "copy")
    assert (copied / "model.json").read_bytes() == before
    assert "gear" in read_card(tmp_path / "copy").calibrations
    with pytest.raises(ModelError, match="exists already"):
        store(copied, "gear", calibrate(), out=tmp_path / "copy")
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_links_in_a_model_are_looked_at_before_it_is_copied(copied, tmp_path):
    (copied / EFA).rename(tmp_path / "blob")  # as hubs keep files
    (copied / EFA).symlink_to(tmp_path / "blob")
    store(copied, "gear", calibrate(), out=tmp_path / "copy")
    assert not (tmp_path / "copy/efa.safetensors").is_symlink()
    assert "gear" in FuzzyCLIP.load(tmp_path / "copy", device="cpu").card.calibrations
    (copied / "circle").symlink_to(".")
    with pytest.raises(ModelError, match="circle: a link to a folder"):
        store(copied, "gear", calibrate(), out=tmp_path / "other")
    assert list(tmp_path.glob("*other*")) == []


def test_normal_parts_are_remembered_stored_and_replaced(copied, images):
    plain = FuzzyCLIP.load(copied, device="cpu")
    shown = plain.remember(images[:2], "gear")
    assert shown(images[3], "rope").image_score == plain(images[3], "rope").image_score
    seen = shown(images[0], "gear")
    assert seen.image_score < plain(images[0], "gear").image_score
    memory = shown.memories["gear"]
    store(copied, "gear", calibrate(memory=digest_memory(memory)), memory=memory, references=["a"])
    loaded = FuzzyCLIP.load(copied, device="cpu")
    again = loaded(images[0], "gear")
    assert again.image_score == seen.image_score
    assert np.array_equal(again.anomaly_map, seen.anomaly_map)
    assert (again.threshold.value, loaded.list_references("gear")) == (0.25, ["a"])
    with pytest.raises(ValueError, match="other reference images"):
        loaded.remember(images[2:], "gear")(images[0], "gear")
    store(copied, "gear", calibrate())
    assert list(copied.glob("memory-*")) == []
    assert FuzzyCLIP.load(copied, device="cpu").memories == {}
    with pytest.raises(ValueError, match="at least one image"):
        plain.remember([], "gear")


def test_a_directory_says_what_it_is(made):
    folder, backbone = made
    card = read_card(folder)
    assert card.backbone.sha256 == backbone.identity["weights_sha256"]
    assert card.training.datasets == ["drawn"]
    assert {path.name for path in folder.iterdir()} == {*card.files, "model.json"}
    assert {path.suffix for path in folder.iterdir()} == {".json", ".safetensors"}


def test_a_moved_model_is_the_same_model(copied, tmp_path, images):
    before = FuzzyCLIP.load(copied, device="cpu")(images[0], "gear")
    moved = copied.rename(tmp_path / "elsewhere")
    after = FuzzyCLIP.load(str(moved), device="cpu")(images[0], "gear")
    assert np.array_equal(before.anomaly_map, after.anomaly_map)


def test_weights_that_are_not_inside_are_asked_for(tmp_path, tiny_config, images, detector):
    folder, _ = make_model(tmp_path, tiny_config, copy=False)
    weights = tmp_path / "weights.safetensors"
    assert not list(folder.glob("backbone.safetensors"))
    with pytest.raises(ModelError, match=r"weights\.safetensors \(sha256"):
        FuzzyCLIP.load(folder)
    loaded = FuzzyCLIP.load(folder, weights=weights, device="cpu")
    assert loaded(images[0], "gear").image_score == detector(images[0], "gear").image_score
    other = tmp_path / "other.safetensors"
    write_parts(tmp_path, loaded.backbone)
    (tmp_path / "efa.safetensors").rename(other)
    with pytest.raises(WeightsError, match="sha256 is"):
        FuzzyCLIP.load(folder, weights=other)
    with pytest.raises(ModelError, match="no such weights file"):
        FuzzyCLIP.load(folder, weights=tmp_path / "absent")


def change_card(folder, change):
    path = folder / "model.json"
    card = json.loads(path.read_text())
    change(card)
    path.write_text(json.dumps(card))


def change_config(folder, **sections):
    """Another configuration of the CLIP, which the card knows."""
    config = json.loads((folder / "backbone.json").read_text())
    for section, changes in sections.items():
        config[section] |= changes
    (folder / "backbone.json").write_text(json.dumps(config))
    accept(folder, "backbone.json")


def accept(folder, name):
    digest = compute_sha256(folder / name)
    change_card(folder, lambda card: card["files"].update({name: digest}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda card: card.update(format=3), "format"),
        (lambda card: card.update(extra=1), "extra"),
        (lambda card: card.pop("text"), "text"),
        (lambda card: card["files"].update({"../efa.safetensors": "0" * 64}), "plain file name"),
        (lambda card: card["files"].update({"efa.safetensors": "0" * 64}), "is not the file"),
        (lambda card: card["files"].clear(), r"no digest of efa.*, rpl.*, backbone\.json"),
        (lambda card: card["backbone"].update(sha256="0" * 64), "sha256"),
        (lambda card: card["backbone"].update(image_size=40), "another backbone"),
        (lambda card: card["backbone"].update(weights="../../x.safetensors"), "plain file name"),
        (lambda card: card["clusters"].append(["wheel"]), r"layers cluster2\.\*"),
        (lambda card: card["test"].update(weights=9), "names a cluster"),
        (lambda card: card["test"].update(weights="best"), "weights"),
        (lambda card: card["test"].update(weights=0), "weights"),
    ],
)
def test_a_card_that_does_not_fit_is_refused(copied, change, message):
    change_card(copied, change)
    with pytest.raises(ValueError, match=message):
        FuzzyCLIP.load(copied, device="cpu")


def test_a_card_that_was_cut_short_is_to_be_fetched_again(copied):
    path = copied / "model.json"
    whole = path.read_bytes()
    for end in (0, 1, 300, len(whole) - 3):
        path.write_bytes(whole[:end])
        with pytest.raises(ModelError, match=r"model\.json: no JSON.*; fetch or make it again$"):
            read_card(copied)


def test_a_card_with_a_key_twice_is_refused(copied):
    path = copied / "model.json"
    path.write_text(path.read_text().replace("{", '{"name": "another",', 1))
    with pytest.raises(ModelError, match=r"model\.json: the key 'name' is there twice"):
        read_card(copied)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "../other.json"}, "plain file name"),
        ({"model": "local-dir:/tmp"}, "plain file name"),
        ({"model": "hf-hub:some/model"}, "plain file name"),
        ({"weights": "/etc/passwd", "place": "tag"}, "plain file name"),
        ({"weights": "../x", "place": "tag"}, "plain file name"),
        ({"sha256": "random--1"}, "pattern"),
        ({"sha256": "random-" + "9" * 5000}, "pattern"),
        ({"activation": "relu"}, "activation"),
        ({"position_embedding": "nearest-exact"}, "position_embedding"),
        ({"blocks": list(range(1, 1000))}, "blocks"),
        ({"std": [0.5, 0.5]}, "std"),
        ({"std": [0.0, 1.0, 1.0]}, "std"),
    ],
)
def test_a_backbone_leads_nowhere_and_has_sizes(copied, change, message):
    change_card(copied, lambda card: card["backbone"].update(change))
    with pytest.raises(ModelError, match=rf"model\.json: backbone\.?.*{message}"):
        read_card(copied)


def fill_card(folder):
    """A model's card with a number wherever one may stand."""
    rates = dict.fromkeys(
        ("false_alarm_rate", "miss_rate", "precision", "recall", "f1", "asked_rate"), 0.5
    )
    ends = {key: [0.25, 0.75] for key in ("false_alarm_interval", "miss_interval")}
    threshold = {"value": 0.5, "method": "given", "normal": 1, "anomalous": 1} | rates | ends
    own = {"image": threshold, "pixel": threshold, "tiling": {"side": 64, "overlap": 8}}
    card = json.loads((folder / "model.json").read_text())
    card["calibrations"] = {"gear": own}
    card["test"]["weights"] = 1
    return card


def test_every_number_of_a_card_has_bounds():
    """Counted images are only told."""
    assert set(list_unbounded(Card)) == {"Threshold.normal", "Threshold.anomalous"}


def test_numbers_that_nobody_means_are_refused_by_their_place(made):
    whole = fill_card(made[0])
    Card.model_validate_json(json.dumps(whole))
    places = [place for place in list_numbers(whole) if place[0] != "training"]
    assert len(places) > 30
    for place in places:
        for value in SENSELESS:
            if place[-1] in ("normal", "anomalous") and value == 10**18:
                continue
            card = copy.deepcopy(whole)
            put(card, place, value)
            with pytest.raises(ValidationError) as caught:
                Card.model_validate_json(json.dumps(card))
            keys = {key for fault in caught.value.errors() for key in fault["loc"]}
            assert set(place) <= keys, (place, value)


def test_code_is_never_run_by_a_models_directory(copied, tmp_path):
    (tmp_path / "evil").mkdir()
    (tmp_path / "evil" / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    (tmp_path / "evil" / "tokenizer_config.json").write_text(
        json.dumps({"auto_map": {"AutoTokenizer": [None, "evil.Evil"]}})
    )
    name = str(tmp_path / "evil")
    for settings in ({"trust_remote_code": True}, None):
        change_config(copied, text_cfg={"hf_tokenizer_name": name, "tokenizer_kwargs": settings})
        with pytest.raises(ValueError, match=r"tokenizer_kwargs\.trust_remote_code|can not be had"):
            FuzzyCLIP.load(copied, device="cpu")
        assert not (tmp_path / "ran").exists()


def test_a_configuration_of_endless_size_is_refused_at_once(copied):
    change_config(copied, vision_cfg={"layers": 1_000_000})
    with pytest.raises(ValueError, match=r"backbone\.json: .*vision_cfg\.layers"):
        FuzzyCLIP.load(copied, device="cpu")


def test_a_configuration_here_does_not_stand_for_the_models_own(copied, tmp_path, monkeypatch):
    """A card that names a tag, and a file of the configuration's name where the command runs."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "backbone.json").write_text("{}")
    change_card(
        copied,
        lambda card: card["backbone"].update(place="tag", weights="x", model="backbone.json"),
    )
    with pytest.raises(WeightsError, match=rf"no open_clip tag of model '{copied}"):
        FuzzyCLIP.load(copied, device="cpu")


def test_a_card_of_endless_size_is_refused_unread(copied, monkeypatch):
    monkeypatch.setattr("fuzzyclip.model.card.LARGEST_CARD", 100)
    with pytest.raises(ModelError, match=r"model\.json: [\d,]+ bytes, more than the 100"):
        read_card(copied)
    monkeypatch.undo()
    (copied / "model.json").write_text("[" * 100_000)
    with pytest.raises(ModelError, match=r"model\.json"):
        read_card(copied)


def test_parts_without_their_tensors_are_refused(copied):
    for tensors in ({"x": torch.zeros(2)}, {"text_embed": torch.zeros(3, 32)}):
        save_file(tensors, copied / RPL)
        accept(copied, RPL)
        with pytest.raises(ModelError, match=r"rpl\.safetensors: text_embed of shape"):
            FuzzyCLIP.load(copied, device="cpu")


def test_a_model_of_format_1_without_thresholds_decides_as_before(copied, images):
    """Its scores were probabilities, its parts and the natural thresholds are the same."""
    before = FuzzyCLIP.load(copied, device="cpu")(images, "gear")
    for change in (lambda card: card.update(format=1), lambda card: card.pop("calibrations")):
        change_card(copied, change)
        after = FuzzyCLIP.load(copied, device="cpu")(images, "gear")
        for earlier, now in zip(before, after, strict=True):
            assert (earlier.decision, earlier.image_score) == (now.decision, now.image_score)
            assert (earlier.threshold, earlier.pixel_threshold) == (NATURAL, NATURAL_PIXEL)
            assert np.array_equal(earlier.mask, now.mask)
    assert json.loads((copied / "model.json").read_text())["format"] == 1
    store(copied, "gear", calibrate())
    assert json.loads((copied / "model.json").read_text())["format"] == 2
    assert FuzzyCLIP.load(copied, device="cpu")(images[0], "gear").threshold.value == 0.25


def test_a_card_with_thresholds_of_good_and_bad_images_is_read_as_it_was_written(copied):
    """Earlier versions called them so; written anew they are normal and anomalous."""
    store(copied, "gear", calibrate())
    card = read_card(copied)
    content = (copied / "model.json").read_text()
    earlier = content.replace('"normal":', '"good":').replace('"anomalous":', '"bad":')
    assert earlier != content
    (copied / "model.json").write_text(earlier)
    assert read_card(copied) == card
    assert (card.calibrations["gear"].image.normal, card.calibrations["gear"].pixel.anomalous) == (
        3,
        4,
    )
    store(copied, "gear", calibrate())
    assert (copied / "model.json").read_text() == content


def test_thresholds_of_probabilities_are_refused_with_a_way_out(copied, images):
    for category in ("gear", "metal nut"):
        store(copied, category, calibrate())
    change_card(copied, lambda card: card.update(format=1))
    content = (copied / "model.json").read_bytes()
    told = r"model\.json: .*'gear', 'metal nut'.*\"calibrations\": \{\}.*fuzzyclip calibrate"
    for refused in (
        lambda: FuzzyCLIP.load(copied, device="cpu"),
        lambda: store(copied, "gear", calibrate()),  # the other category's would stay
    ):
        with pytest.raises(ModelError, match=told):
            refused()
    assert (copied / "model.json").read_bytes() == content
    change_card(copied, lambda card: card.update(calibrations={}))
    assert FuzzyCLIP.load(copied, device="cpu")(images[0], "gear").threshold == NATURAL


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(("file", "tensor"), [(RPL, "text_embed"), (EFA, r"cluster\d\.")])
def test_parts_that_are_no_numbers_are_refused(copied, file, tensor, value):
    break_part(copied / file, value)
    with pytest.raises(ModelError, match=rf"{file}: {tensor}.*not finite"):
        FuzzyCLIP.load(copied, device="cpu")


@pytest.mark.parametrize("part", ["compute_map", "compute_score"])
@pytest.mark.parametrize("tiling", [None, Tiling(side=32, overlap=8)])
def test_answers_that_are_no_numbers_are_none(made, images, monkeypatch, part, tiling):
    break_scorer(monkeypatch, part)
    with pytest.raises((ValueError, OSError), match="not finite numbers"):
        FuzzyCLIP.load(made[0], device="cpu")(images[0], "gear", tiling=tiling)


def test_missing_and_broken_files_are_named(copied, tmp_path):
    with pytest.raises(ModelError, match="absent: no such folder"):
        FuzzyCLIP.load(tmp_path / "absent")
    whole = (copied / EFA).read_bytes()
    others = {
        b"version https://git-lfs.github.com/spec/v1": "is a git LFS pointer",
        whole[:-1]: "is half a download",
        whole[:-1] + bytes([whole[-1] ^ 1]): "is not the file",
    }
    for content, reason in others.items():
        (copied / EFA).write_bytes(content)
        with pytest.raises(ModelError, match=rf"efa\.safetensors {reason}"):
            FuzzyCLIP.load(copied)
    (copied / EFA).unlink()
    with pytest.raises(ModelError, match=r"efa\.safetensors is missing"):
        FuzzyCLIP.load(copied)
    (copied / "model.json").write_text("{")
    with pytest.raises(ModelError, match=r"model\.json"):
        FuzzyCLIP.load(copied)


def test_parts_of_another_backbone_are_not_packed(tmp_path, tiny_config):
    with pytest.raises(ModelError, match="another backbone"):
        make_model(tmp_path, tiny_config, trained_with="0" * 64)
    assert not (tmp_path / "model").exists()
    assert list(tmp_path.glob(".*")) == []


def test_text_features_are_kept_from_one_process_to_the_next(made, tmp_path, images, monkeypatch):
    cache = tmp_path / "texts"
    first = FuzzyCLIP.load(made[0], device="cpu", text_cache=cache)(images[0], "gear")

    def refuse(*arguments):
        raise AssertionError("encoded again")

    monkeypatch.setattr("fuzzyclip.clip.text_cache.encode_text", refuse)
    again = FuzzyCLIP.load(made[0], device="cpu", text_cache=cache)(images[0], "gear")
    assert np.array_equal(first.anomaly_map, again.anomaly_map)
