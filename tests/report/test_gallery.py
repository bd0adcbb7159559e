"""Which images the gallery chooses, and that what it keeps is what the evaluation saw."""

import hashlib

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.metrics import f1_score

from fuzzyclip.clip.encoding import encode_images, normalise, preprocess
from fuzzyclip.evaluation import KINDS, examples
from fuzzyclip.evaluation.category import Category
from fuzzyclip.evaluation.examples import Gallery, choose_examples
from fuzzyclip.evaluation.metrics import find_threshold
from fuzzyclip.features.encode import write_category
from fuzzyclip.features.shards import compute_identity
from fuzzyclip.features.store import open_category
from fuzzyclip.method.scorer import build_untrained, score_batch
from fuzzyclip.report.gallery import Example, Photo, draw_heatmaps, draw_side_by_side, share_above
from fuzzyclip.utils.tensor_files import read_arrays

COUNT, SIZE = 10, 32
#: Few distinct values, so that ties are common.
SCORED = st.lists(
    st.tuples(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 1.0]), st.booleans()), max_size=30
)


@given(SCORED)
def test_the_threshold_has_the_largest_f1_there_is(pairs):
    scores = np.array([score for score, _ in pairs])
    labels = np.array([label for _, label in pairs], dtype=int)
    threshold = find_threshold(scores, labels)
    if len(set(labels.tolist())) < 2:
        assert threshold is None
        return
    reached = {cut: f1_score(labels, scores >= cut) for cut in set(scores.tolist())}
    best = max(reached.values())
    assert threshold == max(cut for cut, f1 in reached.items() if f1 >= best - 1e-12)


@given(SCORED, st.integers(0, 3))
def test_choices_are_those_of_a_plain_sort(pairs, count):
    scores = [score for score, _ in pairs]
    labels = [int(label) for _, label in pairs]
    threshold = find_threshold(scores, labels)
    expected = {}
    for label in (0, 1):
        sign = 1 if label == 0 else -1  # how wrong a high score is
        rows = [row for row in range(len(pairs)) if labels[row] == label]
        wrong = [
            row for row in rows if threshold is not None and (scores[row] >= threshold) != label
        ]
        right = [row for row in rows if row not in wrong]
        worst = sorted(wrong if threshold is not None else rows, key=lambda r: -sign * scores[r])
        near = [] if threshold is None else sorted(rows, key=lambda r: abs(scores[r] - threshold))
        best = sorted(right, key=lambda r: sign * scores[r])
        for kind, chosen in (("best", best), ("worst", worst), ("borderline", near)):
            for row in chosen[:count]:
                expected.setdefault(row, set()).add(kind)
    chosen = choose_examples(scores, labels, count)
    assert {row: set(kinds) for row, kinds in chosen.items()} == expected
    assert list(chosen) == sorted(chosen)
    assert all(list(kinds) == [k for k in KINDS if k in kinds] for kinds in chosen.values())


def test_scores_that_are_no_numbers_are_refused():
    with pytest.raises(ValueError, match="not finite"):
        choose_examples([0.1, float("nan")], [0, 1], 1)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Ten noise images; the odd ones have a defect of one row of pixels and one of an area."""
    root, rng, lines = tmp_path_factory.mktemp("images"), np.random.default_rng(3), []
    for number in range(COUNT):
        image, mask = root / f"{number}.png", root / f"{number}_mask.png"
        noise = rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
        Image.fromarray(noise).save(image)
        if number % 2:
            truth = np.zeros((SIZE, SIZE), dtype=np.uint8)
            truth[number, 3:9], truth[20:28, 20:28] = 255, 255
            Image.fromarray(truth).save(mask)
        labelled = (1, "line", f"{mask}") if number % 2 else (0, "good", "")
        lines.append((f"{image}", hashlib.sha256(image.read_bytes()).hexdigest(), *labelled))
    frame = pd.DataFrame(lines, columns=["image_path", "sha256", "label", "defect", "mask_path"])
    return frame.assign(category="01", mask_above=0)


@pytest.fixture(scope="module", params=["float32", None], ids=["stored", "encoded again"])
def category(request, rows, tiny, tmp_path_factory):
    """The images as a category, with stored patch tokens and without."""
    folder = tmp_path_factory.mktemp("store")
    write_category(folder, rows, tiny, dtype=request.param, shard_size=4, batch_size=4)
    features = open_category(folder, compute_identity(tiny, list(rows["sha256"])))
    return Category("parts", "01", rows, features, tiny)


@pytest.fixture(scope="module")
def scored(rows, tiny):
    """A scorer, and the maps and scores that it gives for all images in one batch."""
    text = normalise(torch.randn(32, 2, generator=torch.Generator().manual_seed(5)).T).T
    scorer = build_untrained(tiny, "object", text)
    opened = [Image.open(path).convert("RGB") for path in rows["image_path"]]
    embeds, tokens = encode_images(tiny, torch.stack([preprocess(one, tiny) for one in opened]))
    return scorer, score_batch(scorer, tokens, embeds, tiny)


@pytest.fixture
def keep(scored, tmp_path):
    """What a gallery of some images of a category holds when it is read again."""

    def keep(count, category):
        scorer, scores = scored
        gallery = Gallery(count, sigma=0.0)
        gallery.add(category, scorer, scores.image_scores)
        gallery.write(tmp_path / "gallery.safetensors")
        tensors, header = read_arrays(tmp_path / "gallery.safetensors")
        return header["items"], tensors

    return keep


def test_kept_pictures_are_those_of_the_chosen_images(category, scored, rows, keep):
    _, scores = scored
    items, tensors = keep(2, category)
    chosen = choose_examples(scores.image_scores, rows["label"], 2)
    assert [item["path"] for item in items] == [rows["image_path"][place] for place in chosen]
    assert [tuple(item["kinds"]) for item in items] == [*chosen.values()]
    assert {item["threshold"] for item in items} == {
        find_threshold(scores.image_scores, rows["label"])
    }
    assert all(item["has_mask"] and item["category"] == "01" for item in items)
    for number, place in enumerate(chosen):
        line = rows.iloc[place]
        assert items[number]["score"] == scores.image_scores[place]
        assert (tensors["images"][number] == np.asarray(Image.open(line["image_path"]))).all()
        truth = np.asarray(Image.open(line["mask_path"])) > 0 if line["mask_path"] else 0
        assert (tensors["masks"][number] == truth).all()
        np.testing.assert_allclose(tensors["maps"][number], scores.shown[place], atol=2e-3)


def test_smaller_pictures_lose_no_defect(category, scored, rows, keep, monkeypatch):
    monkeypatch.setattr(examples, "SIDE", 8)
    _, scores = scored
    items, tensors = keep(5, category)
    assert tensors["images"].shape == (len(items), 8, 8, 3)
    for item, mask, small in zip(items, tensors["masks"], tensors["maps"], strict=True):
        place = rows.index[rows["image_path"] == item["path"]][0]
        truth = np.zeros((SIZE, SIZE), dtype=bool)
        if rows["mask_path"][place]:
            truth = np.asarray(Image.open(rows["mask_path"][place])) > 0
        blocks = truth.reshape(8, 4, 8, 4)
        assert (mask == blocks.any(axis=(1, 3))).all()
        mean = scores.shown[place].reshape(8, 4, 8, 4).mean(axis=(1, 3))
        np.testing.assert_allclose(small, mean, atol=2e-3)


def test_images_without_masks_are_kept_without(rows, category, keep):
    bare = Category("parts", "01", rows.assign(mask_path=""), category.features, category.backbone)
    items, tensors = keep(1, bare)
    assert items
    assert not any(item["has_mask"] for item in items)
    assert not tensors["masks"].any()


def test_an_empty_gallery_is_a_file_too(category, keep):
    assert keep(0, category)[0] == []


def test_a_pixels_share_counts_all_that_are_as_high():
    values = np.array([[0.0, 2.0], [2.0, 5.0]])
    expected = [[np.mean(values >= value) for value in row] for row in values]
    assert share_above(values).tolist() == expected
    assert (share_above(np.full((3, 3), 7.0)) == 1).all()  # nothing stands out


def read_panels(figure):
    """Pictures of a figure's panels, in their order."""
    return [axes.images[0].get_array() for axes in figure.axes if axes.images]


def test_methods_beside_one_another_are_compared_by_the_order_of_their_pixels():
    rng = np.random.default_rng(0)
    mask = np.zeros((16, 16), dtype=bool)
    mask[4:8, 4:8] = True
    photos = [Photo(f"{n}", rng.integers(0, 255, (16, 16, 3), np.uint8), mask) for n in range(2)]
    maps = rng.normal(size=(2, 16, 16))
    columns = {
        "log-odds": maps,
        "probability": 1 / (1 + np.exp(-maps)),  # the same order on another scale
        "large": rng.normal(size=(2, 24, 24)),
        "absent": [None, None],
    }
    figure = draw_side_by_side(photos, columns, "title")
    panels = read_panels(figure)
    assert len(panels) == 2 * 5  # image, ground truth and three methods
    assert (panels[2] == panels[3]).all()
    assert (panels[2] == share_above(maps[0])).all()
    assert panels[4].shape == (24, 24)
    outlined = [axes for axes in figure.axes if axes.images and axes.collections]
    small, large = (outlined[n].collections[0].get_paths()[0].get_extents() for n in (0, 2))
    assert (small.x0, small.x1) == (3.5, 7.5)
    assert (large.x0, large.x1) == pytest.approx((5.5, 11.5))  # the same part of a larger map


def test_a_long_title_is_not_cut_off_where_there_are_few_images():
    blank = np.zeros((8, 8))
    example = Example("hole", np.zeros((8, 8, 3), np.uint8), blank > 0, blank)
    title = "Anomaly maps of hazelnut: input, FuzzyCLIP, ground truth"
    for number in (1, 9):
        figure = draw_heatmaps([example] * number, title)
        figure.draw_without_rendering()
        drawn = figure._suptitle.get_window_extent()
        assert drawn.x0 >= 0
        assert drawn.x1 <= figure.bbox.x1
