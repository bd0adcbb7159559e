"""The weights of a DINOv2 out of an ONNX file, under timm's names.

PyTorch's exporter keeps the names of embeddings, norms, biases and layer scales. The matrix of a
linear layer is left without its name, turned; it is found by the named bias that is added to what
the matrix has multiplied. Position embeddings lie in two parts, of the class token and of patches.

Shapes: W width, P patches, D depth.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fuzzyclip.towers.folder import TowerError
from fuzzyclip.utils.extras import import_extra
from fuzzyclip.utils.faults import naming

Array = NDArray[np.float32]
#: Position embedding of the class token (1, 1, W) and of the patches (1, P, W).
POSITIONS = ("onnx::Concat_1957", "onnx::Reshape_1962")
EMBEDDINGS, LAYER = "backbone.embeddings.", "backbone.encoder.layer."
#: timm's names to those in the file: outside of blocks, and vectors of a block.
OUTSIDE = {
    "cls_token": f"{EMBEDDINGS}cls_token",
    "patch_embed.proj.weight": f"{EMBEDDINGS}patch_embeddings.projection.weight",
    "patch_embed.proj.bias": f"{EMBEDDINGS}patch_embeddings.projection.bias",
    "norm.weight": "backbone.layernorm.weight",
    "norm.bias": "backbone.layernorm.bias",
}
VECTORS = {
    "norm1.weight": "norm1.weight",
    "norm1.bias": "norm1.bias",
    "norm2.weight": "norm2.weight",
    "norm2.bias": "norm2.bias",
    "ls1.gamma": "layer_scale1.lambda1",
    "ls2.gamma": "layer_scale2.lambda1",
}
#: Linear layers of a block; several that timm has as one are put one after the other.
LINEAR = {
    "attn.qkv": tuple(f"attention.attention.{kind}" for kind in ("query", "key", "value")),
    "attn.proj": ("attention.output.dense",),
    "mlp.fc1": ("mlp.fc1",),
    "mlp.fc2": ("mlp.fc2",),
}


class Node(NamedTuple):
    """A step of a graph: its kind, and the names of what goes in and comes out."""

    kind: str
    inputs: Sequence[str]
    outputs: Sequence[str]


def read_onnx(path: Path) -> dict[str, Array]:
    """`name_tensors` of a file, whose tensors must lie in itself.

    Raises:
        TowerError: it is no ONNX file, refers to other files, or holds no such tower.
        MissingExtraError: the package onnx is not installed.
    """
    onnx = import_onnx()
    with naming(path, TowerError, wild=True):
        graph = onnx.load(str(path), load_external_data=False).graph
    if any(onnx.external_data_helper.uses_external_data(item) for item in graph.initializer):
        raise TowerError(f"{path}: its tensors lie in other files; one file with all is needed")
    with naming(path, TowerError, wild=True):
        tensors = {item.name: onnx.numpy_helper.to_array(item) for item in graph.initializer}
    nodes = [Node(node.op_type, list(node.input), list(node.output)) for node in graph.node]
    with naming(path, TowerError):
        return name_tensors(tensors, nodes)


def import_onnx() -> Any:
    """The package onnx with what is read by; a MissingExtraError where it is not installed."""
    for part in ("external_data_helper", "numpy_helper"):
        import_extra(f"onnx.{part}", "towers")
    return import_extra("onnx", "towers")


def name_tensors(tensors: Mapping[str, NDArray[Any]], nodes: Sequence[Node]) -> dict[str, Array]:
    """All tensors of a DINOv2 by timm's names, float32.

    Args:
        tensors: named and unnamed initializers of the graph.
        nodes: its steps, of which additions and matrix products are read.

    Raises:
        TowerError: a tensor is missing; names it.
    """
    matrices = _find_matrices(tensors, nodes)
    depth = len({match[1] for name in tensors if (match := re.match(rf"{LAYER}(\d+)\.", name))})
    taken = {own: _take(tensors, name) for own, name in OUTSIDE.items()}
    taken["pos_embed"] = np.concatenate([_take(tensors, name) for name in POSITIONS], axis=1)
    for number in range(depth):
        block, layer = f"blocks.{number}.", f"{LAYER}{number}."
        for own, name in VECTORS.items():
            taken[block + own] = _take(tensors, layer + name)
        for own, names in LINEAR.items():
            biases = [f"{layer}{name}.bias" for name in names]
            taken[f"{block}{own}.bias"] = np.concatenate([_take(tensors, b) for b in biases])
            taken[f"{block}{own}.weight"] = np.concatenate([_take(matrices, b) for b in biases])
    return {name: np.ascontiguousarray(array, np.float32) for name, array in taken.items()}


def _find_matrices(
    tensors: Mapping[str, NDArray[Any]], nodes: Sequence[Node]
) -> dict[str, NDArray[Any]]:
    """Weights (out, in) of linear layers by the names of their biases."""
    makers = {output: node for node in nodes for output in node.outputs}
    matrices = {}
    for node in nodes:
        if node.kind != "Add" or len(node.inputs) != 2:
            continue
        for bias, product in (tuple(node.inputs), tuple(reversed(node.inputs))):
            maker = makers.get(product)
            if not bias.endswith(".bias") or maker is None or maker.kind != "MatMul":
                continue
            weights = [tensors[name] for name in maker.inputs if name in tensors]
            if bias in tensors and len(weights) == 1 and weights[0].ndim == 2:
                matrices[bias] = weights[0].T
    return matrices


def _take(tensors: Mapping[str, NDArray[Any]], name: str) -> NDArray[Any]:
    if name not in tensors:
        raise TowerError(f"no DINOv2 as it is known here: {name} is missing in it")
    return tensors[name]
