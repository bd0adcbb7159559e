"""Merged tokens in int8: the graph merges as PyTorch does, each image by itself."""

import torch
from backbones import load_clip
from torch.nn import functional as F

from fuzzyclip.clip.encoding import encode_images


def test_merged_tokens_go_through_int8_layers(load_tiny, tiny, pixels):
    merged, both = load_tiny(merge=0.5), load_tiny(merge=0.5, precision="int8")
    assert len({each.fingerprint for each in (tiny, merged, both)}) == 3
    together = encode_images(both, pixels)
    for own, plain in zip(together, encode_images(merged, pixels), strict=True):
        assert own.shape == plain.shape
        assert F.cosine_similarity(own, plain, dim=-1).mean() > 0.98
    assert len(together[1][0, -1].unique(dim=0)) == 8  # of 16 patches
    for place in range(3):
        alone = encode_images(both, pixels[place : place + 1])
        assert all(torch.equal(a[0], t[place]) for a, t in zip(alone, together, strict=True))


def test_in_timms_towers_too():
    settings = {"image_size": 160, "blocks": (1, 3), "merge": 0.5}
    merged = load_clip("timm/test_vit", **settings)
    both = load_clip("timm/test_vit", precision="int8", **settings)
    pixels = torch.randn(1, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    for own, plain in zip(encode_images(both, pixels), encode_images(merged, pixels), strict=True):
        assert F.cosine_similarity(own, plain, dim=-1).mean() > 0.98
