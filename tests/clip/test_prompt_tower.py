"""The way that leaves work out against the plain one: features, gradients, and the work itself."""

import itertools
import json

import pytest
import torch
from schemas import list_choices
from tiny_models import TINY

from fuzzyclip.clip.prompt_tower import can_skip
from fuzzyclip.method.rpl import PromptLearner
from fuzzyclip.utils.settings import PromptShape

STACK = "candle capsules cashew pcb1 pcb2 pipe_fryum"
ATTACHMENTS = list_choices(PromptShape, "attachment")
BLOCKS = TINY["text_cfg"]["layers"]
#: Depth and deep tokens: none at all, some, all blocks, more blocks than there are.
SIZES = ((1, 20), (9, 0), (2, 3), (9, 20), (BLOCKS, 4), (40, 20))


def build(backbone, stack=STACK, **settings):
    """A learner away from its start, where all words would be the template's own."""
    learner = PromptLearner(backbone, stack, PromptShape(**settings), seed=3)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return learner


def measure(learner, forward, backbone):
    """Features, and the gradients of a function that treats no two numbers of them alike."""
    learner.zero_grad()
    embed = forward(backbone)
    weights = torch.randn(embed.shape, generator=torch.Generator().manual_seed(1))
    (embed * weights).sum().backward()
    gradients = (parameter.grad for parameter in learner.parameters() if parameter.numel())
    return [embed.detach(), *gradients]


def assert_same(learner, backbone):
    plain = measure(learner, learner.forward_plainly, backbone)
    quick = measure(learner, learner, backbone)
    for tensor, expected in zip(quick, plain, strict=True):
        if expected is None:  # deep tokens of no length
            assert tensor is None
            continue
        assert tensor.shape == expected.shape
        assert (tensor - expected).norm() <= 3e-6 * expected.norm()


@pytest.mark.parametrize("layout", list_choices(PromptShape, "layout"))
@pytest.mark.parametrize("attachment", ATTACHMENTS)
@pytest.mark.parametrize("per_side", [False, True])
@pytest.mark.parametrize(("depth", "tokens"), SIZES)
def test_every_shape_gives_the_plain_features_and_gradients(
    tiny, layout, attachment, per_side, depth, tokens
):
    for words in (1, 12):
        learner = build(
            tiny,
            layout=layout,
            attachment=attachment,
            deep_per_side=per_side,
            depth=depth,
            deep_tokens=tokens,
            words=words,
        )
        assert learner.start is not None
        assert_same(learner, tiny)


@pytest.mark.parametrize(
    "changes",
    [
        {"layers": 1},
        {"layers": 2},
        {"ls_init_value": 0.3},
        {"no_causal_mask": True},  # from here on only the plain way is possible
        {"qk_norm": True},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_other_towers(changes, load_tiny, tmp_path):
    path = tmp_path / "model.json"
    config = {"text_cfg": TINY["text_cfg"] | changes, "custom_text": True}
    path.write_text(json.dumps(TINY | config))
    backbone = load_tiny(path)
    possible = not changes.keys() & {"no_causal_mask", "qk_norm"}
    assert can_skip(backbone) == possible
    for attachment, stack in itertools.product(ATTACHMENTS, (STACK, "object")):
        learner = build(backbone, stack, attachment=attachment)
        assert (learner.start is not None) == possible
        assert_same(learner, backbone)


def test_what_no_token_can_change_is_not_computed_again(tiny):
    """Positions that reach each block's MLP, the largest part of the work."""
    seen = []
    blocks = tiny.model.transformer.resblocks
    hooks = [
        block.mlp.register_forward_hook(lambda _, args, out: seen.append(out.shape[:2]))
        for block in blocks
    ]
    try:
        learner = build(tiny, words=4, deep_tokens=5, depth=3)
        assert seen == [(1, 1)] * BLOCKS  # the start token, once
        length = learner.sentence.shape[1]
        after = [(2, length - 6)] * 2 + [(2, length - 1)] * (BLOCKS - 3) + [(2, 1)]
        for _ in range(2):
            seen.clear()
            learner(tiny)
            assert seen == after
    finally:
        for hook in hooks:
            hook.remove()


def test_the_start_is_no_part_of_what_is_saved(tiny):
    assert set(build(tiny).state_dict()) == {"ctx.0", "ctx.1", "deep"}
