"""Fused attention against PyTorch's own module, values and gradients."""

import open_clip
import pytest
import torch
from torch import nn

from fuzzyclip.clip.attention import FusedAttention, fuse_attention


def make(bias=True):
    torch.manual_seed(0)
    plain = nn.MultiheadAttention(24, 3, bias=bias, batch_first=True).double()
    if bias:
        nn.init.normal_(plain.in_proj_bias)
    return plain, FusedAttention.adopt(plain)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("queries", [None, 2])
@pytest.mark.parametrize("mask", [None, "causal", "by head"])
def test_values_and_gradients_are_those_of_the_plain_module(bias, queries, mask):
    plain, fused = make(bias)
    x = torch.randn(4, 5, 24, dtype=torch.float64)
    count = queries or 5
    masks = {
        None: None,
        "causal": torch.full((5, 5), float("-inf"), dtype=torch.float64).triu(1)[:count],
        "by head": torch.randn(12, count, 5, dtype=torch.float64),
    }
    results = []
    for attention in (plain, fused):
        key = x.clone().requires_grad_()
        query = key if queries is None else key[:, :queries]
        out, weights = attention(query, key, key, need_weights=False, attn_mask=masks[mask])
        assert weights is None
        (out**2).sum().backward()
        gradients = [parameter.grad.clone() for parameter in attention.parameters()]
        results.append([out, key.grad, *gradients])
        attention.zero_grad()
    for expected, tensor in zip(*results, strict=True):
        assert torch.allclose(tensor, expected, rtol=1e-9, atol=1e-9)


def test_parameters_are_shared_not_copied():
    plain, fused = make()
    assert fused.state_dict().keys() == plain.state_dict().keys()
    assert fused.in_proj_weight is plain.in_proj_weight
    assert fused.out_proj.weight is plain.out_proj.weight


def test_what_it_cannot_do_is_refused():
    _, fused = make()
    x = torch.randn(1, 2, 24, dtype=torch.float64)
    with pytest.raises(ValueError, match="gives no weights"):
        fused(x, x, x, need_weights=True)
    with pytest.raises(ValueError, match="one tensor to look at"):
        fused(x, x, x.clone())


def test_both_towers_of_a_model_are_fused_and_give_the_same():
    torch.manual_seed(0)
    model = open_clip.create_model("ViT-B-32", force_image_size=64).eval()
    pixels, ids = torch.randn(2, 3, 64, 64), torch.randint(1, 999, (2, 77))
    names = list(model.state_dict())
    with torch.no_grad():
        before = model.encode_image(pixels), model.encode_text(ids)
        fuse_attention(model)
        after = model.encode_image(pixels), model.encode_text(ids)
    assert list(model.state_dict()) == names
    kinds = [type(part) for part in model.modules() if isinstance(part, nn.MultiheadAttention)]
    assert kinds == [FusedAttention] * 24
    for expected, features in zip(before, after, strict=True):
        assert torch.allclose(features, expected, atol=1e-5)
