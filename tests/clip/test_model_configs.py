"""What a configuration of a CLIP may say: its file may come from anywhere, and runs no code."""

import copy
import json

import open_clip
import pytest
from backbones import load_clip
from families import native
from hypothesis import given
from hypothesis import strategies as st
from properties import try_examples
from schemas import SENSELESS, list_numbers, list_unbounded, put

from fuzzyclip.clip.model_configs import (
    LARGEST_FILE,
    OPENAI_MEAN,
    OPENAI_STD,
    ModelConfig,
    Preprocessing,
    Text,
    Vision,
    read_channels,
    read_model_config,
)
from fuzzyclip.clip.towers import build_tokenizer

REFUSED = "its configuration is refused: "


@pytest.fixture
def write(tmp_path):
    """A configuration as a file: the small one with changes by section."""

    def write_config(**changes):
        config = native()
        for section, entries in changes.items():
            config[section] = config[section] | entries if isinstance(entries, dict) else entries
        path = tmp_path / "model.json"
        path.write_text(json.dumps(config))
        return str(path)

    return write_config


def test_all_of_open_clips_own_are_accepted_as_they_are():
    names = open_clip.list_models()
    assert len(names) > 140
    for name in names:
        assert read_model_config(name) == open_clip.get_model_config(name)


@pytest.mark.parametrize("schema", [(Vision, "CLIPVisionCfg"), (Text, "CLIPTextCfg")])
def test_the_schema_has_open_clips_keys_and_no_other(schema):
    own = getattr(open_clip.model, schema[1]).__dataclass_fields__
    assert set(schema[0].model_fields) == set(own)
    for name, field in own.items():  # what a file leaves out is judged as what open_clip takes
        ours = schema[0].model_fields[name].default
        assert ours == field.default or name in ("act_kwargs", "norm_kwargs"), name


CODE = """
from pathlib import Path
from transformers import PreTrainedTokenizerFast
Path({ran!r}).touch()
class Evil(PreTrainedTokenizerFast):
    pass
"""


@pytest.fixture
def evil(tmp_path):
    """A folder of a tokenizer that brings code, and the file that the code makes."""
    pytest.importorskip("transformers")
    folder, ran = tmp_path / "evil", tmp_path / "ran"
    folder.mkdir()
    (folder / "evil.py").write_text(CODE.format(ran=str(ran)))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"auto_map": {"AutoTokenizer": [None, "evil.Evil"]}})
    )
    (folder / "config.json").write_text(
        json.dumps({"model_type": "evil", "auto_map": {"AutoConfig": "evil.Evil"}})
    )
    return folder, ran


def test_code_beside_a_tokenizer_is_not_run(write, evil, monkeypatch):
    folder, ran = evil
    monkeypatch.setenv("TRUST_REMOTE_CODE", "1")
    monkeypatch.setenv("HF_HUB_TRUST_REMOTE_CODE", "1")
    monkeypatch.setattr("builtins.input", lambda *given: pytest.fail("nobody is asked"))
    with pytest.raises(ValueError, match="can not be had"):
        load_clip(write(text_cfg={"hf_tokenizer_name": str(folder)}))
    assert not ran.exists()


def test_a_file_can_not_ask_for_code(write, evil):
    folder, ran = evil
    settings = {"hf_tokenizer_name": str(folder), "tokenizer_kwargs": {"trust_remote_code": True}}
    with pytest.raises(ValueError, match=r"text_cfg\.tokenizer_kwargs\.trust_remote_code: Extra"):
        load_clip(write(text_cfg=settings))
    with pytest.raises(ValueError, match="trust_remote_code"):  # nor past the schema
        build_tokenizer(settings)
    assert not ran.exists()


@pytest.mark.parametrize(
    "name",
    [
        "bpe_path", "tokenizer_file", "vocab_file", "cache_dir", "subfolder", "revision", "proxies",
        "token", "code_revision", "gguf_file", "tokenizer_type", "config", "local_files_only",
        "additional_special_tokens", "_commit_hash", "reduction_mask",
    ],
)  # fmt: skip
def test_no_other_argument_reaches_a_tokenizer(write, name):
    with pytest.raises(ValueError, match=rf"{REFUSED}text_cfg\.tokenizer_kwargs\.{name}: Extra"):
        load_clip(write(text_cfg={"tokenizer_kwargs": {name: "/etc/passwd"}}))


@pytest.mark.parametrize("section", ["vision_cfg", "text_cfg", None])
def test_unknown_keys_are_refused_by_name(write, section):
    changes = {section: {"typo": 1}} if section else {"typo": 1}
    place = f"{section}.typo" if section else "typo"
    with pytest.raises(ValueError, match=rf"model\.json: {REFUSED}{place}: Extra inputs"):
        read_model_config(write(**changes))


@pytest.mark.parametrize(
    "name",
    [
        "../evil", "./evil", "evil/../x", "a/b/c", "hf-hub:a/b", "local-dir:/x", "//host/share",
        "\\\\host\\share", "https://example.org/x", "", "a b", "a/..", "x" * 201,
    ],
)  # fmt: skip
def test_names_that_are_no_names_on_the_hub_are_refused(write, name):
    with pytest.raises(ValueError, match=rf"{REFUSED}text_cfg\.hf_tokenizer_name: "):
        read_model_config(write(text_cfg={"hf_tokenizer_name": name}))


def test_a_folder_here_does_not_stand_for_a_name_on_the_hub(write, tmp_path, monkeypatch):
    path = write(text_cfg={"hf_tokenizer_name": "some/tokenizer"})
    assert read_model_config(path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "some" / "tokenizer").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"some/tokenizer hides it.*absolute path"):
        read_model_config(path)


@pytest.mark.parametrize(
    ("section", "changes"),
    [
        ("vision_cfg", {"layers": 500, "width": 65_536}),
        ("vision_cfg", {"patch_size": 0}),
        ("text_cfg", {"vocab_size": 2_000_000, "width": 65_536}),
        ("text_cfg", {"layers": 1_000_000}),
        ("vision_cfg", {"layers": True}),
        ("vision_cfg", {"width": "64"}),
        ("text_cfg", {"norm_kwargs": {"eps": float("nan")}}),
        ("text_cfg", {"act_kwargs": {"inplace": True}}),
    ],
)
def test_endless_sizes_and_other_types_are_refused_before_anything_is_built(
    write, section, changes, monkeypatch
):
    monkeypatch.setattr("fuzzyclip.clip.backbone.build_model", lambda *given: pytest.fail("built"))
    with pytest.raises(ValueError, match=rf"{REFUSED}{section}"):
        load_clip(write(**{section: changes}))


def test_every_number_of_the_schema_has_bounds():
    assert list_unbounded(ModelConfig) == list_unbounded(Preprocessing) == []


PLACES = list_numbers(native(init_logit_bias=-10))


@try_examples(100)
@given(st.sampled_from(PLACES), st.sampled_from(SENSELESS))
def test_numbers_that_nobody_means_are_refused_by_their_key(tmp_path_factory, place, value):
    config = copy.deepcopy(native(init_logit_bias=-10))
    put(config, place, value)
    path = tmp_path_factory.mktemp("config") / "model.json"
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match=REFUSED + r"\.".join(place)):
        read_model_config(str(path))


def test_what_open_clip_can_not_build_is_said_in_words(write):
    with pytest.raises(ValueError, match=r"model\.json: open_clip can not build it .*divisible"):
        load_clip(write(text_cfg={"heads": 3}))
    with pytest.raises(ValueError, match="strip_sep_token"):
        load_clip(write(text_cfg={"tokenizer_kwargs": {"strip_sep_token": True}}))


def test_an_image_of_too_many_patches_is_refused(write):
    path = write()
    with pytest.raises(ValueError, match="4096 in patches of 8 pixels: more than 65,536"):
        load_clip(path, image_size=4096)
    with pytest.raises(ValueError, match=r"image_size\n.*less than or equal to 8192"):
        load_clip(path, image_size=10**8)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "no JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ("[1]", "a table is needed"),
        ('{"model_cfg": 3}', REFUSED),
        ("{}", rf"{REFUSED}embed_dim: Field required"),
        (" " * (LARGEST_FILE + 1), "more than 1,000,000 bytes"),
    ],
)
def test_files_that_are_no_configuration_are_refused_with_their_name(tmp_path, text, reason):
    path = tmp_path / "model.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"model\.json: .*{reason}"):
        read_model_config(str(path))


HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.mark.parametrize(
    ("model", "weights", "channels"),
    [
        ("ViT-L-14-336", "openai", (OPENAI_MEAN, OPENAI_STD)),
        ("ViT-L-14", "some/file.pt", (OPENAI_MEAN, OPENAI_STD)),  # tags disagree
        ("ViT-B-16-SigLIP", "webli", HALF),
        ("ViT-B-16-SigLIP2", "random", HALF),
        ("PE-Core-T-16-384", "some/file.safetensors", HALF),
    ],
)
def test_channels_of_a_named_model_are_those_of_its_weights(model, weights, channels):
    assert read_channels(model, weights) == channels


def test_channels_of_a_file_are_its_own(write, tmp_path):
    assert read_channels(write(), "random") == (OPENAI_MEAN, OPENAI_STD)
    (path := tmp_path / "hub.json").write_text(
        json.dumps({"preprocess_cfg": {"mean": HALF[0], "std": HALF[1]}, "model_cfg": {}})
    )
    assert read_channels(str(path), "random") == HALF


@pytest.mark.parametrize("std", [[0, 1, 1], [float("nan")] * 3, [1, 1], "1", [1e308] * 3])
def test_deviations_that_nothing_can_be_divided_by_are_refused(tmp_path, std):
    path = tmp_path / "hub.json"
    path.write_text(json.dumps({"model_cfg": native(), "preprocess_cfg": {"std": std}}))
    with pytest.raises(ValueError, match=rf"hub\.json: {REFUSED}std"):
        read_channels(str(path), "random")
