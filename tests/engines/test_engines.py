"""Engines give PyTorch's features or are refused, and their file is made once, whole."""

import json
import pickle
import re
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from fuzzyclip.clip.encoding import encode_images
from fuzzyclip.engines import choice, runners, tower_files
from fuzzyclip.engines.choice import EngineError, choose_engine, list_installed, open_engine
from fuzzyclip.engines.equality import (
    ALLOWED,
    UnequalError,
    check_equal,
    draw_pixels,
    measure_difference,
)
from fuzzyclip.engines.onnx_files import DATA
from fuzzyclip.engines.runners import RUNNERS, count_pass_images
from fuzzyclip.engines.tower_files import find_folder, keep_tower, read_kept
from fuzzyclip.utils.extras import MissingExtraError


def list_files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def spoil(path, place=-8):
    """One byte of a file is another."""
    content = bytearray(path.read_bytes())
    content[place] ^= 0x40
    path.write_bytes(content)


@pytest.mark.parametrize("name", RUNNERS)
def test_an_engine_gives_pytorchs_features_in_any_batch(name, kept, tiny, pixels):
    backbone = choose_engine(tiny, name)
    assert backbone.fingerprint == tiny.fingerprint
    assert re.fullmatch(rf"{RUNNERS[name].package} [\d.]+", backbone.engine.label)
    for count in (1, 2, 3):
        given, expected = (
            encode_images(backbone, pixels[:count]),
            encode_images(tiny, pixels[:count]),
        )
        for own, wanted in zip(given, expected, strict=True):
            assert own.dtype == torch.float32
            assert not own.requires_grad
            assert own.shape == wanted.shape
        assert measure_difference(given, expected) < 1e-5
    before = [each.clone() for each in given]
    encode_images(backbone, -pixels)  # which writes into memory of its own
    assert all(map(torch.equal, given, before))


def test_a_tower_of_timms_without_a_text_runs_too(alone):
    noise = torch.randn(2, 3, 64, 64)
    expected = encode_images(alone, noise)
    for name in RUNNERS:
        backbone = choose_engine(alone, name)
        assert measure_difference(encode_images(backbone, noise), expected) < 1e-5


@pytest.mark.parametrize("name", RUNNERS)
def test_more_images_than_a_pass_holds_come_back_in_order(name, kept, tiny, pixels, monkeypatch):
    monkeypatch.setattr(runners, "PASS_TOKENS", 2 * 16 + 1)
    backbone = choose_engine(tiny, name)
    assert backbone.engine.pass_images == 2
    given, expected = encode_images(backbone, pixels), encode_images(tiny, pixels)
    assert measure_difference(given, expected) < 1e-5
    assert [count_pass_images(tokens) for tokens in (1, 16, 33, 1370)] == [33, 2, 1, 1]


@pytest.mark.parametrize("name", RUNNERS)
def test_an_engine_is_opened_again_where_it_is_sent(name, kept, tiny, pixels):
    engine = choose_engine(tiny, name).engine
    again = pickle.loads(pickle.dumps(engine))
    assert all(map(torch.equal, again(pixels, tiny.blocks), engine(pixels, tiny.blocks)))
    with pytest.raises(ValueError, match=r"gives blocks \[1, 2, 4\], not \[1\]"):
        engine(pixels, (1,))


def test_the_difference_is_of_each_image_and_block_by_itself():
    embeds, tokens = torch.ones(2, 4), torch.ones(2, 3, 5, 4)
    tokens[:, 2] *= 1000  # a later block's numbers, beside which the first one's are nothing
    moved = tokens.clone()
    moved[1, 0, 3, 2] += 0.01
    assert measure_difference((embeds, tokens), (embeds, tokens)) == 0
    assert measure_difference((embeds, moved), (embeds, tokens)) == pytest.approx(0.01, rel=1e-4)
    moved[0, 1, 0, 0] = torch.nan
    assert np.isnan(measure_difference((embeds, moved), (embeds, tokens)))
    assert measure_difference((embeds + 0.5, tokens), (embeds, tokens)) == pytest.approx(0.5)
    assert measure_difference((0 * embeds, tokens), (0 * embeds, tokens)) == 0


def test_images_that_are_compared_are_the_same_every_time_and_differ():
    first, again = draw_pixels(40), draw_pixels(40)
    assert torch.equal(first, again)
    assert first.shape == (2, 3, 40, 40)
    assert all(each.std() > 0.5 for each in first)
    assert first[1].unique().numel() < first[0].unique().numel()  # shapes, not noise


@pytest.mark.parametrize(("factor", "refused"), [(1 + 1e-4, False), (1 + 1e-2, True)])
def test_features_may_differ_by_a_thousandth(factor, refused, tiny):
    def encode(pixels, blocks):
        embeds, tokens = tiny.image_tower.encode(pixels, blocks)
        return embeds, tokens * factor

    if not refused:
        assert 0 < check_equal(encode, tiny, "it") < ALLOWED
        return
    with pytest.raises(UnequalError, match=r"it gives .* differ .* by 0.01 of .*0.001 is allowed"):
        check_equal(encode, tiny, "it")


def test_features_of_another_shape_or_no_numbers_are_refused(tiny):
    encode = tiny.image_tower.encode
    with pytest.raises(UnequalError, match=r"of shapes .*\(2, 2, 16, 64\).*PyTorch .*2, 3, 16, 64"):
        check_equal(lambda pixels, blocks: encode(pixels, blocks[1:]), tiny, "it")
    with pytest.raises(UnequalError, match="differ from PyTorch's by nan"):
        check_equal(lambda *given: [torch.nan * each for each in encode(*given)], tiny, "it")


def test_an_engine_that_fails_is_refused(tiny):
    def fail(pixels, blocks):
        raise KeyError("no such operator")

    with pytest.raises(
        UnequalError, match=r"it can not run the image tower \('no such operator'\)"
    ):
        check_equal(fail, tiny, "it")


def falsify(folder):
    """Numbers of a kept file change and its check sums with them: it is whole, and wrong."""
    data = folder / "tower" / f"tower.onnx{DATA}"
    numbers = np.fromfile(data, np.float32)
    (numbers * np.float32(1.01)).tofile(data)
    facts = json.loads((folder / "tower/tower.json").read_text())
    facts["files"][data.name] = tower_files.sum_file(data)
    (folder / "tower/tower.json").write_text(json.dumps(facts))


@pytest.mark.parametrize("name", RUNNERS)
def test_an_engine_that_differs_is_refused_in_words(name, kept, tiny):
    falsify(find_folder(tiny))
    with pytest.raises(EngineError, match=rf"^runtime {name}: .* features that differ from PyT"):
        choose_engine(tiny, name)
    assert not [*find_folder(tiny).glob("equal-*")]


def test_it_is_compared_once_for_a_file_and_a_machine(kept, tiny, monkeypatch):
    compared, check = [], choice.check_equal

    def count(engine, *given):
        compared.append(engine.name)
        return check(engine, *given)

    monkeypatch.setattr(choice, "check_equal", count)
    for _ in range(2):
        open_engine(tiny, "onnx")
    assert compared == ["onnx"]
    open_engine(tiny, "openvino")
    monkeypatch.setattr(choice, "describe_machine", lambda: {"processor": "another"})
    open_engine(tiny, "onnx")
    assert compared == ["onnx", "openvino", "onnx"]
    falsify(find_folder(tiny))
    with pytest.raises(EngineError, match="differ"):
        open_engine(tiny, "onnx")
    (note,) = find_folder(tiny).glob("equal-openvino-*")
    facts = json.loads(note.read_text())
    assert 0 <= facts["difference"] < 1e-5
    assert facts["machine"]["processor"]["model"]


def test_the_file_is_made_once(kept, tiny, monkeypatch):
    monkeypatch.setattr(tower_files, "write_onnx", None)
    path, digits = keep_tower(tiny)
    assert keep_tower(tiny) == (path, digits)
    facts = json.loads((path.parent / "tower.json").read_text())
    assert facts["made_of"] == tower_files.describe_tower(tiny)
    assert facts["made_of"]["backbone"] == tiny.fingerprint
    assert "tower.onnx" in facts["files"]


def test_other_weights_blocks_or_packages_have_a_file_of_their_own(tiny, load_tiny, monkeypatch):
    folders = {find_folder(tiny)}
    assert {find_folder(load_tiny())} == folders
    folders |= {find_folder(load_tiny(seed=1)), find_folder(load_tiny(blocks=(1, 2)))}
    folders.add(find_folder(load_tiny(image_size=64)))
    monkeypatch.setattr(tower_files, "find_versions", lambda names: dict.fromkeys(names, "9"))
    folders.add(find_folder(tiny))
    monkeypatch.setattr(tower_files, "LAYOUT", 0)
    folders.add(find_folder(tiny))
    assert len(folders) == 6


def copy_instead(monkeypatch, whole):
    """A copy of a whole folder in place of an export, which takes seconds."""
    source = shutil.copytree(whole, whole.parent.parent / "whole")

    def copy(backbone, making):
        shutil.copytree(source, making, dirs_exist_ok=True)

    monkeypatch.setattr(tower_files, "_write", copy)


@pytest.mark.parametrize("kind", ["weights", "graph", "half", "without sums", "sums", "no table"])
def test_a_damaged_file_is_made_again(kind, kept, tiny, monkeypatch):
    path, digits = keep_tower(tiny)
    if kind != "weights":  # once by PyTorch, which writes the same bytes again
        copy_instead(monkeypatch, path.parent)
    folder, weights = find_folder(tiny), path.with_name(path.name + DATA)
    if kind in ("weights", "graph"):
        spoil(weights if kind == "weights" else path)
    elif kind == "half":
        weights.write_bytes(weights.read_bytes()[:-4096])
    elif kind == "without sums":
        (path.parent / "tower.json").unlink()
    else:
        text = '{"files": {"tower.onnx": "0"}}' if kind == "sums" else "[1"
        (path.parent / "tower.json").write_text(text)
    assert read_kept(folder) is None
    assert keep_tower(tiny) == (path, digits)
    assert read_kept(folder) is not None
    assert list_files(folder) == ["tower", *(f"tower/{name}" for name in list_files(path.parent))]


def test_of_two_that_make_it_at_once_the_second_takes_the_firsts(kept, tiny, monkeypatch):
    folder = find_folder(tiny)
    copy_instead(monkeypatch, folder / "tower")
    expected, write = read_kept(folder), tower_files._write
    shutil.move(folder / "tower", kept / "first")

    def write_slowly(backbone, making):
        write(backbone, making)
        shutil.copytree(kept / "first", folder / "tower")  # the other one is done

    monkeypatch.setattr(tower_files, "_write", write_slowly)
    keep_tower(tiny)
    assert read_kept(folder) == expected
    assert [path.name for path in folder.iterdir()] == ["tower"]  # nothing is left beside it


def test_what_hinders_making_it_is_told_and_leaves_nothing(tiny, cache, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(torch.export, "export", None)
        with pytest.raises(EngineError, match="the image tower can not become a graph"):
            open_engine(tiny, "onnx")
    assert [path for path in cache.rglob("*") if path.is_file()] == []
    usage = shutil.disk_usage(cache.parent)._replace(free=2**20)
    with monkeypatch.context() as patch:
        patch.setattr(tower_files.shutil, "disk_usage", lambda place: usage)
        with pytest.raises(EngineError, match=r"has 0\.00 GB free, .* make room"):
            open_engine(tiny, "onnx")
    (cache.parent / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache.parent / "file"))
    with pytest.raises(EngineError, match=r"runtime onnx: .*/file/fuzzyclip.*take auto or torch"):
        open_engine(tiny, "onnx")


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime", "openvino"])
def test_a_missing_package_is_named_with_its_extra(package, tiny, monkeypatch):
    name = "openvino" if package == "openvino" else "onnx"
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"{package} is not .*'fuzzyclip\[export\]'"):
        choose_engine(tiny, name)
    there = {"onnxruntime": ["openvino"], "openvino": ["onnx"]}
    assert list_installed() == there.get(package, [])


def test_an_engine_is_refused_where_it_can_not_run(tiny, load_tiny):
    others = {
        "the image tower is on cuda:1": replace(tiny, device=torch.device("cuda:1")),
        "the backbone in bfloat16": load_tiny(precision="bfloat16"),
        "torch.compile runs the image tower": replace(tiny, compiled=True),
    }
    for words, backbone in others.items():
        with pytest.raises(EngineError, match=rf"^runtime onnx: .*{words}.*; take auto or torch"):
            choose_engine(backbone, "onnx")
        assert choose_engine(backbone, "auto", 10**9) is backbone
    with pytest.raises(ValueError, match="one of auto, torch, onnx, openvino, not 'tensorrt'"):
        choose_engine(tiny, "tensorrt")


def test_pytorch_is_taken_back(kept, tiny):
    assert choose_engine(tiny, "torch") is tiny
    assert choose_engine(choose_engine(tiny, "onnx"), "torch").engine is None
