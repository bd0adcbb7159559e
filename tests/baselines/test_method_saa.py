"""SAA+: each part against a slow version, the whole with tiny models and with fakes."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from properties import try_examples
from torch import nn
from torch.nn import functional as F

from fuzzyclip.baselines import saa
from fuzzyclip.baselines.saa import PIXELS, Saa, keep_pixels
from fuzzyclip.baselines.saa.categories import CATEGORIES, MVTEC, VISA
from fuzzyclip.baselines.saa.models import Models
from fuzzyclip.baselines.saa.parts import (
    Boxes,
    combine_masks,
    compute_features,
    compute_group_saliency,
    compute_self_saliency,
    rescore,
    select_boxes,
)
from fuzzyclip.baselines.saa.prompts import CategoryPrompts, word_prompts
from fuzzyclip.baselines.saa.tiny import build_tiny_models
from fuzzyclip.clip.encoding import normalise
from fuzzyclip.clip.name_encoder import NameEncoder
from fuzzyclip.datasets import REGISTRY
from fuzzyclip.method.interface import Learned
from fuzzyclip.method.scorer import score_batch

CPU = torch.device("cpu")
#: Of small images, so that a slow version takes no time.
SMALL = {"saliency_side": 64, "group_side": 64, "largest": 40}


@pytest.fixture(scope="module")
def models():
    return build_tiny_models(0, CPU)


def make(**changes):
    return Saa(**{"as_": "mended", "tiny_seed": 0} | changes)


def draw(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def draw_unit(channels, height, width, seed=0):
    return F.normalize(draw(channels, height, width, seed=seed) ** 4, dim=0)


# --- features kept


def test_pixels_are_kept_as_they_were_before_normalising(tiny):
    image = draw(2, 3, 32, 32)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (tiny.mean, tiny.std))
    embed, kept = PIXELS.encode(tiny, (image - mean) / std)
    assert kept.shape == (2, 1, 3, 32 * 32)
    assert torch.allclose(kept.view(2, 3, 32, 32), image, atol=1e-6)
    assert embed.shape == (2, tiny.embed_dim)
    assert not normalise(embed).any()


def test_kept_pixels_never_leave_0_to_1(tiny):
    kept = keep_pixels(tiny, torch.full((1, 3, 32, 32), 9.0))[1]
    assert kept.max() == 1
    assert keep_pixels(tiny, torch.full((1, 3, 32, 32), -9.0))[1].min() == 0


# --- boxes


def test_boxes_of_the_object_and_large_ones_are_dropped():
    places = torch.tensor([[0, 0, 0.5, 0.5], [0, 0, 0.5, 0.6], [0, 0, 0.1, 0.1], [0.2, 0, 0.2, 1]])
    phrases = ["defect", "defect", "defect on metal nut", "defect"]
    boxes = Boxes(places, torch.tensor([0.4, 0.3, 0.9, 0.8]), phrases)
    kept, scores = select_boxes(boxes, 0.26, "metal nut")
    assert torch.equal(kept, places[:1])
    assert scores.tolist() == pytest.approx([0.4])
    assert len(select_boxes(boxes, 0.25, "metal nut")[0]) == 0  # a limit is not itself under it
    assert select_boxes(boxes, 1.0, "")[1].tolist() == pytest.approx([0.4, 0.3, 0.9])


# --- saliency and the map


def test_saliency_of_one_object_is_the_mean_of_the_farthest():
    features = draw_unit(5, 4, 6)
    rows = features.reshape(5, -1).T.double().numpy()
    saliency = compute_self_saliency(features, 7).flatten()
    for here, row in enumerate(rows):
        far = sorted(((1 - row @ other) / 2 for other in rows), reverse=True)
        assert saliency[here].item() == pytest.approx(np.mean(far[:7]), abs=1e-6)


def test_a_small_image_counts_all_its_distances():
    features = draw_unit(5, 3, 3)
    assert torch.equal(compute_self_saliency(features, 400), compute_self_saliency(features, 9))
    odd = torch.zeros(2, 3, 3)
    odd[0] = 1
    odd[:, 1, 1] = torch.tensor([0.0, 1.0])
    saliency = compute_self_saliency(odd, 8)
    assert saliency[1, 1].item() == pytest.approx(0.5)
    assert saliency[0, 0].item() == pytest.approx(0.5 / 8)


@pytest.mark.parametrize("share", [0.2, 0.7])
def test_saliency_of_objects_compares_each_with_the_others(share):
    features, masks = draw_unit(5, 5, 4), draw(3, 5, 4, seed=2) < share
    saliency = compute_group_saliency(features, masks)
    slow = np.zeros((5, 4))
    for own in range(3):
        cells = [tuple(cell) for cell in masks[own].nonzero().tolist()]
        for cell in cells:
            cosines = [0.0]
            for other in range(3):
                for there in masks[other].nonzero().tolist():
                    if other != own and tuple(there) not in cells:
                        cosines.append(float(features[:, *cell] @ features[:, *there]))
            slow[cell] = max(slow[cell], (1 - max(cosines)) / 2)
    assert np.allclose(saliency.numpy(), slow, atol=1e-6)


def test_rows_of_a_large_image_are_joined_without_a_seam(monkeypatch):
    features, masks = draw_unit(4, 8, 9), draw(2, 8, 9, seed=3) < 0.6
    whole = compute_self_saliency(features, 5), compute_group_saliency(features, masks)
    monkeypatch.setattr("fuzzyclip.baselines.saa.parts.ROWS", 7)
    parts = compute_self_saliency(features, 5), compute_group_saliency(features, masks)
    assert all(torch.allclose(*pair, atol=1e-6) for pair in zip(whole, parts, strict=True))


class Flat(nn.Module):
    """Two stages that show nothing but the mean of their pixels."""

    def forward(self, pixels):
        self.pixels = pixels
        return [F.avg_pool2d(pixels, 4).abs() + 1, F.avg_pool2d(pixels, 8).abs()]


def test_features_are_repeated_to_the_finest_stage_and_brought_to_one_length():
    stages, image = Flat(), draw(3, 20, 20)
    features = compute_features(stages, image, 32)
    assert features.shape == (6, 8, 8)
    resized = F.interpolate(image[None], size=(32, 32), mode="bilinear")[0]
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    assert torch.allclose(stages.pixels[0], (resized - mean[:, None, None]) / std[:, None, None])
    fine, coarse = (stage[0] for stage in stages.forward(stages.pixels))
    for row in range(8):
        for column in range(8):
            joined = torch.cat([fine[:, row, column], coarse[:, row // 2, column // 2]])
            unit = joined / joined.norm()
            assert torch.allclose(features[:, row, column], unit, atol=1e-6)


@try_examples(30)
@given(st.integers(0, 2**16), st.integers(0, 5), st.floats(0, 4))
def test_scores_and_map_are_those_of_loops_over_masks(seed, count, strength):
    masks, scores = draw(count, 6, 6, seed=seed) < 0.4, draw(count, seed=seed + 1)
    if count:
        masks[0] = False  # an empty mask keeps its score
    saliency = draw(6, 6, seed=seed + 2)
    weighed = rescore(masks, scores, saliency, strength)
    total, number = np.zeros((6, 6)), np.ones((6, 6))
    for mask, score, new in zip(masks, scores, weighed, strict=True):
        inside = saliency[mask].numpy()
        mean = inside.mean() if inside.size else 0
        assert new.item() == pytest.approx(float(score) * np.exp(strength * mean), rel=1e-4)
        total[mask.numpy()] += new.item()
        number[mask.numpy()] += 1
    assert np.allclose(combine_masks(masks, weighed).numpy(), total / number, atol=1e-5)


# --- the whole


def scores_of(method, tiny, pixels, category="metal_nut"):
    embed, tokens = method.kind.encode(tiny, pixels)
    scorer = method.build(NameEncoder(tiny, None), category, Learned())
    return score_batch(scorer, tokens, embed, tiny, method.sigma)


def compute_slowly(method, models, image, known, name):
    """The map of one image as the paper has it, a caption, a box and a mask at a time."""

    def look(caption, word, limit):
        (boxes,) = models.detector.find(
            image, [caption], method.box_threshold, method.text_threshold
        )
        rows = zip(boxes.places, boxes.scores, boxes.phrases, strict=True)
        return [
            (place, score.item())
            for place, score, phrase in rows
            if (place[2] - place[0]) * (place[3] - place[1]) < limit
            and not (word and models.detector.respell(word) in phrase)
        ]

    objects = look(name, "", 1 / known.objects)
    areas = [float((box[2] - box[0]) * (box[3] - box[1])) for box, _ in objects]
    limit = (max(areas) if areas else 1.0) * known.area
    captions = [(f"{flaw} on {name}", name) for flaw in ("defect", "damage", "flaw")]
    captions += [(caption, known.background or name) for caption in known.captions]
    boxes = [box for caption, word in captions for box in look(caption, word, limit)]
    encoded = models.segmenter.encode(image)

    def cut(place):
        return next(models.segmenter.refine(encoded, place[None]))[0]

    if known.objects == 1:
        features = compute_features(models.network, image, method.saliency_side)
        saliency = compute_self_saliency(features, method.largest)
    else:
        features = compute_features(models.network, image, method.group_side)
        masks = [
            F.interpolate(cut(box)[None, None].float(), size=features.shape[1:])[0, 0] > 0
            for box, _ in objects
        ]
        saliency = compute_group_saliency(features, torch.stack(masks))
    large = F.interpolate(saliency[None, None], size=(32, 32), mode="bilinear")[0, 0]
    weighed = []
    for place, score in boxes:
        mask = cut(place)
        weighed.append(
            (score * float(torch.exp(3 * large[mask].mean())) if mask.any() else score, mask)
        )
    weighed.sort(key=lambda pair: -pair[0])
    total, number = torch.zeros(32, 32), torch.ones(32, 32)
    for score, mask in weighed[: known.masks]:
        total[mask] += score
        number[mask] += 1
    return total / number


@pytest.mark.parametrize("objects", [1, 4])
def test_maps_are_those_of_the_slow_method(objects, models, tiny, pixels):
    known = CategoryPrompts(
        ("broken part. white.", "contamination"),
        background="nut",
        objects=objects,
        masks=30,
        area=0.5,
    )
    method = make(**SMALL, prompts={"metal nut": known}, box_threshold=0.9, text_threshold=0.9)
    scores = scores_of(method, tiny, pixels)
    _, kept = keep_pixels(tiny, pixels)
    for image, anomaly_map, score in zip(
        kept.view(3, 3, 32, 32), scores.maps, scores.image_scores, strict=True
    ):
        slow = compute_slowly(method, models, image, known, "metal nut")
        close = np.isclose(anomaly_map, slow.numpy(), atol=1e-3)
        assert close.mean() > 0.98  # a mask's edge may round to either side
        assert slow.max() > 0.5
        assert score == anomaly_map.max()
    assert scores_of(method, tiny, pixels[:0]).maps.shape == (0, 32, 32)


class FakeDetector:
    """Finds what it is told to: caption to rows of place, score and phrase."""

    def __init__(self, answers):
        self.answers, self.asked = answers, []

    def respell(self, name):
        return name

    def find(self, image, captions, box_threshold, text_threshold):
        self.asked += [(caption, box_threshold, text_threshold) for caption in captions]
        return [self.answer(self.answers.get(caption, [])) for caption in captions]

    def answer(self, rows):
        places = torch.tensor([row[0] for row in rows]).view(-1, 4)
        return Boxes(places, torch.tensor([row[1] for row in rows]), [row[2] for row in rows])


class FakeSegmenter:
    """Takes each box for its mask."""

    def __init__(self):
        self.images = []

    def encode(self, image):
        self.images.append(image)
        return image

    def refine(self, encoded, places):
        grid = (torch.arange(encoded.shape[1]) + 0.5) / encoded.shape[1]
        for part in torch.split(places, saa.CHUNK):
            left, top, right, bottom = (edge.view(-1, 1, 1) for edge in part.T)
            across, down = grid.view(1, 1, -1), grid.view(1, -1, 1)
            yield (across > left) & (across < right) & (down > top) & (down < bottom)


@pytest.fixture
def fake(monkeypatch):
    def give(answers):
        models = Models(FakeDetector(answers), FakeSegmenter(), Flat())
        monkeypatch.setattr(saa, "build_tiny_models", lambda *given: models)
        return models

    return give


def test_the_detector_is_asked_for_the_object_then_for_its_defects(fake, tiny, pixels):
    models = fake({})
    method = make(prompts={"metal_nut": {"captions": ["scratch.", "bent"], "thing": "steel_nut"}})
    scores = scores_of(method, tiny, pixels[:1], "metal nut")
    defects = [f"{flaw} on metal nut" for flaw in ("defect", "damage", "flaw")]
    captions = ["steel nut", *defects, "scratch.", "bent"]
    assert models.detector.asked == [(caption, 0.1, 0.1) for caption in captions]
    assert not scores.maps.any()  # nothing found
    assert not models.segmenter.images


def test_boxes_must_be_smaller_than_a_share_of_the_largest_object_or_image(fake, tiny, pixels):
    small, large = [0.0, 0.0, 0.25, 0.25], [0.0, 0.5, 1.0, 1.0]
    half = [0.0, 0.0, 0.5, 1.0]
    fake({
        "metal nut": [(half, 0.2, "metal nut"), ([0, 0, 1, 1], 0.9, "metal nut")],
        "flaw on metal nut": [(small, 0.5, "flaw"), (large, 0.8, "flaw")],
    })  # fmt: skip
    method = make(strength=0.0, prompts={"metal nut": {"area": 0.2}})
    anomaly_map = scores_of(method, tiny, pixels[:1]).maps[0]
    assert np.allclose(anomaly_map[:8, :8], 0.25)  # a lone mask gives half its score
    assert not anomaly_map[8:].any()
    wide = make(strength=0.0, prompts={"metal nut": {"area": 1.0}})  # of a half: not `large`
    assert not scores_of(wide, tiny, pixels[:1]).maps[0][16:].any()
    fake({"flaw on metal nut": [(large, 0.8, "flaw")]})  # without an object it is the image's
    method = make(strength=0.0, prompts={"metal nut": {"area": 0.51}})
    assert np.allclose(scores_of(method, tiny, pixels[:1]).maps[0][16:], 0.4)


def test_only_the_best_masks_are_taken_whatever_chunk_they_stand_in(fake, tiny, pixels):
    order = torch.randperm(32, generator=torch.Generator().manual_seed(4))
    drawn = torch.linspace(0.2, 0.8, 32)[order].tolist()
    places = [[0.0, row / 32, 1.0, (row + 1) / 32] for row in range(32)]
    fake({"flaw on metal nut": [(*box, "flaw") for box in zip(places, drawn, strict=True)]})
    method = make(strength=0.0, prompts={"metal nut": {"masks": 3}})
    anomaly_map = scores_of(method, tiny, pixels[:1]).maps[0]
    best = sorted(drawn)[-3:]
    for row, score in enumerate(drawn):
        assert np.allclose(anomaly_map[row], score / 2 if score in best else 0)


def test_a_box_that_answers_to_the_object_is_dropped_but_in_the_published_form(fake, tiny, pixels):
    phrase = "defect on metal nut"
    box = ([0.0, 0.0, 0.5, 0.5], 0.6, phrase)
    models = fake({phrase: [box], "defect on metal_nut": [box], "scratch": [(box[0], 0.4, "nut")]})
    prompts = {"metal nut": {"captions": ["scratch"], "background": "nut"}}
    assert not scores_of(make(prompts=prompts), tiny, pixels[:1]).maps.any()
    models.detector.asked.clear()
    scores = scores_of(make(as_="published", prompts=prompts, strength=0.0), tiny, pixels[:1])
    assert scores.image_scores[0] == pytest.approx(0.3)
    assert [asked[0] for asked in models.detector.asked][:2] == [
        "metal_nut,",
        "defect on metal_nut",
    ]


def test_published_colours_reach_the_segmenter_and_saliency_swapped(fake, tiny, pixels):
    models = fake({"flaw on pill": [([0.0, 0.0, 0.5, 0.5], 0.6, "flaw")]})
    _, kept = keep_pixels(tiny, pixels[:1])
    image = kept.view(3, 32, 32)
    for swapped, form in enumerate(("mended", "published")):
        method = make(as_=form, saliency_side=32)
        scores_of(method, tiny, pixels[:1], "pill")
        seen = image.flip(0) if swapped else image
        assert torch.equal(models.segmenter.images[-1], seen)
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        pixels_seen = (seen - mean[:, None, None]) / std[:, None, None]
        assert torch.allclose(models.network.pixels[0], pixels_seen, atol=1e-5)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_fewer_than_two_objects_are_compared_with_the_image_itself(count, fake, tiny, pixels):
    places = [[0.0, 0.0, 0.4, 0.4], [0.6, 0.6, 1.0, 1.0]][:count]
    models = fake({
        "pill": [(place, 0.5, "pill") for place in places],
        "flaw on pill": [([0.0, 0.0, 0.2, 0.2], 0.6, "flaw")],
    })  # fmt: skip
    method = make(saliency_side=32, group_side=64, prompts={"pill": {"objects": 2}})
    scores = scores_of(method, tiny, pixels[:1], "pill")
    assert scores.image_scores[0] > 0.3
    assert models.network.pixels.shape[-1] == (64 if count == 2 else 32)
    assert len(models.segmenter.images) == 1  # encoded once for objects and defects


def test_settings_replace_what_is_known_of_categories():
    method = make(prompts={"pipe_fryum": {"captions": ["hole"], "masks": 19}})
    assert method.read_categories() == {"pipe fryum": CategoryPrompts(("hole",), masks=19)}
    assert Saa().read_categories() == CATEGORIES


def test_every_category_of_both_datasets_is_known():
    for known, spec in ((MVTEC, REGISTRY["mvtec"]), (VISA, REGISTRY["visa"])):
        assert set(known) == {name.replace("_", " ") for name in spec.categories}
    assert CATEGORIES == MVTEC | VISA
    assert len(CATEGORIES) == 27


@pytest.mark.parametrize(
    ("category", "published", "thing", "first", "specific"),
    [
        ("zipper", False, "zipper", ("defect on zipper", "zipper"),
         [("crack. broken leather.", "zipper")]),
        ("metal_nut", True, "metal_nut,", ("defect on metal_nut", "metal_nut"),
         [("blue defect. black defect. red defect. scratch.", "nut")]),
        ("chewinggum", True, "chewinggum", ("defect on chewinggum", "chewinggum"),
         [("crack. yellow defect. color defect. black defect. thread.", "chewinggum")]),
        ("pcb3", True, "printed_circuit_board,", ("defect on pcb3", "pcb3"),
         [(f"{flaw} on pcb", "pcb") for flaw in ("bent wire", "scratch", "defect")]),
        ("pcb3", False, "printed circuit board", ("defect on pcb3", "pcb3"),
         [(f"{flaw} on pcb", "pcb") for flaw in ("bent wire", "scratch", "defect")]),
    ],
)  # fmt: skip
def test_a_category_is_worded_in_both_forms(category, published, thing, first, specific):
    known = CATEGORIES[category.replace("_", " ")]
    wording = word_prompts(category, known, published)
    assert (wording.thing, wording.defects[0]) == (thing, first)
    assert [*wording.defects[3:]] == specific


@pytest.mark.parametrize(
    ("category", "objects", "masks", "area"),
    [
        ("leather", 1, 5, 0.9),
        ("screw", 1, 5, 0.1),
        ("candle", 4, 1, 0.3),
        ("capsules", 20, 15, 1.0),
        ("cashew", 1, 17, 0.05),
        ("macaroni2", 4, 50, 0.3),
    ],
)
def test_counts_and_sizes_are_the_published_ones(category, objects, masks, area):
    known = CATEGORIES[category]
    assert (known.objects, known.masks, known.area) == (objects, masks, area)


# --- refusals


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"box_threshold": 1.0}, "box_threshold must be from"),
        ({"saliency_side": 8}, "saliency_side must be from"),
        ({"tiny_seed": -1}, "tiny_seed must be a whole number of 0 or more, not -1"),
        ({"tiny_seed": "0"}, "tiny_seed must be a whole number of 0 or more, not '0'"),
        (
            {"tiny_seed": 0, "segmenter_folder": "sam", "saliency_weights": "net"},
            "leave out segmenter_folder and saliency_weights, or tiny_seed",
        ),
        ({"prompts": {"pill": {"caption": ["x"]}}}, "prompts of 'pill': .*caption"),
        (
            {"prompts": {"pill": {"captions": "crack."}}},
            "prompts of 'pill': captions must be a list",
        ),
        ({"prompts": {"pill": {"captions": [" ."]}}}, "prompts of 'pill': a caption .* is empty"),
        ({"prompts": {"pill": {"masks": 0}}}, r"prompts of 'pill': .*masks must be from"),
        ({"prompts": {"pill": {"area": 1.5}}}, r"prompts of 'pill': .*area must be from"),
        ({"prompts": {"pill": 3}}, "prompts of 'pill'"),
        ({"prompts": ["pill"]}, "prompts must be fields by category"),
    ],
)
def test_settings_that_mean_nothing_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        Saa(**changes)


def test_features_of_another_kind_are_refused(fake, tiny):
    fake({})
    scorer = make().build(NameEncoder(tiny, None), "pill", Learned())
    with pytest.raises(ValueError, match="reads images of kind 'pixels'"):
        scorer.compute_map(torch.zeros(1, 3, 16, 64), torch.zeros(1, 32))
