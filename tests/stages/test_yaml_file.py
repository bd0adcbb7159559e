"""YAML that is read: every key once, of a bounded size, UTF-8."""

import pytest
import yaml
from imports import ROOT

from stages.params import ParamsError, read_params
from stages.yaml_file import YamlError, parse_yaml, read_yaml

BOMB = "a0: &a0 [1, 1]\n" + "".join(
    f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}, *a{n - 1}, *a{n - 1}]\n" for n in range(1, 14)
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\nb: 2\na: 3\n", "line 3, column 1"),
        ("x: {a: 1, a: 1}\n", "'a' stands twice, first in line 1"),
        (BOMB, "unfold to more than"),
        ("a: &a [*a]\n", "unfold to more than"),
        ("[" * 200 + "]" * 200, "nested more than 100 levels"),
        ("[" * 100_000, "nested more than 100 levels"),
        ("a: [1\n", "no YAML: "),
        ("a: 2001-99-99\n", "month must be in"),
        ("? [1]\n: 2\n", "key"),
        ("a: !!python/object:os.system x\n", "no YAML: "),
    ],
)
def test_what_is_not_read_has_its_file_and_place(tmp_path, text, words):
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(YamlError) as caught:
        read_yaml(path)
    assert str(caught.value).startswith(str(path))
    assert words in str(caught.value)


@pytest.mark.parametrize("name", ["params.yaml", "dvc.yaml", "stages/experiments/paper.yaml"])
def test_what_is_read_is_what_others_read(name):
    text = (ROOT / name).read_text("utf-8")
    assert read_yaml(ROOT / name) == yaml.safe_load(text)
    assert parse_yaml("<<: &x {a: 1}\nb: *x\n", "x") == {"a": 1, "b": {"a": 1}}


def test_params_of_another_encoding_or_with_a_misspelt_key_say_so(tmp_path):
    path = tmp_path / "params.yaml"
    text = (ROOT / "params.yaml").read_text("utf-8")
    path.write_bytes(text.replace("experiment: fuzzyclip", "experiment: Müller").encode("latin-1"))
    with pytest.raises(ParamsError, match=r"params\.yaml: line \d+ is no UTF-8: .*0xfc"):
        read_params(path)
    path.write_text(text.replace("\n  penalty: 0.1", "\n  penalti: 0.1"), "utf-8")
    with pytest.raises(ParamsError, match=r"csp\.penalti: .*did you mean penalty\?"):
        read_params(path)
    path.write_text(text.replace("\n  sigma: 8.0", "\n  sigma: 8.0"), "utf-8")
    assert read_params(path) == read_params(ROOT / "params.yaml")
