"""A DINOv2's tensors out of an exporter's ONNX file."""

import numpy as np
import onnx
import pytest
from tower_files import draw_state, save_onnx, split_state

from fuzzyclip.towers import TowerError
from fuzzyclip.towers.onnx_tensors import Node, name_tensors, read_onnx


def test_all_tensors_get_timms_names_and_values(tmp_path):
    state = draw_state()
    named = read_onnx(save_onnx(state, tmp_path / "toy.onnx"))
    assert named.keys() == state.keys()
    for name, tensor in state.items():
        assert named[name].dtype == np.float32
        assert np.array_equal(named[name], tensor.numpy()), name


def test_what_is_missing_is_named():
    tensors, nodes = split_state(draw_state())
    nodes = [Node(*node) for node in nodes]
    del tensors["backbone.encoder.layer.2.norm1.bias"]
    with pytest.raises(TowerError, match=r"layer\.2\.norm1\.bias is missing"):
        name_tensors(tensors, nodes)
    tensors, _ = split_state(draw_state())
    with pytest.raises(TowerError, match=r"query\.bias is missing"):  # of no product
        name_tensors(tensors, [node for node in nodes if node.kind != "MatMul"])


def test_no_file_is_followed_and_no_other_kind_is_read(tmp_path):
    path = save_onnx(draw_state(), tmp_path / "toy.onnx")
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location="others", size_threshold=0)
    with pytest.raises(TowerError, match=r"toy\.onnx: its tensors lie in other files"):
        read_onnx(path)
    path.write_bytes(b"no ONNX file at all")
    with pytest.raises(TowerError, match=r"toy\.onnx: not readable"):
        read_onnx(path)
