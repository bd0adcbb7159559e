"""`fuzzyclip doctor`: each thing that can be wrong is told, with advice; the rest goes on."""

import importlib.util
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
import yaml
from imports import ROOT
from safetensors.torch import save_file
from tiny_models import make_model
from trees import write_images
from typer.testing import CliRunner

import fuzzyclip.clip.weights
from fuzzyclip.cli import app
from fuzzyclip.clip.weights import SAMPLE_WEIGHTS
from fuzzyclip.datasets import REGISTRY
from fuzzyclip.health import judge, run_check
from fuzzyclip.health.data import check_data, is_non_commercial
from fuzzyclip.health.installation import (
    Check,
    check_device,
    check_disk,
    check_folder,
    check_packages,
    check_pipeline,
)
from fuzzyclip.health.models import (
    SAMPLE_SHA256,
    check_cached_weights,
    check_model,
    check_sample_weights,
    run_sample,
)
from fuzzyclip.model.directory import EFA
from fuzzyclip.model.signing import SIGNATURE, make_key_pair, sign_folder
from fuzzyclip.utils.files import compute_sha256


def only(checks: list[Check]) -> Check:
    (check,) = checks
    return check


@pytest.fixture
def requirements(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets what the installed FuzzyCLIP says it needs, and which packages there are."""

    def install(needed: list[str], there: Mapping[str, str], *, python: str = ">=3.11") -> None:
        own = metadata.metadata("fuzzyclip")
        for key in ("Requires-Python", "Provides-Extra"):
            del own[key]
        own["Requires-Python"] = python
        for extra in ("ray", "dev"):
            own["Provides-Extra"] = extra
        wanted = {"fuzzyclip": needed, "ray": ['pyarrow>=9; extra == "data"', "click"]}

        def find_version(name: str) -> str:
            if name not in there:
                raise metadata.PackageNotFoundError(name)
            return there[name]

        monkeypatch.setattr(metadata, "metadata", lambda name: own)
        monkeypatch.setattr(metadata, "requires", lambda name: wanted.get(name))
        monkeypatch.setattr(metadata, "version", find_version)

    return install


# --- the command


def call(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["doctor", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code, result.stdout


def test_outside_of_a_checkout_all_that_is_needed_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a network too: the tests have none."""
    monkeypatch.chdir(tmp_path)
    code, output = call("--json")
    report = json.loads(output)
    assert (code, report["status"]) == (0, judge([Check(**check) for check in report["checks"]]))
    by_name = {check["name"]: check for check in report["checks"]}
    for name in ("python", "packages", "device", "sample CLIP", "test run", "disk", "folder"):
        assert by_name[name]["status"] == "ok", by_name[name]
    assert "not in a checkout" in by_name["pipeline"]["found"]
    assert not any(name.startswith("data") for name in by_name)
    assert list(tmp_path.iterdir()) == []


def test_text_says_the_same_as_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checks = [Check("one", "ok", "is there"), Check("longer name", "warn", "is old", "renew it")]
    monkeypatch.setattr("fuzzyclip.health.examine", lambda *given: checks)
    assert call() == (
        0,
        "ok    one          is there\n"
        "warn  longer name  is old\n"
        "                   -> renew it\n"
        "1 ok, 1 warn, 0 fail\n",
    )
    checks.append(Check("last", "fail", "is gone", "get it"))
    code, output = call()
    assert code == 1
    assert output.endswith("-> get it\n1 ok, 1 warn, 1 fail\n")
    code, output = call("--json")
    assert code == 1
    assert json.loads(output) == {"status": "fail", "checks": list(map(asdict, checks))}


def test_a_fault_is_told_and_everything_else_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    absent = tmp_path / "absent.safetensors"
    monkeypatch.setattr(fuzzyclip.clip.weights, "SAMPLE_WEIGHTS", absent)
    code, output = call("--json", "--data", tmp_path / "nothing", "--model", tmp_path / "no_model")
    checks = [Check(**check) for check in json.loads(output)["checks"]]
    assert code == 1
    failed = {check.name for check in checks if check.status == "fail"}
    assert failed == {"sample CLIP", "test run", "model no_model"}
    assert {check.name: check.status for check in checks}["data"] == "warn"
    assert all(check.advice for check in checks if check.status != "ok")


def test_a_check_that_breaks_is_an_answer() -> None:
    def broken() -> list[Check]:
        raise ImportError("libcudart.so.12: cannot open shared object file\nand more")

    check = only(run_check("device", broken))
    assert (check.name, check.status) == ("device", "fail")
    assert check.found == "ImportError: libcudart.so.12: cannot open shared object file"


# --- packages


def test_packages_are_compared_with_their_bounds(requirements: Callable[..., None]) -> None:
    needed = [
        "torch>=2.9",
        'scipy<2,>=1.16; python_version > "3"',
        'old>=1; python_version < "3"',
        'ray>=2; extra == "ray"',
    ]
    there = {"torch": "2.10.0+cpu", "scipy": "1.16.0"}
    requirements(needed, there | {"ray": "2.0"})
    assert [check.status for check in check_packages()] == ["ok", "ok", "ok"]
    assert "2 packages within bounds: torch 2.10.0+cpu" in check_packages()[1].found
    assert check_packages()[2].found == "ray 2.0"
    requirements(needed, {"scipy": "2.1"})
    _, torch_missing, scipy_new, ray = check_packages()
    assert (torch_missing.status, torch_missing.found) == ("fail", "torch is not installed")
    assert torch_missing.advice == "pip install 'torch>=2.9'"
    assert scipy_new.status == "fail"
    assert scipy_new.found == "scipy is 2.1, needed is <2,>=1.16"
    assert (ray.status, ray.advice) == ("warn", "pip install 'fuzzyclip[ray]'")
    assert "several GPUs and machines" in ray.found
    requirements([], {}, python=">=4")
    python = check_packages()[0]
    assert (python.name, python.status) == ("python", "fail")
    assert ">=4" in python.advice


def test_an_extra_of_an_extra_counts(requirements: Callable[..., None]) -> None:
    requirements(['ray[data]>=2; extra == "ray"'], {"ray": "2.1"})
    ray = check_packages()[-1]
    assert (ray.status, ray.found.startswith("pyarrow is not installed (")) == ("warn", True)
    requirements(['ray[data]>=2; extra == "ray"'], {"ray": "2.1", "pyarrow": "10"})
    assert check_packages()[-1].found == "ray 2.1"


def test_without_installation_the_advice_is_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "metadata", refuse)
    check = only(check_packages())
    assert check.status == "fail"
    assert "pip install -e ." in check.advice


# --- weights


def test_files_of_the_sample_clip_are_the_recorded_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = yaml.safe_load((ROOT / "params.yaml").read_text())["backbones"]["sample"]
    assert sample["sha256"] == SAMPLE_SHA256 == compute_sha256(SAMPLE_WEIGHTS)
    assert only(check_sample_weights()).status == "ok"
    for name in ("SAMPLE_CONFIG", "SAMPLE_WEIGHTS"):
        with monkeypatch.context() as changed:
            changed.setattr(fuzzyclip.clip.weights, name, tmp_path / "gone")
            check = only(check_sample_weights())
        assert (check.status, check.found) == ("fail", f"{tmp_path / 'gone'} is missing")
        assert "install FuzzyCLIP again" in check.advice
    content = bytearray(SAMPLE_WEIGHTS.read_bytes())
    content[-1] ^= 1
    (damaged := tmp_path / "model.safetensors").write_bytes(content)
    monkeypatch.setattr(fuzzyclip.clip.weights, "SAMPLE_WEIGHTS", damaged)
    check = only(check_sample_weights())
    assert check.status == "fail"
    assert compute_sha256(damaged) in check.found
    assert only(run_check("test run", run_sample)).status == "fail"


def test_the_sample_clip_sees_an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    assert only(run_sample()).status == "ok"

    def encode(*_: object) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.zeros(1, 4), torch.full((1, 2, 3, 4), torch.nan)

    monkeypatch.setattr("fuzzyclip.clip.encoding.encode_images", encode)
    assert only(run_sample()).status == "fail"


def test_cached_weights_are_found_without_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    check = only(check_cached_weights())
    assert check.status == "warn"
    digest = "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02"
    assert f"{digest}/ViT-L-14-336px.pt elsewhere" in check.advice
    (own := tmp_path / ".cache/clip/ViT-L-14-336px.pt").parent.mkdir(parents=True)
    own.touch()
    assert f"{own} is damaged" in only(check_cached_weights()).found
    (tmp_path / "cached").write_bytes(bytes(20_000_000))
    cached = str(tmp_path / "cached")
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: cached)
    check = only(check_cached_weights())
    assert check.status == "warn"
    assert f"{cached}, 0.02 GB: no published SHA-256 fits" in check.found
    own.write_bytes(bytes(10_000_000))
    monkeypatch.setattr("fuzzyclip.health.models.compute_sha256", lambda _: digest)
    check = only(check_cached_weights())
    assert (check.status, check.found) == ("ok", f"{own}, 0.01 GB")


# --- a model's directory


@pytest.fixture
def model(tmp_path: Path, tiny_config: Path) -> Path:
    """A packaged model, weights inside, trained on drawn images."""
    return make_model(tmp_path / "made", tiny_config)[0]


def test_a_whole_model_is_whole_and_its_licence_is_told(model: Path) -> None:
    assert only(check_model(model)).status == "ok"
    card = json.loads((model / "model.json").read_text())
    card["training"] |= {
        "licences": {"mvtec": "CC BY-NC-SA 4.0", "visa": "CC BY 4.0"},
        "sources": {"mvtec": "official", "visa": "official"},
    }
    (model / "model.json").write_text(json.dumps(card))
    whole, licence = check_model(model)
    assert (whole.name, whole.status, licence.status) == ("model model", "ok", "warn")
    assert "mvtec (CC BY-NC-SA 4.0): not for commercial use" in licence.found
    assert "visa" not in licence.found


def test_a_model_that_its_owner_did_not_sign_is_not_read_where_a_key_is_given(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = make_key_pair(tmp_path / "line.pem")
    sign_folder(model, tmp_path / "line.pem")
    assert "whole and as signed" in only(check_model(model, key)).found
    elsewhere = (model / SIGNATURE).rename(tmp_path / "line.sig")
    assert "whole and as signed" in only(check_model(model, key, elsewhere)).found
    elsewhere.rename(model / SIGNATURE)
    (model / "added").touch()
    monkeypatch.setattr("fuzzyclip.model.card.read_card", lambda _: pytest.fail("read"))
    refused = only(check_model(model, key))
    assert (refused.status, "added is added" in refused.found) == ("fail", True)


def test_a_damaged_model_fails_with_the_files_name(
    model: Path, tmp_path: Path, tiny_config: Path
) -> None:
    name = json.loads((model / "model.json").read_text())["backbone"]["weights"]
    (model / name).write_bytes(b"others")
    whole, weights = check_model(model)
    assert (whole.status, weights.status) == ("ok", "fail")
    assert f"{name} is not the file" in weights.found
    save_file({"x": torch.ones(2)}, model / EFA)
    check = only(check_model(model))
    assert check.status == "fail"
    assert EFA in check.found
    (model / "model.json").unlink()
    assert "no model here" in only(check_model(model)).found
    _, weights = check_model(make_model(tmp_path / "bare", tiny_config, copy=False)[0])
    assert (weights.status, "weights.safetensors" in weights.found) == ("warn", True)


# --- data


def make_mvtec(raw: Path) -> None:
    """Two of MVTec's categories: one normal and two anomalous test images each."""
    for number, category in enumerate(("bottle", "wood")):
        names = ["train/good/0.png", "test/good/0.png", "test/hole/0.png", "test/hole/1.png"]
        write_images(raw / "mvtec" / category, names, first=9 * number)


def test_datasets_are_found_with_their_licences_and_none_is_no_failure(tmp_path: Path) -> None:
    raw = tmp_path / "data/raw"
    make_mvtec(raw)
    (raw / "btad").mkdir()
    checks, images = check_data(raw)
    mvtec, btad, rest = checks
    assert images == 6
    assert (mvtec.name, mvtec.status) == ("data mvtec", "warn")
    assert "6 test images of 2 of 15 categories (official)" in mvtec.found
    assert "CC BY-NC-SA 4.0: not for commercial use" in mvtec.found
    assert (btad.name, btad.status) == ("data btad", "fail")
    assert f"fuzzyclip data check btad {raw / 'btad'}" in btad.advice
    assert rest.found.endswith("visa, mpdd, dagm, sdd, dtd")
    checks, images = check_data(tmp_path)
    assert (only(checks).status, images) == ("warn", 0)
    assert "fuzzyclip data prepare" in only(checks).advice


def test_the_drawn_sample_has_no_foreign_licence(tmp_path: Path) -> None:
    raw, records = tmp_path / "data/raw", tmp_path / "data/records"
    make_mvtec(raw)
    records.mkdir()
    (records / "mvtec.json").write_text('{"source": "sample"}')
    assert check_data(raw)[0][0].status == "ok"
    for other in ('{"source": "official"}', "[]", "{}", "no json"):
        (records / "mvtec.json").write_text(other)
        assert check_data(raw)[0][0].status == "warn"


def test_licences_are_read_by_their_marks() -> None:
    bound = {name for name, spec in REGISTRY.items() if is_non_commercial(spec.licence)}
    assert bound == {"mvtec", "mpdd", "sdd"}
    assert not is_non_commercial("CC BY-ND, ENCODED")


# --- the machine


def test_free_space_is_compared_with_what_features_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = 1000 * (4 * 37 * 37 * 1024 * 2 + 768 * 4)  # ViT-L/14: half floats, and class features
    least = 1000 * (4 * 12 * 12 * 128 * 2 + 128 * 4)
    spare = 256 * 2**20
    for free, status in (
        (most + spare, "ok"),
        (most + spare - 1, "warn"),
        (least + spare, "warn"),
        (least + spare - 1, "fail"),
        (0, "fail"),
    ):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: SimpleNamespace(free=free))
        check = only(check_disk(tmp_path, 1000))
        assert check.status == status
        assert f"{free / 1e9:.1f} GB free" in check.found
        assert bool(check.advice) == (status != "ok")
    without_data = only(check_disk(tmp_path, 0))
    assert (without_data.status, without_data.found) == ("fail", "0.0 GB free")


def test_a_folder_that_takes_no_file_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert only(check_folder(tmp_path)).status == "ok"
    assert list(tmp_path.iterdir()) == []
    assert only(check_folder(tmp_path / "absent")).status == "fail"

    def refuse(**_: object) -> None:
        raise PermissionError(30, "Read-only file system")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    assert "Read-only file system" in only(check_folder(tmp_path)).found


def test_missing_tools_of_the_pipeline_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stages").mkdir()
    (tmp_path / "dvc.yaml").touch()
    assert only(check_pipeline(tmp_path)).found == "git, dvc, mlflow; in a checkout"
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "fuzzyclip.health.installation.find_spec",
        lambda name: None if name == "dvc" else find(name),
    )
    monkeypatch.setattr(shutil, "which", lambda _: None)
    check = only(check_pipeline(tmp_path))
    assert (check.status, check.advice) == ("warn", "install dvc and git")


def test_a_gpu_that_pytorch_does_not_see_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fuzzyclip.clip.backbone.choose_device", lambda: torch.device("cpu"))
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert only(check_device()).status == "ok"
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    for cuda, reason in ((None, "built without CUDA"), ("12.8", "does not find the driver")):
        monkeypatch.setattr(torch.version, "cuda", cuda)
        check = only(check_device())
        assert check.status == "warn"
        assert reason in check.found
