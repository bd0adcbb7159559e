"""The frozen CLIP against open_clip's own functions, and every refusal when it is built."""

import json

import numpy as np
import open_clip
import pytest
import torch
from backbones import save_weights
from PIL import Image
from safetensors.torch import save_file
from torchvision import transforms

from fuzzyclip.clip.encoding import encode_images, encode_text, preprocess, tokenize
from fuzzyclip.clip.model_configs import OPENAI_MEAN, OPENAI_STD
from fuzzyclip.clip.prompts import PromptTooLongError
from fuzzyclip.clip.weights import WeightsError, find_weights
from fuzzyclip.utils.files import compute_sha256
from fuzzyclip.utils.prefetch import Fetcher, send

PROMPTS = ["a photo of a damaged bottle.", "pcb1 without flaw", "object"]


@pytest.fixture
def saved(tiny, tmp_path):
    """The tiny model's weights as a safetensors file, with its digest."""
    path = tmp_path / "weights.safetensors"
    return path, save_weights(tiny, path)


def test_nothing_is_trainable(tiny, pixels):
    assert not any(parameter.requires_grad for parameter in tiny.model.parameters())
    assert not tiny.model.training
    assert not encode_images(tiny, pixels)[0].requires_grad
    assert not encode_text(tiny, PROMPTS).requires_grad


def test_input_is_squashed_and_normalised(load_tiny):
    noise = np.random.default_rng(0).integers(0, 256, (50, 90, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    for changes in ({}, {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)}):
        backbone = load_tiny(**changes)
        resize = transforms.Resize((32, 32), transforms.InterpolationMode.BICUBIC)
        channels = {"mean": OPENAI_MEAN, "std": OPENAI_STD} | changes
        reference = transforms.Compose(
            [resize, transforms.ToTensor(), transforms.Normalize(**channels)]
        )
        assert torch.allclose(preprocess(image, backbone), reference(image), atol=1e-6)


def test_weights_survive_the_file(tiny, load_tiny, saved, tmp_path, pixels):
    path, digest = saved
    checkpoint = tmp_path / "epoch.pt"
    prefixed = {f"module.{name}": value for name, value in tiny.model.state_dict().items()}
    torch.save({"state_dict": prefixed, "epoch": 3}, checkpoint)
    expected = encode_images(tiny, pixels)[0]
    for file, sha256 in ((path, digest.upper()), (checkpoint, compute_sha256(checkpoint))):
        backbone = load_tiny(weights=file, sha256=sha256, seed=5)
        assert torch.equal(encode_images(backbone, pixels)[0], expected)
        assert torch.equal(encode_text(backbone, PROMPTS), encode_text(tiny, PROMPTS))


def test_gelu_and_quickgelu_differ(tiny, load_tiny, pixels):
    gelu, quick = (load_tiny(activation=name) for name in ("gelu", "quickgelu"))
    plain = encode_images(tiny, pixels)[0]  # the configuration does not ask for QuickGELU
    assert torch.equal(encode_images(gelu, pixels)[0], plain)
    assert not torch.allclose(encode_images(quick, pixels)[0], plain, atol=1e-5)
    x = torch.linspace(-3, 3, 7)
    activation = quick.model.visual.transformer.resblocks[0].mlp.gelu
    assert torch.allclose(activation(x), x * torch.sigmoid(1.702 * x))
    with pytest.raises(ValueError, match=r"activation\n  Input should be 'model'"):
        load_tiny(activation="relu")


def test_lower_precision_is_near_and_comes_out_as_float32(tiny, load_tiny, pixels):
    lowered = load_tiny(precision="bfloat16")
    image_embed, patch_tokens = encode_images(lowered, pixels)
    assert image_embed.dtype == patch_tokens.dtype == torch.float32
    expected = encode_images(tiny, pixels)[0]
    assert not torch.equal(image_embed, expected)
    assert torch.cosine_similarity(image_embed, expected).min() > 0.99


def test_the_fingerprint_changes_with_every_setting(tiny, load_tiny, tiny_config, saved, tmp_path):
    wider = json.loads(tiny_config.read_text()) | {"embed_dim": 16}
    other = tmp_path / "wider.json"
    other.write_text(json.dumps(wider))
    changes = [
        {"image_size": 40},
        {"blocks": (1, 2, 3)},
        {"blocks": (1, 4)},
        {"activation": "quickgelu"},
        {"position_embedding": "bilinear"},
        {"mean": (0.5, 0.5, 0.5)},
        {"std": (0.5, 0.5, 0.5)},
        {"precision": "bfloat16"},
        {"seed": 1},
        {"model": other},
        {"weights": saved[0], "sha256": saved[1]},
    ]
    prints = [load_tiny(**change).fingerprint for change in changes]
    assert len({*prints, tiny.fingerprint}) == len(changes) + 1
    assert load_tiny().fingerprint == tiny.fingerprint
    assert load_tiny(mean=OPENAI_MEAN).fingerprint == tiny.fingerprint


def test_unverified_and_wrong_weights_are_refused(load_tiny, saved, tmp_path):
    path, digest = saved
    with pytest.raises(WeightsError, match=f"no sha256 is given.*{digest}"):
        load_tiny(weights=path)
    with pytest.raises(WeightsError, match=f"sha256 is {digest}, expected {'0' * 64}"):
        load_tiny(weights=path, sha256="0" * 64)
    with pytest.raises(WeightsError, match="expected"):  # permission does not excuse a wrong digest
        load_tiny(weights=path, sha256="0" * 64, allow_unverified=True)
    accepted = load_tiny(weights=path, allow_unverified=True)
    assert accepted.identity["weights_sha256"] == digest
    other = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(2)}, other)
    with pytest.raises(WeightsError, match="are not of this model"):
        load_tiny(weights=other, allow_unverified=True)
    with pytest.raises(WeightsError, match="no such file, and no open_clip tag"):
        find_weights("ViT-L-14-336", "opneai")


def test_files_that_hold_code_are_refused(load_tiny, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    pickled, garbage = tmp_path / "pickled.pt", tmp_path / "garbage.safetensors"
    torch.save({"state_dict": Bomb()}, pickled)
    garbage.write_bytes(b"not a model")
    for path in (pickled, garbage):
        with pytest.raises(WeightsError, match="not readable as safetensors"):
            load_tiny(weights=path, allow_unverified=True)
    assert not (tmp_path / "executed").exists()


def test_models_that_do_not_exist_or_fit_the_settings_are_refused(load_tiny, tmp_path):
    with pytest.raises(ValueError, match=r"close names.*ViT-L-14-336"):
        load_tiny("ViT-L-14-33")
    with pytest.raises(ValueError, match="no such file"):
        load_tiny(tmp_path / "absent.json")
    with pytest.raises(ValueError, match="30 is not a multiple of the patch size 8"):
        load_tiny(image_size=30)
    for blocks in ((), (4, 5)):
        with pytest.raises(ValueError, match="the image tower has blocks 1 to 4"):
            load_tiny(blocks=blocks)


def test_token_ids_are_open_clips_cut_after_the_last_end(tiny):
    ids = tokenize(tiny, PROMPTS)
    full = open_clip.SimpleTokenizer()(PROMPTS)
    width = ids.shape[1]
    assert torch.equal(ids, full[:, :width])
    assert not full[:, width:].any()
    assert encode_text(tiny, []).shape == (0, 32)
    with pytest.raises(PromptTooLongError, match="80 tokens does not fit 77"):
        tokenize(tiny, ["a " * 78])


def test_copies_on_the_cpu_are_the_tensors_themselves(pixels):
    device = torch.device("cpu")
    assert send(pixels, device).data_ptr() == pixels.data_ptr()
    wait = Fetcher(device).fetch(pixels)
    assert wait().data_ptr() == pixels.data_ptr()
