"""The cost model against PyTorch's own counter, packed tensors and closed forms."""

import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import costs
from benchmarks.scale import PAGE, build_page
from fuzzyclip.clip.backbone import build_model
from fuzzyclip.clip.model_configs import read_model_config
from fuzzyclip.features.shards import DTYPES, pack
from fuzzyclip.method.efa import Heads

LARGE = costs.VisionShape(image_size=518, patch_size=14, width=1024, depth=24, embed_dim=768)
TEXT = costs.TextShape(width=768, depth=12, embed_dim=768)


@pytest.fixture
def counter():
    """PyTorch's counter; the fused attention of evaluation mode has no formula there."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    yield FlopCounterMode(display=False)
    torch.backends.mha.set_fastpath_enabled(before)


def build_on_meta(model, image_size):
    """A model without memory for its weights: operations are counted, none is done."""
    with torch.device("meta"):
        return build_model(read_model_config(model), image_size, "model").eval()


def describe(clip, image_size):
    """The image tower's shape, read from its modules."""
    visual = clip.visual
    return costs.VisionShape(
        image_size,
        visual.patch_size[0],
        visual.transformer.width,
        len(visual.transformer.resblocks),
        visual.output_dim,
    )


@pytest.mark.parametrize(("model", "size"), [("ViT-L-14-336", 518), ("ViT-B-16", 224)])
def test_an_image_costs_what_pytorch_counts(model, size, counter):
    clip = build_on_meta(model, size)
    with torch.no_grad(), counter:
        clip.encode_image(torch.empty(1, 3, size, size, device="meta"))
    shape = describe(clip, size)
    assert costs.count_image_flops(shape) == counter.get_total_flops()
    assert shape == LARGE or model != "ViT-L-14-336"


def test_a_prompt_costs_what_pytorch_counts(counter):
    clip = build_on_meta("ViT-L-14-336", 518)
    ids = torch.zeros(2, 77, dtype=torch.long, device="meta")
    with torch.no_grad(), counter:
        clip.encode_text(ids)
    assert 2 * costs.count_prompt_flops(TEXT, 77) == counter.get_total_flops()


def test_a_training_step_of_the_layers(counter):
    with torch.device("meta"):
        heads, tokens = Heads(4, 1024, 768), torch.empty(3, 4, 1369, 1024)
    with counter:
        mapped = heads(tokens)
        assert costs.count_layer_flops(LARGE, 4, 3) == counter.get_total_flops()  # 3 images alike
        mapped.sum().backward()
    assert costs.count_step_flops(LARGE, 4, 3) == counter.get_total_flops()


@pytest.mark.parametrize("dtype", DTYPES)
def test_features_take_what_packed_tensors_take(dtype):
    shape = costs.VisionShape(image_size=28, patch_size=14, width=6, depth=1, embed_dim=5)
    packed = pack(torch.randn(3, 4, 6), dtype)
    tokens = sum(tensor.numel() * tensor.itemsize for tensor in packed.values())
    assert costs.count_feature_bytes(shape, 3, dtype) == tokens + 5 * 4
    assert costs.count_feature_bytes(shape, 3, None) == 5 * 4


def test_a_store_keeps_tokens_of_what_was_asked_for():
    full, alone = (costs.count_feature_bytes(LARGE, 4, dtype) for dtype in ("float16", None))
    assert full == 11_217_920  # 4 x 1369 x 1024 x 2 and 768 x 4
    count = [
        costs.count_store_bytes(LARGE, 4, "float16", tokens, images=10, auxiliary=3)
        for tokens in ("all", "auxiliary", "none")
    ]
    assert count == [10 * full, 3 * full + 7 * alone, 10 * alone]
    with pytest.raises(ValueError, match="all, auxiliary, none"):
        costs.count_store_bytes(LARGE, 4, "float16", "some", images=1, auxiliary=0)


def test_a_map_costs_its_cosines_and_pixels_in_each_cluster():
    assert costs.count_map_bytes(518, images=2) == 2 * 518 * 518 * 4
    plane = 4 * (4 * 1369 * 768 + costs.PIXEL_OPERATIONS * 518**2)
    assert [costs.count_map_flops(LARGE, 4, count) for count in (1, 3)] == [plane, 3 * plane]


def test_seconds_are_those_of_the_slower_of_two_on_a_device_as_promised_or_measured():
    device = costs.Device("x", flops=100.0, bandwidth=10.0, efficiency=0.5)
    assert costs.estimate_seconds(200, 1, device) == 4
    assert costs.estimate_seconds(200, 50, device) == 10
    device = costs.calibrate("x", [10, 30], [1, 3], math.inf)
    assert costs.estimate_seconds(50, 1e30, device) == 5
    with pytest.raises(ValueError, match="nothing was measured"):
        costs.calibrate("x", [], [], math.inf)


def test_the_page_is_what_the_code_prints():
    assert PAGE.read_text() == build_page(), "run python benchmarks/scale.py --write"
