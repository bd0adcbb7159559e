"""A category through the evaluation: what is kept of each variant, whatever the category lacks."""

import hashlib
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from fuzzyclip.clip.encoding import normalise
from fuzzyclip.evaluation.category import Category, evaluate_category
from fuzzyclip.evaluation.examples import Overlays
from fuzzyclip.evaluation.gains import Gains
from fuzzyclip.evaluation.metrics import IMAGE_METRICS, PIXEL_METRICS, compute_pixel_metrics
from fuzzyclip.evaluation.summaries import summarise_pixels, weigh_pixel_metrics
from fuzzyclip.features.encode import write_category
from fuzzyclip.features.shards import compute_identity
from fuzzyclip.features.store import open_category
from fuzzyclip.images.decode import load_masks
from fuzzyclip.method.scorer import build_untrained, score_batch

SIZE = 32
#: Shown, compared and neither.
VARIANTS = ("own", "plain", "other")


@pytest.fixture
def draw_category(tiny, tmp_path):
    """A function from labels to a category of noise images with masks, or without."""

    def draw(labels, masked=True):
        rng, lines = np.random.default_rng(3), []
        for number, label in enumerate(labels):
            image, mask = tmp_path / f"{number}.png", tmp_path / f"{number}_mask.png"
            Image.fromarray(rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)).save(image)
            truth = np.zeros((SIZE, SIZE), dtype=np.uint8)
            truth[number : number + 9, 3:9] = 255
            Image.fromarray(truth).save(mask)
            digest = hashlib.sha256(image.read_bytes()).hexdigest()
            kept = f"{mask}" if label and masked else ""
            lines.append((f"{image}", digest, label, f"defect {number}", kept))
        rows = pd.DataFrame(lines, columns=["image_path", "sha256", "label", "defect", "mask_path"])
        rows = rows.assign(category="nut", mask_above=0)
        write_category(tmp_path / "store", rows, tiny, dtype="float32")
        features = open_category(tmp_path / "store", compute_identity(tiny, list(rows["sha256"])))
        return Category("parts", "nut", rows, features, tiny)

    return draw


@pytest.fixture
def scorers(tiny):
    texts = torch.randn(3, 2, 32, generator=torch.Generator().manual_seed(5))
    return {
        variant: build_untrained(tiny, variant, normalise(text).T)
        for variant, text in zip(VARIANTS, texts, strict=True)
    }


@pytest.fixture
def evaluate(scorers, tmp_path):
    def run(category, **how):
        scratch = tmp_path / "scratch"
        return evaluate_category(
            category, scorers, shown="own", compared=["plain"], scratch=scratch, **how
        )

    return run


def test_what_made_the_features_is_passed_on(draw_category, evaluate):
    category = draw_category([0, 1])
    assert evaluate(category).runtimes == ()
    made = replace(category, features=replace(category.features, runtimes=("onnxruntime 1",)))
    assert evaluate(made).runtimes == ("onnxruntime 1",)


@pytest.mark.parametrize("exact", [True, False])
def test_metrics_and_summaries_are_those_of_each_variants_maps(
    draw_category, evaluate, scorers, tiny, exact
):
    category = draw_category([0, 1, 0, 1, 1, 0])
    result = evaluate(category, exact=exact)
    tokens, images = category.read_tokens(range(6)), category.rows["image_path"].tolist()
    masks, once = load_masks(category.rows, SIZE), np.ones((1, 6))
    assert [line["variant"] for line in result.table] == [*VARIANTS]
    for variant, line in zip(VARIANTS, result.table, strict=True):
        scores = score_batch(scorers[variant], tokens, category.features.image_embed, tiny)
        expected = compute_pixel_metrics(scores.maps, masks, scores.scale)
        assert line["pixel_ap"] == pytest.approx(100 * expected["pixel_ap"], abs=0.1)
        assert result.listing[variant].to_numpy() == pytest.approx(scores.image_scores, abs=1e-4)
        if exact and variant in result.summaries:
            summary = summarise_pixels(scores.maps, masks, images, scores.scale)
            ours, theirs = (
                weigh_pixel_metrics(each, once) for each in (result.summaries[variant], summary)
            )
            assert ours["pixel_ap"] == pytest.approx(theirs["pixel_ap"], abs=1e-3)
    assert set(result.summaries) == ({"own", "plain"} if exact else {"own"})


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize(
    ("labels", "masked"),
    [([0, 1, 0, 1], False), ([0, 0, 0], True), ([1, 1], True), ([1, 1], False), ([0], True)],
)
def test_what_a_category_lacks_is_absent(draw_category, evaluate, labels, masked, exact):
    """No masks, one label, one image: no metric of what is not there, and no crash."""
    category, overlays = draw_category(labels, masked), Overlays(2)
    result = evaluate(category, exact=exact, watcher=overlays)
    gains = Gains("own", ["plain"], 0)
    gains.add(result)
    both = len(set(labels)) == 2
    for metric in IMAGE_METRICS:
        assert all(np.isfinite(line.get(metric, np.nan)) == both for line in result.table), metric
        assert (metric in gains.describe()) == both
    has_masks = masked and 1 in labels
    for metric in set(PIXEL_METRICS) - {"pixel_aupro"}:  # which some maps leave undefined
        assert all((metric in line) == has_masks for line in result.table), metric
    assert len(overlays.titles) == min(labels.count(0), 1) + min(labels.count(1), 2)


def test_overlays_are_a_normal_image_and_evenly_spaced_anomalous_ones(draw_category, evaluate):
    overlays = Overlays(2)
    evaluate(draw_category([1, 0, 1, 1, 0, 1, 0, 1]), watcher=overlays)
    assert overlays.titles == ["nut\ndefect 2", "nut\nnormal", "nut\ndefect 5"]
    first, normal, _ = overlays.tensors["masks"]
    assert first.any()
    assert not normal.any()
