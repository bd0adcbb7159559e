"""RPL's prompts against a forward pass written out, one sentence at a time."""

import math
from functools import partial

import open_clip
import pytest
import torch
from schemas import list_choices
from torch.nn import functional as F

from fuzzyclip.clip.encoding import encode_text, tokenize
from fuzzyclip.clip.prompts import PromptTooLongError
from fuzzyclip.method import training
from fuzzyclip.method.rpl import (
    TEMPLATES,
    PromptLearner,
    compute_classification,
    compute_image_score,
    compute_text_regularisation,
    fit_prompts,
    measure_lengths,
)
from fuzzyclip.utils.settings import PromptShape, RplSettings

STACK = "candle capsules cashew chewinggum fryum macaroni1 macaroni2 pcb1 pcb2 pcb3 pcb4 pipe_fryum"
TOKENIZER = open_clip.SimpleTokenizer()
WIDTH = 32
SETTINGS = RplSettings(depth=3, epochs=4, batch_size=8, learning_rate=0.01)


def write(shape, side, stack=STACK):
    """The sentence of one side: 0 normal, 1 anomalous."""
    if shape.layout == "prepend":
        return " ".join(["x"] * shape.words) + (" {}." if side == 0 else " damaged {}.").format(
            stack
        )
    return TEMPLATES[shape.template][side].format(stack)


def slow_forward(backbone, learner, shape, side, stack=STACK):
    """One prompt through open_clip's blocks, padded to the whole context as open_clip does."""
    clip = backbone.model
    ids = TOKENIZER([write(shape, side, stack)])
    end = int(ids.argmax())
    x = clip.token_embedding(ids)[0].clone()
    ctx = learner.ctx[side]
    for word in range(len(ctx)):
        x[1 + word] = ctx[word]
    x = x + clip.positional_embedding
    deep = learner.deep[:, side if shape.deep_per_side else 0]
    count = deep.shape[1]
    for number, block in enumerate(clip.transformer.resblocks):
        if 1 <= number <= len(deep):
            insert = shape.attachment == "insert" and number == 1
            rest = x[1:] if insert else x[1 + count :]
            x = torch.cat((x[:1], deep[number - 1], rest))
            end += count if insert else 0
        mask = torch.full((len(x), len(x)), -math.inf).triu(1)
        x = block(x[None], attn_mask=mask)[0]
    return clip.ln_final(x)[end] @ clip.text_projection


@pytest.mark.parametrize("layout", list_choices(PromptShape, "layout"))
@pytest.mark.parametrize("attachment", list_choices(PromptShape, "attachment"))
@pytest.mark.parametrize("per_side", [False, True])
def test_every_layout_equals_the_slow_forward(tiny, layout, attachment, per_side):
    shape = PromptShape(layout=layout, attachment=attachment, deep_per_side=per_side)
    learner = PromptLearner(tiny, STACK, shape, seed=3)
    with torch.no_grad():  # away from the start, where words are the template's own
        for tokens in learner.parameters():
            tokens += 0.1 * torch.randn(tokens.shape, generator=torch.Generator().manual_seed(0))
        text_embed = learner(tiny)
        slow = [slow_forward(tiny, learner, shape, side) for side in range(2)]
    assert text_embed.shape == (2, WIDTH)
    assert torch.allclose(text_embed, torch.stack(slow), atol=1e-4)


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("layout", ["inplace", "template_ctx"])
def test_words_start_as_the_templates_own(tiny, template, layout):
    words = 6 if layout == "inplace" else 12
    shape = PromptShape(template=template, layout=layout, words=words, depth=1)
    learner = PromptLearner(tiny, STACK, shape)
    for side in range(2):
        ids = TOKENIZER([write(shape, side)])[0]
        before = len(TOKENIZER.encode(TEMPLATES[template][side].split("{}")[0]))
        count = 6 if layout == "inplace" else before
        own = tiny.model.token_embedding(ids)[1 : 1 + count]
        assert torch.equal(learner.ctx[side].detach(), own)
    # nothing is replaced yet, so the prompts are still the sentences
    expected = encode_text(tiny, [write(shape, side) for side in range(2)])
    assert torch.allclose(learner(tiny).detach(), expected, atol=1e-5)


def test_prepended_words_start_at_random_under_the_seed(tiny):
    shape = PromptShape(layout="prepend")
    first, same, other = (PromptLearner(tiny, STACK, shape, seed) for seed in (1, 1, 2))
    drawn = torch.cat([word.detach().flatten() for word in first.ctx])
    assert drawn.std() == pytest.approx(0.02, rel=0.15)
    assert torch.equal(first.ctx[0], same.ctx[0])
    assert torch.equal(first.deep, same.deep)
    assert not torch.equal(first.ctx[0], first.ctx[1])
    assert not torch.equal(first.ctx[0], other.ctx[0])


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ({}, 2 * 12 + 8 * 20),
        ({"deep_per_side": True}, 2 * 12 + 2 * 8 * 20),
        ({"words": 4, "deep_tokens": 5, "depth": 3}, 2 * 4 + 2 * 5),
        ({"depth": 1}, 2 * 12),
        ({"deep_tokens": 0}, 2 * 12),
        ({"layout": "prepend"}, 2 * 12 + 8 * 20),
        ({"layout": "template_ctx"}, (5 + 4) + 8 * 20),
        ({"attachment": "insert"}, 2 * 12 + 8 * 20),
        ({"depth": 40}, 2 * 12 + 11 * 20),  # the tower has 12 blocks
    ],
)
def test_the_number_of_trainable_tokens(tiny, changes, count):
    learner = PromptLearner(tiny, STACK, PromptShape(**changes))
    assert sum(tokens.numel() for tokens in learner.parameters()) == count * WIDTH
    assert learner(tiny).shape == (2, WIDTH)


def watch_blocks(backbone, learner):
    """Input and output of every text block during one forward pass."""
    inputs, outputs, hooks = [], [], []
    for block in backbone.model.transformer.resblocks:
        hooks.append(block.register_forward_pre_hook(lambda _, given: inputs.append(given[0])))
        hooks.append(block.register_forward_hook(lambda *call: outputs.append(call[2])))
    with torch.no_grad():
        learner.forward_plainly(backbone)  # the other way takes blocks apart
    for hook in hooks:
        hook.remove()
    return inputs, outputs


@pytest.mark.parametrize("stack", [STACK, "object"])
def test_overwriting_leaves_the_end_token_intact(tiny, stack):
    shape = PromptShape(words=3)
    learner = PromptLearner(tiny, stack, shape)
    ends = [len(TOKENIZER.encode(write(shape, side, stack))) + 1 for side in range(2)]
    expected = 20 if stack == STACK else min(ends) - 1  # "object" leaves no room for 20
    assert learner.deep_tokens == learner.deep.shape[2] == expected
    inputs, outputs = watch_blocks(tiny, learner)
    for block in range(1, 12):
        given, came = inputs[block], outputs[block - 1]
        assert given.shape == came.shape
        kept = given == came
        deep = block <= 8
        assert kept[:, 0].all()
        assert kept[:, 1 + expected :].all()
        assert kept[:, 1 : 1 + expected].all() != deep
        if deep:
            assert torch.equal(given[0, 1 : 1 + expected], learner.deep[block - 1, 0])
        for side, end in enumerate(ends):
            assert torch.equal(given[side, end], came[side, end])


def test_inserting_lengthens_once_and_moves_the_sentence(tiny):
    learner = PromptLearner(tiny, "object", PromptShape(words=3, attachment="insert"))
    inputs, outputs = watch_blocks(tiny, learner)
    length = inputs[0].shape[1]
    assert [given.shape[1] for given in inputs] == [length] + [length + 20] * 11
    assert torch.equal(inputs[1][:, 21:], outputs[0][:, 1:])
    assert torch.equal(inputs[5][:, 21:], outputs[4][:, 21:])
    for side in range(2):
        assert torch.equal(inputs[5][side, 1:21], learner.deep[4, 0])


def test_bad_shapes_are_refused(tiny):
    for changes in ({"template": "c6"}, {"layout": "suffix"}, {"attachment": "add"}):
        with pytest.raises(ValueError, match=rf"{next(iter(changes))}\n  Input should be '"):
            PromptShape(**changes)
    for changes in ({"words": 0}, {"deep_tokens": -1}, {"depth": 0}):
        with pytest.raises(ValueError, match=rf"{next(iter(changes))}\n  Input should be greater"):
            PromptShape(**changes)
    with pytest.raises(PromptTooLongError):
        PromptLearner(tiny, " ".join([STACK] * 4), PromptShape())


def test_a_short_stack_leaves_fewer_learnable_words(tiny):
    learner = PromptLearner(tiny, "object", PromptShape(words=12))
    ends = tokenize(tiny, [sentence.format("object") for sentence in TEMPLATES["c4"]]).argmax(1)
    assert [len(words) for words in learner.ctx] == [int(ends.min()) - 1] * 2
    assert learner(tiny).shape == (2, tiny.embed_dim)


@pytest.mark.parametrize(
    ("changes", "deep_tokens"),
    # "object" stands in 8 tokens between start and end: There is a damaged object in the photo
    [({}, 8), ({"deep_tokens": 5}, 5), ({"attachment": "insert"}, 20)],
)
def test_lengths_are_told_as_they_were_trained(run, changes, deep_tokens):
    tensors, _ = run(stack="object", epochs=1, **changes)
    assert measure_lengths(tensors) == {"words": [8, 8], "deep_tokens": deep_tokens, "depth": 3}
    assert tensors["deep"].shape == (2, 1, deep_tokens, WIDTH)


@pytest.fixture
def run(encode):
    """`fit_prompts` on drawn features; keyword arguments change the settings."""
    return partial(train_on_two_groups, encode)


def train_on_two_groups(encode, checkpoint=None, **changes):
    """Train on class features of two groups that a direction tells apart."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(32) % 2
    direction = torch.randn(WIDTH, generator=generator)
    noise = torch.randn(32, WIDTH, generator=generator)
    images = noise + (2 * labels[:, None] - 1) * direction
    settings = SETTINGS.model_copy(update=changes)
    names = STACK.split()
    return fit_prompts(encode, images, labels, names, settings, 1, checkpoint=checkpoint)


def test_training_tells_the_images_apart_and_spares_the_backbone(tiny, run):
    before = {name: value.clone() for name, value in tiny.model.state_dict().items()}
    tensors, curve = run(text_weight=0.0)
    assert curve[-1]["cls"] < 0.6 * curve[0]["cls"]
    assert torch.allclose(tensors["text_embed"].norm(dim=1), torch.ones(2), atol=1e-6)
    assert not tensors["text_embed"].requires_grad
    start = PromptLearner(tiny, STACK, SETTINGS, seed=1).state_dict()
    assert tensors.keys() == {*start, "text_embed"}
    assert all((tensors[name] != start[name]).any() for name in start)
    assert all(parameter.grad is None for parameter in tiny.model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in tiny.model.state_dict().items())


def test_regularisation_pulls_harder_as_its_weight_grows(encode, run):
    distances, target = [], encode(STACK.split()).T
    for weight in (0.0, 32.0, 32_000.0):
        tensors, curve = run(text_weight=weight)
        learned = tensors["text_embed"]
        distances.append(float((learned - target).pow(2).mean()))
        last = curve[-1]
        assert last["loss"] == pytest.approx(last["cls"] + weight * last["text"], rel=1e-5)
    assert distances[0] > distances[1] > distances[2]


def test_a_killed_training_ends_with_the_same_bits(run, tmp_path, monkeypatch):
    expected, curve = run()
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", -1.0)
    whole, checkpoint = training.plan_batches, tmp_path / "rpl.pt"
    monkeypatch.setattr(training, "plan_batches", lambda *plan, **how: whole(*plan, **how)[:2])
    run(checkpoint=checkpoint)  # half of the epochs, then gone
    monkeypatch.setattr(training, "plan_batches", whole)
    learned, same = run(checkpoint=checkpoint)
    assert same == curve
    assert all(torch.equal(learned[name], tensor) for name, tensor in expected.items())


def test_the_image_score_is_the_log_odds_of_the_anomalous_share_of_a_softmax():
    image_embed, text_embed = torch.eye(2, 3), F.normalize(torch.rand(2, 3), dim=1)
    scores = compute_image_score(image_embed, text_embed, 10.0)
    share = (10 * image_embed.double() @ text_embed.double().T).softmax(dim=1)[:, 1]
    assert torch.allclose(scores.double().sigmoid(), share, atol=1e-6)
    assert torch.allclose(scores.double(), share.logit(), atol=1e-5)


def test_each_image_may_have_text_of_its_own():
    image_embed = F.normalize(torch.rand(4, 3), dim=1)
    texts = F.normalize(torch.rand(4, 2, 3), dim=2)
    scores = compute_image_score(image_embed, texts, 10.0)
    for row in range(4):
        alone = compute_image_score(image_embed[row : row + 1], texts[row], 10.0)
        assert scores[row] == pytest.approx(float(alone), abs=1e-6)


def test_classification_is_cross_entropy_of_scaled_cosines():
    image_embed = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    text_embed = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    label = torch.tensor([0, 1])
    first = math.log(1 + math.exp(10 * (0.0 - 1.0)))
    second = math.log(1 + math.exp(10 * (0.6 - 0.8)))
    loss = compute_classification(image_embed, text_embed, label, temperature=10.0)
    assert float(loss) == pytest.approx((first + second) / 2, rel=1e-5)


def test_text_regularisation_is_the_mean_over_both_sides_and_all_widths():
    learned, stacked = torch.eye(2, 8), torch.zeros(2, 8)
    stacked[:, 4] = 1
    assert float(compute_text_regularisation(learned, stacked)) == pytest.approx(4 / 16)
    # opposite unit vectors are the worst case: 4 / D
    assert float(compute_text_regularisation(learned, -learned)) == pytest.approx(4 / 8)
