"""Every family of open_clip's ViTs, built with random weights, against open_clip's own functions.

Named models where they are small; otherwise the same keys with fewer layers or less width.
"""

import copy
import json
import math
import re
import sys

import open_clip
import pytest
import torch
from backbones import load_clip, save_weights
from families import FAMILIES, HF_TEXT, Words, give_tokenizer, native, shake, timm
from safetensors.torch import save_file
from torch.nn import functional

from fuzzyclip.clip.backbone import build_model
from fuzzyclip.clip.encoding import (
    count_tokens,
    encode_images,
    encode_text,
    project_tokens,
    tokenize,
)
from fuzzyclip.clip.prompts import PromptTooLongError
from fuzzyclip.clip.towers import SUPPORTED, check_towers, read_image_tower
from fuzzyclip.clip.weights import WeightsError
from fuzzyclip.method.rpl import PromptLearner, write_sentences
from fuzzyclip.utils.settings import PromptShape

PROMPTS = ["a photo of a damaged bottle.", "pcb1 without flaw", "object"]


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    """`load_clip` of a configuration or a name, with `Words` for a Hugging Face tokenizer."""

    def build(model, size, blocks=(1, 3), weights="random", **settings):
        if not isinstance(model, str):
            path = tmp_path_factory.mktemp("family") / "model.json"
            path.write_text(json.dumps(model))
            model = str(path)
        with pytest.MonkeyPatch.context() as patch:
            give_tokenizer(patch, lambda name: Words())
            return load_clip(model, weights, image_size=size, blocks=blocks, **settings)

    return build


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, load):
    """A backbone of each family in turn, its tokens before the patches, and its name."""
    model, size, _, prefix = FAMILIES[request.param]
    return shake(load(model, size)), prefix, request.param


def draw(backbone, count=2):
    size = backbone.image_size
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def encode_by_open_clip(backbone, pixels):
    """The model's own image feature, and what the vision blocks give as forward hooks see it."""
    visual, outputs = backbone.model.visual, []
    blocks = visual.trunk.blocks if hasattr(visual, "trunk") else visual.transformer.resblocks
    hooks = [block.register_forward_hook(lambda *call: outputs.append(call[2])) for block in blocks]
    embed = backbone.model.encode_image(pixels)
    for hook in hooks:
        hook.remove()
    return embed[0] if isinstance(embed, tuple) else embed, outputs


def check_images(backbone, prefix):
    pixels = draw(backbone)
    image_embed, patch_tokens = encode_images(backbone, pixels)
    expected, outputs = encode_by_open_clip(backbone, pixels)
    rows, columns = backbone.grid
    shape = (2, 2, rows * columns, backbone.vision_width)
    assert image_embed.shape == (2, backbone.embed_dim)
    assert patch_tokens.shape == shape
    assert image_embed.std() > 1e-3
    assert torch.allclose(image_embed, expected, atol=1e-5)
    for place, block in enumerate(backbone.blocks):
        assert outputs[block - 1].shape[1] == prefix + rows * columns
        assert torch.equal(patch_tokens[:, place], outputs[block - 1][:, prefix:])


def test_images_give_the_models_feature_and_the_blocks_own_patches(family):
    check_images(*family[:2])


def test_tokens_stand_row_by_row(family):
    """Of all tokens, that of the patch whose pixels change must change most."""
    backbone = family[0]
    rows, columns = backbone.grid
    size = backbone.image_size // rows
    places = [(0, columns - 1), (rows - 1, 0), (1, 2)]
    pixels = draw(backbone, 1).repeat(1 + len(places), 1, 1, 1)
    for number, (row, column) in enumerate(places, start=1):
        down, across = row * size, column * size
        pixels[number, :, down : down + size, across : across + size] *= -1
    tokens = encode_images(backbone, pixels)[1][:, 0]  # after the first block
    moved = (tokens[1:] - tokens[0]).norm(dim=-1).argmax(dim=1)
    assert moved.tolist() == [row * columns + column for row, column in places]


def test_prompts_give_the_models_text_feature(family):
    backbone = family[0]
    padded = backbone.tokenizer(PROMPTS)
    expected = backbone.model.encode_text(padded)
    assert not torch.allclose(expected[0], expected[1], atol=1e-3)
    actual = encode_text(backbone, PROMPTS)
    assert torch.allclose(actual, expected, atol=1e-5)
    for row, prompt in enumerate(PROMPTS):
        assert torch.equal(encode_text(backbone, [prompt])[0], actual[row])
    cut = tokenize(backbone, PROMPTS).shape[1] < padded.shape[1]
    assert cut == (family[2] not in ("SigLIP2", "CLIPA", "custom blocks", "timm, class token"))


def test_projected_tokens_are_the_towers_own_reading_of_one_token(family):
    backbone = family[0]
    tokens = encode_images(backbone, draw(backbone))[1][:, :, :5]  # (2, 2, 5, W)
    projected = project_tokens(backbone, tokens)
    visual = backbone.model.visual
    for place in ((0, 0, 0), (1, 1, 4)):
        alone = tokens[place].view(1, 1, -1)
        if not hasattr(visual, "trunk"):
            twice = alone.expand(1, 2, -1)  # an average over patches leaves the first token out
            expected = visual._pool(twice)[0] @ visual.proj
        else:
            trunk = visual.trunk
            prefixed = trunk.norm(alone).repeat(1, 1 + (trunk.global_pool == "avg"), 1)
            expected = visual.head(trunk.forward_head(prefixed))
        assert torch.allclose(projected[place], expected[0], atol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_another_image_size(name, load):
    model, own, other, prefix = FAMILIES[name]
    backbone = shake(load(model, other))
    config = open_clip.get_model_config(model) if isinstance(model, str) else model
    patch = config["vision_cfg"].get("patch_size", 32 if name == "SigLIP2" else 16)
    assert backbone.grid == (other // patch, other // patch)
    assert other != own
    check_images(backbone, prefix)


def read_positions(backbone):
    """Position embeddings of the image tower's tokens, (tokens, W)."""
    visual = backbone.model.visual
    return visual.trunk.pos_embed[0] if hasattr(visual, "trunk") else visual.positional_embedding


@pytest.mark.parametrize(
    "name", ["OpenAI", "timm, class token", "timm, register, map", "timm, register, mlp"]
)
def test_weights_of_another_size_get_their_positions_resized(name, load, tmp_path):
    model, own, other, _ = FAMILIES[name]
    backbone, path = shake(load(model, own)), tmp_path / "weights.safetensors"
    settings = {"weights": path, "sha256": save_weights(backbone, path), "seed": 5}
    pixels, old = draw(backbone), read_positions(backbone)
    again = encode_images(load(model, own, **settings), pixels)
    assert all(map(torch.equal, again, encode_images(backbone, pixels)))
    kept = len(old) - math.prod(backbone.grid)  # of class and register tokens
    grid = old[kept:].T.reshape(1, -1, *backbone.grid)
    resized = []
    for mode in ("bicubic", "bilinear"):
        loaded = load(model, other, position_embedding=mode, **settings)
        positions = read_positions(loaded)
        expected = functional.interpolate(grid, size=loaded.grid, mode=mode, antialias=True)
        assert torch.equal(positions[:kept], old[:kept])
        assert torch.allclose(positions[kept:], expected[0].flatten(1).T, atol=1e-6)
        resized.append(positions)
    assert not torch.allclose(*resized, atol=1e-4)


def test_weights_of_another_family_are_refused(load, tmp_path):
    path = tmp_path / "weights.safetensors"
    register, token = (FAMILIES[f"timm, {name}"] for name in ("register, map", "class token"))
    save_weights(load(register[0], 160), path)
    for size in (160, 96):
        with pytest.raises(WeightsError, match="are not of this model"):
            load(token[0], size, weights=path, allow_unverified=True)


def test_older_weights_of_models_with_a_text_part(load, tmp_path):
    """open_clip once kept every text tower's layers in the model itself."""
    model, path = native(custom_text=True), tmp_path / "old.safetensors"
    backbone = shake(load(model, 32))
    state = backbone.model.state_dict().items()
    save_file({key.removeprefix("text."): tensor.contiguous() for key, tensor in state}, path)
    loaded = load(model, 32, weights=path, allow_unverified=True, seed=5)
    assert torch.equal(encode_text(loaded, PROMPTS), encode_text(backbone, PROMPTS))


def change(section, **entries):
    config = copy.deepcopy(FAMILIES["OpenAI"][0])
    config[section] |= entries
    return config


REFUSED = {
    "ResNet": ("RN50", "RN50.*a ResNet, which has no patch tokens"),
    "ConvNeXt": ("convnext_tiny", "convnext_tiny.*convolutional or hierarchical"),
    "Swin": ("swin_base_patch4_window7_224", "convolutional or hierarchical"),
    "FastViT": ("MobileCLIP-S1", "MobileCLIP-S1.*fastvit_mci1, is convolutional or hierarchical"),
    "CoCa": ("coca_ViT-B-32", "coca_ViT-B-32.*caption decoder"),
    "RoBERTa": ("roberta-ViT-B-32", "its text tower is Hugging Face's roberta-base"),
    "unknown": (timm("vit_of_nobody", 224, "token"), "vit_of_nobody, does not exist"),
    "hub": (timm("hf-hub:some/model", 224, "token"), "does not exist"),
    "pooled map": (timm("test_vit", 160, "rot_attn", ""), "pools a feature map"),
    "no pool": (timm("test_vit", 160, "", "none"), "does not pool its tokens"),
    "no pool of its own": (change("vision_cfg", pool_type="none"), "does not pool its tokens"),
    "cascade": (change("vision_cfg", attentional_pool="cascade"), "does not pool its tokens"),
    "text class token": (change("text_cfg", embed_cls=True), "appends a class token"),
    "text without pool": (change("text_cfg", pool_type="none"), "its text tower does not pool"),
    "text start": (change("text_cfg", pool_type="first"), "sees none of the prompt"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_towers_are_refused_before_they_are_built(name, load):
    model, message = REFUSED[name]
    with pytest.raises(ValueError, match=rf"^model .*{message}.*\. {re.escape(SUPPORTED)}$"):
        load(model, 224)


def test_of_open_clips_models_all_plain_vits_are_accepted():
    refused, names = set(), open_clip.list_models()
    for model in names:
        try:
            check_towers(model, open_clip.get_model_config(model))
        except ValueError:
            refused.add(model)
    kinds = ("RN", "coca", "convnext", "swin", "MobileCLIP-S", "MobileCLIP2-S")
    hugging_face = ("roberta", "xlm-roberta", "mt5", "nllb")
    expected = {model for model in names if model.startswith((*kinds, *hugging_face))}
    assert refused == expected
    assert len(names) - len(refused) > 90


@pytest.mark.parametrize(
    "model", ["ViT-SO400M-14-SigLIP2-378", "PE-Core-bigG-14-448", "EVA02-E-14", "ViT-H-14-CLIPA"]
)
def test_large_models_are_read_without_their_weights(model):
    """On the meta device, which allocates nothing."""
    config = open_clip.get_model_config(model)
    check_towers(model, config)
    size = config["vision_cfg"]["image_size"]
    with torch.device("meta"):
        tower = read_image_tower(build_model(config, size, "model").visual)
        tokens = tower.project(torch.empty(1, 4, 5, tower.width))
    assert tower.grid == (size // 14, size // 14)
    assert tower.embed_dim == config["embed_dim"]
    assert tokens.shape == (1, 4, 5, tower.embed_dim)


def test_settings_that_do_not_fit_a_timm_tower_are_refused(load):
    model = FAMILIES["timm, class token"][0]
    with pytest.raises(ValueError, match="100 is not a multiple of the patch size 16"):
        load(model, 100)
    with pytest.raises(ValueError, match="timm's image towers can not be built with it"):
        load(model, 96, activation="quickgelu")
    with pytest.raises(ValueError, match="blocks 1 to 6"):
        load(model, 96, blocks=(7,))
    own, gelu = (load(model, 96, activation=name) for name in ("model", "gelu"))
    assert torch.equal(encode_images(own, draw(own))[0], encode_images(gelu, draw(own))[0])


def test_prompts_that_do_not_fit_hugging_faces_tokenizer(load):
    backbone = load(FAMILIES["worldwide"][0], 32)
    assert count_tokens(backbone, "a bottle with flaw") == 5
    assert tokenize(backbone, ["a " * 76]).shape == (1, 77)
    with pytest.raises(PromptTooLongError, match="78 tokens does not fit 77"):
        tokenize(backbone, ["a " * 77])


def test_a_tokenizer_with_a_class_token_at_the_end(load):
    """open_clip's mode `clips` adds start, end and class token itself."""
    backbone = load(native(text=HF_TEXT | {"tokenizer_mode": "clips"}), 32)
    for name, number in (("bos", 1), ("eos", 2), ("pad", 0), ("cls", 50)):
        setattr(backbone.tokenizer.tokenizer, f"{name}_token_id", number)
    assert count_tokens(backbone, "a bottle") == (backbone.tokenizer(["a bottle"]) != 0).sum() == 5
    assert count_tokens(backbone, "a " * 74) == 77
    with pytest.raises(PromptTooLongError, match="78 tokens"):
        tokenize(backbone, ["a " * 75])


def test_a_tokenizer_of_another_model_is_noticed(load):
    model = FAMILIES["worldwide"][0]
    few = load({**model, "text_cfg": model["text_cfg"] | {"vocab_size": 50}}, 32)
    with pytest.raises(ValueError, match=r"writes token \d+, the text tower knows 50"):
        tokenize(few, ["a photo of the damaged bottle"])
    endless = load({**model, "text_cfg": model["text_cfg"] | {"eos_id": 1}}, 32)
    with pytest.raises(ValueError, match="writes no end token 1"):
        tokenize(endless, PROMPTS)


def test_the_vocabulary_is_part_of_the_fingerprint(load, monkeypatch):
    model = FAMILIES["worldwide"][0]
    first, again = load(model, 32), load(model, 32)
    monkeypatch.setattr(Words, "get_vocab", lambda self: {"other": 0})
    assert first.fingerprint == again.fingerprint != load(model, 32).fingerprint
    assert "vocabulary_sha256" not in load(FAMILIES["OpenAI"][0], 32).identity


def test_a_tokenizer_that_can_not_be_had(tmp_path, monkeypatch):
    path = tmp_path / "model.json"
    path.write_text(json.dumps(FAMILIES["worldwide"][0]))

    def fail(name):
        raise OSError(f"no connection for {name}")

    give_tokenizer(monkeypatch, fail)
    with pytest.raises(
        ValueError, match=r"no connection for some/tokenizer.*tokenizer\.json.*folder"
    ):
        load_clip(path)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ValueError, match=r"some/tokenizer.*pip install transformers"):
        load_clip(path)


def test_a_tokenizer_from_a_folder(tmp_path):
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    words = ["<pad>", "<s>", "</s>", "<unk>", "a", "photo", "of", "damaged", "bottle", "object"]
    inner = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>")
    )
    inner.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    inner.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    special = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=inner, **special)
    fast.save_pretrained(tmp_path / "tokenizer")
    text = HF_TEXT | {"hf_tokenizer_name": str(tmp_path / "tokenizer"), "pool_type": "eos"}
    path = tmp_path / "model.json"
    path.write_text(json.dumps(native(text=text | {"eos_id": 2})))
    backbone = load_clip(path)
    assert tokenize(backbone, ["a bottle", "object"]).tolist() == [[1, 4, 8, 2], [1, 9, 2, 0]]
    expected = backbone.model.encode_text(backbone.tokenizer(PROMPTS))
    assert torch.allclose(encode_text(backbone, PROMPTS), expected, atol=1e-5)
    with pytest.raises(PromptTooLongError, match="78 tokens"):
        tokenize(backbone, ["a " * 76])


@pytest.mark.parametrize("name", ["OpenAI", "PE-Core", "worldwide", "timm, class token"])
def test_learned_prompts_start_as_the_sentences_and_get_gradients(name, load):
    model, size, *_ = FAMILIES[name]
    backbone = shake(load(model, size))
    shape = PromptShape(depth=1)  # words only
    learner = PromptLearner(backbone, "bottle", shape)
    expected = encode_text(backbone, write_sentences("bottle", shape))
    assert torch.allclose(learner(backbone), expected, atol=1e-5)
    for attachment in ("overwrite", "insert"):
        learner = PromptLearner(backbone, "bottle", PromptShape(attachment=attachment))
        learned = learner(backbone)
        assert learned.shape == (2, backbone.embed_dim)
        assert not torch.allclose(learned, expected, atol=1e-3)
        learned.sum().backward()
        assert all(parameter.grad.abs().sum() > 0 for parameter in learner.parameters())


@pytest.mark.parametrize("name", ["SigLIP2", "CLIPA"])
def test_prompts_are_not_learned_where_padding_is_read(name, load):
    vision = {**timm("test_vit3", 160, "map")["vision_cfg"]}
    config = {**FAMILIES[name][0], "vision_cfg": vision, "embed_dim": 32}
    backbone = load(config, 160)
    with pytest.raises(ValueError, match=r"reads the last token of the padded prompt.*without RPL"):
        PromptLearner(backbone, "bottle", PromptShape())
