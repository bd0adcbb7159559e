"""`fuzzyclip predict` again: what is gone or damaged is made anew, and nobody's files are taken."""

import csv
import errno
import json
import os
from pathlib import Path

import pytest
from command import draw, run
from tiny_models import make_model

from fuzzyclip.model import outputs
from fuzzyclip.utils.cells import restore_cell

ODD = (
    b"\xff\xfe.png", "line\u2028end.png".encode(), b"a\rb.png", b"a\r\nb.png", b"x" * 251 + b".png",
    b"=1+1.png", "\u0085.png".encode(), b'"q";=1.png', b"-3.2.png",
)  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory, tiny_config):
    return make_model(tmp_path_factory.mktemp("made"), tiny_config)[0]


def predict(model, out, *images, save=("mask", "overlay")):
    kinds = [word for kind in save for word in ("--save", kind)]
    return run("predict", "--model", model, "--device", "cpu", "--batch-size", 1, *images,
               "--out", out, *kinds)  # fmt: skip


def read_files(out):
    """All files by their path; scores.csv and its like among them."""
    return {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()}


def read_table(out):
    with (out / "scores.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_what_is_gone_or_empty_is_made_again(model, tmp_path):
    images = [draw(tmp_path / "parts" / name, seed) for seed, name in enumerate(["1.png", "2.png"])]
    out = tmp_path / "out"
    assert predict(model, out, *images).exit_code == 0
    whole = read_files(out)
    assert len(whole) == 7
    for name in sorted(set(whole) - {"settings.json"}):
        for spoil in (Path.unlink, lambda path: path.write_bytes(b"")):
            spoil(out / name)
            done = predict(model, out, *images)
            assert done.exit_code == 0, done.output
            assert read_files(out) == whole, name
            left = 2 if name == "scores.csv" else 0 if name == "scores.jsonl" else 1
            assert ("done before" in done.stderr) == bool(left)
            assert f"{left} done before" in done.stderr or not left


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text.replace('"image_score": ', '"image_score": 1', 1),  # tells whose it is
        lambda text: "x" * 40 + text[text.index("\n") :],  # does not; the table does
        lambda text: "",
    ],
)
@pytest.mark.parametrize("table", [True, False])
def test_after_damage_no_other_image_is_given_the_files(model, tmp_path, spoil, table):
    first, second = (draw(tmp_path / f"day{day}/1.png", day) for day in (1, 2))
    out = tmp_path / "out"
    assert predict(model, out, first).exit_code == 0
    before = {name: content for name, content in read_files(out).items() if name[0] == "1"}
    assert len(before) == 2
    path = out / "scores.jsonl"
    path.write_text(spoil(path.read_text()))
    if not table and path.read_text():
        (out / "scores.csv").unlink()
    assert predict(model, out, second).exit_code == 0
    assert predict(model, out, first, second).exit_code == 0
    after = read_files(out)
    assert before.items() <= after.items()
    rows = [json.loads(line) for line in after["scores.jsonl"].decode().splitlines()]
    assert len({row["place"] for row in rows}) == len(rows) == 2
    done = predict(model, out, first, second)
    assert "2 done before" in done.stderr


def test_a_line_that_leads_out_of_the_folder_is_not_followed(model, tmp_path):
    image, out = draw(tmp_path / "1.png", 0), tmp_path / "results/out"
    assert predict(model, out, image).exit_code == 0
    row = json.loads((out / "scores.jsonl").read_text())
    row.pop("crc32")
    for place in ("../1", str(tmp_path / "absolute"), "a/../../1", ""):
        (out / "scores.jsonl").write_text(outputs.to_line(row | {"place": place, "sha256": "?"}))
        assert predict(model, out, image).exit_code == 0
        assert {path.name for path in tmp_path.rglob("*.mask.png")} <= {
            "1.mask.png",
            "1~2.mask.png",
        }
        assert not list(tmp_path.glob("*.mask.png"))
        assert not list(out.parent.glob("*.mask.png"))


def test_names_of_all_kinds_are_done_and_done_again(model, tmp_path):
    content = draw(tmp_path / "drawn.png", 0, (12, 12)).read_bytes()
    folder, out = tmp_path / "parts", tmp_path / "out"
    folder.mkdir()
    for name in ODD:
        (folder / os.fsdecode(name)).write_bytes(content)
    (folder / os.fsdecode(b"\xff broken.png")).write_bytes(b"no image")
    for before in (0, len(ODD)):
        done = predict(model, out, folder)
        assert done.exit_code == 3, done.output
        assert (f"{before} done before" in done.stderr) == bool(before)
    rows = [json.loads(line) for line in (out / "scores.jsonl").read_text().splitlines()]
    assert len(rows) == len(ODD) + 1
    table = read_table(out)
    assert [restore_cell(row["image"]) for row in table] == [row["image"] for row in rows]
    assert len({row["place"] for row in rows}) == len(rows)
    assert len(list(out.glob("*.mask.png"))) == len(ODD)


def test_no_cell_is_a_formula_and_numbers_stay_numbers(model, tmp_path, monkeypatch):
    draw(tmp_path / "=cmd|' !A0'.png", 0)
    (tmp_path / "-broken.png").write_bytes(b"no image")
    monkeypatch.chdir(tmp_path)
    done = predict(model, "out", "=cmd|' !A0'.png", "./-broken.png")
    assert done.exit_code == 3, done.output
    first, second = read_table(tmp_path / "out")
    assert first["image"] == "'=cmd|' !A0'.png"
    assert first["overlay"] == "'=cmd|' !A0'.overlay.jpg"
    assert second["image"] == "'-broken.png"
    line = json.loads((tmp_path / "out/scores.jsonl").read_text().splitlines()[0])
    assert line["image"] == "=cmd|' !A0'.png"
    assert float(first["image_score"]) == line["image_score"]


def test_a_place_that_can_not_be_written_is_said_in_words(model, tmp_path):
    image = draw(tmp_path / "1.png", 0)
    (tmp_path / "file").write_text("mine")
    for out, words in (
        ("file", "is a file: give the name of a folder"),
        ("file/out", "another --out"),
    ):
        refused = predict(model, tmp_path / out, image)
        assert refused.exit_code == 1
        assert words in refused.stderr
        assert "Errno" not in refused.stderr
        assert len(refused.stderr.strip().splitlines()) <= 2
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("full_at", ["mask", "line", "table"])
def test_a_full_disk_loses_nothing(model, tmp_path, monkeypatch, full_at):
    images = [draw(tmp_path / "parts" / name, seed) for seed, name in enumerate(["1.png", "2.png"])]
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert predict(model, whole, *images).exit_code == 0
    full, calls = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), []
    name = {"mask": "encode_mask_png", "line": "to_line", "table": "write_table"}[full_at]
    real = getattr(outputs, name)

    def fail(*arguments):
        calls.append(arguments)
        if full_at == "table" or len(calls) == 2:
            raise full
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(outputs, name, fail)
        refused = predict(model, out, *images)
    assert refused.exit_code == 1
    assert "No space left on device); what was done is kept" in refused.stderr
    assert "Errno" not in refused.stderr
    done = predict(model, out, *images)
    assert f"{2 if full_at == 'table' else 1} done before" in done.stderr
    assert read_files(out) == read_files(whole)
