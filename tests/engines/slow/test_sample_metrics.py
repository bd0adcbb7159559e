"""The sample's CLIP by each engine: no metric moves by more than 0.05, and one file for many."""

import subprocess
import sys

import numpy as np
import pytest
from backbones import load_sample
from PIL import Image

from fuzzyclip import FuzzyCLIP
from fuzzyclip.engines.runners import RUNNERS
from fuzzyclip.engines.tower_files import find_folder, read_kept
from fuzzyclip.evaluation.metrics import METRICS
from fuzzyclip.sample.archives import defect_of
from fuzzyclip.sample.draw import draw_part
from fuzzyclip.sample.evaluation_recipes import EVALUATION

CATEGORIES = ("mvtec/bottle", "mvtec/carpet", "visa/pcb1")
COUNT = 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Drawn parts of three categories, as many with a defect as without, and their masks."""
    root, rng = tmp_path_factory.mktemp("parts"), np.random.default_rng(0)
    for recipe in CATEGORIES:
        place = root / recipe.partition("/")[2]
        for name in ("good", "defect", "ground_truth/defect"):
            (place / name).mkdir(parents=True)
        for number in range(COUNT):
            for kind, defect in (("good", None), ("defect", defect_of(number))):
                pixels, mask = draw_part(EVALUATION[recipe], rng, defect=defect)
                Image.fromarray(pixels).save(place / kind / f"{number}.png")
                if defect:
                    path = place / f"ground_truth/defect/{number}_mask.png"
                    Image.fromarray(mask).save(path)
    return root


@pytest.mark.parametrize("name", RUNNERS)
def test_no_metric_of_the_sample_moves_by_more_than_a_twentieth(name, folder):
    detector = FuzzyCLIP.build(load_sample(), "clip")
    expected = detector.evaluate(folder).set_index("category")[[*METRICS]]
    moved = detector.run_by(name).evaluate(folder).set_index("category")[[*METRICS]]
    assert expected.notna().all(axis=None)
    assert expected.shape == (len(CATEGORIES), len(METRICS))
    assert (moved - expected).abs().max(axis=None) <= 0.05


def test_processes_that_make_the_file_at_once_leave_one(cache):
    script = (
        "from backbones import load_sample\n"
        "from fuzzyclip.engines.tower_files import keep_tower\n"
        "print(keep_tower(load_sample())[1])\n"
    )
    paths = "import sys; sys.path[:0] = ['.', 'tests/support']\n"
    started = [
        subprocess.Popen([sys.executable, "-c", paths + script], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    digits = {process.communicate()[0].strip() for process in started}
    assert [process.returncode for process in started] == [0, 0, 0]
    assert len(digits) == 1
    home = find_folder(load_sample())
    assert read_kept(home) is not None
    assert [path.name for path in home.iterdir()] == ["tower"]
