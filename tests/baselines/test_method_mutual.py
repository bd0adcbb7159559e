"""Mutual scoring as a method: its rows against its parts by hand, and its label."""

import numpy as np
import pytest
import torch
from drawn_embeds import draw_embeds

from fuzzyclip.baselines.mutual import Mutual
from fuzzyclip.baselines.mutual.scoring import (
    MutualSettings,
    References,
    draw_maps,
    find_peaks,
    place_on_scale,
    read_scale,
    study,
)
from fuzzyclip.baselines.shared.own_image import LOOKS, Rarity
from fuzzyclip.clip.name_encoder import NameEncoder
from fuzzyclip.method.interface import Learned, MethodUnavailableError, Target, UnlabelledBatch
from fuzzyclip.method.scorer import score_batch


@pytest.fixture
def encode(tiny):
    return NameEncoder(tiny, draw_embeds)


@pytest.fixture
def tokens():
    common = torch.randn(1, 3, 16, 64, generator=torch.Generator().manual_seed(0))
    return common + 0.3 * torch.randn(20, 3, 16, 64, generator=torch.Generator().manual_seed(1))


def hold_batch(tokens, seen=None):
    """The images of a batch in their order; `seen` takes the places that are asked for."""

    def load(places):
        if seen is not None:
            seen.extend(places)
        return tokens[list(places)]

    return UnlabelledBatch(len(tokens), load)


def test_its_rows_are_those_of_the_first_images_as_references(tiny, encode, tokens):
    method, seen = Mutual(references=6, studied=12, own_image=0.0, cut=3.0), []
    target = Target("nut", batch=hold_batch(tokens, seen))
    ((name, scorer),) = method.build_variants(encode, target, Learned()).items()
    assert name == "mutual"
    assert (set(seen), len(seen)) == (set(range(12)), 6 + 12)
    embeds = torch.zeros(20, tiny.embed_dim)
    scores = score_batch(scorer, tokens, embeds, tiny, method.sigma)
    settings = method.make_settings()
    references = References.take(tokens[:6], tiny.grid, settings)
    maps = draw_maps(references.compare(tokens), tiny.grid, tiny.image_size)
    peaks = find_peaks(maps)
    placed = place_on_scale(maps, read_scale(peaks[:12].numpy()), settings)
    assert np.allclose(scores.maps, placed, atol=1e-5)
    assert np.allclose(scores.image_scores, placed.amax(dim=(1, 2)), atol=1e-5)
    order = np.argsort(scores.image_scores)
    assert np.array_equal(order, np.argsort(peaks.numpy()))


@pytest.mark.parametrize("share", [0.5, 2.0])
def test_what_is_rare_within_an_image_counts_in_deviations_beside_the_batch(
    tiny, encode, tokens, share
):
    method = Mutual(references=6, studied=12, own_image=share)
    target = Target("nut", batch=hold_batch(tokens))
    (scorer,) = method.build_variants(encode, target, Learned()).values()
    maps = score_batch(scorer, tokens, torch.zeros(20, tiny.embed_dim), tiny, method.sigma).maps
    settings = method.make_settings()
    far = References.take(tokens[:6], tiny.grid, settings).compare(tokens).double()
    looks = [Rarity(tiny.grid, look)(tokens, tokens).double() for look in LOOKS]
    own = sum((rare - rare[:12].mean()) / rare[:12].std() for rare in looks) / len(looks)
    joined = draw_maps((far / far[:12].std() + share * own).float(), tiny.grid, tiny.image_size)
    placed = place_on_scale(joined, read_scale(find_peaks(joined[:12]).numpy()), settings)
    assert np.allclose(maps, placed, atol=1e-3)


def test_a_grid_without_anything_to_compare_within_an_image_leaves_the_batch_alone(tokens):
    small = tokens[:, :, :9]
    references = References.take(small[:6], (3, 3), MutualSettings())
    far, rare = references.compare(small), references.looks.measure(small)
    assert rare.shape == (20, 0, 9)
    assert torch.equal(study(references, far, rare, 24).join(far, rare), far)


def test_neither_names_nor_text_play_a_part(tiny, tokens):
    def refuse(prompts):
        raise AssertionError(f"asked for the text of {prompts}")

    silent = NameEncoder(tiny, refuse)
    embeds = torch.zeros(20, tiny.embed_dim)
    maps = [
        score_batch(
            Mutual().build_variants(silent, Target(name, batch=hold_batch(tokens)), Learned())[
                "mutual"
            ],
            tokens,
            embeds,
            tiny,
        ).maps
        for name in ("nut", "bolt")
    ]
    assert np.array_equal(*maps)


def test_it_says_what_it_uses_and_works_on_no_image_alone(encode, tokens):
    assert (Mutual.note, Mutual.uses_batch) == ("uses the unlabelled batch", True)
    with pytest.raises(ValueError, match="mutual needs the batch of 'nut'"):
        Mutual().build(encode, "nut", Learned())
    with pytest.raises(MethodUnavailableError, match="nut: a batch of 2 images"):
        Mutual().build_variants(encode, Target("nut", batch=hold_batch(tokens[:2])), Learned())


def test_nothing_is_learned(encode):
    assert Mutual().fit(encode, None, seed=0) == Learned()
