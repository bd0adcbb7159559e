"""V-V streams against attention written out, block by block, in double precision."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from fuzzyclip.baselines.shared import vv
from fuzzyclip.baselines.shared.vv import Stream
from fuzzyclip.clip.encoding import encode_images, project_tokens


def attend_slowly(attn, x, source):
    """softmax(a b^T / sqrt(width)) v by head; `source` "qk" or "vv" says what a and b are."""
    chunks = (x @ attn.in_proj_weight.T + attn.in_proj_bias).chunk(3, -1)
    parts = dict(zip("qkv", chunks, strict=True))
    width = x.shape[-1] // attn.num_heads
    mixed = []
    for head in range(attn.num_heads):
        a, b, v = (parts[name][..., head * width : (head + 1) * width] for name in (*source, "v"))
        table = torch.softmax(a @ b.transpose(1, 2) / width**0.5, dim=-1)  # (B, N, N)
        mixed.append(table @ v)
    return torch.cat(mixed, -1) @ attn.out_proj.weight.T + attn.out_proj.bias


def walk_slowly(backbone, pixels):
    """Each block's (before, V-V increment, after attention, after the block)."""
    visual = copy.deepcopy(backbone.model.visual).double()
    patches = visual.conv1(pixels.double()).flatten(2).transpose(1, 2)
    first = visual.class_embedding.expand(len(patches), 1, -1)
    x = visual.ln_pre(torch.cat((first, patches), dim=1) + visual.positional_embedding)
    steps = []
    for block in visual.transformer.resblocks:
        normed = block.ln_1(x)
        middle = x + attend_slowly(block.attn, normed, "qk")
        after = middle + block.mlp(block.ln_2(middle))
        steps.append((x, attend_slowly(block.attn, normed, "vv"), middle, after))
        x = after
    return [[part.float() for part in step] for step in steps]


@pytest.fixture(scope="module")
def lively(load_tiny):
    """A tiny CLIP whose norms and biases, which start as ones and zeros, are drawn as well."""
    backbone = load_tiny(seed=3)
    generator = torch.Generator().manual_seed(4)
    for parameter in backbone.model.visual.parameters():
        parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return backbone


@pytest.fixture(scope="module")
def drawn():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def steps(lively, drawn):
    return walk_slowly(lively, drawn)


def close(values, expected):
    torch.testing.assert_close(values, expected, atol=2e-5, rtol=2e-5)


def test_the_original_path_is_the_towers_own(lively, drawn, steps):
    paths = vv.run_paths(lively, drawn, [Stream(start=1, taps=(1, 2, 4))])
    image_embed, tokens = encode_images(lively, drawn)
    close(project_tokens(lively, paths.last), image_embed)
    for number, block in enumerate((1, 2, 4)):
        close(paths.originals[number][:, 1:], tokens[:, number])
        close(paths.originals[number], steps[block - 1][3])


def test_a_stream_is_the_path_before_its_start_and_the_increments_since(lively, drawn, steps):
    paths = vv.run_paths(lively, drawn, [Stream(start=2, taps=(2, 3, 4))])
    state = steps[1][0]
    for number, block in enumerate((2, 3, 4)):
        state = state + steps[block - 1][1]
        close(paths.streams[number][:, 1:], state[:, 1:])
        close(paths.streams[number][:, 0], steps[block - 1][3][:, 0])  # the original's class token


def test_a_restart_forgets_what_the_stream_was(lively, drawn, steps):
    stream = Stream(start=1, taps=(2, 4), restarts=(1, 3))
    paths = vv.run_paths(lively, drawn, [stream])
    close(paths.streams[0][:, 1:], (steps[0][1] + steps[1][1])[:, 1:])
    close(paths.streams[1][:, 1:], (steps[2][1] + steps[3][1])[:, 1:])


def test_late_taps_have_the_next_blocks_attention_but_after_the_last(lively, drawn, steps):
    stream = Stream(start=1, taps=(1, 2, 4), restarts=(1,))
    right, late = (vv.run_paths(lively, drawn, [stream], late) for late in (False, True))
    for number, expected in enumerate((steps[1][2], steps[2][2], steps[3][3])):
        close(late.originals[number], expected)
        close(late.streams[number][:, 0], expected[:, 0])
        assert torch.equal(late.streams[number][:, 1:], right.streams[number][:, 1:])


def test_streams_of_one_pass_are_those_of_passes_of_their_own(lively, drawn):
    streams = [Stream(3, (4,)), Stream(1, (1, 2, 3)), Stream(1, (3,), restarts=(2,))]
    together = vv.run_paths(lively, drawn, streams)
    alone = [vv.run_paths(lively, drawn, [stream]) for stream in streams]
    for kind in ("streams", "originals"):
        expected = [tokens for paths in alone for tokens in getattr(paths, kind)]
        tokens = getattr(together, kind)
        assert all(torch.equal(*pair) for pair in zip(tokens, expected, strict=True))


def test_the_kind_vv_has_projected_patches_of_both_methods(lively, drawn, steps):
    kind = vv.make_vv_kind((6, 12, 24))
    image_embed, tokens = kind.encode(lively, drawn)
    assert tokens.shape == (2, 4, 16, 32)
    assert tokens.dtype == image_embed.dtype == torch.float32
    visual = lively.model.visual
    plain = steps[-1][3][:, 0] @ visual.proj  # without ln_post
    close(image_embed, torch.cat((encode_images(lively, drawn)[0], plain), dim=1))
    close(vv.read_class(image_embed), F.normalize(encode_images(lively, drawn)[0], dim=1))
    close(vv.read_class(F.normalize(image_embed, dim=1), plain=True), F.normalize(plain, dim=1))

    def project(state):
        return F.layer_norm(state, (64,), visual.ln_post.weight, visual.ln_post.bias) @ visual.proj

    surgery = steps[2][0] + steps[2][1] + steps[3][1]  # the last two blocks of four
    close(tokens[:, vv.SURGERY_LEVEL], project(surgery)[:, 1:])
    state = steps[0][0]
    expected = []
    for number, step in enumerate(steps):
        state = state + step[1]  # 19 of 24 are all four blocks
        if number in (0, 1, 3):  # 6, 12 and 24 of 24
            expected.append(project(state)[:, 1:])
    close(tokens[:, vv.DPAM_LEVELS], torch.stack(expected, dim=1))


def test_kinds_of_the_same_settings_are_shared_and_others_have_other_names():
    assert vv.make_vv_kind() == vv.make_vv_kind((24,))
    assert vv.make_vv_kind() != vv.make_vv_kind((6,))
    assert [vv.make_vv_kind(taps).name for taps in ((24,), (6, 24))] == ["vv", "vv-6-24"]


@pytest.mark.parametrize(
    ("depth", "surgery", "dpam", "taps"),
    [
        (24, 19, 6, (6, 12, 18, 24)),
        (12, 7, 3, (3, 6, 9, 12)),
        (8, 5, 2, (2, 4, 6, 8)),
        (4, 3, 1, (1, 2, 3, 4)),
        (2, 2, 1, (1, 2)),
        (1, 1, 1, (1,)),
    ],
)
def test_plans_are_the_published_ones_and_shrink_with_the_tower(depth, surgery, dpam, taps):
    assert vv.plan_surgery(depth) == Stream(surgery, (depth,))
    assert vv.plan_dpam(depth, (6, 12, 18, 24)) == Stream(dpam, taps)


@given(st.integers(1, 60), st.lists(st.integers(6, 24), min_size=1))
def test_every_tower_has_a_stream_for_every_tap(depth, taps):
    stream = vv.plan_dpam(depth, taps)
    assert stream.start <= stream.taps[0]
    assert stream.taps[-1] <= depth
    assert stream.taps == tuple(sorted({-(-tap * depth // 24) for tap in taps}))


class Shapes(TorchDispatchMode):
    """Notes the shape of everything that is computed."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        parts = out if isinstance(out, (tuple, list)) else (out,)
        self.seen |= {tuple(part.shape) for part in parts if isinstance(part, torch.Tensor)}
        return out


def test_no_table_of_all_tokens_by_all_tokens_is_held(load_tiny):
    backbone = load_tiny(image_size=72)  # 9 x 9 patches, 82 tokens
    with Shapes() as shapes:
        vv.make_vv_kind().encode(backbone, torch.zeros(1, 3, 72, 72))
    assert any(82 in shape for shape in shapes.seen)
    assert not [shape for shape in shapes.seen if shape[-2:] == (82, 82)]


def test_lower_precision_gives_nearly_the_same_in_float32(load_tiny, drawn):
    exact = vv.make_vv_kind().encode(load_tiny(), drawn)
    lowered = vv.make_vv_kind().encode(load_tiny(precision="bfloat16"), drawn)
    for right, features in zip(exact, lowered, strict=True):
        assert features.dtype == torch.float32
        assert not torch.equal(features, right)
        torch.testing.assert_close(features, right, atol=0.1, rtol=0.05)


@pytest.mark.parametrize("taps", [(), (5,), (25,)])
def test_taps_outside_a_tower_are_refused(taps):
    with pytest.raises(ValueError, match="after blocks 6 to 24"):
        vv.make_vv_kind(taps)
