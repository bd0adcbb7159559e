"""Pictures of pages: in a real Chromium, and of MLflow's over two runs that DVC made."""

import os
import shutil
import urllib.error
import urllib.request

import numpy as np
import pytest
from PIL import Image
from pipelines import clone_repository, run

from tools.pictures.browser import BROWSERS, open_page, take_picture
from tools.pictures.experiments import draw, prepare_environment, serve
from tools.pictures.sources import PictureError


@pytest.fixture
def chromium():
    """A missing browser is an error where everything must be tested."""
    if not any(map(shutil.which, BROWSERS)):
        message = f"none of {', '.join(BROWSERS)} is installed"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)


def test_a_page_is_seen_at_its_section_and_in_the_size_asked_for(chromium, tmp_path):
    """Also where pages scroll slowly for people."""
    style = "<style>html { scroll-behavior: smooth } @media (prefers-reduced-motion: reduce) "
    style += "{ html { scroll-behavior: auto } } body { margin: 0 } div { height: 3000px }</style>"
    blocks = '<div style="background: #f00"></div><div id="here" style="background: #00f"></div>'
    (tmp_path / "page.html").write_text(style + blocks)
    with open_page(400, 200, 0.5) as page:
        page.goto(f"{(tmp_path / 'page.html').as_uri()}#here")
        shown = np.asarray(take_picture(page))
        part = take_picture(page, {"x": 0, "y": 0, "width": 100, "height": 50})
    assert shown.shape == (100, 200, 3)
    assert (shown == (0, 0, 255)).all()
    assert part.size == (50, 25)


def look_for(text):
    with open_page(100, 100) as page:
        page.set_default_timeout(300)
        page.get_by_text(text).click()


def test_a_page_that_lacks_what_was_looked_for_is_told(chromium):
    with pytest.raises(PictureError, match="nowhere"):
        look_for("nowhere")


def test_the_server_of_mlflow_is_stopped_whatever_happens(tmp_path):
    addresses = []

    def fail():
        store = f"sqlite:///{tmp_path / 'mlflow.db'}"
        with serve(store, prepare_environment(tmp_path, store), tmp_path / "log") as address:
            addresses.append(f"{address}/health")
            assert urllib.request.urlopen(addresses[0], timeout=5).read() == b"OK"
            raise RuntimeError("in between")

    with pytest.raises(RuntimeError, match="in between"):
        fail()
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(addresses[0], timeout=5)


def test_a_server_that_does_not_start_is_told(tmp_path):
    environment = prepare_environment(tmp_path, "nothing:///of/the/kind")
    with (
        pytest.raises(PictureError, match="does not answer"),
        serve("nothing:///of/the/kind", environment, tmp_path / "log"),
    ):
        pass


def test_two_runs_are_compared_and_the_checkout_stays_as_it_is(chromium, pipeline, tmp_path):
    checkout = clone_repository(pipeline[0], tmp_path / "checkout")
    (checkout / "note.txt").write_text("mine")
    before = [run(checkout, "git", *words) for words in (("status", "-s"), ("rev-parse", "HEAD"))]
    picture = draw(checkout)
    assert isinstance(picture, Image.Image)
    assert 1000 < picture.width < 1400
    assert 600 < picture.height < 1200
    after = [run(checkout, "git", *words) for words in (("status", "-s"), ("rev-parse", "HEAD"))]
    assert after == before
    assert not (checkout / "mlflow.db").exists()


def test_results_of_other_code_are_not_compared(pipeline, tmp_path):
    """Also where it is not committed: the work tree counts."""
    checkout = clone_repository(pipeline[0], tmp_path / "checkout")
    with (checkout / "stages/report.py").open("a") as file:
        file.write("# changed\n")
    with pytest.raises(PictureError, match=r"report.*`dvc repro track` first"):
        draw(checkout)
