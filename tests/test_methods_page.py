"""docs/methods.md: its blocks run, the new method is one, and the table names what there is."""

import re

import pytest
import torch
from imports import ROOT

from fuzzyclip.clip.encoding import encode_images, encode_text
from fuzzyclip.clip.name_encoder import NameEncoder
from fuzzyclip.methods.registry import METHODS, list_settings
from fuzzyclip.scoring import score_batch

PAGE = (ROOT / "docs/methods.md").read_text()
USE, OWN = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.slow
def test_the_example_runs_as_it_stands(capsys):
    exec(compile(USE, "docs/methods.md", "exec"), {})
    assert "(4, 144, 144)" in capsys.readouterr().out


def test_a_new_method_takes_less_than_60_lines_and_works(tiny, pixels):
    assert len(OWN.splitlines()) < 60
    names = {"__name__": "own"}
    exec(compile(OWN, "docs/methods.md", "exec"), names)
    encode = NameEncoder(tiny, lambda prompts: encode_text(tiny, prompts), ensemble="single")
    method = names["TopPatches"](top=0.25)
    scorer = method.build(encode, "nut", method.fit(encode, None, 0))
    image_embed, tokens = encode_images(tiny, pixels)
    found = score_batch(scorer, tokens, image_embed, tiny)
    plain = tiny.image_tower.project(tokens[:, -1])
    cosines = torch.nn.functional.normalize(plain, dim=-1) @ encode(["nut"])  # (B, P, 2)
    probabilities = (100 * cosines).softmax(dim=-1)[..., 1]
    expected = probabilities.sort(dim=1).values[:, -4:].mean(dim=1)
    assert torch.allclose(torch.from_numpy(found.image_scores), expected, atol=1e-5)


def test_the_page_names_every_method_and_real_settings():
    for name in METHODS:
        assert f"`{name}`" in PAGE
    known = {setting for name in METHODS for setting in list_settings(name)}
    table = PAGE[PAGE.index("## Faults of published code") :]
    for setting in re.findall(r"`(\w+)(?::[^`]*)?`", table):
        assert setting in known, setting
