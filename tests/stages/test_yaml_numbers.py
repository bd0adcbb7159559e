"""YAML as DVC reads it, and names in it that look like something else."""

import pytest
import yaml
from dvc.utils.serialize import parse_yaml
from imports import ROOT
from odd_names import STRANGE

from stages.params import ParamsError, read_params
from stages.yaml_numbers import dump_yaml, know_numbers

PARAMS = (ROOT / "params.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize("text", ["1e5", "1E-3", "-2.5e+3", ".5e1", "1.e2", "+1e5", "0.1", "12"])
def test_a_number_is_the_one_that_dvc_reads(text):
    ours, theirs = (read(f"a: {text}\n") for read in (load, load_as_dvc))
    assert ours == theirs
    assert type(ours["a"]) is type(theirs["a"])


def load(text):
    return yaml.load(text, know_numbers(yaml.SafeLoader))


def load_as_dvc(text):
    return parse_yaml(text, "params.yaml")


@pytest.mark.parametrize("name", STRANGE)
def test_what_is_written_is_read_back_here_and_by_dvc(name):
    data = {"categories": [name], name: {name: 1.5}}
    assert load(dump_yaml(data)) == data
    assert load_as_dvc(dump_yaml(data)) == data


def test_line_ends_and_a_byte_order_mark_change_nothing(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_bytes(PARAMS.replace("\n", "\r\n").encode("utf-8-sig"))
    assert read_params(path) == read_params(ROOT / "params.yaml")


@pytest.mark.parametrize(
    ("written", "fault"),
    [("001", "as 1"), ("1e5", "as 100000.0"), ("null", "as nothing"), ("yes", "as True")],
)
def test_a_category_that_yaml_takes_for_something_else_is_named(written, fault, tmp_path):
    path = tmp_path / "params.yaml"
    line = "categories: null"
    assert line in PARAMS
    path.write_text(PARAMS.replace(line, f"categories: [NA, {written}]", 1), encoding="utf-8")
    with pytest.raises(
        ParamsError, match=rf"categories\.1: .*YAML has read {fault}: put it into q"
    ):
        read_params(path)
    path.write_text(PARAMS.replace(line, f"categories: [NA, '{written}']", 1), encoding="utf-8")
    chosen = [entry.categories for entry in read_params(path).datasets.values()]
    assert ["NA", written] in chosen
