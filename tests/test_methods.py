"""Every method through the one interface: features, training, maps and scores on a small CLIP."""

import numpy as np
import pytest
import torch

from fuzzyclip.clip.encoding import encode_text
from fuzzyclip.clip.name_encoder import NameEncoder
from fuzzyclip.methods.interface import TrainingSet
from fuzzyclip.methods.registry import METHODS, build_method, list_settings
from fuzzyclip.scoring import score_batch

#: What makes a training short.
SHORT = {"epochs": 1, "batch_size": 2}
NAMES = ["nut", "bolt", "nut", "bolt"]


#: SAA+ reads models of its own from folders: tests/test_method_saa.py.
WITHOUT_FOLDERS = [name for name in METHODS if name != "saa"]


def make(name):
    return build_method(name, {key: SHORT[key] for key in SHORT if key in list_settings(name)})


@pytest.fixture(scope="module")
def encode(tiny):
    return NameEncoder(tiny, lambda prompts: encode_text(tiny, prompts), ensemble="single")


def make_set(method, backbone):
    """Four images, two of them with a defect."""
    pixels = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    masks = torch.zeros(4, 32, 32, dtype=torch.bool)
    masks[2:, 4:20, 4:20] = True
    image_embed, tokens = method.kind.encode(backbone, pixels)
    return TrainingSet(
        image_embed, lambda rows: tokens[list(rows)], lambda rows: masks[list(rows)],
        torch.tensor([0, 0, 1, 1]), NAMES,
    )  # fmt: skip


@pytest.mark.parametrize("name", WITHOUT_FOLDERS)
def test_a_method_goes_from_images_to_maps_and_scores(name, encode, pixels):
    method, backbone = make(name), encode.backbone
    assert method.name == name
    images = make_set(method, backbone)
    tensors = dict(method.fit(encode, images, seed=3))
    assert bool(tensors) == method.trains
    again = method.fit(encode, images, seed=3)
    assert all(torch.equal(tensors[key], again[key]) for key in tensors)
    image_embed, tokens = method.kind.encode(backbone, pixels)
    assert image_embed.shape == (3, backbone.embed_dim)
    assert (len(tokens), tokens.ndim) == (3, 4)
    scorer = method.build(encode, "gear", tensors)
    found = score_batch(scorer, tokens, image_embed, backbone, method.sigma)
    assert found.maps.shape == (3, 32, 32)
    assert found.image_scores.shape == (3,)
    assert np.isfinite(found.maps).all()
    assert np.isfinite(found.image_scores).all()
    assert found.image_scores.std() > 0
    for row in range(3):  # an image's numbers are its own, whatever it is scored with
        one = score_batch(
            scorer, tokens[row : row + 1], image_embed[row : row + 1], backbone, method.sigma
        )
        assert np.allclose(one.maps[0], found.maps[row], atol=1e-4)
        assert np.allclose(one.image_scores[0], found.image_scores[row], atol=1e-4)
    other = method.build(encode, "brush", tensors)
    agnostic = name == "anomaly_clip"
    same = np.allclose(score_batch(other, tokens, image_embed, backbone).image_scores,
                       found.image_scores, atol=1e-7)  # fmt: skip
    assert same == agnostic


def test_methods_of_one_kind_share_their_features():
    kinds = {name: make(name).kind for name in WITHOUT_FOLDERS}
    assert kinds["clip"] == kinds["april_gan"] == kinds["coop"]
    assert kinds["clip_surgery"] == kinds["anomaly_clip"]
    assert kinds["sdp"] == kinds["sdp_plus"]
    assert len(set(kinds.values())) == 4


def test_titles_are_those_of_the_tables_and_distinct():
    titles = [make(name).title for name in WITHOUT_FOLDERS]
    assert len(set(titles)) == len(titles)
    assert {"WinCLIP", "APRIL-GAN", "CLIP Surgery", "SDP+", "AnomalyCLIP"} <= set(titles)


@pytest.mark.parametrize("name", WITHOUT_FOLDERS)
def test_unknown_settings_and_methods_are_refused_by_name(name):
    with pytest.raises(ValueError, match=rf"{name} has no setting lerning_rate"):
        build_method(name, {"lerning_rate": 1})
    with pytest.raises(ValueError, match="sigma"):
        build_method(name, {"sigma": -1.0})
    with pytest.raises(ValueError, match="no setting title"):
        build_method(name, {"title": "x"})


def test_an_unknown_method_is_refused():
    with pytest.raises(ValueError, match="no method 'patchcore'; there are clip"):
        build_method("patchcore")
