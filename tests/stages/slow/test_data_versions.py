"""Data as a team uses them: shared caches, older versions, own images, new datasets."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from loopback import Loopback
from PIL import Image
from pipelines import (
    OWN,
    change_params,
    clone_repository,
    commit,
    list_runs,
    make_own_images,
    ran,
    run,
)
from trees import write_images, write_picture

from fuzzyclip.datasets.fetching.fetch import compute_tree_sha256
from fuzzyclip.sample.archives import write_sample_archives
from fuzzyclip.utils.tree import read_tree

FEW = {"seed": 3, "train_normal": 1, "test_normal": 3, "test_anomalous": 3}


def tree(folder: Path) -> str:
    return compute_tree_sha256(read_tree(folder))


def test_a_team_shares_all_but_the_raw_images(pipeline, tmp_path: Path) -> None:
    here = clone_repository(pipeline[0], tmp_path / "here")
    remote = tmp_path / "remote"
    run(here, "dvc", "remote", "add", "-d", "team", str(remote))
    commit(here, "remote")
    run(here, "dvc", "push")
    locked = yaml.safe_load((here / "dvc.lock").read_text())["stages"]["download@sdd"]["outs"]
    digests = {out["path"]: out["md5"] for out in locked}
    stored = {path.parent.name + path.name for path in remote.rglob("*") if path.is_file()}
    assert digests["data/records/sdd.json"] in stored
    assert digests["data/raw/sdd"] not in stored  # licences: raw images stay where they are
    there = clone_repository(here, tmp_path / "there", cache=False)
    run(there, "dvc", "pull", "--allow-missing")
    assert ran(run(there, "dvc", "repro", "--allow-missing")) == []
    assert not [path for path in (there / "data/raw").rglob("*") if path.is_file()]
    assert tree(there / "features/tokens/sdd") == tree(here / "features/tokens/sdd")
    # who has no licence to mind says so in one line, and plain pull and repro are enough
    text = (here / "dvc.yaml").read_text()
    assert text.count("push: false") == 1
    (here / "dvc.yaml").write_text(text.replace("push: false", "push: true"))
    commit(here, "our own images may be pushed")
    run(here, "dvc", "push")
    other = clone_repository(here, tmp_path / "other", cache=False)
    run(other, "dvc", "pull")
    assert ran(run(other, "dvc", "repro")) == []
    assert tree(other / "data/raw/sdd") == tree(here / "data/raw/sdd")


def test_own_images_by_one_params_block(pipeline, tmp_path: Path) -> None:
    folder = clone_repository(pipeline[0], tmp_path / "own")
    make_own_images(folder / "mine")

    def add(params):
        params["datasets"]["parts"] = OWN | {"names": {"bracket black": "black metal bracket"}}
        params["pairs"]["parts"] = "visa"

    change_params(folder, add)
    (folder / ".gitignore").write_text((folder / ".gitignore").read_text() + "/mine/\n")
    output = ran(run(folder, "dvc", "repro"))
    expected = {f"{stage}@parts" for stage in ("download", "index", "features", "evaluate")}
    assert expected <= set(output)
    after = {"check", "sample", "auxiliary@visa", "report", "page", "track"}
    assert set(output) - expected == after
    recorded = list_runs(folder)[-1]
    assert recorded.data.tags["protocol.parts"] == "auto"
    assert recorded.data.tags["images.parts"] == "6 normal, 4 anomalous"
    assert "own" in (folder / "results/fuzzyclip/parts/dataset.json").read_text()
    assert (
        "| parts | own images | auto | 2 | 6 | 4 |"
        in (folder / "metrics/tables/summary.md").read_text()
    )
    commit(folder, "own images")
    first = tree(folder / "data/raw/parts")

    # without any mask, a dataset has no pixel metric at all
    shutil.rmtree(folder / "mine/hinge/ground_truth")
    write_images(folder / "mine/hinge/good", ["3.png"], 77)
    run(folder, "dvc", "repro", "-s", "-f", "download@parts")
    output = ran(run(folder, "dvc", "repro", "evaluate@parts"))
    assert {"index@parts", "evaluate@parts"} <= set(output)
    metrics = json.loads((folder / "metrics/datasets/parts.json").read_text())
    assert set(metrics) == {"image_auroc", "image_ap", "image_f1_max"}
    commit(folder, "another image")
    second = tree(folder / "data/raw/parts")
    assert first != second

    # an older commit's data come back, and the newer again
    run(folder, "git", "checkout", "-q", "HEAD~1")
    run(folder, "dvc", "checkout")
    assert tree(folder / "data/raw/parts") == first
    assert ran(run(folder, "dvc", "repro")) == []
    run(folder, "git", "checkout", "-q", "-")
    run(folder, "dvc", "checkout")
    assert tree(folder / "data/raw/parts") == second

    # a tree put in place by hand is accepted without running the download
    shutil.rmtree(folder / "data/raw/parts")
    make_own_images(folder / "data/raw/parts")
    run(folder, "dvc", "commit", "-f", "download@parts")
    output = ran(run(folder, "dvc", "repro", "evaluate@parts"))
    assert "download@parts" not in output
    assert "index@parts" in output

    # a corrected mask of an auxiliary set: what has learned from masks learns again
    rows = pd.read_csv(folder / "data/index/visa.csv", keep_default_na=False)
    mask = folder / "data/raw/visa" / rows.loc[rows["mask_path"] != "", "mask_path"].iloc[0]
    height, width = np.asarray(Image.open(mask)).shape[:2]
    write_picture(mask, np.full((height, width), 255, np.uint8))
    run(folder, "dvc", "commit", "-f", "download@visa")
    output = ran(run(folder, "dvc", "repro", "evaluate@sdd"))
    assert {"index@visa", "auxiliary@visa", "efa@visa", "evaluate@sdd"} <= set(output)


def test_data_are_links_into_the_cache(pipeline, tmp_path: Path) -> None:
    """What DVC makes where a file system can do no better: `cache.type symlink`."""
    folder = clone_repository(pipeline[0], tmp_path / "linked")
    run(folder, "dvc", "config", "cache.type", "symlink")
    run(folder, "dvc", "checkout", "--relink")
    made = [*folder.glob("data/raw/**/*.png"), *folder.glob("models/visa/fuzzyclip/*")]
    assert len(made) > 10
    assert all(path.is_symlink() for path in made)
    index = (folder / "data/index/sdd.csv").read_bytes()
    for stage in ("index@sdd", "features@sdd", "efa@visa", "package@visa", "evaluate@sdd"):
        run(folder, "dvc", "repro", "-s", "-f", stage)
    run(folder, "dvc", "repro", "-s", "-f", "report", "page", "track")
    assert (folder / "data/index/sdd.csv").read_bytes() == index
    assert all(path.is_symlink() for path in made)
    assert len(list_runs(folder)) == 1  # with the model, which MLflow would not take as links


@pytest.fixture(scope="module")
def served(pipeline, tmp_path_factory):
    """A repository whose KolektorSDD comes from a server and whose VisA lies in a folder."""
    place = tmp_path_factory.mktemp("served")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("no_proxy", "127.0.0.1")
        server = Loopback()
        visa = write_sample_archives("visa", place / "archives", **FEW)
        sdd = write_sample_archives("sdd", place / "served", **FEW)
        server.pages["sdd.zip"] = (place / "served/KolektorSDD.zip").read_bytes()
        folder = clone_repository(pipeline[0], place / "official")

        def change(params):
            params["data"]["source"] = "official"
            params["rpl"]["epochs"]["official"] = 2
            datasets = params["datasets"]
            for name in ("visa", "sdd"):
                datasets[name]["counts"] = "any"
            datasets["visa"] |= {"path": str(place / "archives"), "sha256": visa}
            datasets["sdd"] |= {
                "sha256": sdd, "urls": {"KolektorSDD.zip": [f"{server.url}/good/sdd.zip"]}
            }  # fmt: skip

        change_params(folder, change)
        run(folder, "dvc", "repro")
        commit(folder, "official")
        yield folder, server, place
        server.stop()


@pytest.fixture
def official(served, tmp_path):
    """A clone of it, with its data, the server and the folder of archives."""
    folder, server, place = served
    return clone_repository(folder, tmp_path / "official"), server, place


def test_one_datasets_change_reruns_that_dataset_only(official) -> None:
    folder, server, place = official
    record = json.loads((folder / "data/records/sdd.json").read_text())
    assert record["archives"][0]["source"] == f"{server.url}/good/sdd.zip"
    assert record["archives"][0]["verified"] is True
    assert not list((folder / "scratch").glob("download*/*.zip"))

    # another address, the same bytes: looked at and listed again, nothing is computed
    def move(params):
        params["datasets"]["sdd"]["urls"] = {"KolektorSDD.zip": [f"{server.url}/moved/sdd.zip"]}

    change_params(folder, move)
    output = ran(run(folder, "dvc", "repro"))
    assert set(output) == {"check", "sample", "download@sdd", "index@sdd", "track"}

    # a new dataset: one module, one line in the registry, one block of parameters
    sha256 = write_sample_archives("mpdd", place / "bolts", **FEW)
    text = (folder / "fuzzyclip/datasets/mpdd.py").read_text()
    for old, new in (("MPDD = ", "BOLTS = "), ('"mpdd"', '"bolts"'), ('"MPDD"', '"Bolts"')):
        assert text.count(old) == 1
        text = text.replace(old, new)
    (folder / "fuzzyclip/datasets/bolts.py").write_text(text)
    registry = folder / "fuzzyclip/datasets/__init__.py"
    line = "from fuzzyclip.datasets.btad import BTAD\n"
    text = registry.read_text().replace(line, f"from fuzzyclip.datasets.bolts import BOLTS\n{line}")
    registry.write_text(text.replace("(MVTEC,", "(BOLTS, MVTEC,"))

    def add(params):
        params["data"]["archives"] = None
        params["datasets"]["bolts"] = params["datasets"]["visa"] | {
            "kind": "bolts", "protocol": "official", "path": str(place / "bolts"),
            "sha256": sha256, "categories": ["bracket_black"],
        }  # fmt: skip
        params["pairs"]["bolts"] = "visa"

    change_params(folder, add)
    output = ran(run(folder, "dvc", "repro"))
    own = {f"{stage}@bolts" for stage in ("download", "index", "features", "evaluate")}
    after = {"check", "sample", "auxiliary@visa", "report", "page", "track"}
    assert set(output) == own | after
    info = json.loads((folder / "results/fuzzyclip/bolts/dataset.json").read_text())
    counts = {"train_normal": 1, "test_normal": 3, "test_anomalous": 3, "train_anomalous": 0}
    assert info["counts"] == {"bracket_black": counts}
    assert info["verified"] is True
    assert "Bolts" in (folder / "metrics/tables/summary.md").read_text()
    tags = list_runs(folder)[-1].data.tags
    assert [tags["licence.bolts"], tags["protocol.bolts"]] == ["CC BY-NC-SA 4.0", "official"]


def test_a_broken_image_stops_the_pipeline_or_is_dropped(official) -> None:
    folder, _, _ = official
    victim = next((folder / "data/raw/sdd").rglob("good/*.png"))
    data = victim.read_bytes()
    victim.unlink()
    victim.write_bytes(data[: len(data) // 2])
    run(folder, "dvc", "commit", "-f", "download@sdd")
    output = run(folder, "dvc", "repro", fails=True)
    assert f"{victim.name}: not a readable image" in output
    output = run(folder, "dvc", "exp", "run", "-S", "data.on_error=drop")
    assert "download@sdd" not in ran(output)
    info = json.loads((folder / "data/index/sdd.json").read_text())
    (dropped,) = info["dropped"]
    assert dropped[0].endswith(victim.name)
    assert dropped[1].startswith("not a readable image")
    datasets = pd.read_csv(folder / "metrics/tables/datasets.csv").set_index("dataset")
    assert datasets.loc["sdd", "left out"] == 1
