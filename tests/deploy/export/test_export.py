"""Exported detectors: the numbers of the detector itself, or no file at all."""

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from export_cases import LOOSE, ORIGIN, assert_same, build, detect, run_python
from hypothesis import given
from hypothesis import strategies as st
from imports import ROOT
from properties import try_examples
from scipy.ndimage import gaussian_filter

from fuzzyclip.clip.encoding import preprocess
from fuzzyclip.deploy import export
from fuzzyclip.deploy.export import export_onnx, export_openvino
from fuzzyclip.deploy.facts import describe, parse_facts, read_facts
from fuzzyclip.deploy.graph import build_smoothing
from fuzzyclip.deploy.parity import (
    FLOAT32,
    Difference,
    ParityError,
    Reference,
    check_parity,
    measure,
)
from fuzzyclip.deploy.runtimes import OnnxRuntime, OpenVino, load_pixels, open_exported
from fuzzyclip.engines.onnx_files import ExportError
from fuzzyclip.model.inference import CategoryModel
from fuzzyclip.utils.extras import MissingExtraError
from fuzzyclip.utils.files import place_together


def test_both_runtimes_give_the_detectors_numbers_in_any_batch(exported, detector, images):
    for runtime in ("onnxruntime", "openvino"):
        assert_same(open_exported(exported, runtime, threads=1), detector, images)


def test_the_file_is_sound_onnx_with_a_free_batch(exported, tiny):
    onnx.checker.check_model(str(exported), full_check=True)
    graph, size = onnx.load(str(exported)).graph, tiny.image_size
    shapes = {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }
    assert shapes == {
        "image": ["batch", size, size, 3],
        "anomaly_map": ["batch", size, size],
        "image_score": ["batch"],
    }
    assert graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8


def test_facts_come_back(exported, detector):
    facts = read_facts(exported)
    assert facts == OnnxRuntime(exported).facts
    assert facts == json.loads(json.dumps(describe(detector, ORIGIN, "float32")))
    assert [facts[name] for name in ("category", "prompts", "thresholds", "model_sha256")] == [
        ORIGIN.category, ORIGIN.prompts, ORIGIN.thresholds, ORIGIN.model_sha256,
    ]  # fmt: skip
    assert (facts["image_size"], facts["mean"]) == (32, list(detector.backbone.mean))


def scale_tensor(exported, path, name, factor):
    """The exported file with other numbers in one of its tensors."""
    model = onnx.load(str(exported))
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name.endswith(name))
    values = onnx.numpy_helper.to_array(tensor) * np.float32(factor)
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    onnx.save(model, str(path))


@pytest.mark.parametrize(
    ("name", "factor"), [("conv1.weight", 1.1), ("mean", 0.9), ("std", np.nan)]
)
def test_a_file_that_differs_does_not_replace_an_old_one(
    name, factor, exported, detector, images, tmp_path, monkeypatch
):
    def write_broken(graph, path):
        scale_tensor(exported, path, name, factor)

    monkeypatch.setattr(export, "write_graph", write_broken)
    (path := tmp_path / "bottle.onnx").write_text("old")
    with pytest.raises(ParityError, match=r"\(float32\) differs from PyTorch"):
        export_onnx(detector, path, images, ORIGIN)
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["bottle.onnx"]


def test_int8_rounds_the_later_blocks_layers_and_nothing_else(
    quantised, exported, detector, images, tiny, tmp_path
):
    operators = Counter(node.op_type for node in onnx.load(str(quantised)).graph.node)
    before = Counter(node.op_type for node in onnx.load(str(exported)).graph.node)
    layers = 4 * (tiny.image_tower.depth - 2)  # in, out and two of the MLP
    assert operators["MatMulInteger"] == layers
    assert operators["MatMul"] == before["MatMul"] - layers
    assert operators["Conv"] == before["Conv"]
    weights = [
        onnx.numpy_helper.to_array(tensor)
        for tensor in onnx.load(str(quantised)).graph.initializer
        if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) == 2
    ]
    assert len(weights) == layers
    assert all(np.abs(w.astype(int)).max() == 64 for w in weights)  # no 16-bit sum overflows
    assert quantised.stat().st_size < 0.8 * exported.stat().st_size
    assert read_facts(quantised)["weights"] == "int8"
    assert [path.name for path in quantised.parent.iterdir()] == ["bottle.onnx"]
    onnx.checker.check_model(str(quantised))
    maps, scores = detect(detector, images)
    run = open_exported(quantised)
    rounded_maps, rounded_scores = run(run.load(images))
    assert np.corrcoef(rounded_maps.ravel(), maps.ravel())[0, 1] > 0.98
    assert np.abs(rounded_scores - scores).max() < 0.02
    export_openvino(detector, quantised, tmp_path / "bottle.xml", images, allowed=LOOSE)
    assert read_facts(tmp_path / "bottle.xml")["weights"] == "int8"


def test_openvinos_own_file(exported, detector, images, tmp_path):
    path = tmp_path / "bottle.xml"
    assert export_openvino(detector, exported, path, images).map_max < 1e-5
    assert sorted(file.name for file in tmp_path.iterdir()) == ["bottle.bin", "bottle.xml"]
    run = open_exported(path)
    assert isinstance(run, OpenVino)
    assert run.facts == read_facts(path) == read_facts(exported)
    assert_same(run, detector, images)


def test_openvino_reports_nothing_to_its_makers():
    lines = (
        "import sys",
        "from fuzzyclip.utils.extras import import_extra",
        "import_extra('openvino')",
        "from openvino.tools.ovc import telemetry_utils",
        "print(telemetry_utils.tm.__name__, 'openvino_telemetry' in sys.modules)",
    )
    assert run_python(*lines) == ["openvino.tools.ovc.telemetry_stub", "False"]


def test_a_signal_is_heard_after_openvinos_files_are_closed_as_they_were_opened(exported):
    lines = (
        "import gc, os, signal",
        "from pathlib import Path",
        "from fuzzyclip.deploy.runtimes import open_exported",
        f"path = Path({str(exported)!r})",
        "first, second = (open_exported(path, 'openvino') for _ in range(2))",
        "del first; gc.collect()",
        "del second; gc.collect()",
        "signal.signal(signal.SIGTERM, lambda number, frame: print('heard'))",
        "os.kill(os.getpid(), signal.SIGTERM)",
    )
    assert run_python(*lines) == ["heard"]


def test_files_that_belong_together_are_never_mixed(tmp_path):
    main, data = tmp_path / "a.onnx", tmp_path / "a.onnx.data"

    def place(text, companion=data, last=""):
        with place_together(main, companion) as folder:
            (folder / main.name).write_text(text)
            (folder / companion.name).write_text(text)
            (folder / last).stat()

    for text in ("old", "new"):
        place(text)
        with pytest.raises(FileNotFoundError, match="absent"):
            place("half", last="absent")
        assert (main.read_text(), data.read_text()) == (text, text)
    with place_together(main, data) as folder:
        (folder / main.name).write_text("alone")
    assert [path.name for path in tmp_path.iterdir()] == ["a.onnx"]  # old data would be a trap
    place("new")
    (tmp_path / "b").mkdir()
    with pytest.raises(OSError):  # noqa: PT011
        place("newer", companion=tmp_path / "b")
    assert not main.exists()  # rather than the old one beside another's data
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.onnx.data", "b"]


@try_examples(40)
@given(st.integers(2, 40), st.floats(0.01, 60), st.integers(0, 2**32 - 1))
def test_smoothing_as_a_matrix_is_scipys(size, sigma, seed):
    anomaly_map = np.random.default_rng(seed).random((size, size), dtype=np.float32)
    matrix = build_smoothing(size, sigma)
    smoothed = matrix @ torch.from_numpy(anomaly_map) @ matrix.T
    assert np.allclose(smoothed, gaussian_filter(anomaly_map, sigma), atol=1e-5)


def test_what_can_not_be_traced_is_told(tiny, images, tmp_path):
    trained = build(tiny).scorer

    def compute_map(tokens, unit):
        anomaly_map = trained.compute_map(tokens, unit)
        return anomaly_map if anomaly_map.max() > 0.5 else 2 * anomaly_map  # of the whole batch

    detector = CategoryModel(tiny, replace(trained, compute_map=compute_map))
    with pytest.raises(ExportError, match=r"the detector can not become a graph: \w+"):
        export_onnx(detector, tmp_path / "a.onnx", images, ORIGIN)
    assert list(tmp_path.iterdir()) == []


def test_wrong_input_is_refused_before_anything_is_written(load_tiny, detector, images, tmp_path):
    path = tmp_path / "a.onnx"
    with pytest.raises(ValueError, match="give at least one"):
        export_onnx(detector, path, [], ORIGIN)
    with pytest.raises(ValueError, match=r"a.xml: an ONNX file's name ends in .onnx"):
        export_onnx(detector, tmp_path / "a.xml", images, ORIGIN)
    with pytest.raises(ValueError, match="float32, int8, not 'int4'"):
        export_onnx(detector, path, images, ORIGIN, weights="int4")
    with pytest.raises(ValueError, match=r"computes in bfloat16.*precision float32"):
        export_onnx(build(load_tiny(precision="bfloat16")), path, images, ORIGIN)
    with pytest.raises(ValueError, match=r"merges tokens.*merge 0 to export"):
        export_onnx(build(load_tiny(merge=0.5)), path, images, ORIGIN)
    with pytest.raises(OSError, match=r"absent.png"):
        export_onnx(detector, path, [tmp_path / "absent.png"], ORIGIN)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["onnx", "onnxruntime", "onnxscript", "openvino"])
def test_a_missing_package_is_named(name, exported, detector, images, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    ways = {"openvino": lambda: export_openvino(detector, exported, tmp_path / "a.xml", images)}
    write = ways.get(name, lambda: export_onnx(detector, tmp_path / "a.onnx", images, ORIGIN))
    with pytest.raises(MissingExtraError, match=rf"{name} is not.*'fuzzyclip\[export\]'"):
        write()
    assert list(tmp_path.iterdir()) == []


def test_importing_the_runtime_reports_to_nobody(tmp_path):
    """onnxruntime leaves a number of the machine in ~/.cache when it starts to report."""
    script = "from fuzzyclip.utils.extras import import_extra; import_extra('onnxruntime')"
    variables = {"HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]}
    subprocess.run([sys.executable, "-c", script], env=variables, check=True)
    assert list(tmp_path.rglob("*")) == []


def test_pixels_of_another_kind_are_refused(exported):
    run = open_exported(exported)
    for pixels in (
        np.zeros((1, 32, 32, 3), np.float32),
        np.zeros((1, 3, 32, 32), np.uint8),
        np.zeros((32, 32, 3), np.uint8),
        np.zeros((1, 33, 32, 3), np.uint8),
    ):
        with pytest.raises(ValueError, match=r"takes uint8 pixels \(B, 32, 32, 3\)"):
            run(pixels)
    for make in (lambda: run(np.zeros((0, 32, 32, 3), np.uint8)), lambda: run.load([])):
        with pytest.raises(ValueError, match="no images"):
            make()
    with pytest.raises(ValueError, match="auto or one of onnxruntime, openvino"):
        open_exported(exported, "tensorrt")


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_answers_that_are_no_numbers_are_refused(runtime, exported, images, tmp_path, monkeypatch):
    scale_tensor(exported, tmp_path / "broken.onnx", "std", np.nan)
    message = r"\w+\.onnx answers what is not a finite number"
    run = open_exported(tmp_path / "broken.onnx", runtime)
    with pytest.raises(ValueError, match=message):
        run(run.load(images))
    run = open_exported(exported, runtime)
    pixels = run.load(images)
    for number, value in ((0, np.nan), (0, np.inf), (1, np.nan), (1, -np.inf)):
        answers = [answer.copy() for answer in run(pixels)]
        answers[number].flat[-1] = value  # of the last image alone
        with monkeypatch.context() as patch:
            patch.setattr(run, "_run", lambda pixels, answers=answers: answers)
            with pytest.raises(ValueError, match=message):
                run(pixels)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_files_that_are_none_of_ours_are_refused(runtime, exported, tmp_path):
    """Those of layout 1 have scores that are probabilities."""
    with pytest.raises(FileNotFoundError, match="absent"):
        open_exported(tmp_path / "absent.onnx", runtime)
    (broken := tmp_path / "broken.onnx").write_bytes(exported.read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"broken.onnx: can not be opened"):
        open_exported(broken, runtime)
    sizes = [
        ({"image_size": size}, "image_size must be from 1 to 8,192") for size in (0, -1, 10**9)
    ]
    sizes += [({"image_size": size}, "image_size is") for size in (None, "x", [32], True)]
    older = ({"layout": 1}, "facts of layout 1, not 2; export it again")
    for change, message in (*sizes, older, (None, "no facts in its metadata")):
        model = onnx.load(str(exported))
        (entry,) = model.metadata_props
        if change is None:
            del model.metadata_props[:]
        else:
            facts = json.loads(entry.value) | change
            entry.value = json.dumps({key: facts[key] for key in facts if facts[key] is not None})
        onnx.save(model, str(path := tmp_path / "foreign.onnx"))
        with pytest.raises(ValueError, match=rf"foreign\.onnx: {message}"):
            open_exported(path, runtime)


def test_facts_of_broken_files_are_refused(tmp_path):
    for name in ("a.onnx", "a.xml"):
        (tmp_path / name).write_text("<no")
        with pytest.raises(ValueError, match=rf"{name}: not an"):
            read_facts(tmp_path / name)
    for facts in ("[]", "{", "3", "[" * 100_000, '{"layout": 2, "layout": 2}'):
        with pytest.raises(ValueError, match=r"a\.onnx: facts that are no table of JSON"):
            parse_facts(facts, tmp_path / "a.onnx")


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("absolute", [True, False])
def test_weights_outside_of_a_files_folder_are_not_read(runtime, absolute, tmp_path):
    np.arange(4, dtype=np.float32).tofile(tmp_path / "secret")
    (tmp_path / "inner").mkdir()
    weights = onnx.TensorProto(name="w", data_type=1, dims=[4], data_location="EXTERNAL")
    place = str(tmp_path / "secret") if absolute else "../secret"
    weights.external_data.add(key="location", value=place)
    ends = [onnx.helper.make_tensor_value_info(name, 1, [4]) for name in "xy"]
    add = onnx.helper.make_node("Add", ["x", "w"], ["y"])
    graph = onnx.helper.make_graph([add], "g", ends[:1], ends[1:], [weights])
    opset = onnx.helper.make_opsetid("", 18)
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=9)
    (path := tmp_path / "inner" / "a.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match=r"a\.onnx: can not be opened"):
        open_exported(path, runtime)


def test_an_xml_that_swells_or_names_other_files_is_refused(tmp_path):
    """Ten to the eleventh of a text, and a file of this machine, by what XML calls entities."""
    (tmp_path / "secret").write_text("secret")
    swelling = '<!ENTITY a0 "ha">'
    swelling += "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 12))
    naming = f'<!ENTITY a11 SYSTEM "{(tmp_path / "secret").as_uri()}">'
    for entities in (swelling, naming):
        (path := tmp_path / "a.xml").write_text(
            f'<!DOCTYPE net [{entities}]><net><rt_info><fuzzyclip value="&a11;"/></rt_info></net>'
        )
        with pytest.raises(ValueError, match=r"a\.xml: not an OpenVINO file"):
            read_facts(path)


def test_images_are_loaded_as_the_backbone_wants_them(images, tiny, tmp_path):
    images[0].save(tmp_path / "0.png")
    pixels = load_pixels([tmp_path / "0.png", images[1]], tiny.image_size)
    mean, std = (torch.tensor(channels).view(3, 1, 1) for channels in (tiny.mean, tiny.std))
    for image, row in zip(images, pixels, strict=False):
        expected = preprocess(image.convert("RGB"), tiny)
        normalised = (torch.from_numpy(row).permute(2, 0, 1).float() / 255 - mean) / std
        assert torch.equal(normalised, expected)


def make_reference():
    rng = np.random.default_rng(0)
    maps, scores = rng.random((4, 6, 6), np.float32), rng.random(4, np.float32)
    return Reference(rng.integers(0, 256, (4, 6, 6, 3), dtype=np.uint8), maps, scores)


def answer(reference, change=lambda *answers: answers):
    """A run that knows each image by its pixels."""

    def run(pixels):
        rows = [int((reference.pixels == row).all(axis=(1, 2, 3)).argmax()) for row in pixels]
        return change(reference.maps[rows].copy(), reference.scores[rows].copy())

    return run


def shift_last(maps, scores):
    """Only an image that is not the first of its batch is wrong."""
    if len(maps) > 1:
        scores[-1] += 0.5
    return maps, scores


def spoil(maps, scores):
    maps[0, 0, 0] = np.nan
    return maps, scores


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (shift_last, r"in a batch of 3: score by 0.5 \(allowed 0.0001\)"),
        (spoil, "map_mean by nan.*map_max by nan"),
        (lambda maps, scores: (maps[:1], scores[:1]), r"maps \(1, 6, 6\).*of a batch of 3"),
        (lambda maps, scores: (maps * 1.01, scores), "batch of 1: map_mean by .*map_max by"),
    ],
)
def test_what_differs_is_told(change, message):
    reference = make_reference()
    assert check_parity(reference, answer(reference), FLOAT32, "a") == Difference(0.0, 0.0, 0.0)
    with pytest.raises(ParityError, match=message):
        check_parity(reference, answer(reference, change), FLOAT32, "a")


def test_differences_are_measured_by_image():
    maps, scores = np.zeros((2, 2, 2), np.float32), np.zeros(2, np.float32)
    other = np.array([[[0, 0], [0, 1]], [[0.5, 0.5], [0.5, 0.5]]], np.float32)
    apart = measure((maps, scores), (other, np.array([0.25, -0.5], np.float32)))
    assert apart == Difference(score=0.5, map_mean=0.5, map_max=1.0)
    assert apart.join(Difference(0.6, 0.1, 0.2)) == Difference(0.6, 0.5, 1.0)
