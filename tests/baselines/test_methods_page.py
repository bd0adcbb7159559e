"""docs/methods.md: its blocks run, the new method is one, and the table names what there is."""

import re

import torch
import yaml
from imports import ROOT

from fuzzyclip import baselines
from fuzzyclip.baselines.registry import BASELINES, BEYOND, build_method, list_settings
from fuzzyclip.clip.encoding import encode_images, encode_text
from fuzzyclip.clip.name_encoder import NameEncoder
from fuzzyclip.method.interface import Target
from fuzzyclip.method.scorer import score_batch
from fuzzyclip.utils.settings import TextSettings

PAGE = (ROOT / "docs/methods.md").read_text()
USE, OWN = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_the_example_runs_as_it_stands(capsys):
    exec(compile(USE, "docs/methods.md", "exec"), {})
    assert "(4, 144, 144)" in capsys.readouterr().out


def test_a_new_method_is_a_folder_with_a_file_of_less_than_60_lines(
    tiny, pixels, tmp_path, monkeypatch
):
    assert len(OWN.splitlines()) < 60
    (tmp_path / "top_patches").mkdir()
    (tmp_path / "top_patches/__init__.py").write_text(OWN)
    monkeypatch.setattr(baselines, "__path__", [*baselines.__path__, str(tmp_path)])
    assert list_settings("top_patches") == {"top": 0.01, "sigma": 0.0}
    method = build_method("top_patches", {"top": 0.25})
    encode = NameEncoder(
        tiny, lambda prompts: encode_text(tiny, prompts), TextSettings(ensemble="single")
    )
    learned = method.fit(encode, None, 0)
    (scorer,) = method.build_variants(encode, Target("nut"), learned).values()
    image_embed, tokens = encode_images(tiny, pixels)
    scores = score_batch(scorer, tokens, image_embed, tiny)
    values = torch.from_numpy(scores.maps).flatten(1)  # (B, S * S)
    expected = values.sort(dim=1).values[:, -(values.shape[1] // 4) :].mean(dim=1)
    assert torch.allclose(torch.from_numpy(scores.image_scores), expected, atol=1e-5)
    assert values.std(dim=1).min() > 1e-4  # a share of a flat map is any share


def test_the_page_names_every_method_and_real_settings():
    for name in (*BASELINES, *BEYOND):
        assert f"`{name}`" in PAGE
    known = {setting for name in BASELINES for setting in list_settings(name)} | {"tower"}
    _, published, _ = read_tables()
    settings = re.findall(r"`(\w+)(?:: \w+)?`", "".join(row[-1] for row in published))
    assert len(settings) > 8
    assert set(settings) <= known
    towers = yaml.safe_load((ROOT / "params.yaml").read_text())["towers"]
    assert set(re.findall(r"`tower: (\w+)`", "".join(row[-1] for row in published))) == {*towers}


def read_tables():
    """Rows of cells of the tables on forms: their differences, common settings, what is left."""
    text = (ROOT / "docs/fidelity.md").read_text()
    section = text[text.index("## Published and mended forms") : text.index("## What has not been")]
    tables = re.findall(r"^\| method .*\n\|---.*\n((?:\|.*\n)+)", section, flags=re.M)
    return [[row[2:-2].split(" | ") for row in table.splitlines()] for table in tables]


def test_every_method_of_two_forms_has_lines_on_their_differences_and_no_other_has():
    differences, published, _ = read_tables()
    titles = {build_method(name).title for name in BASELINES if "as" in list_settings(name)}
    named = [title for row in differences for title in row[0].split(", ")]
    assert set(named) == titles
    assert sorted(named.count(title) for title in titles) == [1, 1, 2, 2, 2, 3]
    towers = {
        title: re.findall(r"`tower: (\w+)`", row[-1])
        for row in published
        for title in row[0].split(", ")
        if "`tower" in row[-1]
    }
    params = yaml.safe_load((ROOT / "params.yaml").read_text())["methods"]
    for name in {*BASELINES} - {"saa"}:  # which reads no CLIP
        assert towers[build_method(name).title] == [params[name]["tower"]], name
