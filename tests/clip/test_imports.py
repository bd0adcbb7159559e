"""What a stage imports: nothing that it does not use; torch's compiler, transformers when used."""

import subprocess
import sys

import pytest
from imports import ROOT

COMPILER = """
import sys
for name in ("package", "features", "efa", "rpl", "train"):
    __import__(f"stages.{name}")
assert "scipy" not in sys.modules, "stages that only encode or train take longer to start"
__import__("stages.evaluate")
for name in ("torch._dynamo", "transformers", "sklearn", "matplotlib", "mlflow"):
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
import open_clip
names = ("torch._dynamo", "open_clip", "open_clip.hf_model", "open_clip.coca_model")
before = [sys.modules[name] for name in names]
own = {**vars(open_clip)}
import fuzzyclip.clip
assert all(sys.modules[name] is module for name, module in zip(names, before, strict=True))
assert type(open_clip) is type(sys)
assert vars(open_clip) == own
"""
#: Models of open_clip's that need transformers, as one gets them without us.
LATE = """
import sys
import fuzzyclip.clip.backbone
import open_clip
names = ("transformers", "open_clip.hf_model", "open_clip.coca_model")
assert not [name for name in names if name in sys.modules]
assert type(open_clip) is type(sys)  # cloudpickle knows no other modules
assert not hasattr(open_clip, "nothing")
assert not [name for name in names if name in sys.modules]
sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "vocab_size": 10}
from transformers import BertConfig
text = open_clip.model.HFTextEncoder("none", 4, config=BertConfig(**sizes), proj_type="linear")
assert "open_clip.coca_model" not in sys.modules
import torch
assert text(torch.ones(2, 3, dtype=torch.long)).shape == (2, 4)
from open_clip.hf_model import HFTextEncoder
assert type(text) is HFTextEncoder is open_clip.hf_model.HFTextEncoder
assert isinstance(text, open_clip.model.HFTextEncoder)
assert not isinstance(torch.nn.Identity(), open_clip.model.HFTextEncoder)
config = open_clip.get_model_config("coca_ViT-B-32")
small = {"width": 64, "layers": 1}
config["vision_cfg"] |= small | {"image_size": 32}
config["text_cfg"] |= small | {"heads": 1}
config["multimodal_cfg"] |= small | {"heads": 1}
open_clip.factory._MODEL_CONFIGS["small"] = config
captions = open_clip.create_model("small")
from open_clip.coca_model import CoCa
assert type(captions) is CoCa is open_clip.CoCa is open_clip.coca_model.CoCa
assert isinstance(captions, open_clip.factory.CoCa)
"""
#: Who had transformers already keeps it, and open_clip takes it.
TRANSFORMERS_EARLIER = """
import transformers
from fuzzyclip.clip.towers import HFTokenizer
import open_clip
assert open_clip.hf_model.transformers is transformers
assert open_clip.hf_model.AutoModel is transformers.AutoModel
try:
    HFTokenizer("no/such/folder/of/a/tokenizer")
except OSError:
    pass
else:
    raise AssertionError
"""
#: As in an installation without the extra `hf`: what open_clip says is what one reads.
WITHOUT = """
import sys
sys.modules["transformers"] = None
import fuzzyclip.clip.backbone
import open_clip
try:
    open_clip.model.HFTextEncoder("none", 4)
except RuntimeError as error:
    assert "pip install transformers" in str(error)
else:
    raise AssertionError
try:
    fuzzyclip.clip.towers.HFTokenizer("none")
except ImportError as error:
    assert "transformers" in str(error)
else:
    raise AssertionError
assert not open_clip.coca_model._has_transformers
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
    run_fresh(code)


@pytest.mark.parametrize("code", [LATE, TRANSFORMERS_EARLIER], ids=["late", "earlier"])
def test_open_clip_is_whole_when_transformers_is_needed(code):
    pytest.importorskip("transformers")
    run_fresh(code)


def test_open_clip_says_when_transformers_is_missing():
    run_fresh(WITHOUT)


def run_fresh(code):
    """Run code in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
