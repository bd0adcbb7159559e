"""SAA+'s models: tiny ones of random weights, and how real ones are read and refused."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from fuzzyclip.baselines.saa import Saa
from fuzzyclip.baselines.saa import models as saa_models
from fuzzyclip.baselines.saa import tiny as saa_tiny
from fuzzyclip.baselines.saa.models import CAPTIONS, SaaModelError, load_models, load_network
from fuzzyclip.baselines.saa.tiny import build_tiny_models
from fuzzyclip.clip.name_encoder import NameEncoder
from fuzzyclip.clip.weights import WeightsError
from fuzzyclip.method.interface import Learned, MethodUnavailableError
from fuzzyclip.method.scorer import score_batch
from fuzzyclip.sample.draw import draw_part
from tools.pretrain_sample.recipes import PRETRAINING

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def models():
    return build_tiny_models(0, CPU)


@pytest.fixture(scope="module")
def folders(models, tmp_path_factory):
    """The tiny detector and segmenter as their makers' tools would save them."""
    root = tmp_path_factory.mktemp("saa")
    for name in ("detector", "segmenter"):
        part = getattr(models, name)
        part.model.save_pretrained(root / name)
        part.processor.save_pretrained(root / name)
    return root


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    """A whole WideResNet of random weights, and the file it is in."""
    torch.manual_seed(5)
    whole = timm.create_model("wide_resnet50_2", pretrained=False).eval()
    path = tmp_path_factory.mktemp("resnet") / "model.safetensors"
    save_file(whole.state_dict(), path)
    return whole, path


def make(folders, **changes):
    places = {f"{part}_folder": str(folders / part) for part in ("detector", "segmenter")}
    return Saa(**{"as_": "mended"} | places | changes)


def draw(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


# --- what models answer


def spell(tokenizer, *words):
    """Ids of letters as BERT's tokenizer parts words, between its own tokens."""
    ids = tokenizer.get_vocab()
    pieces = [("##" if row else "") + sign for word in words for row, sign in enumerate(word)]
    return [101, *(ids[piece] for piece in pieces), 1012, 102]


def test_words_are_spelled_by_letters_and_the_end_is_where_the_detector_looks(models):
    tokenizer = models.detector.processor.tokenizer
    assert tokenizer("Metal_nut 1é.")["input_ids"] == spell(tokenizer, "metal", "_", "nut", "1e")
    assert tokenizer("ß.")["input_ids"] == [101, 100, 1012, 102]
    ids = tokenizer.get_vocab().values()
    assert len(set(ids)) == len(ids)
    assert models.detector.model.config.text_config.vocab_size == max(ids) + 1


def test_a_caption_finds_the_models_own_boxes_and_their_words(models):
    detector, image = models.detector, draw(3, 32, 32)
    (boxes,) = detector.find(image, [" Defect on metal nut"], 0.9, 0.5)
    ids = spell(detector.processor.tokenizer, "defect", "on", "metal", "nut")
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
    assert 0 < len(rows) < saa_tiny.QUERIES
    assert list(boxes.phrases) == [row[2] for row in rows]
    assert len(set(boxes.phrases)) > 2
    assert np.allclose(boxes.places, [row[0] for row in rows], atol=1e-4)
    assert np.allclose(boxes.scores, [row[1] for row in rows], atol=1e-4)


def test_captions_of_any_lengths_and_number_find_what_each_finds_alone(models):
    image = draw(3, 32, 32, seed=4)
    captions = ["hole.", "scratch on metal nut. dent", *(f"{sign} bent." for sign in "abcd")]
    together = models.detector.find(image, captions, 0.8, 0.5)
    assert len(together) == len(captions) > CAPTIONS
    for boxes, caption in zip(together, captions, strict=True):
        (alone,) = models.detector.find(image, [caption], 0.8, 0.5)
        assert list(boxes.phrases) == list(alone.phrases)
        assert torch.allclose(boxes.places, alone.places, atol=1e-5)
        assert torch.allclose(boxes.scores, alone.scores, atol=1e-5)
    assert len({tuple(boxes.phrases) for boxes in together}) > 2


def test_a_caption_that_the_detector_would_cut_is_refused(models):
    with pytest.raises(ValueError, match="caption of 303 tokens does not fit 256"):
        models.detector.find(draw(3, 32, 32), ["hole", "defect " * 50], 0.1, 0.1)


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


# --- tiny models


def list_tensors(models):
    parts = (models.detector.model, models.segmenter.model, models.network)
    return [tensor for part in parts for tensor in part.state_dict().values()]


def test_tiny_models_are_those_of_their_seed_and_draw_from_no_one_else():
    states = []
    for before in (1, 2):
        build_tiny_models.cache_clear()
        torch.manual_seed(before)
        state = torch.get_rng_state()
        states.append(list_tensors(build_tiny_models(3, CPU)))
        assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(*pair) for pair in zip(*states, strict=True))
    other = list_tensors(build_tiny_models(4, CPU))
    assert not all(torch.equal(*pair) for pair in zip(states[0], other, strict=True))


def draw_parts(side):
    """Two good and two damaged parts and two images of noise, as the scorer gets them."""
    drawn = [
        draw_part(PRETRAINING["gear"], np.random.default_rng(seed), (side, side), defect)[0]
        for seed, defect in ((0, None), (1, None), (0, "scratch"), (1, "hole"))
    ]
    parts = torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2) / 255
    return torch.cat([parts, draw(2, 3, side, side)])


@pytest.mark.parametrize("side", [32, 144])
@pytest.mark.parametrize("category", ["gear", "bottle"])
def test_tiny_models_tell_images_apart(side, category, load_tiny):
    backbone = load_tiny(image_size=side)
    scorer = Saa(tiny_seed=0).build(NameEncoder(backbone, None), category, Learned())
    assert scorer.prompt == f"random tiny models: {category}"
    tokens = draw_parts(side).reshape(6, 1, 3, -1)
    scores = score_batch(scorer, tokens, torch.zeros(6, backbone.embed_dim), backbone)
    assert len(set(scores.image_scores.round(4).tolist())) == 6
    assert scores.image_scores.min() > 0.3
    assert (scores.maps.std(axis=(1, 2)) > 0.01).all()


# --- models from folders


def test_saliency_weights_are_read_from_a_file(resnet, tmp_path):
    whole, path = resnet
    network = load_network(str(path))
    pixels = draw(1, 3, 32, 32)
    with torch.no_grad():
        stem = whole.maxpool(whole.act1(whole.bn1(whole.conv1(pixels))))
        stages = [whole.layer1(stem)]
        stages += [whole.layer2(stages[0])]
        stages += [whole.layer3(stages[1])]
        maps = network(pixels)
    assert [stage.shape[1] for stage in maps] == [256, 512, 1024]
    assert all(torch.equal(*pair) for pair in zip(maps, stages, strict=True))
    assert not any(parameter.requires_grad for parameter in network.parameters())
    save_file({"conv1.weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(
        SaaModelError, match=r"other\.safetensors are not of timm's wide_resnet50_2"
    ):
        load_network(str(tmp_path / "other.safetensors"))
    with pytest.raises(WeightsError, match=r"none\.pth"):
        load_network(str(tmp_path / "none.pth"))
    (tmp_path / "page.pth").write_text("<!DOCTYPE html>")
    with pytest.raises(WeightsError, match=r"page\.pth: a web page"):
        load_network(str(tmp_path / "page.pth"))


def test_models_from_folders_score_as_those_in_memory(folders, models, resnet, tiny):
    method = make(folders, saliency_weights=str(resnet[1]))
    read = load_models(method.detector_folder, method.segmenter_folder, str(resnet[1]), CPU)
    for name in ("detector", "segmenter"):
        ours, theirs = (getattr(kept, name).model.state_dict() for kept in (models, read))
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    scorer = method.build(NameEncoder(tiny, None), "metal_nut", Learned())
    assert scorer.prompt == "metal nut"
    image = draw(3, 32, 32)
    assert scorer.compute_map(image.view(1, 1, 3, -1), torch.zeros(1, 32)).max() > 0.3
    for caption in ("flaw on metal nut", "defect."):
        (ours,), (theirs,) = (
            kept.detector.find(image, [caption], 0.1, 0.1) for kept in (models, read)
        )
        assert torch.equal(ours.places, theirs.places)
        assert list(ours.phrases) == list(theirs.phrases)


@pytest.mark.parametrize("nothing", [None, ""])
def test_without_any_model_the_method_is_unavailable(nothing, tiny):
    names = ("detector_folder", "segmenter_folder", "saliency_weights")
    method = Saa(**dict.fromkeys(names, nothing))
    with pytest.raises(
        MethodUnavailableError,
        match=r"methods\.saa\.detector_folder, segmenter_folder and .*docs/methods\.md",
    ):
        method.build(NameEncoder(tiny, None), "pill", Learned())


def test_missing_and_other_models_are_named_with_the_way_out(folders, tmp_path, tiny):
    encode = NameEncoder(tiny, None)
    with pytest.raises(
        SaaModelError, match=r"detector_folder: SAA\+ needs GroundingDINO\. Get all"
    ):
        make(folders, detector_folder=None).build(encode, "pill", Learned())
    with pytest.raises(
        SaaModelError, match=r"none has no readable config.json .*grounding-dino-tiny"
    ):
        make(folders, detector_folder=str(tmp_path / "none")).build(encode, "pill", Learned())
    with pytest.raises(
        SaaModelError, match=r"type 'grounding-dino', not SAM.*facebook/sam-vit-huge"
    ):
        make(folders, segmenter_folder=str(folders / "detector")).build(encode, "pill", Learned())
    with pytest.raises(SaaModelError, match=r"saliency_weights: .*timm/wide_resnet50_2"):
        make(folders).build(encode, "pill", Learned())
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "sam"}))
    with pytest.raises(SaaModelError, match="can not be read as SAM"):
        make(folders, segmenter_folder=str(tmp_path)).build(encode, "pill", Learned())


def test_code_beside_a_models_files_is_not_run(folders, tmp_path, tiny, monkeypatch):
    """Of a processor's parts, the tokenizer is the one that Hugging Face looks up by its files."""
    monkeypatch.setattr("builtins.input", lambda *prompt: pytest.fail("nobody is asked"))
    folder = shutil.copytree(folders / "detector", tmp_path / "evil")
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    for file in folder.glob("*config.json"):
        config = json.loads(file.read_text())
        kinds = ("AutoTokenizer", "AutoConfig", "AutoImageProcessor", "AutoProcessor", "AutoModel")
        config["auto_map"] = dict.fromkeys(kinds, "evil.Evil") | {
            "AutoTokenizer": [None, "evil.Evil"]
        }
        config.pop("tokenizer_class", None)
        file.write_text(json.dumps(config))
    method = make(folders, detector_folder=str(folder))
    with pytest.raises(SaaModelError, match=r"saliency_weights|detector_folder"):
        method.build(NameEncoder(tiny, None), "pill", Learned())
    assert not (tmp_path / "ran").exists()


def test_a_model_that_lacks_tensors_is_refused(folders, tmp_path, tiny):
    shutil.copytree(folders / "segmenter", tmp_path / "cut")
    state = load_file(tmp_path / "cut" / "model.safetensors")
    del state["mask_decoder.iou_token.weight"]
    save_file(state, tmp_path / "cut" / "model.safetensors", metadata={"format": "pt"})
    method = make(folders, segmenter_folder=str(tmp_path / "cut"))
    with pytest.raises(SaaModelError, match=r"lack 1 of SAM's tensors .*iou_token"):
        method.build(NameEncoder(tiny, None), "pill", Learned())


def test_a_pointer_in_place_of_a_models_weights_is_named(folders, tmp_path, tiny):
    shutil.copytree(folders / "segmenter", tmp_path / "cloned")
    (tmp_path / "cloned" / "model.safetensors").write_text("version https://git-lfs.github.com/")
    method = make(folders, segmenter_folder=str(tmp_path / "cloned"))
    with pytest.raises(
        SaaModelError, match=r"can not be read as SAM \(a git LFS pointer.*lfs pull"
    ):
        method.build(NameEncoder(tiny, None), "pill", Learned())


@pytest.mark.parametrize("small", [True, False])
def test_without_transformers_the_extra_is_named(small, folders, tiny, monkeypatch):
    saa_models.load_models.cache_clear()
    saa_tiny.build_tiny_models.cache_clear()
    monkeypatch.setitem(sys.modules, "transformers", None)
    method = Saa(tiny_seed=0) if small else make(folders)
    with pytest.raises(SaaModelError, match=r"pip install -e '\.\[saa\]'"):
        method.build(NameEncoder(tiny, None), "pill", Learned())


def test_the_method_is_imported_without_transformers():
    code = "import sys; sys.modules['transformers'] = None; import fuzzyclip.baselines.saa as saa"
    subprocess.run([sys.executable, "-c", code + "; saa.Saa(tiny_seed=0)"], check=True)
