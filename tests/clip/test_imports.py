"""What a stage imports: nothing that it does not use, and torch's compiler only when it is used."""

import subprocess
import sys

import pytest
from imports import ROOT

COMPILER = """
import sys
for name in ("features", "efa", "rpl", "package", "train"):
    __import__(f"stages.{name}")
assert "scipy" not in sys.modules, "stages that only encode or train take longer to start"
__import__("stages.evaluate")
for name in ("torch._dynamo", "sklearn", "matplotlib", "mlflow"):
    assert name not in sys.modules, f"stages take longer to start: {name}"
assert not [name for name in sys.modules if name.startswith("torch._dynamo")]
import torch
from torchvision.ops import roi_align
pooled = roi_align(torch.ones(1, 3, 8, 8), torch.tensor([[0.0, 0, 0, 4, 4]]), 2)
assert pooled.tolist() == torch.ones(1, 3, 2, 2).tolist()
assert not [name for name in sys.modules if name.startswith("torch._dynamo")]
region_pooling = sys.modules["torchvision.ops.roi_align"]
supported = region_pooling.is_compile_supported("cpu")  # loads the real one
import torch._dynamo.utils
assert torch._dynamo.utils.__spec__.origin.endswith("utils.py")
assert supported == torch._dynamo.utils.is_compile_supported("cpu")
double = torch.compile(lambda tensor: 2 * tensor, backend="eager")
assert double(torch.ones(2)).tolist() == [2, 2]
from fuzzyclip.clip import _disable
@_disable
def plain(number):
    return number + 1
@_disable(recursive=False)
def with_settings(number):
    return number + 2
assert (plain(1), with_settings(1)) == (2, 3)
seen = []
def watch(graph, inputs):
    seen.append(str(graph.code))
    return graph.forward
compiled = torch.compile(lambda tensor: plain(2 * tensor), backend=watch)
assert compiled(torch.ones(2)).tolist() == [3, 3]
assert len(seen) == 1  # what is disabled is not in a graph
assert "+" not in seen[0], seen
"""
EARLIER = """
import sys
import torch._dynamo
before = sys.modules["torch._dynamo"]
import fuzzyclip.clip
assert sys.modules["torch._dynamo"] is before is torch._dynamo
"""
LIGHT = """
import sys
LIGHT_STAGES = "sample download index auxiliary report page track method_tables"
for name in LIGHT_STAGES.split():
    __import__(f"stages.{name}")
for name in ("torch", "sklearn", "scipy.stats"):
    assert name not in sys.modules, f"stages take longer to start: {name}"
"""


@pytest.mark.parametrize("code", [COMPILER, EARLIER, LIGHT], ids=["compiler", "earlier", "light"])
def test_stages_load_the_compiler_and_pytorch_only_where_they_are_used(code):
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
