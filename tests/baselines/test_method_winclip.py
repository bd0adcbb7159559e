"""WinCLIP: windows against slow passes of the tower, harmonic means against loops."""

from statistics import harmonic_mean

import numpy as np
import pytest
import torch
from drawn_embeds import draw_embeds
from hypothesis import given
from hypothesis import strategies as st
from properties import try_examples
from torch.nn import functional as F

from fuzzyclip.baselines import winclip
from fuzzyclip.baselines.winclip import (
    ANOMALOUS_STATES,
    TEMPLATES,
    WinClip,
    average_over_windows,
    encode_windows,
    join_scales,
    list_windows,
    write_prompts,
)
from fuzzyclip.clip.encoding import encode_images
from fuzzyclip.clip.name_encoder import NameEncoder
from fuzzyclip.method.interface import Learned
from fuzzyclip.method.scorer import score_batch

GRID = (4, 4)


def cover(grid, side):
    """Patches of each window as (row, column) pairs, by four loops."""
    return [
        [(row + down, column + across) for down in range(side) for across in range(side)]
        for row in range(grid[0] - side + 1)
        for column in range(grid[1] - side + 1)
    ]


def all_windows(grid):
    return [window for side in (2, 3) for window in cover(grid, side)]


def see_alone(tiny, pixels, patches):
    """Class features when nothing but some patches and the class token see one another.

    The whole sequence runs through the tower under an attention mask; what stands outside sees only
    itself.
    """
    visual = tiny.model.visual
    inside = [0, *(1 + row * 4 + column for row, column in patches)]
    mask = torch.full((17, 17), float("-inf")).fill_diagonal_(0)
    for query in inside:
        mask[query, inside] = 0
    with torch.no_grad():
        x = visual.transformer(visual._embeds(pixels), attn_mask=mask)
        return visual._pool(x)[0] @ visual.proj  # (B, D)


@pytest.mark.parametrize(("grid", "side"), [((4, 4), 2), ((4, 4), 3), ((3, 5), 3), ((2, 6), 2)])
def test_windows_are_listed_row_by_row(grid, side):
    expected = [[row * grid[1] + column for row, column in window] for window in cover(grid, side)]
    assert list_windows(grid, side).tolist() == expected


def test_an_image_of_15_patches_has_the_papers_windows():
    assert [len(list_windows((15, 15), side)) for side in winclip.SIDES] == [196, 169]


def test_each_window_is_what_an_attention_mask_gives(tiny, pixels):
    image_embed, embeds = encode_windows(tiny, pixels)
    assert embeds.shape == (3, 1, 9 + 4, 32)
    assert torch.allclose(image_embed, encode_images(tiny, pixels)[0], atol=1e-5)
    for number, patches in enumerate(all_windows(GRID)):
        expected = see_alone(tiny, pixels, patches)
        assert torch.allclose(embeds[:, 0, number], expected, atol=1e-5)


def test_a_window_changes_with_its_own_patches_and_with_no_other(tiny, pixels):
    _, before = encode_windows(tiny, pixels)
    changed = pixels.clone()
    changed[:, :, 8:16, 24:32] += 1  # patch (1, 3)
    _, after = encode_windows(tiny, changed)
    moved = (after - before).abs().amax(dim=(0, 1, 3))  # (N,)
    for far, patches in zip(moved.tolist(), all_windows(GRID), strict=True):
        assert far > 1e-3 if (1, 3) in patches else far < 1e-5


def test_no_two_windows_have_the_same_feature(tiny, pixels):
    # Windows on the axis of tokens let all class tokens see one another, and come out alike.
    _, embeds = encode_windows(tiny, pixels)
    for image in embeds[:, 0]:
        apart = torch.cdist(image, image) + torch.eye(len(image))
        assert apart.min() > 1e-3


@pytest.mark.parametrize("sequences", [1, 7])
def test_passes_of_another_size_change_no_feature(tiny, pixels, monkeypatch, sequences):
    expected = encode_windows(tiny, pixels)
    monkeypatch.setattr(winclip, "PASS_SEQUENCES", sequences)
    for embeds, other in zip(encode_windows(tiny, pixels), expected, strict=True):
        assert torch.allclose(embeds, other, atol=1e-5)


def test_lowered_precision_gives_float32_close_by(load_tiny, tiny, pixels):
    lowered = encode_windows(load_tiny(precision="bfloat16"), pixels)
    for embeds, other in zip(lowered, encode_windows(tiny, pixels), strict=True):
        assert embeds.dtype == torch.float32
        assert F.cosine_similarity(embeds, other, dim=-1).min() > 0.99


def test_a_grid_smaller_than_a_window_is_refused(load_tiny):
    small = load_tiny(image_size=16)
    with pytest.raises(ValueError, match="3 x 3 patches, but an image has only 2 x 2"):
        encode_windows(small, torch.zeros(1, 3, 16, 16))


def test_the_papers_ensemble():
    assert len(set(TEMPLATES)) == len(TEMPLATES) == 22
    normal, anomalous = write_prompts("pill", published=False)
    assert len(set(normal)) == 7 * 22
    assert len(set(anomalous)) == 4 * 22
    assert "a photo of a small pill without flaw." in normal
    assert "a close-up photo of the unblemished pill." in normal
    assert "a photo of the pill with damage for visual inspection." in anomalous
    assert "a photo of a damaged pill for anomaly detection." in anomalous
    assert not any("broken" in state for state in ANOMALOUS_STATES)


def test_the_published_templates_have_one_twice_and_lack_two():
    anomalous = write_prompts("pill", published=True)[1]
    assert len(anomalous) == 4 * 21
    assert anomalous.count("a jpeg corrupted photo of the damaged pill.") == 2
    missing = set(write_prompts("pill", published=False)[1]) - set(anomalous)
    assert {prompt for prompt in missing if "damaged" in prompt} == {
        "a cropped photo of a damaged pill.",
        "a jpeg corrupted photo of a damaged pill.",
    }


def join_by_loops(scores, image_score, grid):
    """One image's scores of patches (rows, columns) from its windows' scores, patch by patch."""
    joined = np.empty(grid)
    sizes = [cover(grid, side) for side in (2, 3)]
    parts = np.split(np.asarray(scores, dtype=float), [len(sizes[0])])
    for row, column in np.ndindex(*grid):
        scales = [image_score]
        for covered, own in zip(sizes, parts, strict=True):
            chosen = [s for s, window in zip(own, covered, strict=True) if (row, column) in window]
            scales.append(harmonic_mean(chosen))
        joined[row, column] = harmonic_mean(scales)
    return joined


@try_examples(40)
@given(
    grid=st.tuples(st.integers(3, 6), st.integers(3, 6)),
    seed=st.integers(0, 2**16),
    spread=st.floats(0.1, 10),
)
def test_scales_are_joined_as_patch_by_patch(grid, seed, spread):
    generator = torch.Generator().manual_seed(seed)
    count = len(all_windows(grid))
    margins = spread * torch.randn(2, count, generator=generator, dtype=torch.float64)
    image_margins = spread * torch.randn(2, generator=generator, dtype=torch.float64)
    joined = join_scales(margins, image_margins, grid)
    for image in range(2):
        scores, whole = margins[image].sigmoid(), image_margins[image].sigmoid()
        expected = join_by_loops(scores.tolist(), float(whole), grid)
        assert joined[image].numpy() == pytest.approx(expected, rel=1e-9)
        lowest = min(float(scores.min()), float(whole))
        assert joined[image].min() >= lowest * (1 - 1e-9)
        assert joined[image].max() <= max(float(scores.max()), float(whole)) * (1 + 1e-9)


def test_a_mean_counts_the_windows_that_cover_a_patch():
    mean = average_over_windows(torch.tensor([[1.0, 2, 3, 4]]), (3, 3), 2)
    assert mean[0].tolist() == [[1, 1.5, 2], [2, 2.5, 3], [3, 3.5, 4]]


def test_scores_of_nearly_nothing_give_no_nan():
    margins = torch.full((1, 13), -200.0)
    margins[0, 0] = 200
    joined = join_scales(margins, torch.tensor([200.0]), GRID)
    assert joined[0, 0, 0] == 0  # one of the three scales calls it normal beyond all doubt
    assert joined.isfinite().all()


@pytest.mark.parametrize(
    "method", [WinClip(), WinClip(as_="mended", unit_prompts=True, temperature=0.2)]
)
def test_a_map_and_a_score_are_those_by_hand(method, tiny, pixels):
    image_embed, embeds = encode_windows(tiny, pixels)
    scorer = method.build(NameEncoder(tiny, draw_embeds), "metal_nut", Learned())
    assert scorer.prompt == "metal nut"
    scores = score_batch(scorer, embeds, image_embed, tiny)
    sides = []
    for prompts in write_prompts("metal nut", method.as_ == "published"):
        vectors = draw_embeds(prompts).double()
        if method.unit_prompts:
            vectors = vectors / vectors.norm(dim=1, keepdim=True)
        mean = vectors.mean(dim=0)
        sides.append(mean / mean.norm())

    def judge(embed):
        unit = embed.double() / embed.double().norm()
        return torch.stack([unit @ side for side in sides]) / method.temperature

    def measure(embed):
        return float(judge(embed).softmax(dim=0)[1])

    for image in range(3):
        normal, anomalous = judge(image_embed[image])
        assert scores.image_scores[image] == pytest.approx(float(anomalous - normal), abs=1e-5)
        score = measure(image_embed[image])
        joined = join_by_loops([measure(embed) for embed in embeds[image, 0]], score, GRID)
        plane = torch.from_numpy(joined)[None, None]
        expected = F.interpolate(plane, (32, 32), mode="bilinear", align_corners=False)[0, 0]
        assert scores.maps[image] == pytest.approx(expected.numpy(), abs=1e-5)
    assert scores.maps.std() > 1e-3


def test_an_unknown_way_with_underscores_is_refused():
    with pytest.raises(ValueError, match="'keep' or 'space'"):
        WinClip(underscore="drop")
