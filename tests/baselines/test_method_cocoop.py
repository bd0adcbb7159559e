"""CoCoOp's shifted words against one image and one sentence at a time."""

from dataclasses import replace

import pytest
import torch
from drawn_embeds import draw_class_images
from references import encode_sides
from torch.nn import functional as F

from fuzzyclip.baselines import cocoop
from fuzzyclip.baselines.cocoop import CoCoOp, ShiftedWords
from fuzzyclip.baselines.shared.context import Sentences
from fuzzyclip.clip.encoding import encode_text
from fuzzyclip.clip.name_encoder import NameEncoder
from fuzzyclip.method.interface import Learned
from fuzzyclip.method.scorer import score_batch

NAMES = ("nut", "pill")
SMALL = CoCoOp(epochs=4, batch_size=2, learning_rate=0.01)


@pytest.fixture(scope="module")
def encode(tiny):
    return NameEncoder(tiny, lambda prompts: encode_text(tiny, prompts))


@pytest.fixture
def tensors(tiny):
    """Words and a network away from where they start."""
    torch.manual_seed(3)
    state = ShiftedWords(torch.randn(4, 32), 32).state_dict()
    return {name: value + 2 * torch.randn_like(value) for name, value in state.items()}


def draw_images(count=16):
    names = [NAMES[number % 2] for number in range(count)]
    return draw_class_images(torch.arange(count) // 2 % 2, names)


def shift(tensors, embed):
    """Words for one unit class feature (D,), the network written out."""
    inner = (tensors["meta.0.weight"] @ embed + tensors["meta.0.bias"]).clamp_min(0)
    moved = tensors["meta.2.weight"] @ inner + tensors["meta.2.bias"]
    return torch.stack([word + moved for word in tensors["words"]])


@pytest.mark.parametrize("chunk", [1, 2, 32])
def test_maps_and_scores_equal_the_slow_way_image_by_image(
    tiny, encode, tensors, monkeypatch, chunk
):
    monkeypatch.setattr(cocoop, "CHUNK", chunk)
    generator = torch.Generator().manual_seed(5)
    tokens = torch.randn(3, 3, 16, 64, generator=generator)
    image_embed = torch.randn(3, 32, generator=generator)
    scorer = SMALL.build(encode, "cashew", Learned(tensors))
    scores = score_batch(scorer, tokens, image_embed, tiny)
    visual, texts = tiny.model.visual, []
    for row in range(3):
        embed = F.normalize(image_embed[row], dim=0)
        text = encode_sides(tiny, shift(tensors, embed), "cashew")
        texts.append(text)
        normal, anomalous = 100 * text @ embed
        assert scores.image_scores[row] == pytest.approx(float(anomalous - normal), abs=4e-4)
        mapped = F.normalize(visual.ln_post(tokens[row, -1]) @ visual.proj, dim=-1)
        planes = (100 * text @ mapped.T).view(1, 2, 4, 4)
        pixels = F.interpolate(planes, size=(32, 32), mode="bilinear", align_corners=True)
        margins = pixels[0, 1] - pixels[0, 0]
        assert torch.allclose(torch.from_numpy(scores.maps[row]), margins, atol=4e-4)
    assert not torch.allclose(texts[0], texts[1], atol=1e-2)  # or nothing depends on the image
    assert scorer.prompt == "cashew"


def test_the_text_tower_runs_once_for_a_batch_in_bounded_chunks(tiny, encode, tensors, monkeypatch):
    sizes, whole = [], Sentences.encode

    def count(self, backbone, places, words):
        sizes.append(len(places))
        return whole(self, backbone, places, words)

    monkeypatch.setattr(Sentences, "encode", count)
    scorer = SMALL.build(encode, "pill", Learned(tensors))
    tokens, image_embed = torch.randn(70, 3, 16, 64), torch.randn(70, 32)
    first = score_batch(scorer, tokens, image_embed, tiny)
    assert sizes == [32, 32, 6]
    second = score_batch(scorer, tokens, image_embed.flip(0), tiny)  # another batch is not mistaken
    assert sizes == [32, 32, 6] * 2
    assert second.image_scores[::-1] == pytest.approx(first.image_scores, abs=1e-5)


def test_training_tells_the_images_apart(tiny, encode):
    learned = SMALL.fit(encode, draw_images(), seed=1)
    tensors, curve = learned.tensors, learned.curve
    assert tensors["words"].shape == (4, 32)
    assert tensors["meta.0.weight"].shape == (2, 32)  # a sixteenth of the embedding
    assert len(curve) == 4 * 8
    first, last = (sum(row["loss"] for row in rows) for rows in (curve[:8], curve[-8:]))
    assert last < 0.8 * first
    torch.manual_seed(1)
    start = ShiftedWords(SMALL.start_words(tiny), 32).state_dict()
    assert all(not torch.equal(value, start[name]) for name, value in tensors.items())


def test_the_first_loss_is_cross_entropy_of_each_images_own_two_prompts(tiny, encode):
    images = draw_images()
    curve = replace(SMALL, epochs=1, batch_size=16).fit(encode, images, seed=4).curve
    torch.manual_seed(4)
    start, losses = ShiftedWords(SMALL.start_words(tiny), 32).state_dict(), []
    for embed, label, name in zip(images.image_embed, images.labels, images.names, strict=True):
        unit = F.normalize(embed, dim=0)
        logits = 100 * encode_sides(tiny, shift(start, unit), name) @ unit
        losses.append(-logits.log_softmax(dim=0)[label])
    assert [row["loss"] for row in curve] == pytest.approx(
        [float(torch.stack(losses).mean())], rel=1e-4
    )


def test_a_network_that_lacks_parts_or_is_of_another_model_is_refused(encode, tensors):
    wrong = tensors | {"meta.0.weight": torch.zeros(2, 16)}
    for state in ({}, {"words": tensors["words"]}, wrong):
        with pytest.raises(ValueError, match="train it anew"):
            SMALL.build(encode, "pill", Learned(state))
