"""`fuzzyclip fetch`, as typed: what it prints, and errors as one line."""

import pytest
import yaml
from command import run
from tower_files import NAME, Hub, draw_state

from fuzzyclip.clip.backbone import load_backbone
from fuzzyclip.utils.settings import BackboneSettings


@pytest.fixture
def hub(tmp_path, monkeypatch):
    import huggingface_hub

    hub = Hub(draw_state())
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    yield hub
    hub.stop()


def test_the_next_lines_are_printed_and_are_right(hub, tmp_path):
    done = run("fetch", NAME)
    assert done.exit_code == 0, done.output
    for words in (f"{NAME}: fetched", hub.etag, "licence  toy-licence"):
        assert words in done.stdout
    assert f"fuzzyclip predict parts/ --batch --backbone {NAME}\n" in done.stdout
    entry = yaml.safe_load(done.stdout[done.stdout.index("  toy_dinov2:\n") :])["toy_dinov2"]
    assert entry.keys() == BackboneSettings.model_fields.keys()
    load_backbone(BackboneSettings(**entry), device="cpu")
    again = run("fetch", NAME)
    assert f"{NAME}: was there already" in again.stdout


def test_the_fast_setting_is_printed_as_an_entry_of_its_own(hub):
    done = run("fetch", NAME, "--fast")
    assert done.exit_code == 0, done.output
    assert f"--backbone {NAME} --fast\n" in done.stdout
    entry = yaml.safe_load(done.stdout[done.stdout.index("  toy_dinov2_fast:\n") :])
    assert entry["toy_dinov2_fast"]["image_size"] == 364
    plain = run("fetch", NAME).stdout
    assert "    image_size: 518\n" in plain
    assert "--fast" not in plain
    assert "toy_dinov2_fast" not in plain


def test_a_folder_of_ones_own_is_named_so_that_a_shell_takes_it(hub, tmp_path):
    out = tmp_path / "a tower: 'mine'"
    done = run("fetch", NAME, "--out", out)
    assert done.exit_code == 0, done.output
    entry = yaml.safe_load(done.stdout[done.stdout.index("  toy_dinov2:\n") :])["toy_dinov2"]
    assert entry["model"] == str(out / "model.json")
    assert f"--backbone {NAME}" not in done.stdout


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "fuzzyclip fetch --list"),
        (("nonsense",), "neither timm nor open_clip"),
        ((NAME, "--sha256", "12"), "64 hexadecimal digits"),
        ((NAME, "--file", "nowhere.safetensors"), "nowhere.safetensors: no such file"),
    ],
)
def test_mistakes_get_words(words, told):
    done = run("fetch", *words)
    assert done.exit_code in (1, 2)
    assert told in " ".join(done.stderr.replace("│", " ").split())
    assert "Traceback" not in done.output


def test_the_list_names_licences_and_what_reads_text():
    lines = run("fetch", "--list").stdout.splitlines()
    (dino,) = [line for line in lines if line.startswith("timm/vit_small_patch14_dinov2 ")]
    (clip,) = [line for line in lines if line.startswith("ViT-L-14-336:openai ")]
    assert "22 M parameters" in dino
    assert "hub, pypi" in dino
    assert "apache-2.0" in dino
    assert "images and text" in clip
