"""Categories and files of names that look like something else, through every stage and command."""

import csv
import json
from contextlib import chdir
from html import unescape

import pandas as pd
import pytest
from command import draw, run
from pipelines import OWN, copy_pipeline, list_runs, run_stages
from trees import MASK, write_images, write_picture

from fuzzyclip.report.tables import read_categories
from fuzzyclip.utils.tables import read_table
from stages import paths
from stages.experiments.compare import read_method_images
from stages.experiments.results import WORKSPACE, Results
from stages.experiments.verify import _read_table
from stages.page import read_dataset
from stages.params import read_params
from stages.stored import read_rows

#: What pandas takes for nothing, for a number and for a smaller number.
CATEGORIES = ("001", "1e5", "NA", "null")
#: Characters that end lines, hide, turn the direction or mean something in CSV, HTML and addresses.
FILES = (
    *("a,b.png", 'a"b.png', "a\rb.png", "a\nb.png", "a\u2028b.png", "\u202eb.png", "=1+1.png"),
    *(" a .png", "50% a?b#c&d.png", "<b>.png", "ü 🙂 製品.png", "NA.png", f"{'l' * 251}.png"),
)


def make_images(folder):
    """Each category with masks; the first one has files of every strange name."""
    for number, category in enumerate(CATEGORIES):
        names = FILES if number == 0 else ("0.png", "1.png")
        for defect, first in (("good", 0), ("None", 50)):
            write_images(folder / category / defect, list(names), 100 * number + first)
        for name in names:
            write_picture(folder / category / "ground_truth/None" / name, MASK)


@pytest.fixture(scope="module")
def folder(kept_pipeline, tmp_path_factory):
    """A finished pipeline that has also tested and clustered the images, and recorded it."""
    folder = copy_pipeline(kept_pipeline, tmp_path_factory.mktemp("strange") / "copy")
    make_images(folder / "mine")

    def add(params):
        params["datasets"]["parts"] = OWN | {"names": {"NA": "null", "1e5": "1e5"}}
        params["pairs"]["parts"] = "visa"
        params["auxiliary"]["parts"] = ["parts"]
        params["evaluation"]["gallery"] = 9

    def test_alone(params):
        del params["auxiliary"]["parts"]

    keys = ("download", "index", "features", "evaluate", "auxiliary", "csp")
    run_stages(folder, "sample", *(f"{name}@parts" for name in keys), change=add)
    run_stages(folder, "report", "page", "track", change=test_alone)
    return folder


def test_the_index_has_every_image_under_its_name(folder):
    expected = {f"001/{defect}/{name}" for defect in ("good", "None") for name in FILES}
    with chdir(folder):
        rows = read_rows("parts", "test", "001")
        place = f"{paths.raw('parts').as_posix()}/"
        assert {path.removeprefix(place) for path in rows["image_path"]} == expected
        assert {path.rpartition("/")[2] for path in rows["mask_path"] if path} == set(FILES)
        meta = json.loads(paths.index_meta("parts").read_text())
        assert {item["img_path"] for item in meta["test"]["001"]} == expected
        assert set(meta["test"]) == set(CATEGORIES)
        assert {item["specie_name"] for item in meta["test"]["NA"]} == {"good", "None"}


def test_every_table_and_curve_has_every_category(folder):
    with chdir(folder):
        for name in ("parts",):
            table = read_categories(paths.method_metrics("fuzzyclip", name))
            assert set(table["category"]) == set(CATEGORIES)
            scores = read_table(paths.scores("fuzzyclip", name))
            assert scores.groupby("category").size().to_dict() == {
                "001": 2 * len(FILES), "1e5": 4, "NA": 4, "null": 4,
            }  # fmt: skip
            facts = json.loads(paths.tested("fuzzyclip", name).read_text())
            assert set(facts["counts"]) == set(CATEGORIES)
            assert facts["prompts"] == {"001": "001", "1e5": "1e5", "NA": "null", "null": "null"}
            shown = read_dataset(name, facts, read_params())
            assert set(shown.pixels) == set(CATEGORIES)
            assert {example.category for example in shown.examples} == set(CATEGORIES)
        partition = json.loads(paths.partition("parts").read_text())
        names = [name for cluster in partition["clusters"] for name in cluster["names"]]
        assert sorted(names) == ["001", "1e5", "null"]  # two have one name in prompts
        means = read_table(paths.TABLES / "means.csv").set_index(["dataset", "variant"])
        own = table[table["variant"] == "fuzzyclip"]
        assert means.loc[("parts", "fuzzyclip"), "image_auroc"] == pytest.approx(
            own["image_auroc"].mean(), abs=1e-3
        )
        assert means.loc[("parts", "fuzzyclip"), "images"] == 2 * len(FILES) + 12


def test_the_page_shows_every_category_and_every_file(folder):
    page = (folder / "page/index.html").read_bytes().decode()
    for category in CATEGORIES:
        assert f'data-category="parts/{category}"' in page
    assert "<b>.png" not in page  # written as text
    text = unescape(page)
    for name in FILES:
        assert name in text, name


def test_comparisons_and_the_tracker_have_every_category(folder):
    with chdir(folder):
        results = Results(WORKSPACE)
        images = read_method_images(results, "fuzzyclip", "parts")
        assert set(images) == set(CATEGORIES)
        assert all(image.pixels is not None for image in images.values())
        lines = _read_table(results, "fuzzyclip", "parts")
        assert {category for _, category in lines} == {*CATEGORIES, None}
    recorded = list_runs(folder)[0].data
    (line,) = pd.DataFrame([recorded.metrics])[["image_auroc/parts"]].to_numpy()
    assert 0 <= line[0] <= 100


def test_a_model_is_calibrated_for_every_category_and_predicts(folder, tmp_path):
    model = folder / "models/visa/fuzzyclip"
    names = ["a.png", *(name for name in FILES if "\r" not in name)]
    for number, category in enumerate(CATEGORIES):
        good = tmp_path / "parts" / category
        for place, name in enumerate(names if number == 0 else names[:3]):
            draw(good / name, 100 * number + place)
        new = ("--out", tmp_path / f"model{number}")
        done = run("calibrate", "--model", model, "--category", category, "--good", good, *new)
        assert done.exit_code == 0, done.output
        model = tmp_path / f"model{number}"
    card = json.loads((model / "model.json").read_text())
    assert set(card["calibrations"]) == set(CATEGORIES)
    for category in CATEGORIES:
        out = tmp_path / f"found-{category}"
        images = tmp_path / "parts" / category
        done = run("predict", images, "--model", model, "--category", category, "--out", out)
        assert done.exit_code == 0, done.output
        count = len(list(images.iterdir()))
        with (out / "scores.csv").open(newline="", encoding="utf-8") as file:
            assert len(list(csv.reader(file))) == count + 1
