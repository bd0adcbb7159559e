"""Exported detectors of other towers and sizes, and exports that must not be."""

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from backbones import load_clip, load_sample
from drawn_embeds import hold_images
from export_cases import (
    LOOSE,
    ORIGIN,
    assert_same,
    build,
    detect,
    draw_images,
    draw_unit,
    run_python,
)
from families import FAMILIES, Words, give_tokenizer, shake

from fuzzyclip.baselines.fuzzyclip_plus import FuzzyClipPlus
from fuzzyclip.clip.encoding import encode_images, encode_text, preprocess
from fuzzyclip.clip.name_encoder import NameEncoder
from fuzzyclip.deploy.export import export_onnx, export_openvino
from fuzzyclip.deploy.facts import read_facts
from fuzzyclip.deploy.parity import Difference, ParityError
from fuzzyclip.deploy.runtimes import open_exported
from fuzzyclip.method.efa import join_planes
from fuzzyclip.method.scorer import build_untrained, remember
from fuzzyclip.model.inference import CategoryModel


def test_equal_exports_are_equal_bytes_that_tell_nothing_of_the_machine(
    exported, detector, images, tmp_path
):
    again = tmp_path / "bottle.onnx"
    export_onnx(detector, again, images[:1], ORIGIN)
    content = again.read_bytes()
    assert content == exported.read_bytes()
    for place in (b".py", b"site-packages", str(tmp_path).encode()):
        assert place not in content
    assert [path.name for path in tmp_path.iterdir()] == ["bottle.onnx"]


def test_int8_beyond_what_is_allowed_is_refused_and_leaves_no_file(detector, images, tmp_path):
    strict = Difference(score=1e-4, map_mean=1.0, map_max=1.0)
    with pytest.raises(ParityError, match=r"\(int8\).*score by 0.*\(allowed 0.0001\)"):
        export_onnx(detector, tmp_path / "a.onnx", images, ORIGIN, weights="int8", allowed=strict)
    assert list(tmp_path.iterdir()) == []


def test_openvino_refuses_what_differs(exported, tiny, load_tiny, images, tmp_path):
    path = tmp_path / "bottle.xml"
    with pytest.raises(ParityError, match=r"bottle.xml \(float32\) differs"):
        export_openvino(build(tiny, sigma=2.0), exported, path, images)
    with pytest.raises(ValueError, match="made with another backbone"):
        export_openvino(build(load_tiny(seed=5)), exported, path, images)
    with pytest.raises(ValueError, match=r"bottle.onnx: an OpenVINO file's name ends in .xml"):
        export_openvino(build(tiny), exported, tmp_path / "bottle.onnx", images)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_running_needs_no_pytorch(runtime, exported, images, tmp_path):
    images[0].save(tmp_path / "0.png")
    printed = run_python(
        "import sys",
        "from pathlib import Path",
        "from fuzzyclip.deploy.runtimes import open_exported",
        f"run = open_exported(Path({str(exported)!r}), {runtime!r})",
        f"maps, scores = run(run.load([Path({str(tmp_path / '0.png')!r})]))",
        "print(scores[0], [n for n in ('torch', 'open_clip', 'scipy') if n in sys.modules])",
    )
    expected = open_exported(exported, runtime)
    assert float(printed[0]) == pytest.approx(expected(expected.load(images[:1]))[1][0], abs=1e-5)
    assert printed[1:] == ["[]"]


def test_large_weights_lie_beside_the_file(detector, images, tmp_path):
    """An int8 file is made of a float32 file that was compared: both have their weights outside."""
    path, data = tmp_path / "bottle.onnx", tmp_path / "bottle.onnx.data"
    export_onnx(detector, path, images, ORIGIN, weights="int8", allowed=LOOSE, external_above=1000)
    assert sorted(tmp_path.iterdir()) == [path, data]
    assert data.stat().st_size > path.stat().st_size
    assert data.stat().st_mode == path.stat().st_mode
    onnx.checker.check_model(str(path))
    run = open_exported(path)
    assert run.facts["weights"] == "int8"
    assert_same(run, detector, images, atol=0.1, score_atol=0.02)


def test_smoothing_and_remembered_parts_are_in_the_graph(tiny, images, tmp_path):
    pixels = [preprocess(image.convert("RGB"), tiny) for image in draw_images(2)]
    tokens = encode_images(tiny, torch.stack(pixels))[1]
    detector = build(tiny, sigma=2.5, memory=remember(tokens, tiny.grid, tiny.image_size))
    plain = build(tiny)
    assert np.abs(detect(detector, images)[0] - detect(plain, images)[0]).max() > 0.05
    path = tmp_path / "a.onnx"
    export_onnx(detector, path, images, ORIGIN)
    for runtime in ("onnxruntime", "openvino"):
        assert_same(open_exported(path, runtime), detector, images)
    facts = read_facts(path)
    assert facts["sigma"] == 2.5
    assert facts["remembered_tokens"] == 2 * 16


@pytest.mark.parametrize(
    ("score", "sigma", "shots"), [("map", 0.0, 0), ("both", 2.5, 0), ("map", 2.5, 2)]
)
def test_a_score_that_sees_the_map_is_in_the_graph(tiny, images, tmp_path, score, sigma, shots):
    pixels = [preprocess(image.convert("RGB"), tiny) for image in draw_images(2)]
    tokens = encode_images(tiny, torch.stack(pixels))[1]
    memory = remember(tokens[:shots], tiny.grid, tiny.image_size) if shots else None
    detector = replace(build(tiny, sigma, memory), score=score)
    assert np.abs(detect(detector, images)[1] - detect(build(tiny), images)[1]).min() > 0.01
    path = tmp_path / "a.onnx"
    export_onnx(detector, path, images, ORIGIN)
    export_openvino(detector, path, tmp_path / "a.xml", images)
    for file in (path, tmp_path / "a.xml"):
        assert_same(open_exported(file), detector, images, score_atol=1e-4)
        assert read_facts(file)["score"] == score
    with pytest.raises(ValueError, match=f"a.onnx: gives the score '{score}', not 'class'"):
        export_openvino(build(tiny, sigma, memory), path, tmp_path / "b.xml", images)


def test_what_is_rare_in_an_image_and_layers_and_discriminants_are_in_the_graph(
    tiny, images, tmp_path
):
    encode = NameEncoder(tiny, lambda prompts: encode_text(tiny, prompts))
    method = FuzzyClipPlus(epochs=1, batch_size=2, mosaic=0.0, sigma=1.5)
    pixels = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    masks = torch.zeros(4, 32, 32, dtype=torch.bool)
    masks[2:, 4:20, 4:20] = True
    learned = method.fit(
        encode, hold_images(*encode_images(tiny, pixels), masks, ["nut", "bolt"] * 2), seed=0
    )
    detector = CategoryModel(tiny, method.build(encode, "gear", learned), sigma=method.sigma)
    path = tmp_path / "a.onnx"
    export_onnx(detector, path, images, ORIGIN)
    export_openvino(detector, path, tmp_path / "a.xml", images)
    for file in (path, tmp_path / "a.xml"):
        assert_same(open_exported(file), detector, images, score_atol=1e-3)


def steepen(detector, factor):
    """The detector with log-odds of its maps that are larger by a factor."""
    own = detector.scorer.compute_map

    def compute_map(tokens, unit):
        return join_planes([(factor * own(tokens, unit).float(), None)])

    return replace(detector, scorer=replace(detector.scorer, compute_map=compute_map))


def test_log_odds_near_the_ends_of_a_probability_are_told_apart_in_the_file(tiny, images, tmp_path):
    """onnxruntime's sigmoid ends at 18; where float32 itself ends, at 87, nothing is written."""
    plain = replace(build(tiny), score="map")
    highest = float(detect(plain, images)[1].max())
    steep = steepen(plain, 40 / highest)
    scores = detect(steep, images)[1]
    assert (scores > 25).sum() == 3
    export_onnx(steep, tmp_path / "a.onnx", images, ORIGIN)
    run = open_exported(tmp_path / "a.onnx")
    assert np.allclose(run(run.load(images))[1], scores, atol=1e-4)
    with pytest.raises(ParityError, match=r"b.onnx \(float32, score map\) differs .*score by \d"):
        export_onnx(steepen(plain, 140 / highest), tmp_path / "b.onnx", images, ORIGIN)
    assert [path.name for path in tmp_path.iterdir()] == ["a.onnx"]


def test_the_sample_clip(images, tmp_path):
    """Its int8 and its float32 file, of which that is made, differ by no more than is allowed."""
    detector = build(load_sample())
    export_onnx(detector, tmp_path / "a.onnx", images, ORIGIN, weights="int8")
    run = open_exported(tmp_path / "a.onnx")
    assert_same(run, detector, images, atol=0.1, score_atol=0.02)


@pytest.mark.parametrize("name", ["MetaCLIP", "attentional pool", "timm, register, map"])
def test_other_families(name, images, tmp_path):
    """QuickGELU, averages, pools by attention; also their own projections."""
    config, _, size, _ = FAMILIES[name]
    (tmp_path / "model.json").write_text(json.dumps(config))
    with pytest.MonkeyPatch.context() as patch:
        give_tokenizer(patch, lambda name: Words())
        backbone = load_clip(tmp_path / "model.json", image_size=size, blocks=(1, 3))
    shake(backbone)
    projected = build_untrained(backbone, "drawn", draw_unit(2, backbone.embed_dim).T)
    trained = build(backbone)
    both = replace(
        trained.scorer,
        compute_map=lambda tokens, unit: join_planes(
            (scorer.compute_map(tokens, unit), None) for scorer in (projected, trained.scorer)
        ),
    )
    detector = CategoryModel(backbone, both)
    path = tmp_path / "a.onnx"
    export_onnx(detector, path, images, ORIGIN)
    assert_same(open_exported(path), detector, images, atol=2e-5, score_atol=1e-4)
