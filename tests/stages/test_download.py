"""download, where a dataset is a folder of one's own."""

import pytest
from imports import ROOT
from pipelines import OWN, change_params, make_own_images

from stages import download


@pytest.fixture
def checkout(tmp_path):
    """A checkout with own images that git does not track, and a copy without them."""
    make_own_images(tmp_path / "checkout/mine")
    for folder in ("checkout", "copy"):
        (tmp_path / folder).mkdir(exist_ok=True)
        for name in ("params.yaml", "dvc.yaml"):
            (tmp_path / folder / name).write_text((ROOT / name).read_text())
        change_params(tmp_path / folder, lambda params: params["datasets"].update(parts=OWN))
    return tmp_path / "checkout"


@pytest.mark.parametrize("folder", ["checkout", "copy"])
def test_a_relative_path_is_the_checkouts_also_in_a_copy(checkout, folder, monkeypatch):
    """`dvc exp run --temp` starts stages in a copy, and names the checkout."""
    monkeypatch.chdir(checkout.parent / folder)
    monkeypatch.setenv("DVC_ROOT", str(checkout))
    download.main("parts")
    taken = checkout.parent / folder / "data/raw/parts"
    own = {path.relative_to(checkout / "mine") for path in (checkout / "mine").rglob("*.*")}
    assert {path.relative_to(taken) for path in taken.rglob("*.*")} == own


def test_without_dvc_a_relative_path_is_the_working_directorys(checkout, monkeypatch):
    monkeypatch.chdir(checkout)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    download.main("parts")
    assert list((checkout / "data/raw/parts").rglob("*.png"))
