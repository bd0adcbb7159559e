"""`fuzzyclip predict` and `calibrate` as typed: files, exit codes, broken images, kills."""

import csv
import json
import os
import re
import shutil
from collections import Counter
from html.parser import HTMLParser
from urllib.parse import unquote

import numpy as np
import pytest
from command import draw, run
from PIL import Image
from scipy.special import expit
from tiny_models import break_part, break_scorer, make_model
from trees import touch
from typer.testing import CliRunner

from fuzzyclip import FuzzyCLIP
from fuzzyclip.cli import app
from fuzzyclip.cli.calibrate import refuse_mixed
from fuzzyclip.images import decode
from fuzzyclip.model.card import Tiling
from fuzzyclip.model.directory import EFA, RPL
from fuzzyclip.utils.files import compute_sha256

COLUMNS = "image,category,image_score,probability,label,decision,threshold,threshold_method"


@pytest.fixture(scope="module")
def model(tmp_path_factory, tiny_config):
    return make_model(tmp_path_factory.mktemp("made"), tiny_config)[0]


@pytest.fixture
def parts(tmp_path):
    """Six images in two folders, one of which has a name that differs in its suffix alone."""
    names = ["a/1.png", "a/2.png", "b/1.png", "b/1.jpg", "b/<b>&'.png", "3.bmp"]
    return [draw(tmp_path / "parts" / name, seed) for seed, name in enumerate(names)]


def predict(model, *arguments):
    return run("predict", "--model", model, "--device", "cpu", *arguments)


def read_table(out):
    with (out / "scores.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def read_lines(out):
    return [json.loads(line) for line in (out / "scores.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("tiles", [(), ("--tile", 32)])
def test_a_pipe_or_a_device_is_listed_and_not_waited_for(model, parts, tmp_path, tiles):
    os.mkfifo(tmp_path / "parts/pipe.png")
    (tmp_path / "parts/zero.png").symlink_to("/dev/zero")
    done = predict(model, tmp_path / "parts", "--out", tmp_path / "out", *tiles)
    assert done.exit_code == 3, done.output
    unread = {row["image"] for row in read_table(tmp_path / "out") if row["error"]}
    assert unread == {str(tmp_path / "parts/pipe.png"), str(tmp_path / "parts/zero.png")}
    assert len(read_table(tmp_path / "out")) == len(parts) + 2


def test_files_hold_what_the_model_says(model, parts, tmp_path):
    folder, out = tmp_path / "parts", tmp_path / "out"
    done = predict(model, folder, "--category", "gear", "--out", out, "--save", "overlay",
                   "--save", "map", "--save", "npy", "--save", "mask")  # fmt: skip
    assert done.exit_code == 0, done.output
    detector, rows = FuzzyCLIP.load(model, device="cpu"), read_table(out)
    assert (out / "scores.csv").read_text().startswith(COLUMNS)
    assert sorted(row["image"] for row in rows) == sorted(map(str, parts))
    for row, line in zip(rows, read_lines(out), strict=True):
        path = next(path for path in parts if str(path) == row["image"])
        own = detector(path, "gear")
        assert float(row["image_score"]) == pytest.approx(own.image_score, abs=1e-5)
        assert float(row["probability"]) == pytest.approx(expit(own.image_score), abs=1e-6)
        assert (row["decision"], int(row["label"])) == (own.decision, own.label)
        assert float(row["map_max"]) == pytest.approx(own.anomaly_map.max(), abs=1e-5)
        assert {name: str(line[name]) for name in row} == dict(row)
        inside = path.relative_to(folder)
        twins = path.stem == "1" and path.parent.name == "b"
        base = out / (inside if twins else inside.with_suffix(""))
        whole = np.load(f"{base}.map.npy")
        assert np.allclose(whole, own.anomaly_map, atol=1e-5)
        steps = np.asarray(Image.open(f"{base}.map.png"))
        assert np.abs(steps / 65535 - whole).max() < 1e-5
        mask = np.asarray(Image.open(f"{base}.mask.png"))
        assert np.array_equal(mask == 255, whole >= 0.5)
        assert Image.open(f"{base}.overlay.jpg").width >= 40
        assert row["overlay"] == f"{base}.overlay.jpg".removeprefix(f"{out}/")
    assert len(list(out.rglob("*.overlay.jpg"))) == len(parts)


def test_names_of_all_kinds_are_done(model, tmp_path, caplog):
    """Colliding, long, not UTF-8, like the results' own; and results inside of the images."""
    folder = tmp_path / "parts"
    names = [b"a.png", b"a.bmp", b"a.png.bmp", b"x" * 251 + b".png", b"\xff\xfe.png", b"A.png",
             b"scores.csv/b.png", b"a.mask.png/c.png", b"new\nline.png"]  # fmt: skip
    content = draw(tmp_path / "drawn.png", 0, (12, 12)).read_bytes()
    for name in names:
        path = folder / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    out = folder / "found"
    for before in (0, len(names)):
        done = predict(model, folder, "--out", out)
        assert done.exit_code == 0, done.output
        assert (f"{before} done before" in done.stderr) == bool(before)
        rows = read_table(out)
        assert len({row["image"] for row in rows}) == len(names)
        assert len(list(out.rglob("*.mask.png"))) == len(names)
    assert any(r"\udcff\udcfe.png" in row["image"] for row in rows)
    other = predict(model, folder, "--out", tmp_path / "other")
    assert other.exit_code == 0
    assert f"{out}: results of fuzzyclip predict, not inspected" in caplog.messages
    assert len(read_table(tmp_path / "other")) == len(names)


def test_pictures_may_be_left_out(model, parts, tmp_path):
    out = tmp_path / "out"
    assert predict(model, *parts, "--out", out, "--save", "none").exit_code == 0
    assert {path.name for path in out.iterdir()} == {"scores.csv", "scores.jsonl", "settings.json"}
    assert len(read_table(out)) == len(parts)
    mixed = predict(model, *parts, "--out", out, "--save", "none", "--save", "map")
    assert (mixed.exit_code, "none goes with nothing else" in mixed.stderr) == (2, True)


@pytest.mark.parametrize("tiles", [(), ("--tile", 32)])
def test_an_image_is_opened_once(model, parts, tmp_path, monkeypatch, tiles):
    opened, open_file = Counter(), decode.open_image_file

    def count(path):
        opened[path] += 1
        return open_file(path)

    monkeypatch.setattr(decode, "open_image_file", count)
    assert predict(model, *parts, "--out", tmp_path / "out", *tiles).exit_code == 0
    assert opened == dict.fromkeys(parts, 1)
    digests = {row["image"]: row["sha256"] for row in read_table(tmp_path / "out")}
    assert digests == {str(path): compute_sha256(path) for path in parts}


def test_without_a_folder_lines_are_printed(model, parts):
    plain = predict(model, parts[0], parts[1])
    assert plain.exit_code == 0
    assert re.fullmatch(
        r"((normal   |anomalous)  [+-]\d+\.\d{4} +\d+\.\d%  .*\.png\n){2}", plain.stdout
    )
    assert "0 could not be read" in plain.stderr
    assert "the threshold 0 is not calibrated" in plain.stderr
    as_json = predict(model, parts[0], "--json")
    row = json.loads(as_json.stdout)
    assert (row["image"], row["category"], row["threshold_method"]) == (
        str(parts[0]), "object", "natural",
    )  # fmt: skip
    assert row["probability"] == pytest.approx(expit(row["image_score"]))
    assert (row["threshold"], row["label"]) == (0, row["image_score"] >= 0)


def test_what_an_output_has_no_code_for_is_escaped(model, parts):
    typed = ["predict", str(parts[0]), "--model", str(model), "--category", "☂😀", "--json"]
    done = CliRunner(charset="cp1252").invoke(app, typed)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["category"] == "☂😀"


def test_each_image_is_one_line_of_json_whatever_its_name(model, tmp_path):
    parts = tmp_path / "parts"
    for number, name in enumerate(("a\u2028b.png", "a\x85b.png", "a\nb.png", "\u202eb.png")):
        draw(parts / name, number)
    lines = predict(model, parts, "--json").stdout.splitlines()
    assert len(lines) == 4
    assert all(line.isprintable() for line in lines)
    assert {json.loads(line)["image"] for line in lines} == set(map(str, parts.iterdir()))


def test_one_broken_file_among_a_thousand_is_listed_and_the_rest_is_done(model, tmp_path):
    folder, out = tmp_path / "parts", tmp_path / "out"
    folder.mkdir()
    content = draw(folder / "0000.png", 0, (12, 12)).read_bytes()
    for number in range(1, 1000):
        (folder / f"{number:04}.png").write_bytes(content)
    (folder / "0500.png").write_bytes(content[:60])
    done = predict(model, folder, "--out", out, "--save", "mask", "--batch-size", 64)
    assert done.exit_code == 3
    assert "1 could not be read" in done.stderr
    assert "0500.png" in done.stderr
    rows = read_table(out)
    assert [bool(row["error"]) for row in rows] == [number == 500 for number in range(1000)]
    assert len({row["image_score"] for row in rows if not row["error"]}) == 1
    assert len(list(out.glob("*.mask.png"))) == 999
    (folder / "0500.png").write_bytes(content)
    again = predict(model, folder, "--out", out, "--save", "mask", "--batch-size", 64)
    assert again.exit_code == 0
    assert "999 done before" in again.stderr
    assert not any(row["error"] for row in read_table(out))


def test_a_calibration_that_was_stopped_begins_anew(model, parts, tmp_path, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("fuzzyclip.model.calibration.calibrate", stop)
    done = run("calibrate", "--model", model, "--good", parts[0], "--out", tmp_path / "copy")
    assert done.exit_code == 130
    assert done.stderr.endswith("interrupted; the same command begins anew\n")
    assert not (tmp_path / "copy").exists()


def test_a_killed_run_goes_on_where_it_stopped(model, parts, tmp_path, monkeypatch):
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert predict(model, *parts, "--out", whole, "--batch-size", 1).exit_code == 0
    detect = FuzzyCLIP.detect

    def stop(self, images, *arguments, **settings):
        for number, prediction in enumerate(detect(self, images, *arguments, **settings)):
            if number == 3:
                raise KeyboardInterrupt
            yield prediction

    monkeypatch.setattr(FuzzyCLIP, "detect", stop)
    stopped = predict(model, *parts, "--out", out, "--batch-size", 1)
    assert stopped.exit_code == 130
    assert stopped.stderr.endswith("interrupted; the same command goes on from what is done\n")
    printed = predict(model, *parts, "--batch-size", 1)
    assert printed.stderr.endswith("interrupted; the same command begins anew\n")
    monkeypatch.setattr(FuzzyCLIP, "detect", detect)
    assert len(read_lines(out)) == 3
    with (out / "scores.jsonl").open("a") as file:
        file.write('{"image": "half a li')
    done = predict(model, *parts, "--out", out, "--batch-size", 1)
    assert "3 done before" in done.stderr
    for name in ("scores.csv", "scores.jsonl", "settings.json"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()
    names, expected = ({p.relative_to(top) for p in top.rglob("*")} for top in (out, whole))
    assert names == expected


@pytest.mark.parametrize("how", ["another score", "no JSON"])
def test_a_damaged_line_is_named_and_its_image_done_again(model, parts, tmp_path, how):
    out = tmp_path / "out"
    predict(model, *parts, "--out", out, "--batch-size", 1)
    whole = {path.name: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    lines = whole["scores.jsonl"].decode().splitlines(keepends=True)
    score = json.loads(lines[2])["image_score"]
    other = repr(score - 1) if how == "another score" else '"'
    assert repr(score) in lines[2]
    lines[2] = lines[2].replace(repr(score), other)
    (out / "scores.jsonl").write_text("".join(lines))
    done = predict(model, *parts, "--out", out, "--batch-size", 1)
    assert "5 done before" in done.stderr
    assert {path.name: path.read_bytes() for path in out.rglob("*") if path.is_file()} == whole


def test_an_image_that_changed_is_done_again(model, parts, tmp_path):
    out = tmp_path / "out"
    predict(model, *parts, "--out", out)
    before = read_table(out)
    draw(parts[0], 99)
    done = predict(model, *parts, "--out", out)
    assert "5 done before" in done.stderr
    after = read_table(out)
    assert before[0]["sha256"] != after[0]["sha256"]
    assert before[1:] == after[1:]


def test_a_second_day_is_added_to_the_first(model, tmp_path, monkeypatch):
    """Whose names meet, also as they are typed; the first day's files stay as they were."""
    out = tmp_path / "out"
    days = [
        draw(tmp_path / f"day{day}/{name}", day) for day in (1, 2) for name in ("1.png", "b/2.png")
    ]
    monkeypatch.chdir(tmp_path / "day1")
    assert predict(model, ".", "--out", out).exit_code == 0
    first = {path: path.read_bytes() for path in out.rglob("*.*.*")}
    assert len(first) == 6
    monkeypatch.chdir(tmp_path / "day2")
    assert predict(model, ".", "--out", out, "--report").exit_code == 0
    rows = read_table(out)
    assert [row["image"] for row in rows] == ["1.png", "b/2.png"] * 2
    assert [row["sha256"] for row in rows] == list(map(compute_sha256, days))
    places = ["1", "b/2", "1~2", "b/2~2"]
    assert [row["overlay"] for row in rows] == [f"{place}.overlay.jpg" for place in places]
    assert len(read_lines(out)) == len(Page((out / "report.html").read_text()).rows) - 1 == 4
    assert first == {path: path.read_bytes() for path in first}
    draw(days[0], 99)  # all at once, by other names: only what changed is done
    assert "3 done before" in predict(model, *days, "--out", out).stderr
    again = read_table(out)
    assert [row["overlay"] for row in again] == [row["overlay"] for row in rows]
    assert (again[0]["sha256"], again[1:]) == (compute_sha256(days[0]), rows[1:])
    changed = {path.name for path in first if path.read_bytes() != first[path]}
    assert {"1.overlay.jpg", "1.map.png"} <= changed <= {path.name for path in out.glob("1.*.*")}
    assert len(list(out.rglob("*.*.*"))) == 12


def test_results_of_other_settings_are_not_mixed(model, parts, tmp_path):
    out = tmp_path / "out"
    predict(model, parts[0], "--out", out)
    for change in (("--category", "gear"), ("--threshold", "0.3"), ("--tile", 32),
                   ("--score", "map")):  # fmt: skip
        refused = predict(model, parts[0], "--out", out, *change)
        assert refused.exit_code == 1
        assert "other settings" in refused.stderr
    card = json.loads((model / "model.json").read_text())
    for key, value in (("test", card["test"] | {"sigma": 2.0}), ("training", None)):
        other = shutil.copytree(model, tmp_path / key)
        card["training"]["rpl"]["temperature"] += value is None
        (other / "model.json").write_text(json.dumps(card | ({key: value} if value else {})))
        refused = predict(other, parts[0], "--out", out)
        assert "other settings" in refused.stderr, key
    settings = json.loads((out / "settings.json").read_text())
    assert settings.pop("scores") == "log-odds"
    (out / "settings.json").write_text(json.dumps(settings))  # when they were probabilities
    assert "other settings" in predict(model, parts[0], "--out", out).stderr
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    refused = predict(model, parts[0], "--out", tmp_path / "mine")
    assert refused.exit_code == 1
    assert "holds no predictions" in refused.stderr


def test_colours_of_an_images_own_say_so_in_the_name_and_are_not_mixed(model, parts, tmp_path):
    predict(model, parts[0], "--out", tmp_path / "out", "--scale", "image")
    names = [path.name for path in (tmp_path / "out").glob("*.jpg")]
    assert "1.overlay_scaled_to_image.jpg" in names
    assert "other settings" in predict(model, parts[0], "--out", tmp_path / "out").stderr


@pytest.mark.parametrize(("file", "value"), [(EFA, np.nan), (RPL, np.inf)])
def test_a_model_that_is_no_numbers_decides_nothing(model, parts, tmp_path, file, value):
    broken = shutil.copytree(model, tmp_path / "broken")
    break_part(broken / file, value)
    for out in ((), ("--json",), ("--out", tmp_path / "out")):
        done = predict(broken, parts[0], *out)
        assert (done.exit_code, done.stdout) == (1, "")
        assert re.search(f"{file}: .*not finite", done.stderr)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("part", ["compute_map", "compute_score"])
def test_scores_that_are_no_numbers_decide_nothing(model, parts, tmp_path, monkeypatch, part):
    break_scorer(monkeypatch, part)
    for out in ((), ("--json",), ("--out", tmp_path / "out")):
        done = predict(model, *parts, *out)
        assert (done.exit_code, done.stdout) == (1, "")
        assert "not finite numbers" in done.stderr
    done = predict(model, *parts, "--tile", 32)  # image by image: each is told
    assert (done.exit_code, done.stdout) == (3, "")
    assert done.stderr.count("not finite numbers") == len(parts)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"settings.json"}
    calibrated = run("calibrate", "--model", model, "--good", tmp_path / "parts",
                     "--out", tmp_path / "new")  # fmt: skip
    assert calibrated.exit_code == 1
    assert "not finite numbers" in calibrated.stderr
    assert not (tmp_path / "new").exists()


def test_mistakes_in_the_command_are_said_in_words(model, parts, tmp_path):
    for arguments, code, message in (
        ((parts[0], "--model", tmp_path), 1, "no model here"),
        ((tmp_path / "absent", "--model", model), 1, "absent"),
        ((parts[0], "--model", model, "--overlap", 3), 2, "--tile"),
        ((parts[0], "--model", model, "--tile", 5), 2, "tile"),
        ((parts[0], "--model", model, "--tile", 10**9), 2, "tile"),
        ((parts[0], "--model", model, "--workers", 10**9), 2, "workers"),
        ((parts[0], "--model", model, "--batch-size", 10**9), 2, "batch-size"),
        ((parts[0], "--model", model, "--category", " "), 1, "category"),
        (
            (parts[0], "--model", model, "--category", "very " * 90),
            1,
            "category 'very very very very very very very very ...' is too long for a prompt",
        ),
        ((parts[0], "--model", model, "--save", "everything"), 2, "everything"),
    ):
        done = run("predict", *arguments)
        assert done.exit_code == code, done.output
        assert message in done.stderr
        assert "Traceback" not in done.output


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e308", "-1e308", "1e400"])
def test_thresholds_and_rates_that_are_no_numbers_are_refused(value):
    check_numbers(value, "--threshold", "--false-alarms")


@pytest.mark.parametrize("value", ["0", "1", "-0.1", "1.5", "0.0"])
def test_rates_that_no_images_can_have_are_refused(value):
    check_numbers(value, "--false-alarms")


def check_numbers(value, *options):
    """Before anything is looked for: there is neither a model nor an image."""
    model, files = ("--model", "x"), {"predict": ["x"], "calibrate": ["--good", "x"]}
    commands = {"--threshold": "predict", "--false-alarms": "calibrate"}
    for option in options:
        rest = (commands[option], *files[commands[option]], *model)
        done = run(*rest, option, value)
        assert done.exit_code == 2
        assert option in done.stderr
        assert "Invalid value" in done.stderr
        assert "Traceback" not in done.output


def test_calibrated_thresholds_decide_from_then_on(model, parts, tmp_path):
    new = tmp_path / "new"
    done = run("calibrate", "--model", model, "--category", "gear", "--good", tmp_path / "parts/a",
               "--bad", tmp_path / "parts/b", "--out", new)  # fmt: skip
    assert done.exit_code == 0, done.output
    assert re.search(
        r"gear, separation: AUROC \d.* %.*\n"
        r"gear, images: anomalous from [+-][\d.]+ on; of the largest F1, from 2 normal and 3 "
        r"anomalous; F1 \d.* %; false alarms \d of 2 \(\d+ %\), among new ones between "
        r"[\d.]+ and [\d.]+ %, with 95 % confidence; "
        r"misses \d of 3 \(\d+ %\)",
        done.stdout,
    )
    assert done.stdout.startswith("    score  2 normal ")
    row = json.loads(predict(new, parts[0], "--category", "gear", "--json").stdout)
    assert row["threshold_method"] == "f1_max"
    predictions = FuzzyCLIP.load(new, device="cpu")(parts[:5], "gear")
    scores = np.array([prediction.image_score for prediction in predictions])

    def compute_f1(cut):
        return 2 * (scores[2:] >= cut).sum() / (3 + (scores >= cut).sum())

    assert compute_f1(row["threshold"]) == pytest.approx(max(map(compute_f1, scores)))


def test_a_score_that_sees_the_map_is_calibrated_and_kept(model, parts, tmp_path):
    new, out = tmp_path / "new", tmp_path / "out"
    done = run("calibrate", "--model", model, "--category", "gear", "--good", tmp_path / "parts/a",
               "--bad", tmp_path / "parts/b", "--score", "both", "--out", new)  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "gear, score: the mean of the class score and the map's highest" in done.stdout
    done = predict(new, *parts, "--out", out, "--report")
    assert done.exit_code == 0, done.output
    own = FuzzyCLIP.load(model, device="cpu")
    for row, path in zip(read_lines(out), parts, strict=True):
        prediction = own(path, "gear", score="both")
        assert row["image_score"] == pytest.approx(prediction.image_score, abs=1e-5)
        assert row["image_score"] != own(path, "gear").image_score
        assert row["threshold_method"] == "f1_max"
    assert json.loads((out / "settings.json").read_text())["score"] == "both"
    assert "(--score both)" in (out / "report.html").read_text()
    assert "6 done before" in predict(new, *parts, "--out", out, "--score", "both").stderr
    refused = predict(new, parts[0], "--score", "map")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "'gear' was calibrated for the score 'both', not for 'map'" in refused.stderr
    given = predict(new, parts[0], "--score", "map", "--threshold", "0.5", "--json")
    expected = own(parts[0], "gear", score="map").image_score
    assert json.loads(given.stdout)["image_score"] == pytest.approx(expected, abs=1e-5)
    assert predict(model, parts[0], "--score", "mean").exit_code == 2
    again = run("calibrate", "--model", new, "--good", parts[0], "--score", "class")
    assert again.exit_code == 0, again.output
    assert FuzzyCLIP.load(new, device="cpu").card.calibrations["gear"].score == "class"


def test_a_folder_of_all_parts_is_not_taken_for_a_folder_of_normal_ones(model, tmp_path):
    folder = tmp_path / "all"
    for name in ("OK", "scratch", "hole"):
        draw(folder / name / "0.png", 0)
    done = run("calibrate", "--model", model, "--good", folder, "--out", tmp_path / "new")
    assert done.exit_code == 1
    assert f"{folder}: OK stands beside hole, scratch" in done.stderr
    assert f"give {folder / 'OK'}" in done.stderr
    done = run("calibrate", "--model", model, "--good", folder / "OK", "--out", tmp_path / "new")
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize(
    ("names", "mixed"),
    [
        (["a/good/0.png", "a/bad/0.png"], ["a/bad"]),
        (["a/b/Good/0.png", "c/0.png"], ["c"]),
        (["good/x/good/0.png", "good/x/NG/deep/0.png"], ["good/x/NG/deep"]),
        (["a/good/0.png", "b/ok/1/0.png"], []),
        (["a/good/0.png", "a/@eaDir/0.png", "a/notes/readme.txt", "0.png"], []),
        (["2024/0.png", "2025/0.png"], []),
    ],
)
def test_normal_parts_beside_others_are_refused_at_any_depth(tmp_path, names, mixed):
    touch(tmp_path, names)
    if not mixed:
        refuse_mixed([str(tmp_path)])
        return
    with pytest.raises(ValueError, match=f"stands beside {', '.join(mixed)}, which would count"):
        refuse_mixed([str(tmp_path)])


def test_what_a_threshold_is_worth_is_said_where_it_decides(model, parts, tmp_path):
    new = tmp_path / "new"
    run("calibrate", "--model", model, "--good", parts[0], "--out", new)
    done = predict(new, parts[0])
    note = FuzzyCLIP.load(new, device="cpu").card.calibrations["object"].image.note
    assert "can not be had" in note
    assert note in done.stderr
    assert "looked at as" not in done.stderr
    assert "no --category: looked at as 'object'" in predict(model, parts[0]).stderr


def test_normal_images_alone_give_a_quantile_and_say_what_they_cannot(model, parts, tmp_path):
    done = run("calibrate", "--model", model, "--good", tmp_path / "parts", "--out",
               tmp_path / "new", "--false-alarms", 0.01, "--json")  # fmt: skip
    chosen = json.loads(done.stdout)
    predictions = FuzzyCLIP.load(model, device="cpu")(parts)
    highest = max(prediction.image_score for prediction in predictions)
    assert chosen["image"]["value"] == pytest.approx(highest, abs=1e-5)
    assert chosen["image"]["value"] > highest - 1e-6
    assert "99 would do" in chosen["image"]["note"]
    told = run("calibrate", "--model", model, "--good", parts[0], "--out", tmp_path / "other")
    assert re.search(
        r"object, images: anomalous from [+-][\d.]+ on; .*\n"
        r"object, pixels: outlined from 0\.\d+ on; by the false alarm rate, from 1 normal .*"
        r"can not be had from 1 normal image, 19 would do",
        told.stdout,
    ), told.stdout
    assert chosen["image"]["false_alarm_rate"] == pytest.approx(1 / 7)


def test_a_calibrated_model_does_not_decide_without_its_threshold(model, parts, tmp_path):
    new = tmp_path / "new"
    assert run("calibrate", "--model", model, "--category", "gear", "--good", *parts[:1], "--out",
               new).exit_code == 0  # fmt: skip
    for typed, told in (((), "category 'gear', as"), (("--category", "Gear "), "category 'gear'")):
        done = predict(new, parts[0], "--json", *typed)
        row = json.loads(done.stdout)
        assert (row["category"], row["threshold_method"]) == ("gear", "quantile")
        assert told in done.stderr
    refused = predict(new, parts[0], "--category", "nut")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "'nut' is not calibrated, but 'gear'" in refused.stderr
    for out in ((), ("--out", tmp_path / "tiled")):
        tiled = predict(new, parts[0], "--tile", 32, *out)
        assert tiled.exit_code == 1
        assert tiled.stderr.endswith("calibrate again that way, or give a threshold\n")
    assert refused.stderr.endswith("(fuzzyclip calibrate), or give a threshold\n")
    given = predict(new, parts[0], "--category", "nut", "--threshold", "0.5", "--json")
    assert json.loads(given.stdout)["threshold_method"] == "given"
    again = run("calibrate", "--model", new, "--category", "GEAR", "--good", parts[1])
    assert again.exit_code == 0, again.output
    assert list(FuzzyCLIP.load(new, device="cpu").card.calibrations) == ["gear"]
    other = run("calibrate", "--model", new, "--category", "nut", "--good", parts[1])
    assert other.exit_code == 0, other.output
    unnamed = predict(new, parts[0])
    assert "say which, this model is calibrated for 'gear', 'nut'" in unnamed.stderr
    exported = run("export", "--model", new, "--out", tmp_path / "x.onnx", "--check", parts[0])
    assert (exported.exit_code, "say which" in exported.stderr) == (1, True)


class Page(HTMLParser):
    """Rows of a page's table as lists of cells, and the addresses in them."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.addresses, self.words = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        elif tag in ("a", "img"):
            self.addresses.append(dict(attributes).get("src") or dict(attributes)["href"])

    def handle_data(self, text):
        self.words.append(text)
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += text.strip()


def test_a_report_has_every_image_from_the_highest_score_down(model, parts, tmp_path):
    out = tmp_path / "out"
    (tmp_path / "parts/<i>.png").write_bytes(b"broken")
    for _ in range(2):  # also of what was done before
        done = predict(model, tmp_path / "parts", "--out", out, "--report", "--threshold", "0.5")
        assert done.exit_code == 3
        rows = [row for row in read_table(out) if not row["error"]]
        page = Page((out / "report.html").read_text())
        shown = page.rows[1:]
        expected = sorted(rows, key=lambda row: -float(row["image_score"]))
        assert [cells[1] for cells in shown] == [row["image"] for row in expected]
        assert [cells[2] for cells in shown] == [row["decision"] for row in expected]
        assert [cells[3] for cells in shown] == [
            f"{float(row['image_score']):+.2f}" for row in expected
        ]
        words = " ".join(page.words)
        anomalous = sum(row["decision"] == "anomalous" for row in rows)
        assert f"7 images: {anomalous} anomalous, {6 - anomalous} normal, 1 could not" in words
        assert "Anomalous from a score of +0.5000 on (given by hand)" in words
        assert "<i>.png: not a readable image" in words
        assert len(page.addresses) == 2 * len(rows)
        for address in page.addresses:
            assert (out / unquote(address)).is_file()
    plain = tmp_path / "plain"
    assert predict(model, parts[0], "--out", plain, "--report").exit_code == 0
    words = " ".join(Page((plain / "report.html").read_text()).words)
    assert re.search(r"\b1 image: [01] anomalous, [01] normal\W", words)
    natural = "on (not calibrated: where anomalous becomes likelier than normal)"
    assert words.count(natural) == words.count("not calibrated") == 2
    apart = "an outlined image may be normal"
    assert apart in words
    predict(model, parts[0], "--out", tmp_path / "map", "--report", "--score", "map")
    assert apart not in (tmp_path / "map/report.html").read_text()
    refused = predict(model, parts[0], "--report")
    assert (refused.exit_code, "--report" in refused.stderr) == (2, True)


def test_masks_decide_the_threshold_of_pixels(model, parts, tmp_path):
    truth = np.zeros((30, 40), np.uint8)
    truth[5:15, 5:15] = 255
    for name in ("1_mask.png", "2.png"):
        Image.fromarray(truth).save(tmp_path / name)
    arguments = ("calibrate", "--model", model, "--good", tmp_path / "parts/b", "--bad",
                 tmp_path / "parts/a", "--masks", tmp_path / "*.png", "--json")  # fmt: skip
    done = run(*arguments, "--out", tmp_path / "new")
    assert done.exit_code == 0, done.output
    pixel = json.loads(done.stdout)["pixel"]
    assert (pixel["method"], pixel["counted"], pixel["anomalous"]) == ("f1_max", "pixels", 2)
    Image.fromarray(truth[:20]).save(tmp_path / "2.png")
    wrong = run(*arguments, "--out", tmp_path / "other")
    assert wrong.exit_code == 1
    assert "40 x 20 pixels, but the image" in wrong.stderr
    (tmp_path / "2.png").unlink()
    missing = run(*arguments, "--out", tmp_path / "other")
    assert "0 masks are called 2 or 2_mask" in missing.stderr
    assert not (tmp_path / "other").exists()


def test_reference_images_are_stored_and_must_not_calibrate(model, parts, tmp_path):
    common = ("calibrate", "--model", model, "--category", "gear", "--reference", parts[0])
    refused = run(*common, "--good", tmp_path / "parts/a", "--out", tmp_path / "new")
    assert refused.exit_code == 1
    assert "must not calibrate" in refused.stderr
    done = run(*common, "--good", tmp_path / "parts/b", "--out", tmp_path / "new")
    assert done.exit_code == 0, done.output
    stored = FuzzyCLIP.load(tmp_path / "new", device="cpu")
    assert stored.list_references("gear") == [str(parts[0])]
    fresh = FuzzyCLIP.load(model, device="cpu").remember([parts[0]], "gear")
    scores = [each(parts[1], "gear", threshold=0.5).image_score for each in (stored, fresh)]
    assert scores[0] == scores[1]


def test_reference_images_are_opened_as_the_inspected_ones(model, parts, tmp_path):
    deep = tmp_path / "deep.png"
    Image.fromarray(np.asarray(Image.open(parts[0]).convert("L")).astype(np.uint16) * 16).save(deep)
    typed = ("--category", "gear", "--reference", deep, "--white", 255 * 16)
    row = json.loads(predict(model, deep, *typed, "--json").stdout)
    shown = np.asarray(Image.open(parts[0]).convert("L"))
    own = FuzzyCLIP.load(model, device="cpu")
    expected = own(shown, "gear", references=shown).image_score
    assert row["image_score"] == pytest.approx(expected, abs=1e-5)
    calibrate = ("calibrate", "--model", model, *typed, "--out", tmp_path / "new")
    assert run(*calibrate, "--good", parts[1]).exit_code == 0
    kept, own = FuzzyCLIP.load(tmp_path / "new", device="cpu"), own.remember(shown, "gear")
    scores = [each(parts[2], "gear", threshold=0).image_score for each in (kept, own)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-5)
    for command in (("predict", parts[1]), ("calibrate", "--good", parts[1])):
        refused = run(*command, "--model", model, "--reference", deep, "--max-pixels", 100)
        assert (refused.exit_code, "deep.png: " in refused.stderr) == (1, True)


def test_an_image_is_not_normal_and_anomalous(model, parts, tmp_path):
    typed = ("calibrate", "--model", model, "--out", tmp_path / "new")
    (tmp_path / "link.png").symlink_to(parts[0])
    shutil.copy(parts[0], tmp_path / "copy.png")
    for name in (parts[0], tmp_path / "link.png", tmp_path / "copy.png"):
        done = run(*typed, "--good", tmp_path / "parts/a", "--bad", name, "--bad", parts[2])
        assert done.exit_code == 1
        assert f"{name}: given as anomalous and {parts[0]}" in done.stderr
    assert not (tmp_path / "new").exists()


def test_a_broken_image_does_not_calibrate_and_is_told(model, parts, tmp_path):
    parts[0].write_bytes(b"")
    new = tmp_path / "new"
    done = run("calibrate", "--model", model, "--good", tmp_path / "parts", "--out", new)
    assert done.exit_code == 3
    assert "empty" in done.stderr
    assert "from 5 normal" in done.stdout


def test_tiles_give_the_map_of_each_part_of_the_image(model, tmp_path):
    """A tile in the corner, seen by it alone, has the map that the tile has as an image."""
    path = draw(tmp_path / "large.png", 5, (200, 90))
    detector, tiling = FuzzyCLIP.load(model, device="cpu"), Tiling(side=64, overlap=16)
    whole = detector(path, "gear", tiling=tiling, batch_size=3)
    assert whole.anomaly_map.shape == (90, 200)
    image = Image.open(path)
    corner = detector(image.crop((0, 0, 64, 64)), "gear")
    assert np.allclose(whole.anomaly_map[:26, :40], corner.anomaly_map[:26, :40], atol=1e-5)
    assert whole.image_score >= corner.image_score - 1e-6
    small = detector(image.crop((0, 0, 64, 64)), "gear", tiling=tiling)
    assert np.allclose(small.anomaly_map, corner.anomaly_map, atol=1e-5)


def test_a_name_can_not_make_up_a_line_or_command_the_terminal(model, tmp_path):
    draw(tmp_path / "parts/x.png\nnormal     -9.0000    0.0%  \x1b[31my.png", 0)
    done = predict(model, tmp_path / "parts")
    assert done.exit_code == 0, done.output
    (line,) = [line for line in done.stdout.splitlines() if "y.png" in line]
    assert line.endswith(r"x.png\nnormal     -9.0000    0.0%  \x1b[31my.png")


def test_a_model_remembers_a_reference_whose_name_is_no_utf8(model, parts, tmp_path):
    odd = parts[0].with_name(os.fsdecode(b"\xff.png"))
    parts[0].rename(odd)
    arguments = ("--good", tmp_path / "parts/b", "--category", "x", "--out", tmp_path / "mine")
    done = run("calibrate", "--model", model, "--device", "cpu", "--reference", odd, *arguments)
    assert done.exit_code == 0, done.output
    (name,) = FuzzyCLIP.load(tmp_path / "mine", device="cpu").list_references("x")
    assert name.endswith(r"\udcff.png")
