"""Every method of the harness as a detector: the harness's own numbers, through a directory."""

import json

import numpy as np
import pytest
import torch
from backbones import load_clip
from drawn_embeds import hold_images
from PIL import Image
from safetensors.torch import load_file, save_file

from fuzzyclip import FuzzyCLIP
from fuzzyclip.baselines.registry import BASELINES, BEYOND, build_method, list_settings
from fuzzyclip.clip.encoding import encode_text, preprocess
from fuzzyclip.clip.name_encoder import NameEncoder
from fuzzyclip.clip.towers import NoTextError
from fuzzyclip.method.interface import Learned
from fuzzyclip.method.scorer import score_batch
from fuzzyclip.model.card import (
    Calibration,
    DataCard,
    ModelError,
    Threshold,
    Tiling,
    read_card,
)
from fuzzyclip.model.learned import load_learned
from fuzzyclip.model.scoring import MethodRefusedError
from fuzzyclip.model.storing import digest_memory, store
from fuzzyclip.utils.files import compute_sha256
from fuzzyclip.utils.settings import TextSettings
from fuzzyclip.utils.tensor_files import write_tensors

SINGLE = TextSettings(ensemble="single")
#: What makes a training short.
SHORT = {"epochs": 1, "batch_size": 2}
#: Methods that a detector can be made of, and the settings without which it can not.
DETECTORS = {
    **{name: {} for name in ("clip", "clip_ac", "april_gan", "coop", "cocoop", "text_free")},
    **{name: {"as": "mended"} for name in ("winclip", "clip_surgery", "sdp", "sdp_plus")},
    "anomaly_clip": {"as": "mended"},
    # mosaics are made of image files, which are not there
    "fuzzyclip_plus": {"mosaic": 0.0},
}
#: Needs good parts, and has tests of its own.
BESIDE_PARTS = "nearest"
DATA = DataCard(auxiliary="drawn", datasets=["a"], licences={"a": "none"}, sources={"a": "own"})


@pytest.fixture(scope="module")
def encode(tiny):
    return NameEncoder(tiny, lambda prompts: encode_text(tiny, prompts), SINGLE)


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (40, 50, 3), dtype=np.uint8) for _ in range(3)]


@pytest.fixture(scope="module")
def alone():
    """An image tower without a text."""
    return load_clip("timm/test_vit", image_size=160, blocks=(1, 2))


def learn(name, settings, encode):
    """A method with short trainings, and what it learns of four images."""
    short = {key: SHORT[key] for key in SHORT if key in list_settings(name)}
    method = build_method(name, short | settings)
    pixels = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    masks = torch.zeros(4, 32, 32, dtype=torch.bool)
    masks[2:, 4:20, 4:20] = True
    features = method.kind.encode(encode.backbone, pixels)
    return method, method.fit(encode, hold_images(*features, masks, ["nut", "bolt"] * 2), seed=0)


def build(encode, name, settings):
    method, learned = learn(name, settings, encode)
    short = {key: SHORT[key] for key in SHORT if key in list_settings(name)}
    return method, learned, FuzzyCLIP.build(
        encode.backbone, name, settings=short | settings, text=SINGLE,
        tensors=learned.tensors or None, facts=learned.facts, data=DATA if method.trains else None,
    )  # fmt: skip


def test_every_method_is_a_detector_or_says_why_not():
    """A new method is tried, or refused, by name."""
    refused = {"saa", "mutual"}
    assert {*DETECTORS, BESIDE_PARTS} | refused == {*BASELINES, *BEYOND}


@pytest.mark.parametrize("name", DETECTORS)
def test_a_detector_gives_the_harness_numbers_and_keeps_them(name, encode, pictures, tmp_path):
    method, learned, detector = build(encode, name, DETECTORS[name])
    backbone = encode.backbone
    pixels = torch.stack([preprocess(Image.fromarray(each), backbone) for each in pictures])
    image_embed, tokens = method.kind.encode(backbone, pixels)
    expected = score_batch(
        method.build(encode, "gear", learned), tokens, image_embed, backbone, method.sigma
    )
    found = detector(pictures, category="gear")
    np.testing.assert_allclose(
        [each.image_score for each in found], expected.image_scores, atol=1e-5
    )
    maps, _ = detector.build_category_model("gear")(pixels)
    np.testing.assert_allclose(maps, expected.shown, atol=1e-6)
    folder = tmp_path / "model"
    card = detector.save(folder)
    assert card.method.name == name
    assert ("learned.safetensors" in card.files) == method.trains
    again = FuzzyCLIP.load(folder, device="cpu")
    assert repr(again) == repr(detector)
    for first, second in zip(found, again(pictures, category="gear"), strict=True):
        assert first.image_score == second.image_score
        assert np.array_equal(first.anomaly_map, second.anomaly_map)


@pytest.mark.parametrize("name", ["sdp", "sdp_plus"])
def test_what_the_whole_test_set_decides_is_refused_with_the_way_out(name, encode, pictures):
    _, _, detector = build(encode, name, {"as": "published"})
    with pytest.raises(MethodRefusedError, match="--set as=mended"):
        detector(pictures[0], category="gear")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("fuzzyclip", "packaged by the pipeline"),
        ("mutual", "predict --batch"),
        ("saa", "further models"),
        ("april_gan", "has a training"),
        ("text_free", "fuzzyclip package --learned"),
        ("patchcore", "there is no method"),
    ],
)
def test_what_can_not_be_a_detector_is_refused_in_words(name, words, tiny):
    with pytest.raises(ValueError, match=words):
        FuzzyCLIP.build(tiny, name)


def test_a_tower_without_text_serves_methods_that_read_none(alone, pictures, tmp_path):
    for name in ("clip", "winclip", "clip_ac"):
        with pytest.raises(NoTextError, match="reads no text"):
            FuzzyCLIP.build(alone, name)
    detector = FuzzyCLIP.build(alone)
    assert not detector.scoring.reads_text
    with pytest.raises(MethodRefusedError, match=r"nothing is known of 'object'.*--reference"):
        detector(pictures[0])
    prediction = detector(pictures[0], references=pictures[1:])
    assert prediction.anomaly_map.shape == (40, 50)
    assert prediction.prompt == ""
    detector.save(tmp_path / "model")
    again = FuzzyCLIP.load(tmp_path / "model", device="cpu")
    assert again(pictures[0], references=pictures[1:]).image_score == prediction.image_score
    batch = detector.study([*pictures, pictures[0][::-1].copy()])
    assert len([*detector.detect(pictures, batch=batch)]) == 3


def test_good_parts_are_looked_at_by_tiles_as_the_image_is(alone, tmp_path):
    """A large image's own part is found in it, and nothing in a copy; kept through a directory."""
    rng = np.random.default_rng(3)
    large = rng.integers(100, 120, (160, 320, 3), dtype=np.uint8)
    other, odd = large[:, ::-1].copy(), large.copy()
    odd[40:80, 200:240] = (255, 0, 0)
    detector, tiling = FuzzyCLIP.build(alone), Tiling(side=160, overlap=0)
    seen = detector.remember([large, other], "strip", tiling=tiling)
    assert seen.memories["strip"].tiles == (2, 2)
    same, found = seen.detect([large, odd], "strip", tiling=tiling)
    assert same.image_score < 0 < found.image_score
    assert found.anomaly_map[:, 160:].max() > found.anomaly_map[:, :160].max()  # of its own tile
    (again,) = detector.detect([odd], "strip", tiling=tiling, references=[large, other])
    assert again.image_score == found.image_score
    detector.save(tmp_path / "model")
    threshold = Threshold(value=0.5, method="quantile")
    kept = Calibration(image=threshold, pixel=threshold, tiling=tiling)
    store(tmp_path / "model", "strip", kept, memory=seen.memories["strip"], references=["a", "b"])
    loaded = FuzzyCLIP.load(tmp_path / "model", device="cpu")
    assert loaded.memories["strip"].tiles == (2, 2)
    (again,) = loaded.detect([odd], "strip", tiling=tiling, threshold=0.0)
    assert again.image_score == found.image_score
    (file,) = (tmp_path / "model").glob("memory-*")
    tensors = load_file(file) | {"tiles": torch.tensor([2, 3], dtype=torch.int32)}
    save_file(tensors, file)
    entry = json.loads((tmp_path / "model/model.json").read_text())["memories"]["strip"]
    change(tmp_path / "model", memories={"strip": entry | {"sha256": compute_sha256(file)}})
    with pytest.raises(ModelError, match=r"\[2, 3\] tiles of parts do not make up its tokens"):
        FuzzyCLIP.load(tmp_path / "model", device="cpu")


def test_good_parts_are_joined_with_log_odds_and_refused_where_there_are_none(encode, pictures):
    _, _, clip = build(encode, "clip", {})
    assert clip(pictures[0], references=pictures[1:]).image_score != clip(pictures[0]).image_score
    _, _, winclip = build(encode, "winclip", DETECTORS["winclip"])
    with pytest.raises(MethodRefusedError, match="--method nearest"):
        winclip(pictures[0], references=pictures[1:])


def test_the_pipelines_file_is_a_detector(encode, pictures, tmp_path):
    """Its header says method, settings, backbone and data."""
    _, learned, detector = build(encode, "text_free", {})
    path = tmp_path / "visa.safetensors"
    header = {
        "kind": "method", "method": "text_free", "auxiliary": "drawn", "datasets": ["a"],
        "licences": {"a": "CC BY-NC"}, "sources": {"a": "sample"},
        "backbone": encode.backbone.fingerprint,
        "clip_settings": encode.backbone.settings.model_dump(mode="json"),
        "settings": SHORT, "text": SINGLE.model_dump(mode="json"), "facts": {}, "seed": 0,
    }  # fmt: skip
    write_tensors(path, dict(learned.tensors), header)
    loaded = load_learned(path)
    assert loaded.card.is_sample
    assert loaded.card.data.licences == {"a": "CC BY-NC"}
    assert loaded(pictures[0]).image_score == detector(pictures[0]).image_score
    for change, words in (
        ({"kind": "efa"}, "not what a method has learned"),
        ({"method": 3}, "method: "),
        ({"settings": [1]}, "settings: "),
        ({"licences": "abc"}, "licences: "),
        ({"sources": {"a": 3}}, "sources.a: "),
        ({"facts": None}, "facts: "),
        ({"datasets": "abc"}, "datasets: "),
        ({"datasets": []}, "datasets: none, though something was learned"),
        ({"clip_settings": {}}, "clip_settings.model: "),
        ({"text": {"ensemble": "x"}}, "text.ensemble: "),
        ({"clip_settings": header["clip_settings"] | {"model": "no/such.json"}}, "start there"),
        ({"backbone": "0" * 64}, "another backbone"),
    ):
        write_tensors(path, dict(learned.tensors), header | change)
        with pytest.raises(ModelError, match=words):
            load_learned(path)
    with pytest.raises(ModelError, match="no such file"):
        load_learned(tmp_path / "none.safetensors")


def test_what_could_judge_nothing_is_not_written(encode, tiny, tmp_path):
    """The published form of SDP, and learned tensors of another method or shape."""
    _, _, published = build(encode, "sdp", {"as": "published"})
    _, learned = learn("text_free", {}, encode)
    broken = [{"zzz": torch.ones(2)}, {"pixel": learned.tensors["pixel"]}]
    others = [FuzzyCLIP.build(tiny, "text_free", tensors=each, data=DATA) for each in broken]
    for detector, words in (
        (published, "--set as=mended"),
        *((other, "has learned does not fit it") for other in others),
    ):
        with pytest.raises(MethodRefusedError, match=words):
            detector.save(tmp_path / "made")
        assert not (tmp_path / "made").exists()
    half = {name: tensor.half() for name, tensor in learned.tensors.items()}
    lower = FuzzyCLIP.build(tiny, "text_free", tensors=half)
    assert np.isfinite(lower(np.zeros((40, 40, 3), np.uint8)).image_score)
    lower.save(tmp_path / "half")  # without a word on the data, the tensors are read all the same
    assert FuzzyCLIP.load(tmp_path / "half", device="cpu").card.data is None


def test_copies_of_a_good_part_count_once(alone, pictures, caplog):
    other = pictures[1].copy()
    other[0, 0] ^= 1  # saved anew
    detector = FuzzyCLIP.build(alone)
    seen = detector.remember([pictures[1], pictures[2], other, pictures[1]], "part")
    assert caplog.text.count("shows what another good part does: not counted") == 2
    plain = detector.remember(pictures[1:3], "part")
    assert torch.equal(seen.memories["part"].tokens, plain.memories["part"].tokens)


def test_good_parts_seen_in_another_way_are_refused_also_with_a_threshold(
    alone, pictures, tmp_path
):
    detector, tiling = FuzzyCLIP.build(alone), Tiling(side=32, overlap=0)
    detector.save(tmp_path / "model")
    threshold = Threshold(value=0.5, method="quantile")
    for category, view in (("whole", None), ("tiled", tiling)):
        memory = detector.remember(pictures[1:], category, tiling=view).memories[category]
        kept = Calibration(
            image=threshold, pixel=threshold, tiling=view, memory=digest_memory(memory)
        )
        store(tmp_path / "model", category, kept, memory=memory, references=["a", "b"])
    loaded = FuzzyCLIP.load(tmp_path / "model", device="cpu")
    for category, view in (("whole", tiling), ("tiled", None)):
        for given in (None, 0.0):
            with pytest.raises(ValueError, match=r"good parts of .*give good parts again"):
                [*loaded.detect(pictures[:1], category, tiling=view, threshold=given)]
        own = [pictures[1], pictures[2]]
        found = loaded.detect(pictures[:1], category, tiling=view, threshold=0.0, references=own)
        assert len([*found]) == 1


def change(folder, **changes):
    path = folder / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"method": {"name": "os.path"}}, "method.name"),
        ({"method": {"name": "shared"}}, "there is no method"),
        ({"method": {"name": "clip", "settings": {"epochs": 3}}}, "no setting epochs"),
        ({"method": {"name": "clip", "settings": {"sigma": -1.0}}}, "sigma"),
        ({"method": {"name": "april_gan"}}, "has a training"),
        ({"method": None}, "training, test, clusters: missing"),
        ({"clusters": [["a"]]}, "clusters: of FuzzyCLIP, beside another"),
        ({"method": {"name": "april_gan", "data": DATA.model_dump()}}, "no digest of learned"),
    ],
)
def test_a_card_from_anywhere_names_what_is_wrong(changes, words, tiny, tmp_path):
    FuzzyCLIP.build(tiny, "clip").save(tmp_path / "model")
    change(tmp_path / "model", **changes)
    with pytest.raises(ModelError, match=words):
        FuzzyCLIP.load(tmp_path / "model", device="cpu")


def test_a_directory_appears_whole_or_not_at_all(tiny, tmp_path):
    out = tmp_path / "model"
    out.mkdir()
    (out / "mine.txt").write_text("kept")
    detector = FuzzyCLIP.build(tiny, "clip", name="mine")
    with pytest.raises(ModelError, match="exists already"):
        detector.save(out)
    assert [path.name for path in out.iterdir()] == ["mine.txt"]
    detector.save(tmp_path / "other", copy=False)
    assert read_card(tmp_path / "other").name == "mine"


def test_learned_tensors_that_fit_another_backbone_are_refused(encode, tiny):
    _, learned = learn("text_free", {}, encode)
    detector = FuzzyCLIP.build(
        tiny, "text_free", tensors={key: t[..., :1] for key, t in learned.tensors.items()}
    )
    assert isinstance(detector.scoring.learned, Learned)
    with pytest.raises(ValueError, match="do not fit this backbone"):
        detector(np.zeros((40, 40, 3), np.uint8))
