"""Merged tokens against Token Merging written out token by token, and what they are a part of."""

import json
from dataclasses import replace

import pytest
import torch
from backbones import load_clip
from families import FAMILIES, shake
from torch.nn import functional as F

from fuzzyclip.baselines.shared.vv import make_vv_kind
from fuzzyclip.baselines.winclip import encode_windows
from fuzzyclip.clip.encoding import encode_images
from fuzzyclip.clip.merging import plan_merges
from fuzzyclip.clip.text_cache import describe_text
from fuzzyclip.engines.choice import EngineError, choose_engine
from fuzzyclip.features.shards import compute_identity
from fuzzyclip.model.directory import describe_backbone
from fuzzyclip.utils.settings import BackboneSettings

#: What the reference reads of a tower: tokens before the patches, and its parts by their names.
OPEN_CLIP = ("OpenAI", "average pool", "attentional pool", "small ViT")
TIMM = (
    "timm, class token",
    "timm, register, map",
    "timm, register, mlp",
    "timm, average",
    "ViTamin",
)


def load_family(name, tmp_path, **changes):
    """A small model of a family, all of whose parameters matter, at its second size."""
    config, _, size, _ = FAMILIES[name]
    if not isinstance(config, str):
        path = tmp_path / "model.json"
        path.write_text(json.dumps(config))
        config = path
    return shake(load_clip(config, image_size=size, blocks=(1, 3), **changes))


def read_parts(visual):
    """Embedding, blocks as dicts, and pooling of an open_clip or timm tower."""
    if not hasattr(visual, "trunk"):
        blocks = [
            {
                "norm": block.ln_1,
                "qkv": (block.attn.in_proj_weight, block.attn.in_proj_bias),
                "heads": block.attn.num_heads,
                "out": block.attn.out_proj,
                "scale": block.ls_1,
                "feed": lambda x, block=block: block.ls_2(block.mlp(block.ln_2(x))),
            }
            for block in visual.transformer.resblocks
        ]

        def pool(x):
            pooled = visual._pool(x)[0]
            return pooled if visual.proj is None else pooled @ visual.proj

        return visual._embeds, blocks, pool
    trunk = visual.trunk
    blocks = [
        {
            "norm": block.norm1,
            "qkv": (block.attn.qkv.weight, block.attn.qkv.bias),
            "heads": block.attn.num_heads,
            "out": block.attn.proj,
            "scale": block.ls1,
            "feed": lambda x, block=block: block.ls2(block.mlp(block.norm2(x))),
        }
        for block in trunk.blocks
    ]

    def embed(pixels):
        return trunk.norm_pre(trunk._pos_embed(trunk.patch_embed(pixels)))

    return embed, blocks, lambda x: visual.head(trunk.forward_head(trunk.norm(x)))


def merge_slowly(backbone, pixels, prefix, plan):
    """Features and taken tokens of one image (1, 3, S, S): lists of tokens, loops over pairs."""
    embed, blocks, pool = read_parts(backbone.model.visual)
    x = embed(pixels)[0]  # (N, W)
    members = [[place - prefix] for place in range(len(x))]  # patches of each token
    taken = []
    for number, (block, count) in enumerate(zip(blocks, plan, strict=True), 1):
        normed = block["norm"](x)
        weight, bias = block["qkv"]
        q, k, v = F.linear(normed, weight, bias).chunk(3, dim=1)
        width = q.shape[1] // block["heads"]
        sizes = torch.tensor([float(len(group)) for group in members])
        heads = []
        for head in range(block["heads"]):
            own = slice(head * width, (head + 1) * width)
            weights = (q[:, own] @ k[:, own].T / width**0.5).exp() * sizes
            heads.append(weights / weights.sum(dim=1, keepdim=True) @ v[:, own])
        x = x + block["scale"](block["out"](torch.cat(heads, dim=1)))
        keys = torch.stack(k.split(width, dim=1)).mean(dim=0)
        even = range(prefix, len(x), 2)
        odd = range(prefix + 1, len(x), 2)
        pairs = []
        for one in even:
            cosines = {other: float(F.cosine_similarity(keys[one], keys[other], 0))
                       for other in odd}  # fmt: skip
            best = max(cosines, key=cosines.get)
            pairs.append((cosines[best], one, best))
        gone = {one: into for _, one, into in sorted(pairs, reverse=True)[:count]}
        rows, groups = [], []
        for place in range(len(x)):
            if place in gone:
                continue
            merged = [place] + [one for one, into in gone.items() if into == place]
            total = sum(len(members[one]) for one in merged)
            rows.append(sum(x[one] * len(members[one]) for one in merged) / total)
            groups.append([patch for one in merged for patch in members[one]])
        x, members = torch.stack(rows), groups
        x = x + block["feed"](x[None])[0]
        spread = [None] * sum(len(group) for group in members[prefix:])
        for row, group in zip(x[prefix:], members[prefix:], strict=True):
            for patch in group:
                spread[patch] = row
        if number in backbone.blocks:
            taken.append(torch.stack(spread))
    return pool(torch.cat((x[:prefix], torch.stack(spread)))[None])[0], torch.stack(taken)


@pytest.mark.parametrize("family", [*OPEN_CLIP, *TIMM])
@torch.no_grad()
def test_merged_tokens_are_those_of_token_merging_written_out(family, tmp_path):
    backbone = load_family(family, tmp_path, merge=0.5)
    size, (rows, columns) = backbone.image_size, backbone.grid
    pixels = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(3))
    image_embed, tokens = encode_images(backbone, pixels)
    assert tokens.shape == (2, 2, rows * columns, backbone.vision_width)
    plan = plan_merges(rows * columns, backbone.image_tower.depth, 0.5)
    assert sum(plan) == rows * columns // 2
    for image in range(2):
        embed, taken = merge_slowly(backbone, pixels[image : image + 1], FAMILIES[family][3], plan)
        torch.testing.assert_close(image_embed[image], embed, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(tokens[image], taken, atol=1e-3, rtol=1e-3)
    kept = len(tokens[0, 1].unique(dim=0))
    assert kept == rows * columns - sum(plan[:3])


@pytest.mark.parametrize("merge", [0.25, 0.5])
def test_an_image_is_the_same_to_the_last_bit_in_any_batch(load_tiny, pixels, merge):
    backbone = load_tiny(merge=merge)
    together = encode_images(backbone, pixels)
    again = encode_images(backbone, pixels.flip(0))
    for place in range(3):
        alone = encode_images(backbone, pixels[place : place + 1])
        for own, first, second in zip(alone, together, again, strict=True):
            assert torch.equal(own[0], first[place])
            assert torch.equal(own[0], second[2 - place])


def test_without_merging_nothing_is_other_than_before_there_was_any(load_tiny, tiny):
    off = load_tiny(merge=0.0)
    assert "merge" not in off.identity
    assert off.fingerprint == tiny.fingerprint
    assert "merge" not in off.settings.model_dump()
    assert '"merge"' not in describe_backbone(off).model_dump_json()
    assert "merge" not in json.dumps(compute_identity(off, ["0" * 64]))


def test_merging_is_a_part_of_what_a_backbone_is(load_tiny, tiny):
    merged, more = load_tiny(merge=0.25), load_tiny(merge=0.5)
    assert merged.identity["merge"] == 0.25
    assert len({each.fingerprint for each in (tiny, merged, more)}) == 3
    card = describe_backbone(merged)
    assert type(card).model_validate_json(card.model_dump_json()) == card
    assert card.merge == 0.25
    assert BackboneSettings(**merged.settings.model_dump()) == merged.settings
    fixed = {"weights_sha256": "0" * 64}  # drawn weights depend on the tower before the text
    texts = [describe_text(replace(b, identity=b.identity | fixed)) for b in (tiny, merged)]
    assert texts[0] == texts[1]  # texts are not encoded again


@pytest.mark.parametrize(
    ("patches", "depth", "share", "plan"),
    [
        (16, 4, 0.5, [2, 2, 2, 2]),
        (16, 4, 0.4, [1, 2, 1, 2]),
        (1369, 12, 0.0, [0] * 12),
        (9, 2, 0.6, [2, 3]),
    ],
)
def test_blocks_merge_about_equally_many(patches, depth, share, plan):
    assert plan_merges(patches, depth, share) == plan


@pytest.mark.parametrize(
    ("family", "named"),
    [
        ("custom blocks", "VisionTransformer"),
        ("EVA02", "Eva"),
        ("timm, relative", "VisionTransformerRelPos"),
    ],
)
def test_other_towers_are_refused_in_words(family, named, tmp_path):
    with pytest.raises(ValueError, match=rf"merge: .* not in this image tower, {named}: leave"):
        load_family(family, tmp_path, merge=0.5)


def test_what_can_not_be_merged_is_refused(load_tiny, tiny, pixels):
    with pytest.raises(ValueError, match=r"merge 0.9: 4 blocks can merge 1[0-9] of 16 tokens"):
        load_tiny(merge=0.9)
    for share in (-0.1, 0.91, True, float("nan")):
        with pytest.raises(ValueError, match="merge"):
            BackboneSettings(**tiny.settings.model_dump() | {"merge": share})
    merged = load_tiny(merge=0.5)
    with pytest.raises(ValueError, match=r"V-V attention looks into .* merge 0.5 changes"):
        make_vv_kind().encode(merged, pixels)
    with pytest.raises(ValueError, match=r"WinCLIP looks into .* merge 0.5 changes"):
        encode_windows(merged, pixels)
    with pytest.raises(EngineError, match="which tokens are merged hangs on last digits"):
        choose_engine(merged, "onnx")
    assert choose_engine(merged, "auto", 10**9) is merged


def test_merging_goes_with_lower_precision(load_tiny, pixels):
    lowered = encode_images(load_tiny(merge=0.5, precision="bfloat16"), pixels)
    for own, plain in zip(lowered, encode_images(load_tiny(merge=0.5), pixels), strict=True):
        assert own.dtype == torch.float32
        assert own.shape == plain.shape
        assert F.cosine_similarity(own, plain, dim=-1).mean() > 0.9
