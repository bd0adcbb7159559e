"""CLIP and CLIP-AC: their sentences, and maps and scores against the same by hand."""

import numpy as np
import pytest
import torch
from drawn_embeds import draw_embeds
from torch.nn import functional as F

from fuzzyclip.baselines.clip import Clip
from fuzzyclip.baselines.clip_ac import ClipAC
from fuzzyclip.clip.encoding import encode_images
from fuzzyclip.clip.name_encoder import NameEncoder
from fuzzyclip.clip.prompts import average_prompts
from fuzzyclip.method.interface import Learned
from fuzzyclip.method.scorer import score_batch
from fuzzyclip.utils.settings import TextSettings


def average_by_hand(prompts):
    """Unit vectors, added one by one, brought to unit length."""
    total = np.zeros(32)
    for prompt in prompts:
        embed = draw_embeds([prompt])[0].double().numpy()
        total += embed / np.sqrt((embed**2).sum())
    return total / np.sqrt((total**2).sum())


def test_clip_has_one_sentence_a_side():
    assert Clip().write_prompts("metal nut") == [
        ["A photo of a normal metal nut"],
        ["A photo of an anomalous metal nut"],
    ]


def test_clip_ac_puts_both_states_into_the_imagenet_templates():
    normal, anomalous = ClipAC().write_prompts("pill")
    assert len(set(normal)) == len(set(anomalous)) == 80
    assert "itap of my normal pill." in normal
    assert "a black and white photo of the anomalous pill." in anomalous
    swapped = [prompt.replace("normal pill", "anomalous pill") for prompt in normal]
    assert swapped == anomalous


@pytest.mark.parametrize("method", [Clip(), ClipAC()], ids=["clip", "clip_ac"])
def test_a_row_compares_the_last_blocks_tokens_with_its_sentences(method, tiny, pixels):
    encode = NameEncoder(tiny, draw_embeds, TextSettings(underscore="space"))
    image_embed, tokens = encode_images(tiny, pixels)
    scores = score_batch(method.build(encode, "metal_nut", Learned()), tokens, image_embed, tiny)
    assert scores.maps.shape == (3, 32, 32)
    assert scores.weights is None
    sides = method.write_prompts("metal nut")
    normal, anomalous = (average_by_hand(prompts) for prompts in sides)
    visual = tiny.model.visual
    for image in range(3):
        mapped = (visual.ln_post(tokens[image, -1]) @ visual.proj).double().numpy()
        unit = mapped / np.linalg.norm(mapped, axis=1, keepdims=True)
        margins = torch.from_numpy(100 * (unit @ anomalous - unit @ normal)).view(1, 1, 4, 4)
        plane = F.interpolate(margins, (32, 32), mode="bilinear", align_corners=True)[0, 0]
        assert torch.allclose(torch.from_numpy(scores.maps[image]).double(), plane, atol=1e-4)
        embed = image_embed[image].double().numpy()
        cosines = np.array([embed @ normal, embed @ anomalous]) / np.linalg.norm(embed)
        expected = 100 * (cosines[1] - cosines[0])
        assert scores.image_scores[image] == pytest.approx(expected, abs=1e-4)


def test_earlier_blocks_change_nothing(tiny, pixels):
    encode = NameEncoder(tiny, draw_embeds)
    image_embed, tokens = encode_images(tiny, pixels)
    other = tokens.clone()
    other[:, :-1] += 1
    scorer = Clip().build(encode, "pill", Learned())
    maps = [score_batch(scorer, given, image_embed, tiny).maps for given in (tokens, other)]
    assert np.array_equal(*maps)
    other[:, -1] += torch.arange(64)
    assert not np.allclose(score_batch(scorer, other, image_embed, tiny).maps, maps[0])


def test_prompts_are_brought_to_one_length_before_the_mean_or_not():
    sides = [["a", "b", "c"], ["d", "e"]]
    text = average_prompts(draw_embeds, sides)
    assert torch.allclose(text.norm(dim=0), torch.ones(2))
    for column, prompts in zip(text.T.double(), sides, strict=True):
        assert torch.allclose(column, torch.from_numpy(average_by_hand(prompts)), atol=1e-6)
    plain = average_prompts(draw_embeds, sides, unit=False)
    for column, prompts in zip(plain.T, sides, strict=True):
        assert torch.allclose(column, F.normalize(draw_embeds(prompts).sum(dim=0), dim=0))
    assert not torch.allclose(plain, text, atol=1e-3)
