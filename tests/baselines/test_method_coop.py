"""CoOp's prompts, descent and maps against the formulas written out, one sentence at a time."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from drawn_embeds import draw_class_images
from references import encode_sides, encode_words
from torch.nn import functional as F

from fuzzyclip.baselines.coop import CoOp
from fuzzyclip.baselines.shared import context
from fuzzyclip.baselines.shared.context import build_scorer, embed_sentences
from fuzzyclip.clip.encoding import encode_text
from fuzzyclip.clip.name_encoder import NameEncoder
from fuzzyclip.clip.prompts import PromptTooLongError
from fuzzyclip.method.interface import Learned
from fuzzyclip.method.scorer import score_batch
from fuzzyclip.utils.settings import TextSettings

NAMES = ("metal_nut", "pill", "pipe_fryum")
SMALL = CoOp(words=3, epochs=6, batch_size=8, learning_rate=0.02)


@pytest.fixture(scope="module")
def encode(tiny):
    return NameEncoder(tiny, lambda prompts: encode_text(tiny, prompts))


def draw_images(count=24, seed=0):
    names = [NAMES[number % 3] for number in range(count)]
    return draw_class_images(torch.arange(count) % 2, names, seed)


@pytest.mark.parametrize("plainly", [False, True])
def test_prompts_equal_the_slow_forward(tiny, encode, plainly):
    torch.manual_seed(1)
    words = torch.randn(5, 32)
    sentences = embed_sentences(encode, NAMES, 5)
    if plainly:
        sentences = replace(sentences, start=None)
    text_embed = sentences.encode(tiny, torch.tensor([2, 0, 0, 1]), words)
    assert text_embed.shape == (4, 2, 32)
    for row, name in enumerate((NAMES[2], NAMES[0], NAMES[0], NAMES[1])):
        for side, state in enumerate(("good", "damaged")):
            slow = encode_words(tiny, words, f"{state} {name}.")
            assert torch.allclose(text_embed[row, side], slow, atol=1e-5)


def test_each_row_may_have_words_of_its_own(tiny, encode):
    words = torch.randn(2, 4, 32, generator=torch.Generator().manual_seed(2))
    places = torch.tensor([1, 1])
    sentences = embed_sentences(encode, NAMES, 4)
    text_embed = sentences.encode(tiny, places, words)
    for row in range(2):
        alone = sentences.encode(tiny, places[:1], words[row])[0]
        assert torch.allclose(text_embed[row], alone, atol=1e-6)
    assert not torch.allclose(text_embed[0], text_embed[1], atol=1e-2)


def test_given_words_start_as_the_sentence_itself(tiny, encode):
    words = replace(SMALL, init="a photo of a").start_words(tiny)
    assert len(words) == 4
    text_embed = embed_sentences(encode, ["pill"], 4).encode(tiny, torch.tensor([0]), words)[0]
    prompts = ["a photo of a good pill.", "a photo of a damaged pill."]
    assert torch.allclose(text_embed, F.normalize(encode_text(tiny, prompts), dim=-1), atol=1e-5)


def test_random_words_follow_the_global_seed(tiny):
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(CoOp().start_words(tiny))
    assert draws[0].shape == (16, 32)
    assert draws[0].std() == pytest.approx(0.02, rel=0.15)
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_names_are_written_as_the_run_writes_them(tiny, encode):
    words, place = torch.zeros(2, 32), torch.tensor([0])
    spaced = replace(encode, text=TextSettings(underscore="space"))
    written, expected, kept = (
        embed_sentences(names, [name], 2).encode(tiny, place, words)
        for names, name in ((spaced, "metal_nut"), (encode, "metal nut"), (encode, "metal_nut"))
    )
    assert torch.equal(written, expected)
    assert not torch.allclose(written, kept, atol=1e-3)


@pytest.mark.parametrize("epochs", [1, 2, 7])
def test_the_rate_is_a_warm_up_and_then_torchs_cosine(epochs):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    method = CoOp(epochs=epochs, learning_rate=0.3)
    assert method.compute_rate(1) == 1e-5
    for epoch in range(2, epochs + 1):
        assert method.compute_rate(epoch) == pytest.approx(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()


def test_descent_is_momentum_with_decay(tiny, encode, monkeypatch):
    method = CoOp(words=1, epochs=3, batch_size=2, learning_rate=0.1)
    monkeypatch.setattr(
        context, "make_loss", lambda learned, *_: lambda rows: learned.words.square().sum()
    )
    learned = method.fit(encode, draw_images(2), seed=7)
    torch.manual_seed(7)
    start = method.start_words(tiny)
    value, speed, losses = start, None, []
    for rate in (1e-5, 0.1, 0.1 * (1 + math.cos(math.pi / 3)) / 2):
        losses.append(float(value.square().sum()))
        gradient = 2 * value + 5e-4 * value
        speed = gradient if speed is None else 0.9 * speed + gradient
        value = value - rate * speed
    assert torch.allclose(learned.tensors["words"], value, rtol=1e-5)
    assert [row["loss"] for row in learned.curve] == pytest.approx(losses, rel=1e-5)


def test_training_tells_the_images_apart(encode):
    learned = SMALL.fit(encode, draw_images(), seed=1)
    curve = learned.curve
    assert {name: value.shape for name, value in learned.tensors.items()} == {"words": (3, 32)}
    assert len(curve) == 6 * 3
    first, last = (sum(row["loss"] for row in rows) for rows in (curve[:3], curve[-3:]))
    assert last < 0.8 * first


def test_the_first_loss_is_cross_entropy_of_each_images_own_two_prompts(tiny, encode):
    images = draw_images()
    curve = replace(SMALL, epochs=1, batch_size=24).fit(encode, images, seed=4).curve
    torch.manual_seed(4)
    words, losses = SMALL.start_words(tiny), []
    for embed, label, name in zip(images.image_embed, images.labels, images.names, strict=True):
        logits = 100 * encode_sides(tiny, words, name) @ F.normalize(embed, dim=0)
        losses.append(-logits.log_softmax(dim=0)[label])
    assert [row["loss"] for row in curve] == pytest.approx(
        [float(torch.stack(losses).mean())], rel=1e-4
    )


def test_maps_and_scores_equal_their_formulas_for_an_unseen_category(tiny, encode):
    generator = torch.Generator().manual_seed(5)
    words = torch.randn(3, 32, generator=generator)
    tokens = torch.randn(2, 3, 16, 64, generator=generator)
    image_embed = torch.randn(2, 32, generator=generator)
    scorer = SMALL.build(encode, "cashew", Learned({"words": words}))
    scores = score_batch(scorer, tokens, image_embed, tiny)
    text = encode_sides(tiny, words, "cashew")
    logits = 100 * F.normalize(image_embed, dim=1) @ text.T
    gaps = logits[:, 1] - logits[:, 0]
    assert torch.allclose(torch.from_numpy(scores.image_scores), gaps, atol=4e-4)
    visual = tiny.model.visual
    mapped = F.normalize(visual.ln_post(tokens[:, -1]) @ visual.proj, dim=-1)
    planes = (100 * mapped @ text.T).transpose(1, 2).unflatten(2, (4, 4))
    pixels = F.interpolate(planes, size=(32, 32), mode="bilinear", align_corners=True)
    assert scores.maps.shape == (2, 32, 32)
    margins = pixels[:, 1] - pixels[:, 0]
    assert torch.allclose(torch.from_numpy(scores.maps), margins, atol=4e-4)
    assert scorer.prompt == "cashew"
    assert scores.weights is None


def test_text_of_each_image_may_differ(tiny):
    generator = torch.Generator().manual_seed(6)
    texts = F.normalize(torch.randn(2, 2, 32, generator=generator), dim=-1)
    tokens = torch.randn(2, 3, 16, 64, generator=generator)
    embeds = F.normalize(torch.randn(2, 32, generator=generator), dim=-1)
    both = build_scorer(tiny, "x", lambda _: texts)
    for row in range(2):
        alone = build_scorer(tiny, "x", lambda _, row=row: texts[row : row + 1])
        own_map = alone.compute_map(tokens[row : row + 1], embeds[row : row + 1])[0]
        maps = both.compute_map(tokens, embeds)
        assert torch.allclose(maps[row], own_map, atol=1e-5)
        own_score = alone.compute_score(embeds[row : row + 1], own_map[None])[0]
        assert torch.allclose(both.compute_score(embeds, maps)[row], own_score, atol=1e-5)


@pytest.mark.parametrize("tensors", [{}, {"words": torch.zeros(3, 16)}, {"words": torch.zeros(32)}])
def test_words_of_another_text_tower_are_refused(encode, tensors):
    with pytest.raises(ValueError, match=r"needs \(E, 32\); train it anew"):
        SMALL.build(encode, "pill", Learned(tensors))


def test_more_words_than_fit_a_prompt_are_refused(encode):
    with pytest.raises(PromptTooLongError):
        replace(SMALL, words=80).fit(encode, draw_images(), 0)


def test_one_name_is_encoded_once_in_a_batch(tiny, encode, monkeypatch):
    """Else a batch of 32 images would cost as many prompts as a name has images."""
    seen, whole = [], embed_sentences(encode, NAMES, 3)
    monkeypatch.setattr("fuzzyclip.baselines.shared.context.embed_sentences", lambda *_: spy)

    def count(backbone, places, words):
        seen.append(len(places))
        return whole.encode(backbone, places, words)

    spy = SimpleNamespace(encode=count)
    replace(SMALL, epochs=1, batch_size=24).fit(encode, draw_images(), 0)
    assert seen == [3]
