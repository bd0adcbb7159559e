"""The command `fuzzyclip data`: what it prints, what it writes, how it fails."""

import json
from pathlib import Path

import pytest
from trees import TOY, make_nut, spoil
from typer.testing import CliRunner

import fuzzyclip.datasets
from fuzzyclip.cli import app
from fuzzyclip.datasets import REGISTRY
from fuzzyclip.sample.archives import write_sample_archives


def call(*arguments: str | Path, fails: bool = False) -> str:
    result = CliRunner().invoke(app, ["data", *map(str, arguments)])
    assert (result.exit_code != 0) == fails, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.output


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzzyclip.datasets, "REGISTRY", {"toy": TOY})


def test_list_and_show_name_all_there_is() -> None:
    listed = call("list")
    for name, spec in REGISTRY.items():
        assert name in listed
        assert spec.licence in listed
        shown = call("show", name)
        for protocol in spec.protocols.values():
            assert protocol.summary in shown
            for category, counts in protocol.counts.items():
                numbers = "  ".join("-" if count is None else str(count) for count in counts)
                assert f"{category} ({spec.categories[category]}): {numbers}" in shown
        for archive in spec.archives:
            assert all(url in shown for url in archive.urls)
    assert "there are mvtec" in call("show", "nothing", fails=True)


def test_prepare_makes_a_tree_for_others_too(tmp_path: Path) -> None:
    write_sample_archives(
        "mpdd", tmp_path / "archives", seed=0, train_normal=1, test_normal=2, test_anomalous=2
    )
    options = ("--category", "bracket_black", "--offline")
    arguments = ("prepare", "mpdd", "--out", tmp_path / "mpdd", "--archives", tmp_path / "archives")
    assert "published: test_normal 32" in call(*arguments, *options, fails=True)
    output = call(*arguments, *options, "--subset")
    counts = "train_normal 1, test_normal 2, test_anomalous 2, train_anomalous 0"
    assert f"bracket_black: {counts}" in output
    assert "CC BY-NC-SA 4.0" in output
    meta = json.loads((tmp_path / "mpdd/meta.json").read_text())
    assert meta["info"]["protocol"] == "official"
    assert len(meta["test"]["bracket_black"]) == 4
    checked = call("check", "mpdd", tmp_path / "mpdd", "--protocol", "meta", "--subset",
                   "--category", "bracket_black")  # fmt: skip
    assert "5 images, protocol meta" in checked
    assert not list(tmp_path.glob(".mpdd*"))


def test_prepare_says_what_to_place_where(tmp_path: Path) -> None:
    output = call("prepare", "mpdd", "--out", tmp_path / "x", fails=True)
    assert "OneDrive" in output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("toy")
def test_check_names_every_fault_and_can_leave_them_out(tmp_path: Path) -> None:
    spoil(make_nut(tmp_path))
    output = call("check", "toy", tmp_path, "--write", fails=True)
    for name in ("test/hole/0.png", "ground_truth/hole/1_mask.png", "ground_truth/hole/9_mask.png"):
        assert f"{tmp_path}/nut/{name}: " in output
    assert not (tmp_path / "meta.json").exists()
    output = call("check", "toy", tmp_path, "--drop", "--write")
    assert "test_anomalous 1" in output
    assert len(json.loads((tmp_path / "meta.json").read_text())["info"]["dropped"]) == 3
