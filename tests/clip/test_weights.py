"""Weights as others hand them out: archives with code, checksums, and what came in their place."""

import json
import pickle
import shutil
import sys
import zipfile
from types import ModuleType

import pytest
import torch
from backbones import load_clip
from open_clip import pretrained
from open_clip.model import CLIP, convert_weights_to_fp16
from open_clip.openai import load_openai_model
from safetensors.torch import save_file

from fuzzyclip.clip.encoding import encode_images, encode_text
from fuzzyclip.clip.torchscript import is_torchscript, read_torchscript
from fuzzyclip.clip.weights import (
    WeightsError,
    find_weights,
    list_published_sha256,
    read_state_dict,
    verify_weights,
)
from fuzzyclip.utils.files import compute_sha256

PUBLISHED = "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02"
#: Small, with heads of 64 numbers as all of OpenAI's.
CONFIG = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2},
}
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")
SETTINGS = {"image_size": 32, "blocks": (1, 2), "device": "cpu"}


class OpenAIs(torch.nn.Module):
    """The modules and numbers of OpenAI's archives under their names."""

    def __init__(self, clip):
        super().__init__()
        for name, child in clip.named_children():
            self.add_module(name, child)
        for name, parameter in clip.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        numbers = {"input_resolution": 32, "context_length": 77, "vocab_size": 49408}
        for name, number in numbers.items():
            self.register_buffer(name, torch.tensor(number))

    def forward(self, numbers):
        return numbers * self.logit_scale


def save_archive(module, path):
    torch.jit.save(torch.jit.trace(module, torch.zeros(1)), path)
    return path


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """An archive as OpenAI's, in half precision."""
    torch.manual_seed(0)
    clip = CLIP(quick_gelu=True, **CONFIG)
    convert_weights_to_fp16(clip)
    return save_archive(OpenAIs(clip), tmp_path_factory.mktemp("openai") / "ViT-tiny.pt")


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "model.json"
    path.write_text(json.dumps(CONFIG))
    return str(path)


def publish(monkeypatch, digest, hub=""):
    """A model `tiny` with a tag `openai` in open_clip's table."""
    entry = {"url": f"https://example.invalid/clip/models/{digest}/tiny.pt", "hf_hub": hub}
    monkeypatch.setitem(pretrained._PRETRAINED, "tiny", {"openai": entry})
    return entry


# --- TorchScript


def test_openais_archive_gives_what_open_clip_makes_of_it(archive, config, pixels, monkeypatch):
    expected = load_openai_model(str(archive), precision="fp32", device="cpu")
    monkeypatch.setattr(torch.jit, "load", None)  # not by running what is in it
    settings = SETTINGS | {"activation": "quickgelu", "allow_unverified": True}
    backbone = load_clip(config, archive, **settings)
    state = backbone.model.state_dict()
    assert state.keys() == expected.state_dict().keys()
    for name, tensor in expected.state_dict().items():
        assert state[name].dtype == torch.float32
        assert torch.equal(state[name], tensor), name
    prompts = ["a photo of a damaged bottle."]
    with torch.no_grad():
        assert torch.allclose(
            encode_images(backbone, pixels)[0], expected.encode_image(pixels), atol=1e-5
        )
        text = expected.encode_text(backbone.tokenizer(prompts))
    assert torch.allclose(encode_text(backbone, prompts), text, atol=1e-5)
    exact = load_clip(config, archive, **settings | {"activation": "gelu"})
    assert not torch.allclose(encode_text(exact, prompts), text, atol=1e-5)


def test_an_archive_gives_the_tensors_of_its_state_dict(tmp_path):
    class Odd(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.ReLU())
            self.again = self.inner[0]
            self.turned = torch.nn.Parameter(torch.randn(4, 3).t())
            self.none = torch.nn.Parameter(torch.zeros(0, 3))
            self.register_buffer("whole", torch.tensor([2**40]))
            self.register_buffer("short", torch.randn(5).bfloat16())
            self.register_buffer("flags", torch.tensor([True, False]))
            part = torch.arange(12.0)
            self.register_buffer("first", part)
            self.register_buffer("part", part[3:9:2])
            self.numbers = [1, 2]

        def forward(self, numbers):
            return numbers * self.numbers[0]

    path = tmp_path / "odd.pt"
    torch.jit.save(torch.jit.script(Odd()), path)
    assert is_torchscript(path)
    state, expected = read_torchscript(path), torch.jit.load(path).state_dict()
    assert state.keys() == expected.keys()
    for name, tensor in expected.items():
        assert (state[name].dtype, state[name].shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(state[name], tensor), name


def replace_record(path, out, name, change):
    """A copy of an archive with one record changed."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(out, "w") as new:
        for record in old.namelist():
            content = old.read(record)
            new.writestr(record, change(content) if record.endswith(name) else content)
    return out


def test_an_archive_of_other_objects_runs_nothing(archive, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    path = replace_record(archive, tmp_path / "a.pt", "/data.pkl", lambda _: pickle.dumps(Bomb()))
    with pytest.raises(WeightsError, match="open is neither module nor tensor"):
        read_state_dict(path)
    assert not (tmp_path / "executed").exists()


def test_damaged_archives_are_refused(archive, tmp_path):
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 1  # in a tensor
    (flipped := tmp_path / "flipped.pt").write_bytes(content)
    short = replace_record(archive, tmp_path / "short.pt", "/data/0", lambda content: content[:-4])
    long = replace_record(archive, tmp_path / "long.pt", "/data/0", lambda content: content * 9)
    for path, reason in ((flipped, "CRC"), (short, "not of the size"), (long, "not of the size")):
        with pytest.raises(WeightsError, match=f"{path.name}.*{reason}"):
            read_state_dict(path)


def test_an_archive_without_end_is_refused(archive, tmp_path, monkeypatch):
    """Sixty modules, each of which has the one before twice: as many paths as 2 to the 60th."""
    monkeypatch.setitem(sys.modules, "__torch__", (torch_module := ModuleType("__torch__")))
    torch_module.M = type("M", (), {"__module__": "__torch__"})
    outer = torch_module.M()
    for _ in range(60):
        inner, outer = outer, torch_module.M()
        outer.a = outer.b = inner
    content = pickle.dumps(outer, protocol=2)
    path = replace_record(archive, tmp_path / "endless.pt", "/data.pkl", lambda _: content)
    with pytest.raises(WeightsError, match="without end"):
        read_state_dict(path)


def test_one_number_that_stands_for_many_is_refused(tmp_path):
    class One(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1).expand(1000, 1000))

    torch.jit.script(One()).save(str(tmp_path / "one.pt"))
    with pytest.raises(WeightsError, match="more numbers than are stored"):
        read_state_dict(tmp_path / "one.pt")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_named(tmp_path, value):
    path = tmp_path / "a.safetensors"
    save_file({"proj": torch.ones(2), "bias": torch.tensor([1.0, value])}, path)
    with pytest.raises(WeightsError, match=r"a\.safetensors: bias holds values that are not fin"):
        read_state_dict(path)


@pytest.mark.parametrize("name", ["weights.pt", "weights", "weights.SAFETENSORS"])
def test_safetensors_are_known_by_their_content(tmp_path, name):
    save_file({"proj": torch.ones(2)}, tmp_path / name)
    assert read_state_dict(tmp_path / name)["proj"].tolist() == [1, 1]


# --- checksums


def test_open_clips_table_holds_the_digests_of_openais_weights():
    assert PUBLISHED in list_published_sha256()
    models = pretrained.list_pretrained_models_by_tag("openai")
    urls = {pretrained.get_pretrained_url(model, "openai").split("/")[-2] for model in models}
    assert list_published_sha256() == urls
    assert len(urls) == 9  # of five ResNets and four ViTs


def test_a_published_file_needs_no_checksum_of_ones_own(archive, config, tmp_path, monkeypatch):
    with pytest.raises(WeightsError, match="none of the files that OpenAI published"):
        load_clip(config, archive, **SETTINGS)
    digest = compute_sha256(archive)
    publish(monkeypatch, digest)
    shutil.copy(archive, path := tmp_path / "under another name.pt")
    assert load_clip(config, path, **SETTINGS).identity["weights_sha256"] == digest
    with pytest.raises(WeightsError, match="expected 0000"):  # one that is demanded counts
        verify_weights(path, "0" * 64, allow_unverified=False)


def test_openais_tag_is_fetched_from_the_address_with_the_digest(archive, monkeypatch):
    digest = compute_sha256(archive)
    entry = publish(monkeypatch, digest, hub="someone/tiny/")
    asked = []

    def download(wanted, prefer_hf_hub):
        assert wanted == entry
        asked.append(prefer_hf_hub)
        if not prefer_hf_hub and broken:
            raise OSError("no network")
        return "hub.safetensors" if prefer_hf_hub else str(archive)

    monkeypatch.setattr(pretrained, "download_pretrained", download)
    broken = False
    for sha256 in (None, digest.upper()):
        path = find_weights("tiny", "openai", sha256)
        assert path == archive
        assert verify_weights(path, sha256, allow_unverified=False) == digest
    assert str(find_weights("tiny", "openai", "0" * 64)) == "hub.safetensors"
    assert asked == [False, False, True]
    broken = True  # the hub's file is one of another digest
    assert str(find_weights("tiny", "openai", allow_unverified=True)) == "hub.safetensors"
    for settings in ({}, {"sha256": digest, "allow_unverified": True}):
        with pytest.raises(WeightsError, match=rf"no network.*get https.*{digest}/tiny\.pt"):
            find_weights("tiny", "openai", **settings)


# --- checkpoints and what is none


@pytest.mark.parametrize("key", ["model", "state_dict"])
def test_checkpoints_that_hold_more_than_tensors(key, tmp_path):
    state = {"module.weight": torch.ones(2).half()}
    torch.save({key: state, "epoch": 3}, path := tmp_path / "checkpoint.pt")
    assert torch.equal(read_state_dict(path)["weight"], torch.ones(2))
    torch.save({"net": state, "epoch": 3}, path)
    with pytest.raises(WeightsError, match=r"no tensors: net, epoch.*under state_dict and model"):
        read_state_dict(path)
    torch.save([1], path)
    with pytest.raises(WeightsError, match="it holds a list"):
        read_state_dict(path)


OTHERS = {
    "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9": "LFS pointer.*lfs pull",
    "\ufeff\r\n<!doctype html><title>Sign in</title>": "web page.*login",
    "<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>": "web page",
    "": "empty file",
}


@pytest.mark.parametrize("content", OTHERS)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_what_came_in_place_of_weights_is_named(content, suffix, tmp_path):
    (path := tmp_path / f"weights{suffix}").write_text(content)
    for read in (read_state_dict, lambda path: verify_weights(path, "0" * 64, False)):
        with pytest.raises(WeightsError, match=rf"weights{suffix}: .*{OTHERS[content]}"):
            read(path)


def test_half_downloads_are_named(tmp_path):
    tensors = {"weight": torch.randn(100), "bias": torch.randn(3)}
    save_file(tensors, safe := tmp_path / "weights.safetensors", metadata={"a": "b"})
    torch.save(tensors, checkpoint := tmp_path / "weights.pt")
    for path in (safe, checkpoint):
        content = path.read_bytes()
        for size in (20, len(content) // 2, len(content) - 1):
            path.write_bytes(content[:size])
            with pytest.raises(WeightsError, match=f"{path.name}: half a download"):
                verify_weights(path, None, allow_unverified=True)
        path.write_bytes(content)
        verify_weights(path, None, allow_unverified=True)
        assert torch.equal(read_state_dict(path)["weight"], tensors["weight"])


def test_a_whole_file_that_begins_like_a_page_is_one(tmp_path):
    """The length of a safetensors file's header may read " <a"."""
    path, text = tmp_path / "weights.safetensors", ""
    for _ in range(2):
        save_file({"weight": torch.ones(2)}, path, metadata={"note": text})
        length = int.from_bytes(path.read_bytes()[:8], "little")
        text = "x" * (int.from_bytes(b" <a", "little") - length)
    assert path.read_bytes().startswith(b" <a")
    verify_weights(path, None, allow_unverified=True)
    assert torch.equal(read_state_dict(path)["weight"], torch.ones(2))
