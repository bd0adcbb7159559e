"""The overview shows the images that its rule names, and all of their titles."""

import io
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import average_precision_score

from fuzzyclip.report.gallery import DPI, Example, save_figure
from fuzzyclip.report.overview import RULE, TITLE, WIDTH, choose_overview, draw_overview

SIDE = 16


def make_examples(count, seed, *, masked=True):
    """Defects that are found more or less well, or normal images of more or less noise."""
    rng, examples = np.random.default_rng(seed), []
    for number in range(count):
        mask = np.zeros((SIDE, SIDE), dtype=bool)
        mask[3:8, 3:8] = masked
        noise = rng.uniform(0, rng.uniform(0.1, 1), mask.shape)
        anomaly_map = np.clip(noise + rng.uniform(0, 0.5) * mask, 0, 1).astype(np.float32)
        image = rng.integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)
        examples.append(Example(f"category {number}\nscratch", image, mask, anomaly_map))
    return examples


def score(example):
    return average_precision_score(example.mask.ravel(), example.anomaly_map.ravel())


@pytest.mark.parametrize("count", [1, 2, 5, 6])
def test_of_each_dataset_stands_the_defect_with_the_median_precision(count):
    kept = {"A": make_examples(count, 1), "B": make_examples(count, 2), "none": []}
    defects, normal = choose_overview(kept, {})
    assert not normal
    for (dataset, examples), shown in zip(kept.items(), defects, strict=False):
        precisions = sorted(map(score, examples))
        assert score(shown) == pytest.approx(precisions[(count - 1) // 2])
        assert shown.title.startswith(f"{dataset}\ncategory ")
        assert shown.title.endswith(f"\npixel AP {100 * score(shown):.0f} %")
    assert len(defects) == 2


def test_normal_images_are_those_in_the_middle_and_at_nine_tenths():
    kept = {name: make_examples(7, seed, masked=False) for seed, name in enumerate("ABC")}
    _, normal = choose_overview({}, kept)
    means = sorted(example.anomaly_map.mean() for each in kept.values() for example in each)
    assert [example.anomaly_map.mean() for example in normal] == [means[10], means[18]]
    (alone,) = choose_overview({}, {"A": kept["A"][:1]})[1]
    assert alone.title == "A\ncategory 0\nscratch"


def test_without_masks_it_is_the_one_in_the_middle():
    (shown,), _ = choose_overview({"A": make_examples(5, 0, masked=False)}, {})
    assert shown.title == "A\ncategory 2\nscratch"


def test_a_picture_is_as_wide_as_a_page_and_says_its_rule(tmp_path):
    defects, normal = choose_overview(
        {f"{number}": make_examples(3, number) for number in range(7)},
        {"A": make_examples(12, 0, masked=False)},
    )
    figure = draw_overview(defects, normal)
    save_figure(figure, tmp_path / "overview.png")
    with Image.open(io.BytesIO((tmp_path / "overview.png").read_bytes())) as image:
        assert abs(image.width - WIDTH * DPI) <= 1
    texts = [text.get_text() for text in figure.texts]
    assert {TITLE, RULE, "image", "ground truth", "anomaly map"} == set(texts)
    for text in figure.texts:
        box = text.get_window_extent()
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.x1
    panels = [axes for axes in figure.axes if axes.images]
    assert len(panels) == 3 * (len(defects) + len(normal))
    titles = sorted(
        (axes.title.get_window_extent() for axes in panels[::3]), key=lambda box: box.x0
    )
    for left, right in pairwise(titles):
        assert left.x1 <= right.x0
    with pytest.raises(ValueError, match="needs an image"):
        draw_overview([], [])


def test_long_names_stay_in_their_column():
    (example, *_) = make_examples(1, 0)
    long = Example(
        "a very long name of a category\n" + "scratch " * 9, *list(vars(example).values())[1:]
    )
    figure = draw_overview([long] * 9, [])
    figure.draw_without_rendering()
    boxes = [axes.title.get_window_extent() for axes in figure.axes if axes.get_title()]
    assert len(boxes) == 9
    for left, right in pairwise(boxes):
        assert left.x1 <= right.x0
