"""SAA+: each part against a slow version, the whole with tiny models of random weights."""

import json
import shutil
import sys

import numpy as np
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from fuzzyclip.clip.encoding import normalise
from fuzzyclip.clip.name_encoder import NameEncoder
from fuzzyclip.clip.weights import WeightsError
from fuzzyclip.methods import saa, saa_models
from fuzzyclip.methods.kinds import PIXELS, keep_pixels
from fuzzyclip.methods.saa import Saa
from fuzzyclip.methods.saa_models import (
    Models,
    SaaModelError,
    load_models,
    load_network,
)
from fuzzyclip.methods.saa_parts import (
    Boxes,
    combine_masks,
    compute_features,
    compute_group_saliency,
    compute_self_saliency,
    rescore,
    select_boxes,
)
from fuzzyclip.methods.saa_prompts import TABLE, CategoryPrompts, read_prompts, word_prompts
from fuzzyclip.scoring import score_batch

CPU = torch.device("cpu")
#: The special tokens stand where GroundingDINO looks for them.
SPECIAL = {
    0: "[PAD]",
    100: "[UNK]",
    101: "[CLS]",
    102: "[SEP]",
    103: "[MASK]",
    1012: ".",
    1029: "?",
}
WORDS = "defect damage flaw on metal nut bottle _ , broken part contamination white zip ##per"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Tiny GroundingDINO and SAM of random weights, as their makers' tools would save them."""
    import transformers as hf

    root = tmp_path_factory.mktemp("saa")
    words = [f"[unused{row}]" for row in range(1100)]
    for row, word in {**SPECIAL, **dict(enumerate(WORDS.split(), 200))}.items():
        words[row] = word
    (root / "vocab.txt").write_text("\n".join(words) + "\n")
    torch.manual_seed(0)
    swin = {"image_size": 64, "patch_size": 4, "embed_dim": 12, "depths": [1] * 4}
    swin |= {"num_heads": [1, 1, 2, 2], "window_size": 4, "out_indices": [2, 3, 4]}
    bert = {"vocab_size": len(words), "hidden_size": 16, "num_hidden_layers": 1}
    bert |= {"num_attention_heads": 2, "intermediate_size": 16, "max_position_embeddings": 32}
    detector = hf.GroundingDinoForObjectDetection(
        hf.GroundingDinoConfig(
            backbone_config={"model_type": "swin", **swin},
            text_config={"model_type": "bert", **bert},
            **{f"{side}_ffn_dim": 32 for side in ("encoder", "decoder")},
            **{f"{side}_attention_heads": 2 for side in ("encoder", "decoder")},
            **{"encoder_layers": 1, "decoder_layers": 2, "d_model": 32},
            **{"num_queries": 20, "max_text_len": 32},
        )
    )
    detector.save_pretrained(root / "detector")
    tokenizer = hf.BertTokenizer(vocab=str(root / "vocab.txt"))
    edges = {"shortest_edge": 96, "longest_edge": 192}
    hf.GroundingDinoProcessor(
        hf.GroundingDinoImageProcessor(size=edges), tokenizer
    ).save_pretrained(root / "detector")
    width = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_dim": 16}
    patches = {"image_size": 64, "patch_size": 8}
    segmenter = hf.SamModel(
        hf.SamConfig(
            vision_config={**width, **patches, "output_channels": 16, "window_size": 4}
            | {"global_attn_indexes": [1], "num_pos_feats": 8, "initializer_range": 0.1},
            prompt_encoder_config={**patches, "hidden_size": 16, "mask_input_channels": 4},
            mask_decoder_config={**width, "iou_head_hidden_dim": 16},
        )
    )
    segmenter.save_pretrained(root / "segmenter")
    hf.SamProcessor(
        hf.SamImageProcessor(size={"longest_edge": 64}, pad_size={"height": 64, "width": 64})
    ).save_pretrained(root / "segmenter")
    return root


@pytest.fixture(scope="module")
def models(folders):
    return load_models(str(folders / "detector"), str(folders / "segmenter"), "", 0, CPU)


def make(folders, **changes):
    sides = {"saliency_side": 64, "group_side": 64, "largest": 40, "saliency_seed": 0}
    places = {f"{part}_folder": str(folders / part) for part in ("detector", "segmenter")}
    return Saa(**places | sides | changes)


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
    found = Boxes(places, torch.tensor([0.4, 0.3, 0.9, 0.8]), phrases)
    kept, scores = select_boxes(found, 0.26, "metal nut")
    assert torch.equal(kept, places[:1])
    assert scores.tolist() == pytest.approx([0.4])
    assert len(select_boxes(found, 0.25, "metal nut")[0]) == 0  # a limit is not itself under it
    assert select_boxes(found, 1.0, "")[1].tolist() == pytest.approx([0.4, 0.3, 0.9])


def test_a_caption_finds_the_models_own_boxes_and_their_words(models):
    detector, image = models.detector, draw(3, 32, 32)
    found = detector.find(image, " Defect on metal nut", 0.9, 0.5)
    ids = [101, 200, 203, 204, 205, 1012, 102]
    assert detector.processor.tokenizer("defect on metal nut.")["input_ids"] == ids
    resized = F.interpolate(image[None], size=(96, 96), mode="bilinear", antialias=True)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    for channel in range(3):
        resized[:, channel] = (resized[:, channel] - mean[channel]) / std[channel]
    with torch.no_grad():
        out = detector.model(pixel_values=resized, input_ids=torch.tensor([ids]))
    rows = []
    for box, logits in zip(out.pred_boxes[0].tolist(), out.logits[0].tolist(), strict=True):
        probs = [1 / (1 + np.exp(-value)) for value in logits]
        if max(probs) > 0.9:
            x, y, width, height = box
            place = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
            words = [ids[row] for row in range(1, len(ids)) if probs[row] > 0.5]
            rows.append((place, max(probs), detector.processor.tokenizer.decode(words)))
    assert 0 < len(rows) < 20
    assert list(found.phrases) == [row[2] for row in rows]
    assert len(set(found.phrases)) > 2
    assert np.allclose(found.places, [row[0] for row in rows], atol=1e-4)
    assert np.allclose(found.scores, [row[1] for row in rows], atol=1e-4)


def test_a_caption_that_the_detector_would_cut_is_refused(models):
    with pytest.raises(ValueError, match="caption of 43 tokens does not fit 32"):
        models.detector.find(draw(3, 32, 32), "defect " * 40, 0.1, 0.1)


def test_a_name_is_respelled_as_phrases_spell_it(models):
    assert models.detector.respell("Metal_nut") == "metal _ nut"
    assert models.detector.respell("zipper") == "zipper"


def test_masks_are_those_of_one_box_at_a_time(models):
    segmenter, image = models.segmenter, draw(3, 40, 40)
    corners = draw(20, 2, 2, seed=1).sort(dim=1).values  # more than one chunk
    places = corners.flatten(1)  # left, top, right, bottom
    masks = list(segmenter.refine(segmenter.encode(image), places))
    assert [len(part) for part in masks] == [16, 4]
    for mask, place in zip(torch.cat(masks), places, strict=True):
        inputs = segmenter.processor(
            images=image,
            input_boxes=[[(place * 40).tolist()]],
            do_rescale=False,
            return_tensors="pt",
        )
        sizes = inputs.pop("original_sizes"), inputs.pop("reshaped_input_sizes")
        inputs["input_boxes"] = inputs["input_boxes"].float()
        with torch.no_grad():
            logits = segmenter.model(**inputs, multimask_output=False).pred_masks[0]
        large = F.interpolate(logits, size=(64, 64), mode="bilinear")
        assert [size.tolist() for size in sizes] == [[[40, 40]], [[64, 64]]]
        slow = F.interpolate(large, size=(40, 40), mode="bilinear")[0, 0] > 0
        assert (mask != slow).float().mean() < 0.01  # logits next to 0 may round to either side
    assert 0 < torch.cat(masks).float().mean() < 1


# --- saliency and the map


def test_saliency_of_one_object_is_the_mean_of_the_farthest():
    features = draw_unit(5, 4, 6)
    rows = features.reshape(5, -1).T.double().numpy()
    found = compute_self_saliency(features, 7).flatten()
    for here, row in enumerate(rows):
        far = sorted(((1 - row @ other) / 2 for other in rows), reverse=True)
        assert found[here].item() == pytest.approx(np.mean(far[:7]), abs=1e-6)


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
    found = compute_group_saliency(features, masks)
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
    assert np.allclose(found.numpy(), slow, atol=1e-6)


def test_rows_of_a_large_image_are_joined_without_a_seam(monkeypatch):
    features, masks = draw_unit(4, 8, 9), draw(2, 8, 9, seed=3) < 0.6
    whole = compute_self_saliency(features, 5), compute_group_saliency(features, masks)
    monkeypatch.setattr("fuzzyclip.methods.saa_parts.ROWS", 7)
    parts = compute_self_saliency(features, 5), compute_group_saliency(features, masks)
    assert all(torch.allclose(*pair, atol=1e-6) for pair in zip(whole, parts, strict=True))


def test_features_are_repeated_to_the_finest_stage_and_brought_to_one_length():
    class Stages(nn.Module):
        def forward(self, pixels):
            self.pixels = pixels
            return [F.avg_pool2d(pixels, 4), 2 * F.avg_pool2d(pixels, 8)]

    stages, image = Stages(), draw(3, 20, 20)
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


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**16), st.integers(0, 5), st.floats(0, 4))
def test_scores_and_map_are_those_of_loops_over_masks(seed, count, strength):
    masks, scores = draw(count, 6, 6, seed=seed) < 0.4, draw(count, seed=seed + 1)
    if count:
        masks[0] = False  # an empty mask keeps its score
    saliency = draw(6, 6, seed=seed + 2)
    found = rescore(masks, scores, saliency, strength)
    total, number = np.zeros((6, 6)), np.ones((6, 6))
    for mask, score, new in zip(masks, scores, found, strict=True):
        inside = saliency[mask].numpy()
        mean = inside.mean() if inside.size else 0
        assert new.item() == pytest.approx(float(score) * np.exp(strength * mean), rel=1e-4)
        total[mask.numpy()] += new.item()
        number[mask.numpy()] += 1
    assert np.allclose(combine_masks(masks, found).numpy(), total / number, atol=1e-5)


def test_saliency_weights_are_read_from_a_file(tmp_path):
    torch.manual_seed(5)
    whole = timm.create_model("wide_resnet50_2", pretrained=False)
    save_file(whole.state_dict(), tmp_path / "model.safetensors")
    network = load_network(str(tmp_path / "model.safetensors"), None)
    whole.eval()
    pixels = draw(1, 3, 32, 32)
    with torch.no_grad():
        stem = whole.maxpool(whole.act1(whole.bn1(whole.conv1(pixels))))
        stages = [whole.layer1(stem)]
        stages += [whole.layer2(stages[0])]
        stages += [whole.layer3(stages[1])]
        found = network(pixels)
    assert [stage.shape[1] for stage in found] == [256, 512, 1024]
    assert all(torch.equal(*pair) for pair in zip(found, stages, strict=True))
    assert not any(parameter.requires_grad for parameter in network.parameters())
    save_file({"conv1.weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(
        SaaModelError, match=r"other\.safetensors are not of timm's wide_resnet50_2"
    ):
        load_network(str(tmp_path / "other.safetensors"), None)
    with pytest.raises(WeightsError, match=r"none\.pth"):
        load_network(str(tmp_path / "none.pth"), None)


# --- the whole


def scores_of(method, tiny, pixels, category="metal_nut"):
    embed, tokens = method.kind.encode(tiny, pixels)
    scorer = method.build(NameEncoder(tiny, None), category, {})
    return score_batch(scorer, tokens, embed, tiny, method.sigma)


def compute_slowly(method, models, image, known, name):
    """The map of one image as the paper has it, a caption, a box and a mask at a time."""

    def look(caption, word, limit):
        found = models.detector.find(image, caption, method.box_threshold, method.text_threshold)
        rows = zip(found.places, found.scores, found.phrases, strict=True)
        return [
            (place, score.item())
            for place, score, phrase in rows
            if (place[2] - place[0]) * (place[3] - place[1]) < limit
            and not (word and models.detector.respell(word) in phrase)
        ]

    objects = look(name, "", 1 / known.objects)
    areas = [float((box[2] - box[0]) * (box[3] - box[1])) for box, _ in objects]
    limit = (max(areas) if areas else 1.0) * known.area
    boxes = [
        box
        for side in ("defect", "damage", "flaw")
        for box in look(f"{side} on {name}", name, limit)
    ]
    for caption in known.captions:
        boxes += look(caption, known.background or name, limit)
    encoded = models.segmenter.encode(image)

    def cut(place):
        return next(models.segmenter.refine(encoded, place[None]))[0]

    if known.objects == 1:
        features = compute_features(models.network, image, method.saliency_side)
        saliency = compute_self_saliency(features, method.largest)
    else:
        features = compute_features(models.network, image, method.group_side)
        masks = [
            F.interpolate(cut(box)[None, None].float(), size=(16, 16))[0, 0] > 0
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
def test_maps_are_those_of_the_slow_method(objects, folders, models, tiny, pixels):
    known = CategoryPrompts(
        ("broken part. white.", "contamination"),
        background="nut",
        objects=objects,
        masks=30,
        area=0.5,
    )
    method = make(folders, prompts={"metal nut": known}, box_threshold=0.9, text_threshold=0.9)
    found = scores_of(method, tiny, pixels)
    _, kept = keep_pixels(tiny, pixels)
    for image, one, score in zip(
        kept.view(3, 3, 32, 32), found.maps, found.image_scores, strict=True
    ):
        slow = compute_slowly(method, models, image, known, "metal nut")
        close = np.isclose(one, slow.numpy(), atol=1e-3)
        assert close.mean() > 0.98  # a mask's edge may round to either side
        assert slow.max() > 0.5
        assert score == one.max()


def test_an_image_scores_the_same_alone(folders, tiny, pixels):
    method = make(folders)
    together = scores_of(method, tiny, pixels)
    for row in range(3):
        alone = scores_of(method, tiny, pixels[row : row + 1])
        assert np.array_equal(alone.maps[0], together.maps[row])
    again = scores_of(method, tiny, pixels)
    assert np.array_equal(again.image_scores, together.image_scores)
    assert together.image_scores.std() > 0
    assert scores_of(method, tiny, pixels[:0]).maps.shape == (0, 32, 32)


class FakeDetector:
    """Finds what it is told to: caption to rows of place, score and phrase."""

    def __init__(self, found):
        self.found, self.asked = found, []

    def respell(self, name):
        return name

    def find(self, image, caption, box_threshold, text_threshold):
        self.asked.append((caption, box_threshold, text_threshold))
        rows = self.found.get(caption, [])
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


class Flat(nn.Module):
    """Two stages that show nothing but the mean of their pixels."""

    def forward(self, pixels):
        self.pixels = pixels
        return [F.avg_pool2d(pixels, 4).abs() + 1, F.avg_pool2d(pixels, 8).abs()]


@pytest.fixture
def fake(monkeypatch):
    def give(found):
        models = Models(FakeDetector(found), FakeSegmenter(), Flat())
        monkeypatch.setattr(saa, "load_models", lambda *given: models)
        return models

    return give


def test_the_detector_is_asked_for_the_object_then_for_its_defects(fake, tiny, pixels):
    models = fake({})
    method = Saa(prompts={"metal_nut": {"captions": ["scratch.", "bent"], "thing": "steel_nut"}})
    found = scores_of(method, tiny, pixels[:1], "metal nut")
    defects = [f"{flaw} on metal nut" for flaw in ("defect", "damage", "flaw")]
    captions = ["steel nut", *defects, "scratch.", "bent"]
    assert models.detector.asked == [(caption, 0.1, 0.1) for caption in captions]
    assert not found.maps.any()  # nothing found
    assert not models.segmenter.images


def test_boxes_must_be_smaller_than_a_share_of_the_largest_object(fake, tiny, pixels):
    small, large = [0.0, 0.0, 0.25, 0.25], [0.0, 0.5, 1.0, 1.0]
    half = [0.0, 0.0, 0.5, 1.0]
    fake({
        "metal nut": [(half, 0.2, "metal nut"), ([0, 0, 1, 1], 0.9, "metal nut")],
        "flaw on metal nut": [(small, 0.5, "flaw"), (large, 0.8, "flaw")],
    })  # fmt: skip
    method = Saa(strength=0.0, prompts={"metal nut": {"area": 0.2}})
    found = scores_of(method, tiny, pixels[:1]).maps[0]
    assert np.allclose(found[:8, :8], 0.25)  # a lone mask gives half its score
    assert not found[8:].any()
    wide = Saa(strength=0.0, prompts={"metal nut": {"area": 1.0}})  # under 1 of a half: not `large`
    assert not scores_of(wide, tiny, pixels[:1]).maps[0][16:].any()


def test_without_an_object_the_image_is_the_measure(fake, tiny, pixels):
    fake({"flaw on metal nut": [([0.0, 0.5, 1.0, 1.0], 0.8, "flaw")]})
    method = Saa(strength=0.0, prompts={"metal nut": {"area": 0.51}})
    assert np.allclose(scores_of(method, tiny, pixels[:1]).maps[0][16:], 0.4)


def test_only_the_best_masks_are_taken_whatever_chunk_they_stand_in(fake, tiny, pixels):
    boxes = [([0.0, row / 32, 1.0, (row + 1) / 32], score, "flaw")
             for row, score in enumerate(torch.linspace(0.2, 0.8, 32)[torch.randperm(
                 32, generator=torch.Generator().manual_seed(4))].tolist())]  # fmt: skip
    fake({"flaw on metal nut": boxes})
    method = Saa(strength=0.0, prompts={"metal nut": {"masks": 3}})
    found = scores_of(method, tiny, pixels[:1]).maps[0]
    best = sorted(range(32), key=lambda row: -boxes[row][1])[:3]
    for row in range(32):
        assert np.allclose(found[row], boxes[row][1] / 2 if row in best else 0)


def test_a_box_that_answers_to_the_object_is_dropped_unless_names_are_raw(fake, tiny, pixels):
    phrase = "defect on metal nut"
    box = ([0.0, 0.0, 0.5, 0.5], 0.6, phrase)
    models = fake({phrase: [box], "defect on metal_nut": [box], "scratch": [(box[0], 0.4, "nut")]})
    prompts = {"metal nut": {"captions": ["scratch"], "background": "nut"}}
    assert not scores_of(Saa(prompts=prompts), tiny, pixels[:1]).maps.any()
    models.detector.asked.clear()
    found = scores_of(Saa(prompts=prompts, raw_names=True, strength=0.0), tiny, pixels[:1])
    assert found.image_scores[0] == pytest.approx(0.3)
    assert [asked[0] for asked in models.detector.asked][:2] == [
        "metal_nut,",
        "defect on metal_nut",
    ]


def test_swapped_channels_reach_the_segmenter_and_saliency_alone(fake, tiny, pixels):
    models = fake({"flaw on pill": [([0.0, 0.0, 0.5, 0.5], 0.6, "flaw")]})
    _, kept = keep_pixels(tiny, pixels[:1])
    image = kept.view(3, 32, 32)
    for swapped in (False, True):
        method = Saa(swapped_channels=swapped, saliency_side=32)
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
    method = Saa(saliency_side=32, group_side=64, prompts={"pill": {"objects": 2}})
    found = scores_of(method, tiny, pixels[:1], "pill")
    assert found.image_scores[0] > 0.3
    assert models.network.pixels.shape[-1] == (64 if count == 2 else 32)
    assert len(models.segmenter.images) == 1  # encoded once for objects and defects


def test_defaults_know_two_categories_and_settings_replace_them():
    assert read_prompts(None) is TABLE
    assert set(TABLE) == {"bottle", "zipper"}
    given = read_prompts({"pipe_fryum": {"captions": ["hole"], "masks": 19}})
    assert given == {"pipe fryum": CategoryPrompts(("hole",), masks=19)}
    wording = word_prompts("zipper", TABLE["zipper"], raw=False)
    assert wording.thing == "zipper"
    assert wording.defects[0] == ("defect on zipper", "zipper")
    assert wording.defects[3:] == (("crack. broken leather.", "zipper"),)


# --- refusals


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"box_threshold": 1.0}, "box_threshold and text_threshold must be"),
        ({"text_threshold": -0.1}, "box_threshold and text_threshold must be"),
        ({"saliency_side": 8}, "must be 16 or more"),
        ({"largest": 0}, "largest 1 or more"),
        ({"strength": float("nan")}, "strength nan"),
        ({"sigma": -1.0}, "sigma -1.0 must be 0 or more"),
        ({"prompts": {"pill": {"caption": ["x"]}}}, "prompts of 'pill': .*caption"),
        (
            {"prompts": {"pill": {"captions": "crack."}}},
            "prompts of 'pill': captions must be a list",
        ),
        ({"prompts": {"pill": {"captions": [" ."]}}}, "prompts of 'pill': a caption .* is empty"),
        ({"prompts": {"pill": {"masks": 0}}}, "prompts of 'pill': objects and masks"),
        ({"prompts": {"pill": {"area": 1.5}}}, "prompts of 'pill': .*area above 0"),
        ({"prompts": {"pill": 3}}, "prompts of 'pill'"),
        ({"prompts": ["pill"]}, "prompts must be fields by category"),
    ],
)
def test_settings_that_mean_nothing_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        Saa(**changes)


def test_missing_and_other_models_are_named_with_the_way_out(folders, tmp_path, tiny):
    encode = NameEncoder(tiny, None)
    with pytest.raises(
        SaaModelError, match=r"detector_folder: SAA\+ needs GroundingDINO\. Get all"
    ):
        Saa().build(encode, "pill", {})
    with pytest.raises(
        SaaModelError, match=r"none has no readable config.json .*grounding-dino-tiny"
    ):
        make(folders, detector_folder=str(tmp_path / "none")).build(encode, "pill", {})
    with pytest.raises(
        SaaModelError, match=r"type 'grounding-dino', not SAM.*facebook/sam-vit-huge"
    ):
        make(folders, segmenter_folder=str(folders / "detector")).build(encode, "pill", {})
    with pytest.raises(SaaModelError, match=r"saliency_weights: .*timm/wide_resnet50_2"):
        make(folders, saliency_seed=None).build(encode, "pill", {})
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "sam"}))
    with pytest.raises(SaaModelError, match="can not be read as SAM"):
        make(folders, segmenter_folder=str(tmp_path)).build(encode, "pill", {})


def test_a_model_that_lacks_tensors_is_refused(folders, tmp_path, tiny):
    shutil.copytree(folders / "segmenter", tmp_path / "cut")
    state = load_file(tmp_path / "cut" / "model.safetensors")
    del state["mask_decoder.iou_token.weight"]
    save_file(state, tmp_path / "cut" / "model.safetensors", metadata={"format": "pt"})
    method = make(folders, segmenter_folder=str(tmp_path / "cut"))
    with pytest.raises(SaaModelError, match=r"lack 1 of SAM's tensors .*iou_token"):
        method.build(NameEncoder(tiny, None), "pill", {})


def test_without_transformers_the_extra_is_named(folders, tiny, monkeypatch):
    saa_models.load_models.cache_clear()
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(SaaModelError, match=r"pip install 'fuzzyclip\[saa\]'"):
        make(folders).build(NameEncoder(tiny, None), "pill", {})


def test_features_of_another_kind_and_scores_before_maps_are_refused(fake, tiny):
    fake({})
    scorer = Saa().build(NameEncoder(tiny, None), "pill", {})
    with pytest.raises(ValueError, match="reads images of kind 'pixels'"):
        scorer.compute_map(torch.zeros(1, 3, 16, 64), torch.zeros(1, 32))
    with pytest.raises(ValueError, match="no scores before the maps"):
        scorer.compute_score(torch.zeros(1, 32))


def test_it_reads_pixels_and_trains_nothing():
    method = Saa()
    assert method.kind is PIXELS
    assert (method.name, method.title, method.trains, method.sigma) == ("saa", "SAA+", False, 0.0)
    assert method.fit(None, None, 0) == {}
