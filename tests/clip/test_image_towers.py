"""Image towers of timm's without a text beside them, against timm's own functions."""

import json

import pytest
import timm
import torch
from backbones import load_clip, save_weights
from families import shake
from safetensors.torch import save_file

from fuzzyclip.clip.encoding import encode_images, encode_text, project_tokens, tokenize
from fuzzyclip.clip.model_configs import describe_timm, read_channels, read_model_config
from fuzzyclip.clip.towers import NoTextError
from fuzzyclip.clip.weights import WeightsError

#: timm's name, image size, tokens before the patches, mean of the first channel.
TOWERS = {
    "DINOv2": ("vit_small_patch14_dinov2", 70, 1, 0.485),
    "DINOv3": ("vit_small_patch16_dinov3", 80, 5, 0.485),
    "PE-Core": ("vit_pe_core_tiny_patch16_384", 80, 1, 0.5),
    "plain": ("test_vit", 160, 1, 0.5),
}


@pytest.fixture(scope="module", params=TOWERS)
def tower(request):
    """A backbone of each tower in turn, timm's name of it, and its tokens before the patches."""
    name, size, prefix, _ = TOWERS[request.param]
    return shake(load_clip(f"timm/{name}", image_size=size, blocks=(1, 3))), name, prefix


def test_features_and_tokens_are_those_of_timm(tower):
    backbone, name, prefix = tower
    size = backbone.image_size
    own = timm.create_model(name, num_classes=0).eval()
    if hasattr(own, "set_input_size"):
        own.set_input_size(img_size=(size, size))
    own.load_state_dict(backbone.model.visual.trunk.state_dict())
    pixels = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    outputs = []
    for block in own.blocks:
        block.register_forward_hook(lambda *call: outputs.append(call[2]))
    with torch.no_grad():
        expected = own(pixels)
        image_embed, patch_tokens = encode_images(backbone, pixels)
        projected = project_tokens(backbone, patch_tokens)
    rows, columns = backbone.grid
    assert patch_tokens.shape == (2, 2, rows * columns, backbone.vision_width)
    torch.testing.assert_close(image_embed, expected, atol=1e-4, rtol=1e-4)
    for place, block in enumerate((1, 3)):
        tokens = outputs[block - 1][:, prefix:]
        torch.testing.assert_close(patch_tokens[:, place], tokens, atol=1e-4, rtol=1e-4)
    assert projected.shape == (*patch_tokens.shape[:-1], backbone.embed_dim)


def test_a_tower_knows_its_input_and_that_it_reads_no_text(tower):
    backbone, name, _ = tower
    (mean,) = [row[3] for row in TOWERS.values() if row[0] == name]
    assert backbone.mean[0] == pytest.approx(mean)
    assert not backbone.reads_text
    assert backbone.tokenizer is None
    assert "text_cfg" not in backbone.identity["config"]


@pytest.mark.parametrize(
    "ask", [lambda b: encode_text(b, ["a part"]), lambda b: tokenize(b, ["a part"]),
            lambda b: b.text_tower, lambda b: b.context_length]
)  # fmt: skip
def test_text_is_refused_by_the_name_of_the_tower(ask):
    backbone = load_clip("timm/test_vit", image_size=160)
    with pytest.raises(NoTextError, match=r"timm/test_vit is an image tower without text"):
        ask(backbone)


def test_a_clip_reads_text(tiny):
    assert tiny.reads_text
    tiny.require_text()


def test_weights_are_taken_from_files_of_timm_and_of_a_whole_clip(tmp_path):
    """Under timm's names, with what a tower alone leaves there, and under open_clip's."""
    first = shake(load_clip("timm/test_vit", image_size=160))
    trunk = first.model.visual.trunk.state_dict()
    others = {"head.weight": torch.ones(1000, 64), "head.bias": torch.ones(1000),
              "mask_token": torch.ones(1, 1, 64)}  # fmt: skip
    save_file({**trunk, **others}, tmp_path / "timm.safetensors")
    whole = first.model.state_dict() | {"logit_scale": torch.ones(()), "text.a": torch.ones(2)}
    save_file(whole, tmp_path / "clip.safetensors")
    for name in ("timm", "clip"):
        path = tmp_path / f"{name}.safetensors"
        loaded = load_clip("timm/test_vit", path, image_size=160, allow_unverified=True)
        for key, tensor in loaded.model.state_dict().items():
            assert torch.equal(tensor, first.model.state_dict()[key]), (name, key)


def test_position_embeddings_are_resized_to_another_size(tmp_path):
    first = shake(load_clip("timm/vit_small_patch14_dinov2", image_size=70))
    digest = save_weights(first, tmp_path / "small.safetensors")
    larger = load_clip(
        "timm/vit_small_patch14_dinov2", tmp_path / "small.safetensors", image_size=98,
        sha256=digest,
    )  # fmt: skip
    assert larger.grid == (7, 7)
    assert larger.model.visual.trunk.pos_embed.shape[1] == 50


def test_weights_of_another_tower_are_refused(tmp_path):
    first = load_clip("timm/test_vit", image_size=160)
    digest = save_weights(first, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match=r"other\.safetensors are not of this model"):
        load_clip(
            "timm/vit_small_patch14_dinov2", tmp_path / "other.safetensors", image_size=70,
            sha256=digest,
        )  # fmt: skip


def test_a_file_may_describe_a_tower_alone(tmp_path):
    """Whether its text is left out or null; its own mean and deviation count."""
    config = describe_timm("test_vit")
    prints = set()
    for name, written in (("without", config), ("null", config | {"text_cfg": None})):
        path = tmp_path / f"{name}.json"
        channels = {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.5, 0.6]}
        path.write_text(json.dumps({"model_cfg": written, "preprocess_cfg": channels}))
        assert read_model_config(str(path)) == config
        assert read_channels(str(path), "random") == ((0.1, 0.2, 0.3), (0.5, 0.5, 0.6))
        prints.add(load_clip(path, image_size=160).fingerprint)
    assert len(prints) == 1


def test_an_open_clip_tower_may_stand_alone_too(tiny, tmp_path):
    """CLIP's own ViT without its text: the same image features as in the whole."""
    config = {k: v for k, v in tiny.identity["config"].items() if k != "text_cfg"}
    (tmp_path / "alone.json").write_text(json.dumps(config))
    digest = save_weights(tiny, tmp_path / "whole.safetensors")
    alone = load_clip(
        tmp_path / "alone.json", tmp_path / "whole.safetensors", sha256=digest,
        image_size=tiny.image_size, blocks=tiny.blocks,
    )  # fmt: skip
    size = tiny.image_size
    pixels = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    for own, whole in zip(encode_images(alone, pixels), encode_images(tiny, pixels), strict=True):
        torch.testing.assert_close(own, whole)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("vit_small_patch14_dino2", "close names: vit_small_patch14_dinov2"),
        ("resnet18", "no plain ViT"),
        ("", "timm has no model"),
    ],
)
def test_names_that_are_no_tower_say_why(name, words):
    with pytest.raises(ValueError, match=words):
        read_model_config(f"timm/{name}")


def test_a_tag_of_weights_in_the_name_plays_no_part():
    assert describe_timm("vit_small_patch14_dinov2.lvd142m") == describe_timm(
        "vit_small_patch14_dinov2"
    )


def test_a_tag_of_weights_says_how_to_get_them():
    with pytest.raises(WeightsError, match="fuzzyclip fetch timm/test_vit"):
        load_clip("timm/test_vit", "lvd142m", image_size=160)
