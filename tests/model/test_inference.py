"""From files to maps and scores on this machine: what comes out, and what a broken image does."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from ray_jobs import build_detector

from fuzzyclip.clip.encoding import encode_images, load_pixels, normalise
from fuzzyclip.distributed.inference import list_images
from fuzzyclip.images.decode import decode_image, load_image
from fuzzyclip.method.scorer import NotFiniteError
from fuzzyclip.model.inference import detect_files


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Images of all kinds in two folders: gray, JPEG, BMP; and a file that is none."""
    root, rng = tmp_path_factory.mktemp("files"), np.random.default_rng(0)
    for number, name in enumerate(["b/1.png", "b/0.JPG", "a.png", "c.bmp", "d.png"]):
        (root / name).parent.mkdir(exist_ok=True)
        shape = (30 + number, 40, 3) if number else (30, 40)
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(root / name)
    (root / "notes.txt").write_text("no image")
    return sorted(root.rglob("*.[!t]*"))


@pytest.fixture(scope="module")
def detector(tiny):
    return build_detector(lambda: tiny)


def detect(files, detector, **changes):
    return list(detect_files(files, detector, **{"batch_size": 2} | changes))


def test_maps_and_scores_are_the_scorers_own(files, tiny):
    sharp = build_detector(lambda: tiny, sigma=0.0)
    image_embed, tokens = encode_images(tiny, load_pixels(files, tiny))
    unit = normalise(image_embed)
    maps = sharp.scorer.compute_map(tokens, unit)
    scores = sharp.scorer.compute_score(unit, maps)
    found = detect(files, sharp)
    assert [one.item for one in found] == [str(path) for path in files]
    assert np.allclose([one.map for one in found], maps.sigmoid(), atol=1e-5)
    assert np.allclose([one.score for one in found], scores, atol=1e-6)
    assert maps.std() > 1e-3  # there is something to compare


def test_maps_are_smoothed(files, tiny):
    wide, sharp = (build_detector(lambda: tiny, sigma=sigma) for sigma in (3.0, 0.0))
    for smoothed, one in zip(detect(files, wide), detect(files, sharp), strict=True):
        assert smoothed.map.std() < one.map.std()
        assert smoothed.score == one.score


def test_threads_change_nothing(files, detector):
    one, many = detect(files, detector), detect(files, detector, workers=3)
    assert [each.score for each in one] == [each.score for each in many]
    assert all(np.array_equal(a.map, b.map) for a, b in zip(one, many, strict=True))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_image_without_a_finite_answer_is_told_and_moves_no_other_number(files, detector, value):
    scorer, whole = detector.scorer, detect(files, detector)
    seen = whole[1].score  # of the image that is without an answer

    def compute_score(image_embed, maps):
        scores = scorer.compute_score(image_embed, maps)
        return scores.where((scores - seen).abs() > 1e-6, value)

    broken = replace(detector, scorer=replace(scorer, compute_score=compute_score))
    found = detect(files, broken)
    assert [one.error != "" for one in found] == [False, True, False, False, False]
    assert "not finite numbers" in found[1].error
    assert found[1].score is found[1].map is None
    for place in (0, 2, 3, 4):
        assert found[place].score == whole[place].score
        assert np.array_equal(found[place].map, whole[place].map)


def test_a_model_without_any_finite_answer_has_none(files, detector):
    def compute_score(image_embed, maps):
        return detector.scorer.compute_score(image_embed, maps) * float("nan")

    broken = replace(detector, scorer=replace(detector.scorer, compute_score=compute_score))
    with pytest.raises(NotFiniteError, match="not finite numbers"):
        detect(files, broken)


def test_a_broken_image_is_told_and_moves_no_other_number(files, detector, tmp_path):
    (broken := tmp_path / "broken.png").write_bytes(b"no image")
    mixed = [*files[:2], broken, files[3], tmp_path / "absent.png"]
    found, whole = detect(mixed, detector), detect(files, detector)
    assert [one.error != "" for one in found] == [False, False, True, False, True]
    assert found[2].error.startswith(f"{broken}: not a readable image")
    assert "absent.png" in found[4].error
    for place in (2, 4):
        assert found[place].score is found[place].map is None
    for place in (0, 1, 3):
        assert found[place].score == whole[place].score
        assert np.array_equal(found[place].map, whole[place].map)


def test_no_images_are_no_work(detector):
    assert detect([], detector) == []


def test_an_image_from_bytes_is_the_same(files):
    for path in files:
        assert decode_image(path.read_bytes(), "x") == load_image(path)
    content = files[0].read_bytes()
    for wrong in (b"", b"text", content[: len(content) // 2]):
        with pytest.raises(OSError, match=r"s3://parts/1\.png: not a readable image"):
            decode_image(wrong, "s3://parts/1.png")


def test_a_folder_gives_its_images_in_order_by_path_or_by_address(files):
    root = files[-1].parent
    place, found = list_images(root)
    assert found == sorted(map(str, files))
    there, addresses = list_images(root.as_uri())
    assert addresses == [f"file://{path}" for path in found]
    for path, address in zip(found, addresses, strict=True):
        assert place.read(path) == there.read(address)
    assert list_images(addresses)[1] == addresses
    assert list_images(files)[1] == list(map(str, files))
