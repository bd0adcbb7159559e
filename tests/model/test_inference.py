"""From files to maps and scores on this machine: what comes out, and what a broken image does."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from ray_jobs import build_detector

from fuzzyclip.clip.encoding import encode_images, load_pixels, normalise
from fuzzyclip.distributed.inference import list_images
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


def assert_equal(findings, others):
    for finding, other in zip(findings, others, strict=True):
        assert (finding.error, finding.score) == ("", other.score)
        assert np.array_equal(finding.map, other.map)


def test_maps_and_scores_are_the_scorers_own(files, tiny):
    sharp = build_detector(lambda: tiny, sigma=0.0)
    image_embed, tokens = encode_images(tiny, load_pixels(files, tiny))
    unit = normalise(image_embed)
    maps = sharp.scorer.compute_map(tokens, unit)
    scores = sharp.scorer.compute_score(unit, maps)
    findings = detect(files, sharp)
    assert [finding.item for finding in findings] == [str(path) for path in files]
    assert np.allclose([finding.map for finding in findings], maps.sigmoid(), atol=1e-5)
    assert np.allclose([finding.score for finding in findings], scores, atol=1e-6)
    assert maps.std() > 1e-3  # there is something to compare


def test_maps_are_smoothed(files, tiny):
    wide, sharp = (build_detector(lambda: tiny, sigma=sigma) for sigma in (3.0, 0.0))
    for smoothed, plain in zip(detect(files, wide), detect(files, sharp), strict=True):
        assert smoothed.map.std() < plain.map.std()
        assert smoothed.score == plain.score


def test_threads_change_nothing(files, detector):
    alone, many = detect(files, detector), detect(files, detector, workers=3)
    assert_equal(alone, many)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_image_without_a_finite_answer_is_told_and_moves_no_other_number(files, detector, value):
    scorer, whole = detector.scorer, detect(files, detector)
    seen = whole[1].score  # of the image that is without an answer

    def compute_score(image_embed, maps):
        scores = scorer.compute_score(image_embed, maps)
        return scores.where((scores - seen).abs() > 1e-6, value)

    broken = replace(detector, scorer=replace(scorer, compute_score=compute_score))
    findings = detect(files, broken)
    assert "not finite numbers" in findings[1].error
    assert findings[1].score is findings[1].map is None
    assert_equal(findings[:1] + findings[2:], whole[:1] + whole[2:])


def test_a_model_without_any_finite_answer_has_none(files, detector):
    def compute_score(image_embed, maps):
        return detector.scorer.compute_score(image_embed, maps) * float("nan")

    broken = replace(detector, scorer=replace(detector.scorer, compute_score=compute_score))
    with pytest.raises(NotFiniteError, match="not finite numbers"):
        detect(files, broken)


def test_a_broken_image_is_told_and_moves_no_other_number(files, detector, tmp_path):
    (broken := tmp_path / "broken.png").write_bytes(b"no image")
    mixed = [*files[:2], broken, files[3], tmp_path / "absent.png"]
    findings, whole = detect(mixed, detector), detect(files, detector)
    assert findings[2].error.startswith(f"{broken}: not a readable image")
    assert "absent.png" in findings[4].error
    for place in (2, 4):
        assert findings[place].score is findings[place].map is None
    readable = (0, 1, 3)
    assert_equal([findings[place] for place in readable], [whole[place] for place in readable])


def test_a_folder_gives_its_images_in_order_by_path_or_by_address(files, caplog):
    root = files[-1].parent
    place, paths = list_images(root)
    assert paths == sorted(map(str, files))
    there, addresses = list_images(root.as_uri())
    assert addresses == [f"file://{path}" for path in paths]
    for path, address in zip(paths, addresses, strict=True):
        assert place.read(path) == there.read(address)
    for other in ("@eaDir/0.png/thumb.jpg", ".hidden.png", "notes.txt"):
        (root / other).parent.mkdir(parents=True, exist_ok=True)
        (root / other).touch()
    assert list_images(root)[1] == paths
    assert list_images(root.as_uri())[1] == addresses
    for source in (root, root.as_uri()):
        words = f"{source}: not inspected, no images by their suffixes: 1 (notes.txt)"
        assert words in caplog.messages
    assert list_images(addresses)[1] == addresses
    assert list_images(files)[1] == list(map(str, files))
