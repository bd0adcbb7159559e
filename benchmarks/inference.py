"""Image to map and score, text cached, against a dual-path ViT: `python benchmarks/inference.py`.

The rival is AnomalyCLIP's way (arXiv 2310.18961), written here anew from its description: in the
last 19 of 24 blocks a second path without MLP runs beside the original one, its attention compares
values with values, and both paths build their full table of attention. All three ways run the same
ViT-L/14 with random weights at 518 px, two images a pass; `bare` is the image tower alone. Ways
take turns, and each counts with its least time, because what else runs on a machine only adds time.
Counted is the processor's time, which other programs hardly touch; by the clock in brackets.
Prints a line: name, ratio, goal.
"""

import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.shared import LARGE, build_scorer, draw_unit  # noqa: E402
from fuzzyclip.clip.backbone import load_backbone  # noqa: E402
from fuzzyclip.clip.encoding import encode_images, normalise  # noqa: E402

SIZE = LARGE.image_size
BATCH, ROUNDS = 2, 5
DUAL_FROM, TEMPERATURE = 6, 1 / 0.07  # the rival's first dual block, counted from 1, and its scale


def build_ours(backbone, pixels):
    """The whole way of a test image: features, the ensemble's map, RPL's score."""
    scorer = build_scorer(backbone)

    def run():
        image_embed, tokens = encode_images(backbone, pixels)
        unit = normalise(image_embed)
        maps = scorer.compute_map(tokens, unit)
        return image_embed, maps, scorer.compute_score(unit, maps)

    return run


def run_dual_block(block, path, original):
    """One block of the rival: (second path, original path), each (B, N, W)."""
    attention = block.attn
    normed = block.ln_1(original)
    joint = F.linear(normed, attention.in_proj_weight, attention.in_proj_bias)
    query, key, value = (
        part.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)  # (B, heads, N, width)
        for part in joint.chunk(3, dim=-1)
    )
    scale = value.shape[-1] ** -0.5

    def attend(left, right):
        table = (left @ right.mT * scale).softmax(dim=-1)  # (B, heads, N, N)
        return attention.out_proj((table @ value).transpose(1, 2).flatten(2))

    original = original + attend(query, key)
    original = original + block.mlp(block.ln_2(original))
    return path + attend(value, value), original


def compute_rival_map(patches, text, grid):
    """(B, P, D) of one block and (2, D) to the rival's map (B, S, S)."""
    probabilities = (TEMPERATURE * normalise(patches) @ text.T).softmax(dim=-1)  # (B, P, 2)
    planes = F.interpolate(probabilities.mT.unflatten(-1, grid), (SIZE, SIZE), mode="bilinear")
    return (planes[:, 1] + 1 - planes[:, 0]) / 2


def build_rival(backbone, pixels):
    """The dual path. Its class feature keeps the final norm, so that it compares with ours."""
    visual, text = backbone.model.visual, draw_unit(2, backbone.embed_dim)

    def project(tokens):
        return visual.ln_post(tokens) @ visual.proj

    def run():
        path = original = visual._embeds(pixels)
        maps = torch.zeros(len(pixels), SIZE, SIZE)
        for number, block in enumerate(visual.transformer.resblocks, start=1):
            if number < DUAL_FROM:
                path = original = block(original)
            else:
                path, original = run_dual_block(block, path, original)
            if number in backbone.blocks:
                maps += compute_rival_map(project(path)[:, 1:], text, backbone.grid)
        image_embed = project(original[:, 0])
        logits = TEMPERATURE * normalise(image_embed) @ text.T
        return image_embed, maps, logits.softmax(dim=-1)[:, 1]

    return run


@torch.no_grad()
def main(rounds):
    torch.manual_seed(0)
    backbone = load_backbone(LARGE, device="cpu")
    pixels = torch.randn(BATCH, 3, SIZE, SIZE)
    ways = {
        "ours": build_ours(backbone, pixels),
        "rival": build_rival(backbone, pixels),
        "bare": lambda: (backbone.model.encode_image(pixels), None, None),
    }
    embeds = {name: run()[0] for name, run in ways.items()}  # warms up
    for name, embed in embeds.items():  # the same tower, so that the same work is compared
        assert torch.allclose(embed, embeds["bare"], atol=1e-4), name
    spent = {name: [] for name in ways}
    for _ in range(rounds):
        for name, run in ways.items():
            start = time.process_time(), time.perf_counter()
            run()
            spent[name].append((time.process_time() - start[0], time.perf_counter() - start[1]))
    for name, turns in spent.items():
        each = ", ".join(f"{busy / BATCH:.1f} ({wall / BATCH:.1f})" for busy, wall in turns)
        print(f"  {name:5}: {each} s an image, processor (clock)")
    report(*(np.min(spent[name], axis=0) for name in ("ours", "rival", "bare")))


def report(ours, rival, bare):
    """Ratios by processor time; by the clock in brackets."""
    for name, ratio, goal in (
        ("inference", rival / ours, "goal 1.9 (times faster than the dual path)"),
        ("inference-bare", rival / bare, "goal 2.0 (the bare tower, for comparison)"),
        ("inference-extra", ours / bare, "goal at most 1.05 (times the bare tower)"),
    ):
        print(f"{name:15}  {ratio[0]:.2f} ({ratio[1]:.2f})  {goal}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS)
