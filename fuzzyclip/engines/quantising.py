"""Linear layers of an ONNX file in int8: a tower's alone, or a whole detector's."""

import re
from pathlib import Path

from fuzzyclip.utils.extras import import_extra
from fuzzyclip.utils.prefetch import release_memory

#: In names of nodes: blocks of open_clip's (`resblocks`) and timm's transformers (`blocks`).
BLOCK = re.compile(r"\b(?:res)?blocks\.(\d+)")
#: Blocks that stay in float32, from the first.
FLOAT_BLOCKS = 2
LINEAR = ("MatMul", "Gemm")
#: What onnxruntime looks for before it advises to fold constants first; PyTorch has folded them.
PREPARED = ("onnx.quant.pre_process", "onnxruntime.quant")


def quantise(path: Path) -> None:
    """Replace a float32 ONNX file and its `.data` by their int8 form, in place.

    Weights of the blocks' linear layers become integers with a scale for each output channel; what
    comes in is brought to eight bits at run time, with one scale for the whole batch, so that an
    image's numbers depend a little on what it is sent with. All else stays in float32: the patch
    embedding, norms, attention tables, EFA's layers, projections and text features are a small
    share of the work, and their errors reach the map and the score undamped. So do the first two
    blocks, whose errors go through all others: that halves what scores differ by.

    Weights use seven of the eight bits. With eight, processors without VNNI overflow where they add
    two products in 16 bits, and a file that was compared on one machine gives other numbers on the
    next.

    Takes memory of three times the file, which has its weights in `.data`.

    Raises:
        ValueError: the file has no blocks whose layers could be found.
    """
    onnx, quantization = import_extra("onnx"), import_extra("onnxruntime.quantization")
    model = onnx.load(str(path), load_external_data=False)
    nodes = [node for node in model.graph.node if node.op_type in LINEAR]
    blocks = [(node.name, BLOCK.search(node.name)) for node in nodes]
    names = [name for name, block in blocks if block and int(block[1]) >= FLOAT_BLOCKS]
    if not names:  # which would mean all nodes
        raise ValueError(
            f"no layers to quantise: the image tower has no more than {FLOAT_BLOCKS} blocks, or "
            "they go by other names. Take float32"
        )
    entry = model.metadata_props.add()
    entry.key, entry.value = PREPARED
    onnx.save(model, str(path))
    folder = path.parent / "int8"
    folder.mkdir()
    quantization.quantize_dynamic(
        path,
        folder / path.name,
        op_types_to_quantize=list(LINEAR),
        per_channel=True,
        reduce_range=True,
        nodes_to_quantize=names,
        use_external_data_format=True,
    )
    for smaller in folder.iterdir():
        smaller.replace(path.with_name(smaller.name))
    folder.rmdir()
    release_memory()
