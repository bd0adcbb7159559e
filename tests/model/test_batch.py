"""A batch judged by itself: which images decide, what is read and computed, what is refused."""

import io
import re
from collections import Counter

import numpy as np
import pytest
import torch
from imports import ROOT
from PIL import Image
from tiny_models import make_model

from fuzzyclip import FuzzyCLIP
from fuzzyclip.baselines.mutual.scoring import (
    BatchError,
    MutualSettings,
    References,
    build_mutual,
)
from fuzzyclip.images import decode
from fuzzyclip.method.interface import order_images
from fuzzyclip.method.scorer import score_batch
from fuzzyclip.model import batch as batch_module
from fuzzyclip.model.inference import digest_image
from fuzzyclip.model.prediction import Unreadable
from fuzzyclip.report import heatmaps
from fuzzyclip.utils.files import compute_sha256

COUNT = 20
#: The image that has a defect.
ODD = 3


@pytest.fixture(scope="module")
def model(tmp_path_factory, tiny_config):
    return make_model(tmp_path_factory.mktemp("made"), tiny_config)[0]


@pytest.fixture(scope="module")
def detector(model):
    return FuzzyCLIP.load(model, device="cpu")


def draw_part(seed, odd=False):
    """A disc on a ground, with noise; an odd one has a square that no other has."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:32, :32]
    part = 90 + 60 * ((rows - 16) ** 2 + (columns - 16) ** 2 < 100)
    picture = np.repeat(part[..., None], 3, axis=2) + rng.normal(0, 3, (32, 32, 3))
    if odd:
        picture[8:16, 8:16] = (250, 0, 0)
    return picture.clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    paths = [folder / f"{number:02}.png" for number in range(COUNT)]
    for number, path in enumerate(paths):
        Image.fromarray(draw_part(number, number == ODD)).save(path)
    return paths


@pytest.fixture
def encoded(monkeypatch):
    """How many images went through the tower."""
    counts, encode = Counter(), batch_module.encode_images

    def count(backbone, pixels):
        counts["images"] += len(pixels)
        return encode(backbone, pixels)

    monkeypatch.setattr(batch_module, "encode_images", count)
    return counts


def detect(detector, images, **study):
    studied = detector.study(images, **study)
    return list(detector.detect(images, batch=studied, batch_size=study.get("batch_size", 8)))


def test_the_odd_one_is_found_and_the_threshold_says_where_it_comes_from(detector, parts):
    predictions = detect(detector, parts)
    assert [prediction.label for prediction in predictions].index(1) == ODD
    assert sum(prediction.label for prediction in predictions) <= 2
    odd = predictions[ODD]
    assert odd.image_score == max(prediction.image_score for prediction in predictions)
    assert odd.image_score > 3
    assert odd.mask.any()
    assert odd.values == "anomalous in this batch"
    for prediction in predictions:
        assert prediction.threshold.method == prediction.pixel_threshold.method == "batch"
        assert prediction.threshold.note.startswith("uses the unlabelled batch: 4 deviations")
        assert bool(prediction.mask.any()) == bool(prediction.label)


def test_it_is_what_the_method_says_of_the_same_images(detector, parts):
    """The harness's way, from the tokens of images in the order of content and seed."""
    settings = MutualSettings(references=6, studied=10)
    studied = detector.study(parts, settings=settings, seed=5)
    predictions = list(detector.detect(parts, batch=studied))
    order = order_images([compute_sha256(path) for path in parts], 5)
    encode = [
        batch_module.encode_images(
            detector.backbone, batch_module.preprocess(Image.open(path), detector.backbone)[None]
        )[1]
        for path in parts
    ]
    tokens = torch.cat(encode)
    references = References.take(tokens[order[:6]], detector.backbone.grid, settings)
    scorer = build_mutual(references, studied.scale, detector.backbone.image_size)
    embeds = torch.zeros(COUNT, detector.backbone.embed_dim)
    scores = score_batch(scorer, tokens, embeds, detector.backbone)
    assert [each.image_score for each in predictions] == pytest.approx(
        scores.image_scores.tolist(), abs=1e-3
    )
    for prediction, shown in zip(predictions, scores.shown, strict=True):
        assert np.allclose(prediction.anomaly_map, shown, atol=1e-3)


def test_neither_order_nor_names_matter_and_the_seed_does(detector, parts, tmp_path):
    settings = MutualSettings(references=6, studied=10)
    first = detector.study(parts, settings=settings)
    turned = [*reversed(parts)]
    renamed = []
    for number, path in enumerate(turned):
        (tmp_path / f"x{number}.png").write_bytes(path.read_bytes())
        renamed.append(tmp_path / f"x{number}.png")
    other = detector.study(renamed, settings=settings)
    assert other.digest == first.digest
    assert torch.equal(other.references.levels, first.references.levels)
    assert other.scale == first.scale
    scores = [each.image_score for each in detector.detect(parts, batch=first, batch_size=1)]
    again = [each.image_score for each in detector.detect(renamed, batch=other, batch_size=1)]
    assert again == pytest.approx(scores[::-1], abs=1e-4)
    seeded = detector.study(parts, settings=settings, seed=1)
    assert seeded.digest != first.digest


def test_a_studied_image_goes_through_the_tower_once(detector, parts, encoded):
    studied = detector.study(parts, settings=MutualSettings(references=6, studied=10))
    assert encoded["images"] == 10
    list(detector.detect(parts, batch=studied))
    assert encoded["images"] == COUNT


def test_what_is_held_does_not_grow_with_the_batch(detector, parts):
    settings = MutualSettings(references=6, studied=10)
    for count in (12, COUNT):
        studied = detector.study(parts[:count], settings=settings)
        assert studied.references.levels.shape[1] == 6
        assert len(studied.known) == 10


def test_unreadable_images_are_told_and_take_no_part(detector, parts, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(parts[0].read_bytes()[:60])
    missing = tmp_path / "missing.png"
    images = [broken, *parts, missing]
    predictions = detect(detector, images)
    assert [isinstance(each, Unreadable) for each in predictions] == [
        True, *[False] * COUNT, True,
    ]  # fmt: skip
    whole = detector.study(parts)
    assert detector.study(images).scale == whole.scale


def test_images_may_be_what_a_detector_takes(detector, parts):
    """Arrays, PIL images, bytes and open files are read for their content, then judged."""
    arrays = [np.asarray(Image.open(path)) for path in parts]
    given = [
        *arrays[:5],
        *(Image.open(path) for path in parts[5:10]),
        *(path.read_bytes() for path in parts[10:15]),
        *parts[15:],
    ]
    scores = [each.image_score for each in detect(detector, given)]
    assert int(np.argmax(scores)) == ODD


def test_an_open_file_is_read_from_where_it_stands_each_time(detector, parts):
    files = [io.BytesIO(path.read_bytes()) for path in parts]
    scores = [each.image_score for each in detect(detector, files)]
    assert int(np.argmax(scores)) == ODD


def test_an_image_is_opened_for_its_content_and_for_each_look(detector, parts, monkeypatch):
    """That is twice, three times if it is studied, or was read ahead."""
    opened, open_file = Counter(), decode.open_image_file

    def count(path):
        opened[path] += 1
        return open_file(path)

    monkeypatch.setattr(decode, "open_image_file", count)
    detect(detector, parts, settings=MutualSettings(references=6, studied=10))
    assert set(opened) == set(parts)
    assert set(opened.values()) == {2, 3}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"tile": 32}, "batch goes without tiles"),
        ({"references": [np.zeros((32, 32, 3), np.uint8)]}, "batch goes without references"),
        ({"score": "map"}, "batch goes without score"),
    ],
)
def test_what_has_no_meaning_beside_a_batch_is_refused(detector, parts, more, message):
    studied = detector.study(parts)
    with pytest.raises(ValueError, match=message):
        detector.detect(parts, batch=studied, **more)


def test_too_few_images_are_refused_and_copies_count_once(detector, parts):
    with pytest.raises(BatchError, match="a batch of 2 images"):
        detector.study(parts[:2])
    with pytest.raises(BatchError, match="a batch of 1 images"):
        detector.study([parts[0].read_bytes()] * 30)
    with pytest.raises(BatchError, match="a batch of 0 images"):
        detector.study([])


def test_one_image_is_no_batch(detector, parts):
    for one in (str(parts[0]), parts[0], parts[0].read_bytes()):
        with pytest.raises(ValueError, match="a batch is several images"):
            detector.study(one)


def test_pictures_of_other_palettes_or_shapes_are_other_pictures():
    plain = np.arange(64, dtype=np.uint8).reshape(8, 8)
    gray = Image.fromarray(plain)
    palettes = [Image.fromarray(plain).convert("P") for _ in range(2)]
    palettes[1].putpalette([255 - value // 3 for value in range(768)])
    given = [plain, plain.reshape(4, 16), gray, *palettes, gray.convert("RGB")]
    assert len({digest_image(image) for image in given}) == len(given)
    assert digest_image(gray) == digest_image(gray.copy())
    assert digest_image(plain.T) == digest_image(np.ascontiguousarray(plain.T))


def test_an_image_without_finite_tokens_decides_nothing(detector, parts, monkeypatch):
    """It is told as one without an answer; the others are judged as if it were not there."""
    encode, white = batch_module.encode_images, np.full((32, 32, 3), 255, np.uint8)

    def break_white(backbone, pixels):
        image_embed, tokens = encode(backbone, pixels)
        tokens[pixels.flatten(1).min(dim=1).values > 1] = float("nan")
        return image_embed, tokens

    whole = detector.study(parts)
    monkeypatch.setattr(batch_module, "encode_images", break_white)
    studied = detector.study([*parts, white])
    assert studied.scale == whole.scale
    *others, last = detector.detect([*parts, white], batch=studied)
    assert isinstance(last, Unreadable)
    assert "not finite" in last.error
    assert [each.label for each in others] == [
        each.label for each in detector.detect(parts, batch=whole)
    ]


def test_a_given_threshold_decides_and_is_said_to_be_given(detector, parts):
    studied = detector.study(parts)
    predictions = list(detector.detect(parts, batch=studied, threshold=-1000.0))
    assert all(prediction.label for prediction in predictions)
    assert {prediction.threshold.method for prediction in predictions} == {"given"}


def test_one_call_takes_a_batch_too(detector, parts):
    studied = detector.study(parts)
    prediction = detector(parts[ODD], batch=studied)
    assert prediction.label == 1
    assert "20 studied images, 20 of them references" in repr(studied)


def test_a_picture_says_what_its_colours_are(detector, parts, monkeypatch):
    """Nothing of a batch is called a probability."""
    written, draw = [], heatmaps.ImageDraw.Draw

    def watch(canvas):
        drawing = draw(canvas)
        text = drawing.text
        monkeypatch.setattr(
            drawing, "text", lambda *given, **more: written.append(given[1]) or text(*given, **more)
        )
        return drawing

    monkeypatch.setattr(heatmaps.ImageDraw, "Draw", watch)
    detector(parts[ODD], batch=detector.study(parts)).overlay()
    assert "anomalous in this batch, fixed scale" in written
    detector(parts[ODD]).overlay()
    assert "mean anomalous probability, fixed scale" in written


def test_the_example_of_the_page_runs(model, parts, capsys):
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/batch.md").read_text(), re.DOTALL)
    for written, own in (("models/visa/fuzzyclip", model), ('Path("parts")', parts[0].parent)):
        assert written in example
        example = example.replace(written, f"Path({str(own)!r})" if "(" in written else str(own))
    exec(compile(example, "docs/batch.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "nothing is wrong with this batch"
    assert len(lines) == 1 + COUNT
