"""A graph of PyTorch's as an ONNX file: traced for any number of images, written, tidied.

A large graph has its weights in a second file beside it, `<name>.data`, because a single ONNX file
ends at 2 GB. The two belong together under these names.
"""

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fuzzyclip.utils.extras import import_extra

#: The first with GELU as one operator.
OPSET = 20
BATCH = "batch"
DATA = ".data"
#: What writing such a file needs, in the order in which it is missed.
WRITERS = ("onnx", "onnxscript")


class ExportError(ValueError):
    """A module that can not become a graph."""


@torch.no_grad()
def write_onnx(
    module: nn.Module,
    path: Path,
    example: Tensor,
    names: tuple[str, Sequence[str]],
    *,
    title: str,
    translations: Mapping[Any, Callable[..., Any]] | None = None,
) -> None:
    """A module of one tensor (B, ...) as ONNX for any B, its weights in `<name>.data` beside it.

    Args:
        module: what becomes a graph, in evaluation mode.
        path: of the file.
        example: an input of two images; of one, the graph would know no other number.
        names: of the input and of the outputs.
        title: what the module is, in messages.
        translations: operators of ONNX to write for some of PyTorch's.

    Raises:
        ExportError: PyTorch can not trace it.
        MissingExtraError: a package is missing.
    """
    given, results = names
    shapes = ({0: torch.export.Dim(BATCH, min=1)},)
    try:
        with warnings.catch_warnings():
            # A module may remember its last batch, which is none of the graph's business.
            warnings.filterwarnings("ignore", "While compiling, we found certain side effects")
            # Strict, because modules ask tensors for their length, which must stay a variable.
            traced = torch.export.export(
                module.eval(), (example,), dynamic_shapes=shapes, strict=True
            )
        program: Any = torch.onnx.export(
            traced,
            (example,),
            input_names=[given],
            output_names=list(results),
            opset_version=OPSET,
            custom_translation_table=dict(translations or {}),
            dynamo=True,
            verbose=False,
        )
    except Exception as error:  # PyTorch has no common class for what it can not trace
        reason = str(error).strip().split("\n")[0]
        raise ExportError(f"{title} can not become a graph: {reason}") from error
    _tidy(program.model)
    import_extra("onnx_ir").save(program.model, path, external_data=path.name + DATA)


def _tidy(model: Any) -> None:
    """Leave out what tells of this machine, name the batch, and name nodes after their modules.

    PyTorch notes at each node the source lines it comes from, with their paths.
    """
    graph = model.graph
    graph.metadata_props.clear()
    for value in (*graph.inputs, *graph.outputs, *graph.initializers.values()):
        value.metadata_props.clear()
    for value in (*graph.inputs, *graph.outputs):
        value.shape = type(value.shape)([BATCH, *list(value.shape)[1:]])
    outputs = set(graph.outputs)
    for node in graph.all_nodes():
        scopes = re.findall(r"'([^']*)'", node.metadata_props.get("pkg.torch.onnx.name_scopes", ""))
        if len(scopes) > 2:  # the graph itself, modules from the outside in, the operator
            node.name = f"{scopes[-2]}/{node.name}"
        node.metadata_props.clear()
        for value in node.outputs:
            value.metadata_props.clear()
            if value not in outputs:
                value.shape = None  # follows from the input's
