"""The pictures of README and docs: none is stale, and what makes one so is told."""

import io
import re
import shutil
import subprocess
import zipfile

import numpy as np
import pandas as pd
import pytest
import yaml
from dvc.repo import Repo
from imports import ROOT
from PIL import Image
from tiny_models import make_model
from trees import write_picture

from fuzzyclip.utils.tables import write_csv
from tools.pictures import __main__ as command
from tools.pictures import browser, catalogue, fast, methods, overlays
from tools.pictures.catalogue import PICTURES, Picture, make_picture
from tools.pictures.sources import (
    FOLDER,
    PictureError,
    digest_code,
    digest_output,
    digest_sources,
    find_stale,
    read_outputs,
    read_sources,
    save_picture,
)

SOURCES = {name: picture.sources for name, picture in PICTURES.items()}
CODE = '"""What it is."""\n\n\ndef give():\n    """One."""\n    return 1\n'


def test_no_picture_is_stale(tmp_path):
    """Named with the command that makes it anew.

    Where the pipeline ran here and gave other numbers, as on another kind of CPU, the committed
    pictures need only be of the committed results.
    """
    stale = find_stale(ROOT, SOURCES)
    if stale and run_git("diff", "--quiet", "HEAD", "--", "dvc.lock").returncode == 1:
        archive = run_git("archive", "--format=zip", "HEAD").stdout
        with zipfile.ZipFile(io.BytesIO(archive)) as committed:
            committed.extractall(tmp_path)
        stale = find_stale(tmp_path, SOURCES)
    assert not stale, "\n".join(["`make pictures`: these are stale", *stale])


def run_git(*words):
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True)


@pytest.mark.parametrize("page", sorted({*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")}))
def test_every_picture_that_a_page_shows_is_there(page):
    for place in re.findall(r"!\[[^\]]*\]\(((?!http)[^)]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / place).is_file(), f"{page.name} shows {place}"


@pytest.fixture
def checkout(tmp_path):
    """Results, a table, a module and a picture that was made of all of them."""
    for name, content in {"out/a.txt": "a", "out/b/c.txt": "c", "t.csv": "1", "m.py": CODE}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    lock(tmp_path)
    return tmp_path


def lock(root):
    """dvc.lock as DVC would write it."""
    outs = [{"path": "out", "md5": digest_output(root / "out")}]
    (root / "dvc.lock").write_text(yaml.safe_dump({"stages": {"report": {"outs": outs}}}))


def draw(root):
    return Image.new("RGB", (4, 3), ((root / "t.csv").read_text() == "1" and "white") or "black")


@pytest.fixture
def picture(checkout, monkeypatch):
    """One picture, made."""
    monkeypatch.setattr(catalogue, "PICTURES", {"one": Picture(["out", "t.csv", "m.py"], draw)})
    return make_picture(checkout, "one")


def list_stale(checkout):
    return find_stale(checkout, {"one": ["out", "t.csv", "m.py"]})


def change_result(root):
    (root / "out/b/c.txt").write_text("d")
    lock(root)


@pytest.mark.parametrize(
    ("change", "source"),
    [
        (change_result, "out"),
        (lambda root: (root / "t.csv").write_text("2"), "t.csv"),
        (lambda root: (root / "m.py").write_text(CODE.replace("return 1", "return 2")), "m.py"),
    ],
)
def test_a_picture_is_stale_where_a_source_is_another(checkout, picture, change, source):
    assert list_stale(checkout) == []
    change(checkout)
    assert list_stale(checkout) == [f"{FOLDER}/one.png: made from another {source}"]
    make_picture(checkout, "one")
    assert list_stale(checkout) == []


def test_what_changes_no_picture_makes_none_stale(checkout, picture):
    before = picture.read_bytes()
    told = CODE.replace('"""One."""', '"""Two."""').replace("return 1", "return 1  # for now")
    (checkout / "m.py").write_text(told)
    for path in (checkout / "out/a.txt", checkout / "t.csv"):
        path.touch()
    assert list_stale(checkout) == []
    make_picture(checkout, "one")
    assert picture.read_bytes() == before


def test_pictures_that_nothing_is_known_of_are_named(checkout, picture):
    Image.new("RGB", (2, 2)).save(checkout / FOLDER / "two.png")
    assert list_stale(checkout) == [f"{FOLDER}/two.png: `make pictures` does not make it"]
    Image.new("RGB", (2, 2)).save(picture)
    assert "does not say what it was made from" in list_stale(checkout)[0]
    picture.unlink()
    assert list_stale(checkout)[0] == f"{FOLDER}/one.png: it is not there"


def test_a_picture_with_a_source_that_is_gone_is_stale(checkout, picture):
    (checkout / "t.csv").unlink()
    assert list_stale(checkout) == [
        f"{FOLDER}/one.png: t.csv is no file, and no output that dvc.lock knows"
    ]


def test_a_picture_tells_its_sources_and_keeps_its_pixels(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    save_picture(Image.fromarray(pixels), tmp_path / "p.png", {"b": "md5:2", "a": "sha256:1"})
    assert read_sources(tmp_path / "p.png") == {"a": "sha256:1", "b": "md5:2"}
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "p.png")), pixels)


def test_digests_of_outputs_are_those_of_dvc(checkout):
    with Repo.init(str(checkout), no_scm=True) as repository:
        repository.add([str(checkout / name) for name in ("out", "t.csv")])
    for name in ("out", "t.csv"):
        (told,) = yaml.safe_load((checkout / f"{name}.dvc").read_text())["outs"]
        assert digest_output(checkout / name) == told["md5"]


def test_the_digest_of_code_tells_what_it_does(tmp_path):
    def digest(text):
        (tmp_path / "m.py").write_text(text)
        return digest_code(tmp_path / "m.py")

    assert digest(CODE) == digest("def give():\n    return  1 # it\n")
    assert digest(CODE) != digest(CODE.replace("1", "1.0"))
    assert digest("x = ''") != digest("x = None") != digest("x = 0")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: shutil.rmtree(root / "out"), "out is not there: `dvc repro track` first"),
        (lambda root: (root / "out/a.txt").write_text("x"), "out is not what dvc.lock states"),
    ],
)
def test_no_picture_is_made_of_what_is_no_result(checkout, picture, spoil, message):
    before = picture.read_bytes()
    spoil(checkout)
    with pytest.raises(PictureError, match=message):
        make_picture(checkout, "one")
    assert picture.read_bytes() == before


def test_half_a_picture_is_no_picture(checkout, picture, monkeypatch):
    before = picture.read_bytes()
    monkeypatch.setattr(
        Image.Image, "save", lambda *_, **__: (_ for _ in ()).throw(OSError("full"))
    )
    with pytest.raises(OSError, match="full"):
        make_picture(checkout, "one")
    assert picture.read_bytes() == before
    assert [path.name for path in (checkout / FOLDER).iterdir()] == ["one.png"]


def test_the_command_says_what_is_missing_and_makes_the_others(checkout, monkeypatch, capsys):
    known = {"one": Picture(["t.csv"], draw), "two": Picture(["out"], draw)}
    monkeypatch.setattr(catalogue, "PICTURES", known)
    monkeypatch.setattr(command, "PICTURES", known)
    monkeypatch.setattr(command, "ROOT", checkout)
    shutil.rmtree(checkout / "out")
    assert command.main(["--only", "two"]) == 1
    assert "two: not made. out is not there: `dvc repro track` first" in capsys.readouterr().err
    assert command.main([]) == 1
    assert (checkout / FOLDER / "one.png").is_file()
    assert command.main(["--only", "one"]) == 0
    with pytest.raises(SystemExit):
        command.main(["--only", "three"])


def test_a_missing_browser_is_told(monkeypatch):
    monkeypatch.setattr(browser.shutil, "which", lambda _: None)
    with pytest.raises(PictureError, match="chromium"), browser.open_page(10, 10):
        pass


def test_the_picture_of_methods_shows_every_method_of_the_table_alone(tmp_path):
    (tmp_path / methods.TABLE).parent.mkdir(parents=True)
    shutil.copyfile(ROOT / methods.TABLE, tmp_path / methods.TABLE)
    first, again = methods.draw(tmp_path), methods.draw(tmp_path)
    np.testing.assert_array_equal(np.asarray(first), np.asarray(again))
    table = pd.read_csv(ROOT / methods.TABLE).set_index("variant")
    for axis, metric in zip(methods.draw_picture(table).axes, methods.QUALITY, strict=True):
        known = table[f"drawn sample: {metric}"].dropna()
        assert {text.get_text() for text in axis.texts} == {*table.loc[known.index, "method"]}
        (dots,) = axis.collections
        np.testing.assert_allclose(dots.get_offsets()[:, 1], known)


def test_the_picture_of_fast_settings_shows_each_at_its_time_and_rings_the_declared_one(tmp_path):
    table = pd.DataFrame({
        "variant": ["518 px", "364 px", "252 px", "518 px, 50 % merged", "518 px, int8"],
        "kind": ["own", "size", "size", "merged", "int8"],
        "declared": [0.0, 1.0, 0.0, 0.0, 0.0],
        "time": [1.0, 0.42, 0.21, 0.66, 0.7],
        "4 good parts, sdd: pixel_ap": [50.0, 47.0, 30.0, 49.0, 48.5],
        "4 good parts, sdd: image_auroc": [90.0] * 5,
        "batch, sdd: pixel_ap": [40.0, 35.0, float("nan"), 38.0, 39.0],
    })  # fmt: skip
    write_csv(tmp_path / fast.TABLE, table)
    first, again = fast.draw(tmp_path), fast.draw(tmp_path)
    np.testing.assert_array_equal(np.asarray(first), np.asarray(again))
    columns = ["4 good parts, sdd: pixel_ap", "batch, sdd: pixel_ap"]
    for axis, column in zip(fast.draw_picture(table).axes, columns, strict=True):
        known = table.dropna(subset=[column])
        names = ["518", "364", "252", "518, 50 %", "518, int8"]
        assert {text.get_text() for text in axis.texts} == {names[place] for place in known.index}
        lines = [line for line in axis.lines if line.get_label() in fast.TITLES.values()]
        dots = {point for line in lines for point in zip(*line.get_data(), strict=True)}
        assert dots == {*zip(known["time"], known[column], strict=True)}
        (ring,) = axis.collections
        np.testing.assert_allclose(ring.get_offsets(), [[0.42, table[column][1]]])


def test_overlays_are_of_the_category_in_the_middle():
    values = {"a": 30.0, "b": 10.0, "c": 40.0, "d": 20.0}
    rows = [{"variant": "fuzzyclip", "category": k, "pixel_ap": v} for k, v in values.items()]
    other = [{"variant": "object", "category": "b", "pixel_ap": 25.0}]
    assert overlays.choose_category(pd.DataFrame(rows + other)) == "d"
    assert overlays.choose_category(pd.DataFrame(rows[:3])) == "a"


@pytest.fixture
def parts(tmp_path):
    """Drawn results and images of one category, and a tiny model."""
    rng = np.random.default_rng(0)
    folder = tmp_path / overlays.IMAGES / "nut"
    for kind in ("good", "bent", "crack", "dirt", "hole", "worn"):
        for number in range(3):
            write_picture(
                folder / f"test/{kind}/{number:03}.png", rng.integers(0, 256, (32, 40, 3), np.uint8)
            )
            mask = np.zeros((32, 40), np.uint8)
            mask[8:16, 8:16] = 255
            if kind != "good":
                write_picture(folder / f"ground_truth/{kind}/{number:03}_mask.png", mask)
    (tmp_path / overlays.METRICS).parent.mkdir(parents=True)
    (tmp_path / overlays.METRICS).write_text("variant,category,pixel_ap\nfuzzyclip,nut,50\n")
    return tmp_path


def test_overlays_show_what_calibration_has_not_seen(parts):
    seen, shown = overlays.divide(parts / overlays.IMAGES / "nut")
    assert len(seen) == 12
    assert not {*seen} & {*shown}
    names = [path.relative_to(parts / overlays.IMAGES / "nut/test").as_posix() for path in shown]
    assert names == [f"{kind}/001.png" for kind in ("good", "bent", "crack", "dirt", "hole")]
    shutil.rmtree(parts / overlays.IMAGES / "nut/test/worn")
    write_picture(parts / overlays.IMAGES / "nut/test/worn/000.png", np.zeros((8, 8), np.uint8))
    with pytest.raises(PictureError, match="worn"):
        overlays.divide(parts / overlays.IMAGES / "nut")


def test_overlays_are_drawn_by_a_model_that_stays_as_it_was(parts, tiny_config):
    model, _ = make_model(parts / "made", tiny_config)
    (parts / overlays.MODEL).parent.mkdir(parents=True)
    shutil.move(model, parts / overlays.MODEL)
    before = digest_output(parts / overlays.MODEL)
    sheet = overlays.draw(parts)
    assert sheet.width == 5 * (overlays.WIDTH + overlays.GAP) - overlays.GAP
    assert digest_output(parts / overlays.MODEL) == before


def test_sources_are_digested_from_what_git_keeps(checkout):
    shutil.rmtree(checkout / "out")  # a clone without results
    digests = digest_sources(checkout, read_outputs(checkout), ["out", "t.csv", "m.py"])
    kinds = {name: digest.split(":")[0] for name, digest in digests.items()}
    assert kinds == {"out": "md5", "t.csv": "sha256", "m.py": "code"}
